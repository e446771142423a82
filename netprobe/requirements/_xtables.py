"""
What the kernel has for iptables, asked as iptables asks: in both variants, and for both families.

The *legacy* variant speaks to ip_tables by socket options (netfilter_ipv4/ip_tables.h and
netfilter_ipv6/ip6_tables.h in linux/include/uapi/linux). The *nft* variant speaks to nf_tables, and to
nft_compat for what only x_tables has (netfilter/nf_tables_compat.h there).
"""

from __future__ import annotations

import enum
import socket
import struct
from functools import cache
from typing import Any, Final

from pyroute2.netlink import nla
from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_table_msg

from netprobe.model import Family
from netprobe.questions import Failed, Getsockopt, Netlink, Question, Socket, Step, System
from netprobe.requirements import _netlink
from netprobe.requirements.base import Context


class Variant(enum.Enum):
    """A variant of iptables."""

    LEGACY = "legacy"
    NFT = "nft"


class Kind(enum.IntEnum):
    """What an extension is; the value is that of NFTA_COMPAT_TYPE."""

    MATCH = 0
    TARGET = 1


_FAMILIES: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_LEVELS: Final = {Family.IPV4: socket.SOL_IP, Family.IPV6: socket.IPPROTO_IPV6}
_MODULES: Final = {Family.IPV4: "ip_tables", Family.IPV6: "ip6_tables"}
_GET_INFO: Final = {Family.IPV4: 64, Family.IPV6: 64}
_GET_REVISION: Final = {
    (Family.IPV4, Kind.MATCH): 66,
    (Family.IPV4, Kind.TARGET): 67,
    (Family.IPV6, Kind.MATCH): 68,
    (Family.IPV6, Kind.TARGET): 69,
}
_GETINFO_BYTES: Final = 84
_COMPAT: Final = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET
_TABLES: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _NEWCHAIN, _NEWRULE = _TABLES, _TABLES | 3, _TABLES | 6
_BATCH_BEGIN, _BATCH_END = 16, 17
_CAP_SYS_MODULE: Final = 16
_FIRST_REVISIONS: Final = {
    "addrtype": 1,
    "conntrack": 1,
    "mark": 1,
    "multiport": 1,
    "set": 1,
    "MARK": 2,
}
"""Of those that no longer have the revision 0, or not for both families; there may be others as well."""

SYSTEM: Final = System()
IPV6: Final = Socket(family=socket.AF_INET6, type=socket.SOCK_DGRAM, protocol=0)


class _Compat(nfgen_msg):  # type: ignore[misc]
    prefix = "NFTA_COMPAT_"
    nla_map = (
        ("NFTA_COMPAT_UNSPEC", "none"),
        ("NFTA_COMPAT_NAME", "asciiz"),
        ("NFTA_COMPAT_REV", "be32"),
        ("NFTA_COMPAT_TYPE", "be32"),
    )


@cache
def extension(variant: Variant, family: Family, kind: Kind, name: str) -> Question[Any]:
    """Ask for a match or a target by the kernel's name for it."""
    revision = _FIRST_REVISIONS.get(name, 0)
    if variant is Variant.NFT:
        attributes = [
            ("NFTA_COMPAT_NAME", name),
            ("NFTA_COMPAT_REV", revision),
            ("NFTA_COMPAT_TYPE", kind.value),
        ]
        content = _netlink.filled(_Compat, {"nfgen_family": _FAMILIES[family]}, attributes)
        return Netlink(protocol=_netlink.NETFILTER, steps=(_netlink.step(_COMPAT, content),))
    value = struct.pack("29sB", name.encode(), revision)  # struct xt_get_revision
    return _option(family, _GET_REVISION[family, kind], value)


def _option(family: Family, option: int, value: bytes) -> Getsockopt:
    return Getsockopt(
        family=_FAMILIES[family],
        type=socket.SOCK_RAW,
        protocol=socket.IPPROTO_RAW,
        level=_LEVELS[family],
        option=option,
        value=value,
        module=_MODULES[family],
    )


_CHAINS: Final = {
    "filter": ("filter", 1, 0),
    "nat": ("nat", 0, -100),
    "mangle": ("route", 3, -150),
    "raw": ("filter", 0, -300),
}
"""
Of each table of iptables the chain that asks most of nf_tables: its type, hook (NF_INET_*) and priority.

As iptables-nft makes them (iptables/nft.c, xtables_ipv4).
"""
_NF_DROP, _NF_ACCEPT = 0, 1  # linux/include/uapi/linux/netfilter.h


@cache
def verdict(variant: Variant, family: Family) -> Question[Any]:
    """Ask for ACCEPT and DROP: legacy's standard target, which has no name; rules of nft with each."""
    if variant is Variant.LEGACY:
        return extension(variant, family, Kind.TARGET, "")
    return table(variant, family, "filter")


@cache
def table(variant: Variant, family: Family, name: str) -> Question[Any]:
    """Ask for a table: of the legacy variant by its name, of nft by making it with a chain and two rules."""
    if variant is Variant.LEGACY:
        return _option(family, _GET_INFO[family], name.encode().ljust(_GETINFO_BYTES, b"\0"))
    kind, hook, priority = _CHAINS[name]
    head = {"nfgen_family": _FAMILIES[family]}
    hooks = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
    flags = _netlink.CREATE | _netlink.ACK
    chain = [
        ("NFTA_CHAIN_TABLE", name),
        ("NFTA_CHAIN_NAME", "chain"),
        ("NFTA_CHAIN_HOOK", hooks),
        ("NFTA_CHAIN_TYPE", kind),
    ]
    messages = [
        (_BATCH_BEGIN, 0, _netlink.filled(nfgen_msg, {"res_id": 10}, [])),
        (_NEWTABLE, flags, _netlink.filled(nft_table_msg, head, [("NFTA_TABLE_NAME", name)])),
        (_NEWCHAIN, flags, _netlink.filled(nft_chain_msg, head, chain)),
        *((_NEWRULE, flags, _rule(head, name, verdict)) for verdict in (_NF_ACCEPT, _NF_DROP)),
        (_BATCH_END, 0, _netlink.filled(nfgen_msg, {"res_id": 10}, [])),
    ]
    return Netlink(protocol=_netlink.NETFILTER, steps=(Step(messages=tuple(messages)),))


class _Rule(nfgen_msg):  # type: ignore[misc]
    """A rule that is a verdict; pyroute2's own cannot encode one."""

    prefix = "NFTA_RULE_"
    nla_map = (
        ("NFTA_RULE_UNSPEC", "none"),
        ("NFTA_RULE_TABLE", "asciiz"),
        ("NFTA_RULE_CHAIN", "asciiz"),
        ("NFTA_RULE_HANDLE", "be64"),
        ("NFTA_RULE_EXPRESSIONS", "expressions"),
    )

    class expressions(nla):  # type: ignore[misc] # noqa: N801 - as pyroute2 finds it
        nla_map = (("NFTA_LIST_UNSPEC", "none"), ("NFTA_LIST_ELEM", "expression"))

        class expression(nla):  # type: ignore[misc] # noqa: N801
            nla_map = (
                ("NFTA_EXPR_UNSPEC", "none"),
                ("NFTA_EXPR_NAME", "asciiz"),
                ("NFTA_EXPR_DATA", "immediate"),
            )

            class immediate(nla):  # type: ignore[misc] # noqa: N801
                nla_map = (
                    ("NFTA_IMMEDIATE_UNSPEC", "none"),
                    ("NFTA_IMMEDIATE_DREG", "be32"),
                    ("NFTA_IMMEDIATE_DATA", "verdict_data"),
                )

                class verdict_data(nla):  # type: ignore[misc] # noqa: N801
                    nla_map = (
                        ("NFTA_DATA_UNSPEC", "none"),
                        ("NFTA_DATA_VALUE", "hex"),
                        ("NFTA_DATA_VERDICT", "verdict"),
                    )

                    class verdict(nla):  # type: ignore[misc] # noqa: N801
                        nla_map = (("NFTA_VERDICT_UNSPEC", "none"), ("NFTA_VERDICT_CODE", "be32"))


def _rule(head: dict[str, Any], table_: str, verdict: int) -> bytes:
    code = {"attrs": [("NFTA_VERDICT_CODE", verdict)]}
    data = {"attrs": [("NFTA_DATA_VERDICT", code)]}
    immediate = {"attrs": [("NFTA_IMMEDIATE_DREG", 0), ("NFTA_IMMEDIATE_DATA", data)]}
    expression = {"attrs": [("NFTA_EXPR_NAME", "immediate"), ("NFTA_EXPR_DATA", immediate)]}
    attributes = [
        ("NFTA_RULE_TABLE", table_),
        ("NFTA_RULE_CHAIN", "chain"),
        ("NFTA_RULE_EXPRESSIONS", {"attrs": [("NFTA_LIST_ELEM", expression)]}),
    ]
    return _netlink.filled(_Rule, head, attributes)


class Presence(enum.Enum):
    """Whether the kernel has something, by what it answered."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCLEAR = "unclear"


_ABSENT: Final = ("ENOENT", "EOPNOTSUPP", "EINVAL", "EAFNOSUPPORT", "EPROTONOSUPPORT")
"""
No such extension or table; no such subsystem of netfilter, after the kernel has looked for its module; no
such family or protocol of sockets.
"""


def presence(context: Context, question: Question[Any]) -> tuple[Presence, str]:
    """Whether the kernel has what was asked for, and what it said to that if it did not say yes."""
    found = context.of(question)
    if isinstance(found, Failed):
        if found.namespace or found.host:
            return Presence.UNCLEAR, found.error
        error = found.name
    elif isinstance(question, Netlink):
        if len(found) != len(question.steps):
            return Presence.UNCLEAR, "no answer"
        error = next((outcome.error for outcome in found if outcome.error), "")
    else:
        error = ""
    # Of what is there, that has other revisions than the one that was asked for.
    if not error or (error == "EPROTONOSUPPORT" and _is_revision(question, found)):
        return Presence.PRESENT, ""
    if error == "ENOPROTOOPT":
        return (Presence.ABSENT if _may_load(context) else Presence.UNCLEAR), error
    return (Presence.ABSENT if error in _ABSENT else Presence.UNCLEAR), error


def _is_revision(question: Question[Any], found: object) -> bool:
    """Whether an EPROTONOSUPPORT is about an extension's revision, and not about the socket."""
    if isinstance(question, Getsockopt):
        return question.option in _GET_REVISION.values()
    return not isinstance(found, Failed)


def _may_load(context: Context) -> bool:
    """Whether the agent could have the kernel load ip_tables; nothing else does that by itself."""
    system = context.of(SYSTEM)
    return not isinstance(system, Failed) and bool(system.capabilities >> _CAP_SYS_MODULE & 1)
