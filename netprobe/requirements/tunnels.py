"""The UDP ports of Calico's tunnels: whether something else on the host has them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netprobe.questions import Failed, Holder, Holders, Look, Outcome, System
from netprobe.requirements import _netlink
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

_RTM_GETLINK: Final = 18
_LINKS: Final = Look(
    protocol=_netlink.ROUTE,
    steps=(_netlink.step(_RTM_GETLINK, _netlink.filled(ifinfmsg, {}, []), _netlink.DUMP),),
)
_SYSTEM: Final = System()

# linux/include/uapi/linux/if_link.h
_IFINFOMSG_BYTES: Final = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 3, 18, 1, 2
_IFLA_VXLAN_ID, _IFLA_VXLAN_PORT = 1, 15


class Tunnel(msgspec.Struct, frozen=True):
    """A tunnel device: its name, kind, and of VXLAN the network identifier and the port."""

    name: str
    kind: str
    vni: int = 0
    port: int = 0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """
    Ports by which a kind of device receives, and the names of those that may have them.

    `vni` is the network that they have by default: Felix's VXLANVNI, flannel's VNI.
    """

    ports: tuple[int, ...]
    kind: str
    own: tuple[str, ...]
    vni: int = 0

    @property
    def sockets(self) -> Holders:
        """The question who has the ports."""
        return Holders(ports=tuple((socket.IPPROTO_UDP, port) for port in self.ports))


_VXLAN: Final = Use(ports=(4789,), kind="vxlan", own=("vxlan.calico", "vxlan-v6.calico"), vni=4096)
_FLANNEL: Final = Use(ports=(4789, 8472), kind="vxlan", own=("flannel.1", "flannel-v6.1"), vni=1)
_WIREGUARD: Final = Use(ports=(51820, 51821), kind="wireguard", own=("wireguard.cali", "wg-v6.cali"))


def tunnels(outcomes: list[Outcome]) -> Iterator[Tunnel]:
    """The VXLAN and WireGuard devices among the links that a host tells of."""
    for body in (body for outcome in outcomes for body in outcome.bodies):
        link = _netlink.attributes(body[_IFINFOMSG_BYTES:])
        info = _netlink.attributes(link.get(_IFLA_LINKINFO, b""))
        kind = _name(info.get(_IFLA_INFO_KIND, b""))
        if kind in ("vxlan", "wireguard"):
            data = _netlink.attributes(info.get(_IFLA_INFO_DATA, b""))
            vni, port = data.get(_IFLA_VXLAN_ID, b""), data.get(_IFLA_VXLAN_PORT, b"")
            yield Tunnel(
                _name(link.get(_IFLA_IFNAME, b"")),
                kind,
                struct.unpack("=I", vni)[0] if len(vni) == 4 else 0,
                int.from_bytes(port, "big"),
            )


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _judge(use: Use, context: Context) -> Judgement:
    links, holders, system = context.of(_LINKS), context.of(use.sockets), context.of(_SYSTEM)
    if isinstance(links, Failed) or isinstance(holders, Failed) or isinstance(system, Failed):
        return unknown(next(each for each in (links, holders, system) if isinstance(each, Failed)))
    if any(outcome.error for outcome in links):
        return unknown("the host's links could not be read to their end")
    if system.uid and any(not each.program for each in holders):
        return unknown(f"as uid {system.uid} the agent does not see who has UDP {holders[0].port}")
    devices = [each for each in tunnels(links) if each.kind == use.kind]
    found = [problem for port in use.ports for problem in _problems(use, port, devices, holders)]
    for judge, is_fatal in ((failed, True), (warned, False)):
        if said := [text for text, fatal in found if fatal is is_fatal]:
            return judge("; ".join(said))
    present = ", ".join(each.name for each in devices if each.name in use.own)
    return passed(f"UDP {' and '.join(map(str, use.ports))}: {f'{present} is there' if present else 'free'}")


def _problems(
    use: Use, port: int, devices: list[Tunnel], holders: list[Holder]
) -> Iterator[tuple[str, bool]]:
    """What is in the way of a port, and whether that keeps the device from working."""
    for each in devices:
        if each.name not in use.own and each.port == port:
            yield f"UDP {port}: device {each.name} has it, with VNI {each.vni}", each.vni == use.vni
    programs = {each.program for each in holders if each.port == port}
    yield from ((f"UDP {port}: {program} has it", True) for program in sorted(programs - {""}))
    # The ports of WireGuard's devices are not told with the links.
    if "" in programs and not [each for each in devices if each.port in (port, 0)]:
        # The socket of a device stays where that was made, when it is moved to another namespace.
        yield f"UDP {port}: the kernel has it for a device in another network namespace", False


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
        asks=(_SYSTEM, _LINKS, use.sockets),
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
