"""What the eBPF dataplane needs: programs at the tc hook and at XDP, loaded and attached."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from netprobe.questions import Failed, Netlink, Step, System
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
from netprobe.requirements.devices import veth
from netprobe.requirements.system import kernel_version

_SYSTEM: Final = System()
_MODES: Final = ("ebpf",)
_LINE: Final = "eBPF (including the tc hook support) and XDP (if you want to use the eBPF dataplane)"

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWQDISC, _RTM_NEWTFILTER = 16, 17, 36, 44
_SCHED_CLS, _XDP = 3, 6  # enum bpf_prog_type, linux/include/uapi/linux/bpf.h
_XDP_PASS: Final = 2
_CLSACT, _INGRESS = 0xFFFF0000, 0xFFFFFFF2  # TC_H_CLSACT << 16, TC_H_MIN_INGRESS: pkt_sched.h
_ETH_P_ALL: Final = 0x0300  # in network order
_OLDEST: Final = (5, 3)
"""Calico's eBPF dataplane: Linux 5.3, or 4.18 as of RHEL 8.2 (its page on enabling eBPF)."""
_BACKPORTED: Final = (4, 18)


def _returning(value: int) -> bytes:
    """The program `mov r0, value; exit`."""
    return struct.pack("=BBhi", 0xB7, 0, 0, value) + struct.pack("=BBhi", 0x95, 0, 0, 0)


def _descriptor_at(content: bytes) -> int:
    """Where the placeholder for a program's descriptor is."""
    at = content.index(struct.pack("=I", _PLACEHOLDER))
    if content.count(struct.pack("=I", _PLACEHOLDER)) != 1:
        raise AssertionError("a placeholder that is not alone")
    return at


_PLACEHOLDER: Final = 0x6E70666B
_TC_NAME, _XDP_NAME = "calitc", "calixdp"
_TC_INDEX, _XDP_INDEX = 1011, 1021


def _deleted(name: str) -> Step:
    return _netlink.step(_RTM_DELLINK, _netlink.filled(ifinfmsg, {}, [("IFLA_IFNAME", name)]))


def _attached(kind: int, content: bytes, flags: int = 0) -> Step:
    return Step(messages=((kind, flags, content),), program_at=_descriptor_at(content))


def _tc_steps() -> tuple[Step, ...]:
    qdisc = {"index": _TC_INDEX, "handle": _CLSACT, "parent": _CLSACT | 0xFFF1}
    hook = {
        "index": _TC_INDEX,
        "parent": _INGRESS,
        "info": 1 << 16 | _ETH_P_ALL,
    }
    options: dict[str, Any] = {
        "attrs": [("TCA_BPF_FD", _PLACEHOLDER), ("TCA_BPF_NAME", "netprobe"), ("TCA_BPF_FLAGS", 1)]
    }
    content = _netlink.filled(tcmsg, hook, [("TCA_KIND", "bpf"), ("TCA_OPTIONS", options)])
    flags = _netlink.CREATE | _netlink.EXCL
    return (
        veth(_TC_NAME, _TC_INDEX),
        Step(program=(_SCHED_CLS, _returning(0))),
        _netlink.step(_RTM_NEWQDISC, _netlink.filled(tcmsg, qdisc, [("TCA_KIND", "clsact")]), flags),
        _attached(_RTM_NEWTFILTER, content, flags),
        _deleted(_TC_NAME),
    )


def _xdp_steps() -> tuple[Step, ...]:
    content = _netlink.filled(
        ifinfmsg, {"index": _XDP_INDEX}, [("IFLA_XDP", {"attrs": [("IFLA_XDP_FD", _PLACEHOLDER)]})]
    )
    return (
        veth(_XDP_NAME, _XDP_INDEX),
        Step(program=(_XDP, _returning(_XDP_PASS))),
        _attached(_RTM_NEWLINK, content),
        _deleted(_XDP_NAME),
    )


_TC: Final = (
    Netlink(protocol=_netlink.ROUTE, steps=_tc_steps()),
    (
        "make a veth device",
        "load a program of type sched_cls",
        "make the qdisc clsact",
        "attach the program",
        "delete the device",
    ),
)
_XDP_HOOK: Final = (
    Netlink(protocol=_netlink.ROUTE, steps=_xdp_steps()),
    ("make a veth device", "load a program of type xdp", "attach the program", "delete the device"),
)


def _judge(asked: tuple[Netlink, tuple[str, ...]], context: Context) -> Judgement:
    question, names = asked
    found = context.of(question)
    if isinstance(found, Failed):
        return unknown(found)
    if len(found) != len(names):
        return unknown(f"{len(found)} answers to {len(names)} requests")
    wrong = [(name, outcome.error) for name, outcome in zip(names, found, strict=True) if outcome.error]
    if wrong:
        return _failed(context, *wrong[0])
    system = context.of(_SYSTEM)
    version = None if isinstance(system, Failed) else kernel_version(system.release)
    seen = "; ".join(names[1:-1])
    if version is None or version >= _OLDEST:
        return passed(seen)
    if version >= _BACKPORTED:
        return warned(f"{seen}; Linux {version[0]}.{version[1]}, where Calico wants 5.3, or RHEL 8.2's 4.18")
    return failed(f"{seen}; Linux {version[0]}.{version[1]}, where Calico's programs need 5.3")


def _failed(context: Context, name: str, error: str) -> Judgement:
    """What failed first, and whether that is the kernel's lack or the agent's privilege."""
    if name == "make a veth device":
        return unknown(f"{name} to attach it to: {error}")
    if error not in ("EPERM", "EACCES"):
        return failed(f"{name}: {error}")
    system = context.of(_SYSTEM)
    if isinstance(system, Failed) or system.uid:
        return unknown(Failed(error))
    # Root has all that this takes, unless somebody has taken it: a seccomp filter, a lockdown of the kernel.
    return failed(f"{name}: {error}, as root")


GROUP: Final = Group(
    name="Kernel dependencies",
    rank=112,
    requirements=(
        Requirement(
            id="ebpf-tc",
            title="eBPF at the tc hook",
            source=_LINE,
            method=(
                "bpf(2) loads a program of two instructions; it is attached to a veth device by clsact, in a "
                "throwaway namespace"
            ),
            fix=(
                "Use a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, 5.3 or "
                "later, and let the container call bpf(2)."
            ),
            modes=_MODES,
            asks=(_SYSTEM, _TC[0]),
            judge=partial(_judge, _TC),
        ),
        Requirement(
            id="xdp",
            title="XDP",
            source=_LINE,
            method=(
                "bpf(2) loads a program of two instructions; it is attached to a veth device, in a throwaway "
                "namespace"
            ),
            fix="Use a kernel with CONFIG_BPF_SYSCALL, 4.16 or later, and let the container call bpf(2).",
            modes=_MODES,
            asks=(_SYSTEM, _XDP_HOOK[0]),
            judge=partial(_judge, _XDP_HOOK),
        ),
    ),
)
