"""At the end of a run: the evidence of each flow, and its verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from netprobe import counters
from netprobe.attempts import (
    ARRIVALS_MASK,
    BURST,
    CONFIRM_MASK,
    FIRST,
    FRESH_MASK,
    FRESH_PORT_OUTPUT,
    OUTPUT,
    OUTPUT_MASK,
    OUTPUT_WATCHED,
    PATTERN,
    SAME_PORT,
)
from netprobe.coordinator.field import Field
from netprobe.evidence import fates, first_look, refusals, session_fates, unsendable
from netprobe.model import RATIONED, Cell, Evidence, Fates, Flow, Judgement, Protocol, Seen, Segment, Session
from netprobe.observations import ANSWERED, CONNECTED, DAMAGED, INTERFACE, LEFT, SOCKET
from netprobe.template import Kind
from netprobe.verdict import judge

_NO_ROOM: Final = "ENOBUFS"
"""
A full queue, or a filter at the interface (tc, nftables' egress), in answer to an injected packet.

The kernel's own packets meet the filter as well, without a word to their sender; then they are the evidence.
"""

_DAMAGED: Final = {
    "the probe arrives": (Kind.PROBE,),
    "the answer arrives": (Kind.ACCEPT, Kind.RST),
}

_STARVING: Final = (
    "something limits the rate of packets, and too many flows were lost to try each alone: "
    "probe fewer at a time"
)

_WHY_UNSENT: Final = {
    _NO_ROOM: "its queue is full, or a filter at its interface drops them (ENOBUFS)",
    "ENOTSUP": "its routes depend on protocols or ports in a way that raw packets cannot follow",
}
"""What an errno says; ENOTSUP is the agent's own (netprobe/agent/ways.py)."""


def cells(field: Field) -> tuple[Cell, ...]:
    """A cell for every flow."""
    opposites: dict[tuple[object, ...], Flow] = {
        (flow.probe, flow.family, flow.port, flow.src, flow.dst): flow for flow in field.flows
    }
    judged: dict[Evidence, tuple[Evidence, Judgement]] = {}
    found = []
    for flow in field.flows:
        evidence = _evidence(field, flow, opposites)
        if evidence not in judged:
            judged[evidence] = evidence, judge(evidence)
        found.append(_cell(field, flow, *judged[evidence]))
    return tuple(found)


def _cell(field: Field, flow: Flow, evidence: Evidence, judgement: Judgement) -> Cell:
    sent = field.seen.sent[flow.number] & ARRIVALS_MASK & ~field.seen.unsent(flow.number)
    return Cell(
        flow=flow,
        judgement=judgement,
        evidence=evidence,
        sent=sent.bit_count(),
        arrived=(sent & field.seen.arrivals(flow)).bit_count(),
        rtt_ms=_rtt_ms(field, flow),
    )


def _evidence(field: Field, flow: Flow, opposites: dict[tuple[object, ...], Flow]) -> Evidence:
    untested = _untested(field, flow)
    if untested:
        return Evidence(protocol=flow.protocol, untested=untested)
    seen = field.seen
    first, missed = first_look(seen, flow, field.counted(flow, FIRST.mask))
    output = _output(field, flow)
    # Beyond the source a packet through its OUTPUT chain is one like any other, and so is a refusal of it.
    heard = OUTPUT_MASK if _is_kept_in(output) else (ARRIVALS_MASK | OUTPUT_MASK) & ~field.too_late(flow)
    failing, passing = _ports(field, flow)
    return Evidence(
        protocol=flow.protocol,
        forwarded=flow.forwarded,
        first=first,
        missed=missed,
        confirm=fates(seen, flow, field.counted(flow, CONFIRM_MASK), heard),
        output=output,
        astray=(seen.astray(flow.number) & ARRIVALS_MASK).bit_count(),
        session=_session(field, flow),
        refusals=refusals(seen, flow, heard),
        state=_state(field, flow, opposites),
        holder=field.holder(flow),
        nat=seen.nat.get(flow.number, ""),
        counter=seen.discards[flow.number].counter if flow.number in seen.discards else "",
        failing_ports=failing,
        passing_ports=passing,
        notes=tuple(_notes(field, flow)),
    )


def _output(field: Field, flow: Flow) -> Fates:
    """The fates of the sends through the source's own OUTPUT chain."""
    return fates(field.seen, flow, _followed(field, flow), OUTPUT_MASK)


def _is_kept_in(output: Fates) -> bool:
    """Whether none of these left the source."""
    return bool(output) and all(fate.seen < Seen.LEFT for fate, _count in output)


def _followed(field: Field, flow: Flow) -> int:
    """The sends through the source's OUTPUT chain of which it is known whether they left."""
    seen, number = field.seen, flow.number
    if not seen.sent[number] & OUTPUT_WATCHED.mask:
        return OUTPUT.mask
    # Of those before the source was watched, what was neither refused nor seen may have been lost anywhere.
    return OUTPUT_WATCHED.mask | OUTPUT.mask & (seen.unsent(number) | seen.outside(number))


def _untested(field: Field, flow: Flow) -> str:
    if flow.number in field.reasons:
        return field.reasons[flow.number]
    error = unsendable(field.seen, flow, ARRIVALS_MASK | OUTPUT_MASK)
    if error and not (error == _NO_ROOM and _is_kept_in(_output(field, flow))):
        return f"{flow.src} could not send: {_WHY_UNSENT.get(error, error)}"
    made = field.seen.sent[flow.number] & ARRIVALS_MASK
    if (
        flow.number in field.starving
        and not field.seen.passed(flow, field.counted(flow, made))
        and field.lost_at(flow)
    ):
        return _STARVING
    if made and not field.counted(flow, made):
        return f"the taps of {flow.src} or {flow.dst} had no room for all packets: try a lower --rate"
    return ""


def _session(field: Field, flow: Flow) -> Session | None:
    results = field.seen.sessions.get(flow.number)
    if not results:
        return None
    again = [result for result in results if result.tapped]
    failed = [result for result in (again or results) if result.stage != ANSWERED]
    if not failed:
        return Session(retried=bool(again))
    served = field.seen.served[flow.number]
    worst = min(failed, key=lambda result: result.stage)
    if worst.stage != CONNECTED:
        stage = "handshake"
    elif any(served >> result.attempt & 1 for result in failed):
        stage = "answer"
    else:
        stage = "request"
    error = next((result.error for result in failed if result.error != "ETIMEDOUT"), "")
    return Session(fates=session_fates(field.seen, flow), stage=stage, error=error)


def _state(field: Field, flow: Flow, opposites: dict[tuple[object, ...], Flow]) -> str:
    """Which state could have let the flow's packets get as far as they did, although no rule does."""
    if not field.shares_conntrack(flow):
        return ""
    fresh_out = field.seen.sent[flow.number] & FRESH_PORT_OUTPUT.mask
    if flow.number in field.before[flow.src] and not (
        fresh_out and field.seen.has_left(flow.number, fresh_out)
    ):
        return _had_entries(field, flow)
    # Where a packet got as far that nothing can have opened the way for, the others needed nothing either.
    point = SOCKET if _arrived(field, flow, SOCKET) else INTERFACE
    if field.seen.at(point, Kind.PROBE)[flow.number] & FRESH_MASK:
        return ""
    if flow.number in field.before[flow.dst]:
        return _had_entries(field, flow)
    opposite = opposites.get((flow.probe, flow.family, flow.port, flow.dst, flow.src))
    if opposite is None or not (_arrived(field, opposite, INTERFACE) or _arrived(field, opposite, SOCKET)):
        return ""
    # In this run, or in an earlier one: devices between remember for minutes, and cannot be made to forget.
    when = "first" if field.is_second(flow) else "as well"
    return f"packets the other way crossed the path {when}, and a stateful device between may remember them"


def _arrived(field: Field, flow: Flow, point: str) -> int:
    return field.seen.at(point, Kind.PROBE)[flow.number] & field.counted(flow, ARRIVALS_MASK)


def _had_entries(field: Field, flow: Flow) -> str:
    names = [name for name in (flow.src, flow.dst) if flow.number in field.before[name]]
    return f"conntrack of {' and '.join(names)} had an entry for these two addresses before the run"


def _ports(field: Field, flow: Flow) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """
    Source ports that always fail, and those that always pass, where that is the whole difference.

    Empty where any port has both: then it is no hash over ports that loses the packets.
    """
    made = field.seen.sent[flow.number] & PATTERN.mask
    if not made or flow.port is None or field.shares_conntrack(flow):
        return (), ()
    through = field.seen.passed(flow, made)
    failing, passing = [], []
    for first in range(PATTERN.first, PATTERN.first + PATTERN.total, SAME_PORT):
        group = ((1 << SAME_PORT) - 1) << first
        port = field.source_port(flow, first)
        if not field.counted(flow, group):
            continue
        if through & group == group:
            passing.append(port)
        elif not through & group:
            failing.append(port)
        else:
            return (), ()
    return (tuple(failing), tuple(passing)) if failing and passing else ((), ())


def _rtt_ms(field: Field, flow: Flow) -> float | None:
    """The kernel's own measure where a session was held, else the agent's, which includes its own delays."""
    measured = [result.rtt_us for result in field.seen.sessions.get(flow.number, ()) if result.rtt_us]
    rtt_us = min(measured, default=field.seen.rtt_us.get(flow.number, 0))
    return round(rtt_us / 1000, 3) if rtt_us else None


def _is_ignored(field: Field, flow: Flow) -> bool:
    """Whether SYNs came to the destination's socket, and nothing ever left in answer."""
    seen, number = field.seen, flow.number
    answers = (seen.at(point, kind)[number] for point in (LEFT, SOCKET) for kind in (Kind.ACCEPT, Kind.RST))
    return bool(seen.at(SOCKET, Kind.PROBE)[number]) and not any(answers)


def _ends_notes(field: Field, flow: Flow) -> Iterable[str]:
    """What is odd about the addresses, or the packets that came to one of them."""
    for address in (flow.src_address, flow.dst_address):
        for name in field.claimants.get(address, ()):
            yield f"{name} has the address {address} as well"
    where = field.lost_at(flow) if field.xdp else None
    host = {Segment.PATH: flow.dst, Segment.RETURN_PATH: flow.src}.get(where) if where else None
    if host in field.xdp:
        yield f"{host} has an XDP program at {' and '.join(field.xdp[host])}, which comes before any tap"
    if flow.number in field.insisted and field.seen.passed(flow, BURST.mask):
        times = field.insisted[flow.number]
        yield f"each packet of the burst was sent {times} times: fewer pass than it seems"
    for whose, kinds in _DAMAGED.items() if flow.number in field.seen.damaged else ():
        if any(field.seen.at(DAMAGED, kind)[flow.number] for kind in kinds):
            yield f"{whose} with a wrong checksum"


def _notes(field: Field, flow: Flow) -> Iterable[str]:
    nat = field.seen.nat.get(flow.number)
    if nat:
        yield f"arrives from {nat}, not from {flow.bears}"
    for name in sorted(field.seen.elsewhere.get(flow.number, ())):
        yield f"delivered to {name} instead"
    yield from _ends_notes(field, flow)
    holder = field.holder(flow)
    if holder:
        yield f"{holder} holds the port"
        if flow.protocol is Protocol.TCP and _is_ignored(field, flow):
            # What drops a SYN in silence in the name of a program: linux/net/ipv4/tcp_ipv4.c.
            yield "it may want what a probe does not bring (TCP MD5, TTL security), or its queue is full"
    discard = field.seen.discards.get(flow.number)
    if discard is not None:
        grew = f"{counters.short(discard.counter)} of {discard.host} grew with each packet"
        yield f"{grew}: {counters.MEANINGS[discard.counter]}"
    if field.too_late(flow):
        yield "gets further after the opposite direction has been through: a device between remembers it"
    if flow.number in field.limited:
        yield "a limit on the rate of packets may be all that stops it: others pass when they are alone"
    if flow.number in field.unasked:
        yield RATIONED
