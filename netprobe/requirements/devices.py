"""The devices that Calico makes: each is made in a throwaway namespace, given an MTU, set up, and deleted."""

from __future__ import annotations

from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netprobe.questions import Failed, Netlink, Step
from netprobe.requirements import _netlink
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    passed,
    unknown,
)

_RTM_NEWLINK, _RTM_DELLINK = 16, 17  # linux/include/uapi/linux/rtnetlink.h
_IFF_UP: Final = 1
_INDEX: Final = 1001
"""Of the device that is made: any that a new namespace has not given away."""
_MTU: Final = 1400
_VETH, _IPIP, _VXLAN, _WIREGUARD = "cali0123456789a", "tunl0", "vxlan.calico", "wireguard.cali"


def link(kind: str, name: str, index: int, data: list[tuple[str, Any]] | None = None) -> Step:
    """The step that makes a device."""
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data is not None:
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})]
    content = _netlink.filled(ifinfmsg, {"index": index}, attributes)
    return _netlink.step(_RTM_NEWLINK, content, _netlink.CREATE | _netlink.EXCL)


def veth(name: str, index: int) -> Step:
    """The step that makes a pair of veth devices."""
    peer = {"attrs": [("IFLA_IFNAME", "peer")]}
    return link("veth", name, index, [("VETH_INFO_PEER", peer)])


def _managed(name: str) -> tuple[Step, ...]:
    """An MTU, up, and away again: by its name, because the kernel itself makes some, with another index."""
    named = [("IFLA_IFNAME", name)]
    return (
        _netlink.step(_RTM_NEWLINK, _netlink.filled(ifinfmsg, {}, [*named, ("IFLA_MTU", _MTU)])),
        _netlink.step(_RTM_NEWLINK, _netlink.filled(ifinfmsg, {"flags": _IFF_UP, "change": _IFF_UP}, named)),
        _netlink.step(_RTM_DELLINK, _netlink.filled(ifinfmsg, {}, named)),
    )


_STEPS: Final = ("make", "set the MTU of", "set up", "delete")

_QUESTIONS: Final = {
    name: Netlink(protocol=_netlink.ROUTE, steps=(made, *_managed(name)))
    for name, made in (
        (_VETH, veth(_VETH, _INDEX)),
        (_IPIP, link("ipip", _IPIP, _INDEX)),
        (
            _VXLAN,
            link(
                "vxlan",
                _VXLAN,
                _INDEX,
                [("IFLA_VXLAN_ID", 4096), ("IFLA_VXLAN_PORT", 4789), ("IFLA_VXLAN_LEARNING", 0)],
            ),
        ),
        (_WIREGUARD, link("wireguard", _WIREGUARD, _INDEX)),
    )
}

_LACKING: Final = ("EOPNOTSUPP",)
"""What a kernel answers that has no such kind of device, and no module for it."""


def _judge(name: str, kind: str, context: Context) -> Judgement:
    found = context.of(_QUESTIONS[name])
    if isinstance(found, Failed):
        return unknown(found)
    errors = [outcome.error for outcome in found]
    if len(errors) != len(_STEPS):
        return unknown(f"{len(errors)} answers to {len(_STEPS)} requests")
    # Where the kernel has made one by itself, as ipip does in each namespace, that is the one Calico takes.
    if errors[0] == "EEXIST":
        errors[0] = ""
    wrong = [(step, error) for step, error in zip(_STEPS, errors, strict=True) if error]
    if not wrong:
        return passed(f"made a device {name} of kind {kind}, set its MTU, set it up, and deleted it")
    step, error = wrong[0]
    if error in _LACKING:
        return failed(f"{step} a device of kind {kind}: {error}, the kernel has none and no module for it")
    if error in ("EPERM", "EACCES"):
        return unknown(Failed(error))
    return failed(f"{step} a device {name} of kind {kind}: {error}")


def _requirement(
    id_: str, name: str, kind: str, source: str, *modes: str, module: str, option: str
) -> Requirement:
    return Requirement(
        id=id_,
        title=f"Interfaces of kind {kind} ({name.replace(_VETH, 'cali*')})",
        source=source,
        method="RTM_NEWLINK in a throwaway namespace: made, MTU set, up; RTM_DELLINK",
        fix=(
            f"Install the kernel module {module} (packages like linux-modules-extra or "
            f"kernel-modules-extra), or a kernel with {option}."
        ),
        modes=modes,
        asks=(_QUESTIONS[name],),
        judge=lambda context: _judge(name, kind, context),
    )


GROUP: Final = Group(
    name="Interfaces",
    rank=20,
    requirements=(
        _requirement(
            "device-veth",
            _VETH,
            "veth",
            "Calico must be able to manage cali* interfaces on the host.",
            module="veth",
            option="CONFIG_VETH",
        ),
        _requirement(
            "device-ipip",
            _IPIP,
            "ipip",
            "When IPIP is enabled (the default), Calico also needs to be able to manage tunl* interfaces.",
            "ipip",
            "ipip-crosssubnet",
            module="ipip",
            option="CONFIG_NET_IPIP",
        ),
        _requirement(
            "device-vxlan",
            _VXLAN,
            "vxlan",
            "When VXLAN is enabled, Calico also needs to be able to manage thevxlan.calico interface.",
            "vxlan",
            "vxlan-crosssubnet",
            "flannel",
            module="vxlan",
            option="CONFIG_VXLAN",
        ),
        _requirement(
            "device-wireguard",
            _WIREGUARD,
            "wireguard",
            "IPIP, VXLAN, Wireguard support, if using Caliconetworking in one of those modes.",
            "wireguard",
            module="wireguard",
            option="CONFIG_WIREGUARD",
        ),
    ),
)
