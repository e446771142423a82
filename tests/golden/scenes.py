"""
The runs behind the golden files in `text/`, and how each is printed.

`python -m tests.golden.scenes` writes them anew; what changed is then read in the diff.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from netprobe.model import (
    Answer,
    Caveat,
    Fate,
    Flow,
    Hop,
    Inventory,
    Refusal,
    Reply,
    Run,
    Seen,
    Segment,
    Session,
    Trace,
    Verdict,
    Word,
)
from netprobe.reports import Options, registry, trace
from tests.golden.made_up import (
    Fault,
    Outcome,
    hosts,
    is_,
    lost,
    rejected,
    run,
    unreachable,
    untested,
    where,
)

TEXTS = Path(__file__).parent / "text"
TRACES = Path(__file__).parent / "trace"
_SSH = "ssh: connect to host 10.0.1.14 port 22: Connection timed out"


def five_hosts() -> Run:
    """Two families, two subnets, and a fault of nearly every kind."""
    degraded = Outcome(
        verdict=Verdict.DEGRADED,
        segment=Segment.PATH,
        caveats=(Caveat.ECMP,),
        fates=((Fate(Seen.AT_SOCKET), 7), (Fate(Seen.LEFT), 8)),
        failing_ports=(40001, 40002),
        passing_ports=(40003,),
    )
    inspected = Outcome(
        verdict=Verdict.FILTERED,
        segment=Segment.PATH,
        fates=((Fate(Seen.AT_SOCKET, Answer.ACCEPT), 5),),
        session=Session(fates=((Fate(Seen.LEFT), 3),), stage="request"),
    )
    closed = Outcome(verdict=Verdict.CLOSED, fates=((Fate(Seen.AT_SOCKET, Answer.RST), 5),))
    proxied = Outcome(
        verdict=Verdict.INTERCEPTED, segment=Segment.PATH, fates=((Fate(Seen.LEFT, Answer.ACCEPT), 15),)
    )
    unsent = Outcome(
        verdict=Verdict.FILTERED,
        segment=Segment.SOURCE_EGRESS,
        fates=((Fate(Seen.AT_SOCKET), 5),),
        output=((Fate(Seen.UNSENT), 15),),
        refusals=(Refusal(Word.SILENCE, "", "the source's own firewall dropped it (EPERM)", 15),),
    )
    assisted = Outcome(
        verdict=Verdict.OPEN, caveats=(Caveat.STATE_ASSISTED,), fates=((Fate(Seen.AT_SOCKET), 5),)
    )
    held = Outcome(
        verdict=Verdict.OPEN,
        caveats=(Caveat.PORT_IN_USE,),
        holder="bird (pid 812)",
        fates=((Fate(Seen.AT_SOCKET, Answer.ACCEPT), 5),),
    )
    faults: Sequence[Fault] = (
        where(is_(probe="vxlan", dst="node-b"), lost(Segment.DESTINATION_INGRESS)),
        where(is_(probe="vxlan", src="node-a", dst="node-d"), degraded),
        where(is_(probe="ipip", src="node-b"), unsent),
        where(
            lambda flow: flow.probe == "ipip" and flow.src in "node-a node-c" and flow.dst in "node-d node-e",
            lost(Segment.PATH),
        ),
        where(is_(probe="bgp", src="node-c", dst="node-d"), inspected),
        where(is_(probe="bgp", dst="node-e"), held),
        where(is_(probe="typha", dst="node-c"), rejected(Segment.DESTINATION_INGRESS, "10.0.0.11")),
        where(is_(probe="etcd", src="node-e"), lost(Segment.RETURN_PATH)),
        where(is_(probe="etcd", src="node-d", dst="node-a"), unreachable(Segment.PATH, "10.0.1.1")),
        where(is_(probe="etcd", src="node-d"), proxied),
        where(lambda flow: flow.probe == "apiserver" and flow.port == 443, closed),
        where(is_(probe="wireguard", dst="node-a"), assisted),
    )
    return run(Inventory(hosts=hosts([f"node-{letter}" for letter in "abcde"], 2, dual=True)), faults)


def sixteen_hosts() -> Run:
    """Long names, one host without an agent, one with a closed firewall, and no IP-in-IP between subnets."""
    names = [f"ip-10-0-{12 + place % 2}-{101 + place}.eu-west-1.compute.internal" for place in range(16)]
    dead, closed = names[9], names[4]

    def is_dead(flow: Flow) -> bool:
        return dead in (flow.src, flow.dst)

    def is_between_subnets(flow: Flow) -> bool:
        return flow.probe == "ipip" and flow.src_address[:7] != flow.dst_address[:7]

    return run(
        Inventory(hosts=hosts(names, 2)),
        (
            where(is_dead, untested(f"no agent on ip-10-0-13-110: {_SSH}")),
            where(is_between_subnets, lost(Segment.PATH)),
            where(is_(dst=closed), lost(Segment.DESTINATION_INGRESS)),
        ),
        errors={dead: _SSH},
    )


def _hundred() -> tuple[Inventory, list[Fault]]:
    names = [f"node-{number:03}" for number in range(1, 101)]
    dead, closed = names[40:43], names[60:72]

    def is_dead(flow: Flow) -> bool:
        return (flow.src in dead) != (flow.dst in dead)

    def is_between_two_subnets(flow: Flow) -> bool:
        return (flow.probe, flow.src_address[:7], flow.dst_address[:7]) == ("ipip", "10.0.1.", "10.0.3.")

    def is_flannel(flow: Flow) -> bool:
        return (flow.probe, flow.port) == ("flannel", 8472) and flow.dst in closed

    return Inventory(hosts=hosts(names, 4)), [
        where(is_dead, lost(Segment.PATH)),
        where(is_between_two_subnets, lost(Segment.PATH)),
        where(is_flannel, rejected(Segment.DESTINATION_INGRESS, "")),
        where(is_(probe="bgp", src="node-007", dst="node-019"), rejected(Segment.PATH, "10.0.0.1")),
    ]


def hundred_hosts() -> Run:
    """Three dead hosts, a router between two of four subnets, twelve firewalls, and one pair."""
    return run(*_hundred())


def hundred_hosts_at_random() -> Run:
    """The same, and nothing that could be folded in one of the modes."""
    inventory, faults = _hundred()
    chance = random.Random(1)  # noqa: S311 (the same faults each time)
    return run(
        inventory,
        [
            *faults,
            lambda flow: lost(Segment.PATH) if flow.probe == "vxlan" and chance.random() < 0.05 else None,
        ],
    )


def two_routers() -> Run:
    """Two hosts with three routers between them, and what two of these do to the packets."""
    inventory = Inventory(hosts=hosts("ab", 2), probes=("bgp", "ipip", "vxlan", "etcd"))
    made_up = run(
        inventory,
        (
            where(is_(probe="ipip", src="a"), lost(Segment.PATH)),
            where(is_(probe="etcd", src="a"), rejected(Segment.PATH, "10.9.2.1")),
        ),
    )
    from_a = {cell.flow.probe: cell.flow for cell in made_up.cells if cell.flow.src == "a"}
    routers = tuple(
        Hop(
            ttl=ttl,
            reply=Reply.EXCEEDED,
            by=f"10.9.{ttl}.1",
            said="ICMP 11/0 time to live exceeded",
            rtt_ms=ttl / 8,
        )
        for ttl in (1, 2, 3)
    )
    arrival = Hop(ttl=4, reply=Reply.ARRIVED, by="10.0.1.10", rtt_ms=0.625)
    whole = Trace(
        flow=from_a["bgp"],
        hops=(*routers, arrival),
        left=True,
        last_ttl=4,
        last_by="10.0.1.10",
        arrived_ttl=4,
        passed=True,
    )
    silent = (Hop(ttl=3, is_unsure=True), Hop(ttl=4))
    ipip = Trace(
        flow=from_a["ipip"],
        hops=(*routers[:2], *silent),
        left=True,
        last_ttl=2,
        last_by="10.9.2.1",
        lost_ttl=4,
        reference=whole,
    )
    word = Refusal(Word.PROHIBITED, "10.9.2.1", "ICMP 3/13 communication administratively prohibited")
    etcd = Trace(
        flow=from_a["etcd"],
        hops=(*routers[:2], Hop(ttl=3, reply=Reply.REFUSED, by=word.by, said=word.reason, rtt_ms=0.5)),
        left=True,
        last_ttl=2,
        last_by="10.9.2.1",
        refusal=word,
        reference=whole,
    )
    return msgspec.structs.replace(made_up, traces=(ipip, etcd))


def all_open(count: int) -> Run:
    """Nothing is wrong, and all hosts are in one subnet."""
    return run(Inventory(hosts=hosts([f"node-{number}" for number in range(1, count + 1)])))


def scenes() -> Mapping[str, tuple[Run, Options]]:
    """Every golden file's name, the run in it and how it is printed."""
    five, sixteen, hundred = five_hosts(), sixteen_hosts(), hundred_hosts()
    return {
        "five-hosts-80": (five, Options(width=80)),
        "five-hosts-160": (five, Options(width=160)),
        "five-hosts-ascii": (five, Options(width=80, unicode=False)),
        "five-hosts-color": (five, Options(width=80, color=True)),
        "five-hosts-verbose": (five, Options(width=160, verbose=True)),
        "sixteen-hosts-60": (sixteen, Options(width=60)),
        "sixteen-hosts-80": (sixteen, Options(width=80)),
        "sixteen-hosts-160": (sixteen, Options(width=160)),
        "hundred-hosts-80": (hundred, Options(width=80)),
        "hundred-hosts-160": (hundred, Options(width=160)),
        "hundred-hosts-at-random-100": (hundred_hosts_at_random(), Options(width=100)),
        "two-routers-80": (two_routers(), Options(width=80)),
        "all-open-5": (all_open(5), Options(width=80)),
        "all-open-40": (all_open(40), Options(width=80)),
    }


def traces() -> Mapping[str, tuple[Run, Options]]:
    """The same for the traces of a run alone."""
    return {
        "two-routers-100": (two_routers(), Options(width=100)),
        "two-routers-ascii": (two_routers(), Options(width=60, unicode=False)),
    }


def write() -> None:
    """Write every golden file."""
    for name, (made_up, options) in traces().items():
        (TRACES / f"{name}.txt").write_text(trace.render(made_up, options), encoding="utf-8")
    for name, (made_up, options) in scenes().items():
        (TEXTS / f"{name}.txt").write_text(registry()["text"].render(made_up, options), encoding="utf-8")


if __name__ == "__main__":
    write()
