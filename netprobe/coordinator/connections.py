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
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.field import Field
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S
from netprobe.model import Flow, Protocol
from netprobe.observations import SOCKET
from netprobe.template import Kind


async def discount_met(crew: Crew, field: Field) -> None:
    """Have destinations look for what SYNs without an answer may have met; those that did count no more."""
    suspects: dict[str, list[tuple[Flow, int]]] = defaultdict(list)
    for flow in field.testable(field.flows):
        unanswered = _unanswered(field, flow)
        for attempt in range(unanswered.bit_length()):
            if unanswered >> attempt & 1:
                suspects[flow.dst].append((flow, attempt))
    requests = {
        name: wire.AskFacts(connections=[_met(field, flow, attempt) for flow, attempt in theirs])
        for name, theirs in suspects.items()
    }
    for name, facts in (await crew.ask("facts", requests, wire.Facts, ANSWER_TIMEOUT_S)).items():
        for number in facts.connections:
            if number < len(suspects[name]):
                field.distrust_met(*suspects[name][number])


def _unanswered(field: Field, flow: Flow) -> int:
    """The SYNs that came to a live service which answered others of their flow, and not them."""
    seen = field.seen
    if flow.protocol is not Protocol.TCP or not seen.passed(flow, ARRIVALS_MASK):
        return 0
    came, accepted = (seen.at(SOCKET, kind)[flow.number] for kind in (Kind.PROBE, Kind.ACCEPT))
    unanswered = came & ~accepted & ARRIVALS_MASK
    return unanswered if unanswered and field.holder(flow) is not None else 0


def _met(field: Field, flow: Flow, attempt: int) -> tuple[str, int, str, int]:
    """The connection that an attempt would meet at its destination."""
    port = field.seen.redirected.get(flow.number, flow.port or 0)
    source = field.seen.nat.get(flow.number, flow.src_address)
    return flow.dst_address, port, source, field.source_port(flow, attempt)
