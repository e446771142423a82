"""
The kernel's own counters of packets that it discards on their way to or from a program, and what each means.

They count for a whole host, so one says something of a flow only where it grew by exactly as many packets as
were sent. Names are those of /proc/net/netstat, snmp, snmp6 and stat/nf_conntrack
(linux/net/ipv4/proc.c, linux/net/ipv6/proc.c, linux/net/netfilter/nf_conntrack_standalone.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BEFORE_SOCKETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TcpExt.IPReversePathFilter": "strict reverse-path filtering (rp_filter): the way back is another",
        "IpExt.InCsumErrors": "its IP header's checksum is wrong on arrival",
        "nf_conntrack.drop": "the conntrack table is full",
        "IpExt.InNoRoutes": "it has no route for it",
        "Ip6InNoRoutes": "it has no route for it",
        "Ip.InAddrErrors": "it is not addressed to it",
        "Ip6InAddrErrors": "it is not addressed to it",
        "Ip.InHdrErrors": "its IP header is malformed",
        "Ip6InHdrErrors": "its IP header is malformed",
        "nf_conntrack.invalid": "conntrack calls it invalid, which rules may drop",
        "Ip.InDiscards": "for want of memory, or by a security module",
        "Ip6InDiscards": "for want of memory, or by a security module",
    }
)
"""What is discarded before any socket is given it; the more telling first, for some grow together."""

CHECKSUMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Tcp.InCsumErrors": "its TCP checksum is wrong on arrival",
        "Udp.InCsumErrors": "its UDP checksum is wrong on arrival",
        "Udp6InCsumErrors": "its UDP checksum is wrong on arrival",
    }
)
"""What a raw socket gets a copy of, but no program; the agents do not count it as an arrival."""

BEHIND_SOCKETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TcpExt.TCPMD5NotFound": "the program wants TCP MD5 signatures (RFC 2385)",
        "TcpExt.TCPAORequired": "the program wants TCP-AO signatures (RFC 5925)",
        "TcpExt.TCPAOKeyNotFound": "the program wants TCP-AO signatures (RFC 5925)",
        "TcpExt.TCPMinTTLDrop": "the program wants TTL security (RFC 5082)",
        "TcpExt.TCPReqQFullDrop": "the program's queue of half-open connections is full",
        "TcpExt.ListenOverflows": "the program's accept queue is full",
    }
)
"""What TCP discards of what raw sockets have got a copy of."""

LEAVING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Ip.OutNoRoutes": "it has no route for the answer",
        "Ip6OutNoRoutes": "it has no route for the answer",
    }
)
"""What of an answer."""

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {**BEHIND_SOCKETS, **CHECKSUMS, **BEFORE_SOCKETS, **LEAVING}
)


def short(name: str) -> str:
    """The name by which people look for a counter: without its group, where it stands for itself."""
    group, _dot, rest = name.rpartition(".")
    return rest if group == "TcpExt" else name


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much each counter of discarded packets grew, in the order of what it tells."""
    by_name = {name: after.get(name, 0) - before.get(name, 0) for name in MEANINGS}
    return {name: grown for name, grown in by_name.items() if grown > 0}
