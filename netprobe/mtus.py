"""
What path MTUs mean for Calico: the MTU to configure for each mode, and the exit status.

Calico has one MTU for a whole cluster. It must fit the narrowest of the paths that a mode sends over, and
leave room for the mode's own headers. In the cross-subnet modes that is another room on each path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from netprobe.model import Family, Limit, PathMtu, Run
from netprobe.modes import MODES, Subnets, When

_IP, _VXLAN, _WIREGUARD = 20, 50, 60
_IPV6_MORE: Final = 20  # an outer IPv6 header is so much longer than an IPv4 one
_TUNNELS: Final[Mapping[str, Mapping[Family, int]]] = {
    "ipip": {Family.IPV4: _IP},
    "vxlan": {Family.IPV4: _VXLAN, Family.IPV6: _VXLAN + _IPV6_MORE},
    "wireguard": {Family.IPV4: _WIREGUARD},
    "wireguard-v6": {Family.IPV6: _WIREGUARD + _IPV6_MORE},
}
"""Bytes that a tunnel takes of each packet: Calico, "Configure MTU to maximize network performance"."""

_OF_NODES: Final = ("none", "ipip", "ipip-crosssubnet", "vxlan", "vxlan-crosssubnet", "wireguard")
"""The modes that carry packets of pods, by their names in `netprobe.modes`."""


class CalicoMtu(msgspec.Struct, frozen=True, kw_only=True):
    """
    The MTU, in bytes, to give Calico for a mode and family, and the pair of hosts that sets it.

    `overhead` is what the mode takes of the pair's packets of `path_mtu` bytes; `pairs` is how many were
    looked at, `alike` how many of them have the same room.
    """

    mode: str
    family: Family
    mtu: int
    src: str
    dst: str
    path_mtu: int
    overhead: int
    pairs: int
    alike: int


def calico_mtus(run: Run) -> list[CalicoMtu]:
    """For each mode and family of which any path was measured, in the order of the modes."""
    subnets = Subnets(run)
    addresses = {
        (host.name, family): host.address(family) for host in run.inventory.hosts for family in Family
    }
    found = []
    for name in _OF_NODES:
        for family in Family:
            rooms = []
            for path in run.mtus:
                here, there = addresses.get((path.src, family)), addresses.get((path.dst, family))
                if path.family is not family or path.mtu is None or here is None or there is None:
                    continue
                overhead = _overhead(name, family, differ=subnets.differ(path.src, here, path.dst, there))
                if overhead is not None:
                    rooms.append((path.mtu - overhead, path, overhead))
            if rooms:
                found.append(_narrowest(name, family, rooms))
    return found


def _overhead(mode: str, family: Family, *, differ: bool) -> int | None:
    """What a mode takes of packets between two hosts; None where it has no tunnel in this family."""
    tunnels = [
        (need.when, _TUNNELS[need.probe][family])
        for need in MODES[mode].needs
        if family in _TUNNELS.get(need.probe, {})
    ]
    if not tunnels:
        return 0 if mode == "none" else None
    when, overhead = tunnels[0]
    return overhead if when is When.ALWAYS or differ else 0


def _narrowest(mode: str, family: Family, rooms: list[tuple[int, PathMtu, int]]) -> CalicoMtu:
    room, path, overhead = min(rooms, key=lambda each: each[0])
    return CalicoMtu(
        mode=mode,
        family=family,
        mtu=room,
        src=path.src,
        dst=path.dst,
        path_mtu=room + overhead,
        overhead=overhead,
        pairs=len(rooms),
        alike=sum(each == room for each, _path, _overhead in rooms),
    )


def exit_status(mtus: Iterable[PathMtu]) -> int:
    """
    What `netprobe mtu` ends with.

    1: some path is a black hole. 3: none is, but some could not be measured. 0: all were, and whoever sends
    too much is told so.
    """
    mtus = list(mtus)
    if any(path.limit is Limit.BLACK_HOLE for path in mtus):
        return 1
    return 3 if any(path.mtu is None for path in mtus) else 0
