"""Path MTUs that nobody measured, for the tests of what is made of them."""

from __future__ import annotations

from itertools import permutations

import msgspec

from netprobe.model import Family, Fragments, Inventory, KindMtu, Limit, Outcome, PathMtu, Run, TooBig
from tests.golden.made_up import hosts, run

KINDS = {Family.IPV4: ("bgp", "ipip", "vxlan"), Family.IPV6: ("bgp", "vxlan")}
_HEADERS = {Family.IPV4: 40, Family.IPV6: 60}


def wide(src: str, dst: str, family: Family, mtu: int = 1500) -> PathMtu:
    """A path that takes whatever its source's interface takes."""
    mss = mtu - _HEADERS[family]
    return PathMtu(
        src=src,
        dst=dst,
        family=family,
        mtu=mtu,
        interface_mtu=mtu,
        limit=Limit.SOURCE_INTERFACE,
        kinds=tuple(KindMtu(probe=kind, outcome=Outcome.MEASURED, mtu=mtu) for kind in KINDS[family]),
        tcp_mss=mss,
        tcp_mss_sent=mss,
    )


def narrower(path: PathMtu, mtu: int, by: str = "") -> PathMtu:
    """The same path with a router that limits it, or where nobody says so a black hole."""
    kinds = tuple(msgspec.structs.replace(kind, mtu=mtu) for kind in path.kinds)
    return msgspec.structs.replace(
        path,
        mtu=mtu,
        limit=Limit.ROUTER if by else Limit.BLACK_HOLE,
        by=by,
        kinds=kinds,
        too_big=(TooBig(by=by, mtu=mtu),) if by else (),
        fragments=Fragments.DELIVERED if path.family is Family.IPV4 else None,
    )


def unmeasured(path: PathMtu, reason: str) -> PathMtu:
    """A path of which nothing is known."""
    kinds = tuple(KindMtu(probe=kind.probe, outcome=Outcome.UNTESTED, reason=reason) for kind in path.kinds)
    return PathMtu(src=path.src, dst=path.dst, family=path.family, kinds=kinds, untested=reason)


def paths(inventory: Inventory) -> list[PathMtu]:
    """Those between all hosts, as wide as can be."""
    return [
        wide(src.name, dst.name, family)
        for family in Family
        for src, dst in permutations(inventory.hosts, 2)
        if src.address(family) and dst.address(family)
    ]


def narrow_paths() -> Run:
    """Five hosts: a router that tells, a black hole, a lie, a clamp, a live service, one without an agent."""
    inventory = Inventory(hosts=hosts([f"node-{letter}" for letter in "abcde"], 2, dual=True))
    found = []
    for path in paths(inventory):
        replaced = path
        if path.src == "node-e" or path.dst == "node-e":
            replaced = unmeasured(path, "node-e: the agent did not start: exit status 127")
        elif path.dst == "node-b" and path.family is Family.IPV4:
            replaced = narrower(path, 1400, f"10.0.{ord(path.src[-1]) - ord('a')}.1")
        elif (path.src, path.dst) == ("node-a", "node-c"):
            lie = (TooBig(by="10.0.0.1", mtu=1500, lies=True),)
            replaced = msgspec.structs.replace(narrower(path, 1380), fragments=Fragments.PARTIAL, too_big=lie)
        elif (path.src, path.dst) == ("node-c", "node-a"):
            replaced = msgspec.structs.replace(path, tcp_mss=1300)
        elif (path.src, path.dst) == ("node-d", "node-a"):
            reason = "bird (pid 812) holds the port: no SYN with data is sent to it"
            bgp = KindMtu(probe="bgp", outcome=Outcome.UNTESTED, reason=reason)
            replaced = msgspec.structs.replace(path, kinds=(bgp, *path.kinds[1:]))
        found.append(replaced)
    return measured(run(inventory), found)


def many_paths() -> Run:
    """A hundred hosts: what arrives at three of them is narrower, and each router speaks for itself."""
    inventory = Inventory(hosts=hosts([f"node-{number:03}" for number in range(1, 101)], 4))
    few = ("node-007", "node-019", "node-042")
    found = [
        narrower(path, 1450, f"10.0.{int(path.src[-3:])}.1") if path.dst in few else path
        for path in paths(inventory)
    ]
    return measured(run(inventory), found)


def measured(some_run: Run, found: list[PathMtu]) -> Run:
    """A run of `netprobe mtu`: without cells."""
    return msgspec.structs.replace(some_run, cells=(), mtus=tuple(found))
