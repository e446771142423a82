"""
ICMP and ICMPv6 error messages: who says what about which packet (RFC 792, RFC 1812 §5.2.7, RFC 4443).

The quoted packet is all that ties an error to a flow. It is at least the IP header and 8 bytes; what
identifies the packet is therefore also in those (design trap 11).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from netprobe.model import Word

_ICMP, _ICMPV6 = 1, 58
_IPV4_HEADER_BYTES, _IPV6_HEADER_BYTES, _ICMP_HEADER_BYTES = 20, 40, 8
_MORE_OFFSET: Final = 0x1FFF

# (type, code) to what it says; codes that mean "a router has no way" against "somebody does not want it".
_V4: Final[Mapping[tuple[int, int], tuple[Word, str]]] = {
    (3, 0): (Word.UNREACHABLE, "network unreachable"),
    (3, 1): (Word.UNREACHABLE, "host unreachable"),
    (3, 2): (Word.PROHIBITED, "protocol unreachable"),
    (3, 3): (Word.PROHIBITED, "port unreachable"),
    (3, 5): (Word.UNREACHABLE, "source route failed"),
    (3, 6): (Word.UNREACHABLE, "destination network unknown"),
    (3, 7): (Word.UNREACHABLE, "destination host unknown"),
    (3, 8): (Word.UNREACHABLE, "source host isolated"),
    (3, 9): (Word.PROHIBITED, "network administratively prohibited"),
    (3, 10): (Word.PROHIBITED, "host administratively prohibited"),
    (3, 11): (Word.UNREACHABLE, "network unreachable for this type of service"),
    (3, 12): (Word.UNREACHABLE, "host unreachable for this type of service"),
    (3, 13): (Word.PROHIBITED, "communication administratively prohibited"),
    (3, 14): (Word.PROHIBITED, "host precedence violation"),
    (3, 15): (Word.PROHIBITED, "precedence cutoff"),
    (11, 0): (Word.UNREACHABLE, "time to live exceeded"),
}
_V6: Final[Mapping[tuple[int, int], tuple[Word, str]]] = {
    (1, 0): (Word.UNREACHABLE, "no route"),
    (1, 1): (Word.PROHIBITED, "communication administratively prohibited"),
    (1, 2): (Word.UNREACHABLE, "beyond scope of source address"),
    (1, 3): (Word.UNREACHABLE, "address unreachable"),
    (1, 4): (Word.PROHIBITED, "port unreachable"),
    (1, 5): (Word.PROHIBITED, "source address failed ingress/egress policy"),
    (1, 6): (Word.PROHIBITED, "reject route"),
    (3, 0): (Word.UNREACHABLE, "hop limit exceeded"),
    (4, 1): (Word.PROHIBITED, "unrecognised next header"),
}

EXCEEDED: Final = ("ICMP 11/0 ", "ICMPv6 3/0 ")
"""How the reasons begin that say that a packet had no more hops to go."""


class Quote(msgspec.Struct, frozen=True):
    """
    An ICMP error: who sent it, what it says, and the packet it is about.

    `transport` are the quoted bytes behind the quoted IP header, `size` how many there were before the quote
    cut them off, `identification` the header's (IPv4 only).
    """

    by: str
    word: Word
    reason: str
    source: str
    destination: str
    protocol: int
    identification: int | None
    size: int
    transport: bytes

    def destination_port(self) -> int | None:
        """The quoted destination port; None where the quote is too short for one."""
        return struct.unpack_from("!H", self.transport, 2)[0] if len(self.transport) >= 4 else None


def parse(packet: bytes) -> Quote | None:
    """The error in a packet that begins with its IP header; None for anything else, or an unknown one."""
    try:
        return _parse_v4(packet) if packet[0] >> 4 == 4 else _parse_v6(packet)
    except (IndexError, struct.error):
        return None


def _parse_v4(packet: bytes) -> Quote | None:
    start = (packet[0] & 0xF) * 4
    if packet[9] != _ICMP:
        return None
    meaning = _V4.get((packet[start], packet[start + 1]))
    quoted = packet[start + _ICMP_HEADER_BYTES :]
    if meaning is None or len(quoted) < _IPV4_HEADER_BYTES or quoted[0] >> 4 != 4:
        return None
    length, identification, fragment = struct.unpack_from("!HHH", quoted, 2)
    if fragment & _MORE_OFFSET:
        return None
    header = (quoted[0] & 0xF) * 4
    word, text = meaning
    return Quote(
        by=str(IPv4Address(packet[12:16])),
        word=word,
        reason=f"ICMP {packet[start]}/{packet[start + 1]} {text}",
        source=str(IPv4Address(quoted[12:16])),
        destination=str(IPv4Address(quoted[16:20])),
        protocol=quoted[9],
        identification=identification,
        size=length - header,
        transport=quoted[header:],
    )


def _parse_v6(packet: bytes) -> Quote | None:
    start = _IPV6_HEADER_BYTES
    if packet[6] != _ICMPV6:
        return None
    meaning = _V6.get((packet[start], packet[start + 1]))
    quoted = packet[start + _ICMP_HEADER_BYTES :]
    if meaning is None or len(quoted) < _IPV6_HEADER_BYTES or quoted[0] >> 4 != 6:
        return None
    word, text = meaning
    return Quote(
        by=str(IPv6Address(packet[8:24])),
        word=word,
        reason=f"ICMPv6 {packet[start]}/{packet[start + 1]} {text}",
        source=str(IPv6Address(quoted[8:24])),
        destination=str(IPv6Address(quoted[24:40])),
        protocol=quoted[6],
        identification=None,
        size=struct.unpack_from("!H", quoted, 4)[0],
        transport=quoted[_IPV6_HEADER_BYTES:],
    )
