"""The UDP ports of Calico's tunnels: whether something else on the host has them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec

from netprobe.questions import Failed, Holder, Holders, System
from netprobe.requirements import _links
from netprobe.requirements._links import Link
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    passed,
    unknown,
    warned,
)

_SYSTEM: Final = System()
_SWARM: Final = "docker_gwbridge"
"""What every node of a Docker Swarm has. The VNI of its first overlay network is 4096, as Calico's."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """
    Ports by which a kind of device receives, and the names of those that may have them.

    `vni` is the network that they have by default: Felix's VXLANVNI, flannel's VNI.
    """

    ports: tuple[int, ...]
    kind: str
    own: tuple[str, ...]
    vni: int = 0


_VXLAN: Final = Use(ports=(4789,), kind="vxlan", own=("vxlan.calico", "vxlan-v6.calico"), vni=4096)
_FLANNEL: Final = Use(ports=(4789, 8472), kind="vxlan", own=("flannel.1", "flannel-v6.1"), vni=1)
_WIREGUARD: Final = Use(ports=(51820, 51821), kind="wireguard", own=("wireguard.cali", "wg-v6.cali"))

SOCKETS: Final = Holders(
    ports=tuple(
        (socket.IPPROTO_UDP, port)
        for port in sorted({port for use in (_VXLAN, _FLANNEL, _WIREGUARD) for port in use.ports})
    )
)
"""One question about all of them, because each reads all sockets of the kernel."""


def _judge(use: Use, context: Context) -> Judgement:
    links, sockets, system = _links.links(context), context.of(SOCKETS), context.of(_SYSTEM)
    if isinstance(links, Failed) or isinstance(sockets, Failed) or isinstance(system, Failed):
        return unknown(next(each for each in (links, sockets, system) if isinstance(each, Failed)))
    holders = [each for each in sockets if each.port in use.ports]
    if system.uid and any(not each.program for each in holders):
        return unknown(f"as uid {system.uid} the agent does not see who has UDP {holders[0].port}")
    problems = _problems_of_wireguard if use.kind == "wireguard" else _problems_of_vxlan
    found = [problem for port in use.ports for problem in problems(use, port, links, holders)]
    for judge, is_fatal in ((failed, True), (warned, False)):
        if said := [text for text, fatal in found if fatal is is_fatal]:
            return judge("; ".join(said))
    present = ", ".join(each.name for each in links if each.name in use.own)
    return passed(f"UDP {' and '.join(map(str, use.ports))}: {f'{present} is there' if present else 'free'}")


def _of_processes(port: int, holders: list[Holder]) -> tuple[list[tuple[str, bool]], bool]:
    """The problems that processes are, and whether the kernel itself has a port."""
    programs = {each.program for each in holders if each.port == port}
    return [(f"UDP {port}: {program} has it", True) for program in sorted(programs - {""})], "" in programs


def _problems_of_vxlan(
    use: Use, port: int, links: list[Link], holders: list[Holder]
) -> Iterator[tuple[str, bool]]:
    """
    What is in the way of a port, and whether that keeps the device from working.

    Devices share a port, if they have not the same VNI (linux/drivers/net/vxlan/vxlan_core.c).
    """
    problems, is_kernels = _of_processes(port, holders)
    here = [each for each in links if each.kind == use.kind and each.port == port]
    for each in here:
        if each.name not in use.own:
            yield f"UDP {port}: device {each.name} has it, with VNI {each.vni}", each.vni == use.vni
    yield from problems
    if is_kernels and not here:
        # The socket of a device stays where that was made, when it is moved to another namespace.
        elsewhere = f"UDP {port}: the kernel has it for a device in another network namespace"
        is_swarm = any(each.name == _SWARM for each in links) and use.vni == _VXLAN.vni
        yield (
            (f"{elsewhere}, Docker Swarm's, whose first VNI is Calico's" if is_swarm else elsewhere),
            is_swarm,
        )


def _problems_of_wireguard(
    use: Use, port: int, links: list[Link], holders: list[Holder]
) -> Iterator[tuple[str, bool]]:
    """
    What is in the way of a port; no two devices share one (linux/drivers/net/wireguard/socket.c).

    Which device has which port is not told with the links.
    """
    problems, is_kernels = _of_processes(port, holders)
    yield from problems
    own = [each.name for each in links if each.name in use.own]
    others = [each.name for each in links if each.kind == use.kind and each.name not in use.own]
    if is_kernels and others:
        yield f"UDP {port}: the kernel has it, and there is the device {', '.join(others)}", not own
    elif is_kernels and not own:
        yield f"UDP {port}: the kernel has it for a device in another network namespace", True


def _requirement(id_: str, use: Use, what: str, source: str, *modes: str) -> Requirement:
    ports = " and ".join(map(str, use.ports))
    return Requirement(
        id=id_,
        title=f"UDP {ports} for {what}",
        source=source,
        method="The host's VXLAN and WireGuard devices (RTM_GETLINK), and its UDP sockets (proc(5))",
        fix=(
            "Remove what holds the port (Docker Swarm's overlay networks use VXLAN with UDP 4789), or give "
            "Calico another one: vxlanPort, vxlanVNI, wireguardListeningPort of its FelixConfiguration."
        ),
        modes=modes,
        asks=(_SYSTEM, _links.LINKS, SOCKETS),
        judge=partial(_judge, use),
    )


GROUP: Final = Group(
    name="Interfaces",
    rank=21,
    requirements=(
        _requirement(
            "port-vxlan",
            _VXLAN,
            "vxlan.calico",
            "Calico networking with VXLAN enabled: UDP 4789",
            "vxlan",
            "vxlan-crosssubnet",
        ),
        _requirement(
            "port-flannel",
            _FLANNEL,
            "flannel.1",
            "flannel networking (VXLAN): UDP 4789; flannel's own default on Linux is 8472",
            "flannel",
        ),
        _requirement(
            "port-wireguard",
            _WIREGUARD,
            "wireguard.cali",
            "Calico networking with IPv4 and IPv6 Wireguard enabled: UDP 51820, 51821",
            "wireguard",
        ),
    ),
)
