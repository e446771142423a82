"""Runs that nobody ran: clusters with faults, from which reports are made in the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from netprobe import mesh
from netprobe.model import (
    Answer,
    Caveat,
    Cell,
    Connection,
    Evidence,
    Family,
    Fate,
    Fates,
    Flow,
    Host,
    HostReport,
    Inventory,
    Judgement,
    Protocol,
    Refusal,
    Role,
    Run,
    Seen,
    Segment,
    Session,
    Verdict,
    Word,
)

PACKETS = 5
BURST = 10


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a flow, and what is seen of it."""

    verdict: Verdict
    segment: Segment | None = None
    by: str = ""
    caveats: tuple[Caveat, ...] = ()
    detail: str = ""
    fates: Fates = ()
    output: Fates = ()
    refusals: tuple[Refusal, ...] = ()
    session: Session | None = None
    untested: str = ""
    holder: str | None = None
    failing_ports: tuple[int, ...] = ()
    passing_ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


Fault = Callable[[Flow], Outcome | None]

_SEEN: Mapping[Segment, tuple[Seen, Answer]] = {
    Segment.SOURCE_EGRESS: (Seen.SENT, Answer.NONE),
    Segment.PATH: (Seen.LEFT, Answer.NONE),
    Segment.DESTINATION_INGRESS: (Seen.AT_INTERFACE, Answer.NONE),
    Segment.DESTINATION_EGRESS: (Seen.AT_SOCKET, Answer.NONE),
    Segment.RETURN_PATH: (Seen.AT_SOCKET, Answer.ACCEPT_LEFT),
    Segment.SOURCE_INGRESS: (Seen.AT_SOCKET, Answer.ACCEPT_AT_INTERFACE),
}


def lost(segment: Segment) -> Outcome:
    """Dropped without a word."""
    seen, answer = _SEEN[segment]
    return Outcome(
        verdict=Verdict.FILTERED,
        segment=segment,
        fates=((Fate(seen, answer), PACKETS + BURST),),
        detail=f"lost: {segment.value}",
    )


def rejected(segment: Segment, by: str, reason: str = "ICMP 3/13 communication prohibited") -> Outcome:
    """Refused, and somebody said so."""
    seen, answer = _SEEN[segment]
    return Outcome(
        verdict=Verdict.REJECTED,
        segment=segment,
        by=by,
        fates=((Fate(seen, answer, Word.PROHIBITED), 5), (Fate(seen, answer), 10)),
        refusals=(Refusal(Word.PROHIBITED, by, reason, 5),),
        detail=reason,
    )


def unreachable(segment: Segment, by: str, reason: str = "ICMP 3/0 network unreachable") -> Outcome:
    """No route, and somebody said so."""
    seen, answer = _SEEN[segment]
    return Outcome(
        verdict=Verdict.UNREACHABLE,
        segment=segment,
        by=by,
        fates=((Fate(seen, answer, Word.UNREACHABLE), 15),),
        refusals=(Refusal(Word.UNREACHABLE, by, reason, 3),),
        detail=reason,
    )


def untested(reason: str) -> Outcome:
    """The agent could not."""
    return Outcome(verdict=Verdict.UNTESTED, untested=reason, detail=reason)


def is_(
    *, probe: str | None = None, src: str | None = None, dst: str | None = None
) -> Callable[[Flow], bool]:
    """Which flows a fault concerns."""

    def matches(flow: Flow) -> bool:
        return probe in (None, flow.probe) and src in (None, flow.src) and dst in (None, flow.dst)

    return matches


def where(matches: Callable[[Flow], bool], outcome: Outcome) -> Fault:
    """One outcome for all flows that match."""
    return lambda flow: outcome if matches(flow) else None


def hosts(names: Sequence[str], subnets: int = 1, *, dual: bool = False) -> tuple[Host, ...]:
    """Hosts dealt out to so many subnets in turn; the first three carry the control plane."""
    control = (Role.NODE, Role.TYPHA, Role.APISERVER, Role.ETCD)
    return tuple(
        Host(
            name=name,
            addresses=(
                f"10.0.{number % subnets}.{number // subnets + 10}",
                *((f"fd00:{number % subnets:x}::{number // subnets + 16:x}",) if dual else ()),
            ),
            roles=control if number < 3 else (Role.NODE,),
            connection=Connection(type="ssh", host=name, identity="~/.ssh/id"),
        )
        for number, name in enumerate(names)
    )


def flows(inventory: Inventory) -> Iterable[Flow]:
    """All flows of an inventory, in the order of a plan."""
    number = 0
    for probe in mesh.probes(inventory).values():
        if inventory.probes is not None and probe.name not in inventory.probes:
            continue
        for family in probe.families:
            for port in inventory.ports.get(probe.name, probe.ports) or (None,):
                for src in inventory.hosts:
                    for dst in inventory.hosts:
                        here, there = src.address(family), dst.address(family)
                        roles = probe.between[0] in src.roles and probe.between[1] in dst.roles
                        if src is dst or not roles or here is None or there is None:
                            continue
                        number += 1
                        pod = inventory.pod_address(family) if probe.forwarded else ""
                        ends = src.name, here, dst.name, there, pod
                        yield Flow(number, probe.name, family, probe.protocol, port, *ends)


def cell(flow: Flow, outcome: Outcome | None) -> Cell:
    """A cell with evidence that fits its verdict."""
    tcp = flow.protocol is Protocol.TCP
    if outcome is None:
        open_fate = Fate(Seen.AT_SOCKET, Answer.ACCEPT if tcp else Answer.NONE)
        outcome = Outcome(verdict=Verdict.OPEN, fates=((open_fate, PACKETS),))
    total = sum(count for _, count in outcome.fates)
    return Cell(
        flow=flow,
        judgement=Judgement(
            verdict=outcome.verdict,
            segment=outcome.segment,
            by=outcome.by,
            caveats=outcome.caveats,
            detail=outcome.detail,
        ),
        evidence=Evidence(
            protocol=flow.protocol,
            forwarded=flow.forwarded,
            untested=outcome.untested,
            first=outcome.fates,
            output=outcome.output,
            session=outcome.session,
            refusals=outcome.refusals,
            holder=outcome.holder,
            failing_ports=outcome.failing_ports,
            passing_ports=outcome.passing_ports,
            notes=outcome.notes,
        ),
        sent=total,
        arrived=sum(count for fate, count in outcome.fates if fate.seen is Seen.AT_SOCKET),
        rtt_ms=0.25 if tcp and outcome.verdict is Verdict.OPEN else None,
    )


def run(
    inventory: Inventory,
    faults: Sequence[Fault] = (),
    *,
    errors: Mapping[str, str] | None = None,
    prefix: tuple[int, int] = (24, 64),
) -> Run:
    """A run in which the first fault that concerns a flow decides about it."""

    def outcome(flow: Flow) -> Outcome | None:
        return next((found for fault in faults if (found := fault(flow)) is not None), None)

    errors = errors or {}
    return Run(
        inventory=inventory,
        hosts=tuple(
            HostReport(name=host.name, error=errors[host.name])
            if host.name in errors
            else HostReport(
                name=host.name,
                kernel="6.1.0-18-amd64",
                python="3.11.2",
                uid=0,
                capabilities=("CAP_NET_ADMIN", "CAP_NET_RAW"),
                clock_offset_ms=0.5,
                networks=tuple(
                    f"{address}/{prefix[0] if Family.of(address) is Family.IPV4 else prefix[1]}"
                    for address in host.addresses
                ),
            )
            for host in inventory.hosts
        ),
        cells=tuple(cell(flow, outcome(flow)) for flow in flows(inventory)),
        started="2024-06-12T03:07:11.250Z",
        finished="2024-06-12T03:07:14.650Z",
        versions={"netprobe": "0.1.0", "python": "3.11.2"},
    )
