"""IP sets, connection tracking and IPVS: each is used in a throwaway namespace."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any, Final

from pyroute2.netlink import ctrlmsg
from pyroute2.netlink.nfnetlink.ipset import ipset_msg
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from netprobe.questions import Failed, Netlink, Outcome, Socket, Step, System
from netprobe.requirements import _netlink
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    passed,
    unknown,
    warned,
)
from netprobe.requirements.system import kernel_version

_SYSTEM: Final = System()
_REFUSED: Final = ("EPERM", "EACCES", "ETIMEDOUT", "ENOSYS")
"""Errors that say nothing about the kernel's abilities."""

_IPSET: Final = 6 << 8  # NFNL_SUBSYS_IPSET
_IPSET_TYPE: Final = _IPSET | 13
_IPSET_PROTOCOL: Final = 6
_SET_TYPES: Final = ("hash:ip", "hash:ip,port", "hash:net")
"""Those of Felix's policies and pools (projectcalico/calico: felix/ipsets/ipset_defs.go)."""
_FURTHER_TYPES: Final = ("bitmap:port", "hash:net,net")
"""Those that later Felixes know as well."""

_IPSET_ERRORS: Final = {"4098": "IPSET_ERR_FIND_TYPE"}
"""ipset's own errors, behind those of the system: linux/include/uapi/linux/netfilter/ipset/ip_set.h."""


def _type_query(name: str) -> Step:
    attributes = [
        ("IPSET_ATTR_PROTOCOL", _IPSET_PROTOCOL),
        ("IPSET_ATTR_TYPENAME", name),
        ("IPSET_ATTR_FAMILY", socket.AF_INET),
    ]
    content = _netlink.filled(ipset_msg, {"nfgen_family": socket.AF_INET}, attributes)
    return _netlink.step(_IPSET_TYPE, content)


_SETS: Final = Netlink(
    protocol=_netlink.NETFILTER,
    steps=tuple(_type_query(name) for name in (*_SET_TYPES, *_FURTHER_TYPES)),
)


def _ipset(context: Context) -> Judgement:
    found = context.of(_SETS)
    if isinstance(found, Failed):
        return _unavailable(found)
    names = (*_SET_TYPES, *_FURTHER_TYPES)
    if len(found) != len(names):
        return unknown(f"{len(found)} answers to {len(names)} requests")
    errors = {
        name: _IPSET_ERRORS.get(outcome.error, outcome.error)
        for name, outcome in zip(names, found, strict=True)
    }
    for error in errors.values():
        if error in _REFUSED:
            return unknown(Failed(error))
    if set(errors.values()) == {"EINVAL"}:
        return failed("EINVAL: the kernel has no IP sets, and no module for them")
    missing = [f"{name} ({errors[name]})" for name in _SET_TYPES if errors[name]]
    there = ", ".join(name for name in names if not errors[name])
    if missing:
        return failed(f"no sets of type {', '.join(missing)}; there are {there or 'none'}")
    further = ", ".join(f"{name} ({errors[name]})" for name in _FURTHER_TYPES if errors[name])
    return passed(f"{there}; not {further}, which is for later releases" if further else there)


_CTNETLINK: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_CT_NEW, _CT_GET, _CT_DELETE = _CTNETLINK, _CTNETLINK | 1, _CTNETLINK | 2
_PORTS: Final = (4660, 22136)
_NFGENMSG_BYTES: Final = 4
_CTA_TUPLE_ORIG, _CTA_TUPLE_PROTO, _CTA_PROTO_SRC_AND_DST = 1, 2, (2, 3)  # nfnetlink_conntrack.h
_CTA_PROTO_PORTS: Final = ("CTA_PROTO_SRC_PORT", "CTA_PROTO_DST_PORT")


def _tuple(protocol: int, source: str, destination: str, ports: tuple[int, int]) -> dict[str, Any]:
    return {
        "attrs": [
            ("CTA_TUPLE_IP", {"attrs": [("CTA_IP_V4_SRC", source), ("CTA_IP_V4_DST", destination)]}),
            (
                "CTA_TUPLE_PROTO",
                {
                    "attrs": [
                        ("CTA_PROTO_NUM", protocol),
                        *zip(_CTA_PROTO_PORTS, ports, strict=True),
                    ]
                },
            ),
        ]
    }


def _entry(protocol: int) -> Netlink:
    """A connection that is entered, looked up by its tuple, and deleted."""
    head = {"nfgen_family": socket.AF_INET}
    there = ("CTA_TUPLE_ORIG", _tuple(protocol, "192.0.2.1", "192.0.2.2", _PORTS))
    back = ("CTA_TUPLE_REPLY", _tuple(protocol, "192.0.2.2", "192.0.2.1", (_PORTS[1], _PORTS[0])))
    entered = _netlink.filled(nfct_msg, head, [there, back, ("CTA_TIMEOUT", 60)])
    found = _netlink.filled(nfct_msg, head, [there])
    return Netlink(
        protocol=_netlink.NETFILTER,
        steps=(
            _netlink.step(_CT_NEW, entered, _netlink.CREATE | _netlink.EXCL),
            _netlink.step(_CT_GET, found),
            _netlink.step(_CT_DELETE, found),
        ),
    )


_CONNECTION: Final = {protocol: _entry(protocol) for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_SCTP)}
_ENTRY_STEPS: Final = ("enter a connection", "look it up", "delete it")


def _ports_of(outcome: Outcome) -> tuple[int, ...]:
    """The ports of an entry as the kernel tells it; none where it has no such thing."""
    for body in outcome.bodies:
        entry = _netlink.attributes(body[_NFGENMSG_BYTES:])
        original = _netlink.attributes(entry.get(_CTA_TUPLE_ORIG, b""))
        transport = _netlink.attributes(original.get(_CTA_TUPLE_PROTO, b""))
        ports = [transport.get(kind, b"") for kind in _CTA_PROTO_SRC_AND_DST]
        if all(len(port) == 2 for port in ports):
            return tuple(int.from_bytes(port, "big") for port in ports)
    return ()


def _conntrack(protocol: int, context: Context) -> Judgement:
    found = context.of(_CONNECTION[protocol])
    if isinstance(found, Failed):
        return _unavailable(found)
    if len(found) != len(_ENTRY_STEPS):
        return unknown(f"{len(found)} answers to {len(_ENTRY_STEPS)} requests")
    wrong = [
        (step, outcome.error) for step, outcome in zip(_ENTRY_STEPS, found, strict=True) if outcome.error
    ]
    name = "SCTP" if protocol == socket.IPPROTO_SCTP else "TCP"
    if wrong:
        step, error = wrong[0]
        seen = f"{step} ({name}): {error}"
        return unknown(Failed(error)) if error in _REFUSED else failed(seen)
    if _ports_of(found[1]) == _PORTS:
        return passed(f"entered a connection of {name}, found it by its ports, and deleted it")
    return _without_ports(context, name)


def _without_ports(context: Context, name: str) -> Judgement:
    """The kernel keeps no ports of the protocol: it tracks it as any that it does not know."""
    seen = f"a connection of {name} was entered, and the kernel does not know its ports"
    system = context.of(_SYSTEM)
    version = None if isinstance(system, Failed) else kernel_version(system.release)
    if version is not None and version < (4, 19):
        return warned(
            f"{seen}: in {version[0]}.{version[1]} that takes a module that is not loaded by itself",
            "modprobe nf_conntrack_proto_sctp, where SCTP is used",
        )
    return failed(seen)


_SCTP_SOCKET: Final = Socket(family=socket.AF_INET, type=socket.SOCK_STREAM, protocol=socket.IPPROTO_SCTP)


def _sctp(context: Context) -> Judgement:
    found = context.of(_SCTP_SOCKET)
    if not isinstance(found, Failed):
        return passed("socket(2) with IPPROTO_SCTP")
    if found.name == "EPROTONOSUPPORT" and not found.namespace:
        return failed(f"socket(2) with IPPROTO_SCTP: {found.error}, the kernel has none and no module for it")
    return unknown(found)


_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_GENL_IPVS: Final = Netlink(
    protocol=_netlink.GENERIC,
    steps=(
        _netlink.step(
            _GENL_ID_CTRL,
            _netlink.filled(
                ctrlmsg, {"cmd": _CTRL_CMD_GETFAMILY, "version": 1}, [("CTRL_ATTR_FAMILY_NAME", "IPVS")]
            ),
        ),
    ),
)


def _ipvs(context: Context) -> Judgement:
    found = context.of(_GENL_IPVS)
    if isinstance(found, Failed):
        return _unavailable(found)
    if len(found) != 1:
        return unknown(f"{len(found)} answers to one request")
    error = found[0].error
    if not error:
        return passed("the kernel speaks IPVS (generic netlink)")
    if error in _REFUSED:
        return unknown(Failed(error))
    return failed(f"generic netlink has no family IPVS: {error}")


def _unavailable(failure: Failed) -> Judgement:
    """A kernel without nfnetlink refuses the very socket."""
    if failure.name == "EPROTONOSUPPORT" and not failure.namespace:
        return failed(f"{failure.error}: the kernel has no netlink for netfilter")
    return unknown(failure)


_CONNTRACK_LINE: Final = "Netfilter Conntrack support compiled in (with SCTP support if using SCTP)."

GROUP: Final = Group(
    name="Kernel dependencies",
    rank=111,
    requirements=(
        Requirement(
            id="ipset",
            title="IP sets",
            source="IP sets support.",
            method=f"ipset's netlink: are there the types {', '.join(_SET_TYPES)}, of which Felix makes sets",
            fix="Install the kernel's modules ip_set, ip_set_hash_ip, ip_set_hash_ipport, ip_set_hash_net.",
            asks=(_SETS,),
            judge=_ipset,
        ),
        Requirement(
            id="conntrack",
            title="Connection tracking",
            source=_CONNTRACK_LINE,
            method="ctnetlink: a connection is entered in a throwaway namespace, looked up and deleted",
            fix="Install the kernel's modules nf_conntrack and nf_conntrack_netlink.",
            asks=(_CONNECTION[socket.IPPROTO_TCP],),
            judge=partial(_conntrack, socket.IPPROTO_TCP),
        ),
        Requirement(
            id="conntrack-sctp",
            title="Connection tracking of SCTP",
            source=_CONNTRACK_LINE,
            method="ctnetlink: the same with SCTP; a kernel that does not know it keeps no ports",
            fix="Use a kernel with CONFIG_NF_CT_PROTO_SCTP.",
            modes=("sctp",),
            asks=(_SYSTEM, _CONNECTION[socket.IPPROTO_SCTP]),
            judge=partial(_conntrack, socket.IPPROTO_SCTP),
        ),
        Requirement(
            id="sctp",
            title="SCTP for the pods",
            source="Conntrack only passes it on: pods that use SCTP need it in the node's kernel (sctp(7))",
            method="A socket of SCTP is opened, in a throwaway namespace",
            fix="Install the kernel's module sctp (linux-modules-extra, kernel-modules-extra).",
            level=Level.RECOMMENDED,
            modes=("sctp",),
            asks=(_SCTP_SOCKET,),
            judge=_sctp,
        ),
        Requirement(
            id="ipvs",
            title="IPVS",
            source="IPVS support if using kube-proxy in IPVS mode.",
            method="Generic netlink is asked for its family IPVS",
            fix="Install the kernel's modules ip_vs, ip_vs_rr, ip_vs_wrr and ip_vs_sh.",
            modes=("ipvs",),
            asks=(_GENL_IPVS,),
            judge=_ipvs,
        ),
    ),
)
