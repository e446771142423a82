"""
SYNs that met a live connection: one of a real client, with the addresses and the ports of the SYN.

SYNs leave from ports that clients have, and a host may have hundreds of connections to an API server. The
kernel answers such a SYN with a word about the connection (RFC 5961 §4), to which nothing happens; but who
waits for a SYN-ACK waits in vain, and would call the flow degraded.
"""

from __future__ import annotations

from collections import defaultdict

from netprobe import wire
from netprobe.attempts import ARRIVALS_MASK
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import Field
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S
from netprobe.model import Flow, Protocol
from netprobe.observations import SOCKET
from netprobe.template import Kind


async def discount_met(crew: Asked, field: Field) -> None:
    """Have destinations look for what SYNs without an answer may have met; those that did count no more."""
    suspects: dict[str, list[tuple[Flow, int]]] = defaultdict(list)
    came, accepted = (field.seen.at(SOCKET, kind) for kind in (Kind.PROBE, Kind.ACCEPT))
    for flow in field.flows:
        unanswered = came[flow.number] & ~accepted[flow.number] & ARRIVALS_MASK
        if unanswered and _is_answered_now_and_then(field, flow):
            attempts = (each for each in range(unanswered.bit_length()) if unanswered >> each & 1)
            suspects[flow.dst] += [(flow, attempt) for attempt in attempts]
    requests = {
        name: wire.AskFacts(connections=[_met(field, flow, attempt) for flow, attempt in theirs])
        for name, theirs in suspects.items()
    }
    for name, facts in (await crew.ask("facts", requests, wire.Facts, ANSWER_TIMEOUT_S)).items():
        for number in facts.connections:
            if number < len(suspects[name]):
                field.distrust_met(*suspects[name][number])


def _is_answered_now_and_then(field: Field, flow: Flow) -> bool:
    """Whether it goes to a live service, which has answered other SYNs of it."""
    if flow.protocol is not Protocol.TCP or flow.number in field.reasons:
        return False
    return field.holder(flow) is not None and field.seen.passed(flow, ARRIVALS_MASK) != 0


def _met(field: Field, flow: Flow, attempt: int) -> tuple[str, int, str, int]:
    """The connection that an attempt would meet at its destination."""
    port = field.seen.redirected.get(flow.number, flow.port or 0)
    source = field.seen.nat.get(flow.number, flow.src_address)
    return flow.dst_address, port, source, field.source_port(flow, attempt)
