"""
Classic BPF programs for the taps: only packets that carry a tag of this run reach an agent.

A tap on a busy host sees everything; the kernel throws away what is not ours before Python looks at it. The
programs are built here from the sights and sent to the agents as numbers.

A load beyond the end of a packet ends a program with "drop" (linux/Documentation/networking/filter.rst), so
the sights are tried in the order of how far into the packet they look.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final

from netprobe.template import ATTEMPT_BITS, Base, Match, Sight

Instruction = tuple[int, int, int, int]
"""`code, jump-if-true, jump-if-false, k` of `struct sock_filter`."""

SNAP_BYTES: Final = 0xFFFF

# linux/include/uapi/linux/filter.h: offsets of ancillary data, not of packet bytes.
_AD_PKTTYPE: Final = 0xFFFFF004
_AD_HATYPE: Final = 0xFFFFF01C
# linux/include/uapi/linux/if_packet.h
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_ARPHRD_LOOPBACK: Final = 772  # linux/include/uapi/linux/if_arp.h

# linux/include/uapi/linux/bpf_common.h
_LD_ABS: Final = {1: 0x30, 2: 0x28, 4: 0x20}
_LD_IND: Final = {1: 0x50, 2: 0x48, 4: 0x40}
_LDX_IMM, _LDX_MSH = 0x01, 0xB1
_TAX = 0x07
_ADD_X, _AND, _RSH, _SUB, _XOR = 0x0C, 0x54, 0x74, 0x14, 0xA4
_JEQ, _JGE, _JSET = 0x15, 0x35, 0x45
_RET = 0x06

_WORD_MASK: Final = 0xFFFFFFFF
_MORE_FRAGMENTS, _OFFSET = 0x2000, 0x1FFF  # RFC 791 §3.1
_IPV4_HEADER_BYTES: Final = 20
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_ICMP_ERRORS: Final = (3, 11, 12)  # RFC 792: destination unreachable, time exceeded, parameter problem
_ICMPV6_ERRORS: Final = (1, 2, 3, 4)  # RFC 4443 §3


class Direction(enum.Enum):
    """Which packets of an AF_PACKET tap are wanted."""

    IN = "in"
    OUT = "out"


def for_packet_tap(
    sights: Iterable[Sight],
    direction: Direction,
    nonce: int,
    flows: int,
    *,
    whole: bool = False,
    at_most: int = 0,
) -> list[Instruction]:
    """
    A filter for a cooked AF_PACKET socket: tagged packets of both families in one direction.

    `whole` leaves out those of which more fragments follow; `at_most` so many bytes behind the IP header are
    let through, where it is not 0.
    """
    program = _Assembler()
    program.only(direction)
    by_protocol = _by_protocol(sights)
    program.load(0, 1)
    program.emit(_RSH, 4)
    program.branch(_JEQ, 6, "v6")
    if at_most:
        program.load(2, 2)
        program.branch(_JGE, at_most + _IPV4_HEADER_BYTES + 1, "drop")
    # Fragments other than the first have no transport header (RFC 791 §3.1).
    program.load(6, 2)
    program.branch(_JSET, _MORE_FRAGMENTS | _OFFSET if whole else _OFFSET, "drop")
    program.load(9, 1)
    for protocol in by_protocol:
        program.branch(_JEQ, protocol, f"v4-{protocol}")
    program.jump("drop")
    program.label("v6")
    if at_most:
        program.load(4, 2)
        program.branch(_JGE, at_most + 1, "drop")
    program.load(6, 1)
    for protocol in by_protocol:
        program.branch(_JEQ, protocol, f"v6-{protocol}")
    program.jump("drop")
    for version, set_x in ((4, (_LDX_MSH, 0)), (6, (_LDX_IMM, 40))):
        for protocol, group in by_protocol.items():
            program.label(f"v{version}-{protocol}")
            program.sights(group, set_x, nonce, flows, f"v{version}-{protocol}")
    return program.finish()


def for_raw_socket(
    sights: Iterable[Sight], protocol: int, version: int, nonce: int, flows: int
) -> list[Instruction]:
    """
    A filter for a raw IP socket of one protocol.

    An IPv4 raw socket hands the filter the packet from its IP header on, an IPv6 one from the transport
    header on (linux/net/ipv4/raw.c, linux/net/ipv6/raw.c).
    """
    program = _Assembler()
    set_x = (_LDX_MSH, 0) if version == 4 else (_LDX_IMM, 0)
    program.sights(_by_protocol(sights).get(protocol, []), set_x, nonce, flows, "s")
    return program.finish()


def for_icmp_errors() -> list[Instruction]:
    """A filter for a cooked AF_PACKET socket: arriving ICMP and ICMPv6 error messages, whole."""
    program = _Assembler()
    program.only(Direction.IN)
    program.load(0, 1)
    program.emit(_RSH, 4)
    program.branch(_JEQ, 6, "v6")
    program.load(9, 1)
    program.unless(_JEQ, _ICMP, "drop")
    program.emit(_LDX_MSH, 0)
    program.load_indirect(0, 1)
    for number in _ICMP_ERRORS:
        program.branch(_JEQ, number, "keep")
    program.jump("drop")
    program.label("v6")
    program.load(6, 1)
    program.unless(_JEQ, _ICMPV6, "drop")
    program.load(40, 1)
    for number in _ICMPV6_ERRORS:
        program.branch(_JEQ, number, "keep")
    program.jump("drop")
    return program.finish()


def _by_protocol(sights: Iterable[Sight]) -> dict[int, list[Sight]]:
    groups: dict[int, list[Sight]] = {}
    for sight in sorted(sights, key=_reach):
        groups.setdefault(sight.protocol, []).append(sight)
    return groups


def _reach(sight: Sight) -> tuple[bool, int]:
    furthest = max([sight.tag + 4, *(match.offset + match.width for match in sight.matches)])
    return sight.base is Base.PAYLOAD, furthest


class _Assembler:
    """Instructions with named jump targets, which `finish` resolves."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str | int, str | int, int]] = []
        self._labels: dict[str, int] = {}

    def emit(self, code: int, k: int) -> None:
        self._code.append((code, 0, 0, k & _WORD_MASK))

    def load(self, offset: int, width: int) -> None:
        self.emit(_LD_ABS[width], offset)

    def load_indirect(self, offset: int, width: int) -> None:
        self.emit(_LD_IND[width], offset)

    def branch(self, code: int, k: int, target: str) -> None:
        """Jump if the condition holds; by way of an unconditional jump, which alone reaches everywhere."""
        self._code.append((code, 0, 1, k & _WORD_MASK))
        self.jump(target)

    def unless(self, code: int, k: int, target: str) -> None:
        self._code.append((code, 1, 0, k & _WORD_MASK))
        self.jump(target)

    def jump(self, target: str) -> None:
        self._code.append((0x05, target, 0, 0))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def only(self, direction: Direction) -> None:
        self.load(_AD_PKTTYPE, 4)
        if direction is Direction.OUT:
            self.unless(_JEQ, _PACKET_OUTGOING, "drop")
        else:
            # Unicast packets may come in frames to a group: a cluster's address is one.
            self.branch(_JGE, _PACKET_OTHERHOST, "drop")
        if direction is Direction.OUT:
            # What a host sends to itself has not left it: a rule of its own may have redirected it.
            self.load(_AD_HATYPE, 4)
            self.branch(_JEQ, _ARPHRD_LOOPBACK, "drop")

    def sights(
        self, sights: Sequence[Sight], set_x: tuple[int, int], nonce: int, flows: int, prefix: str
    ) -> None:
        for number, sight in enumerate(sights):
            following = f"{prefix}/{number + 1}"
            self.emit(*set_x)
            if sight.base is Base.PAYLOAD:
                # TCP's data offset counts 32-bit words in the high nibble of byte 12 (RFC 9293 §3.1).
                self.load_indirect(12, 1)
                self.emit(_AND, 0xF0)
                self.emit(_RSH, 2)
                self.emit(_ADD_X, 0)
                self.emit(_TAX, 0)
            for match in sight.matches:
                self._match(match, following)
            self.load_indirect(sight.tag, 4)
            self.emit(_SUB, sight.minus)
            self.emit(_XOR, nonce)
            self.emit(_RSH, ATTEMPT_BITS)
            self.branch(_JGE, flows, following)
            self.jump("keep")
            self.label(following)
        self.jump("drop")

    def _match(self, match: Match, otherwise: str) -> None:
        self.load_indirect(match.offset, match.width)
        if match.mask != (1 << 8 * match.width) - 1:
            self.emit(_AND, match.mask)
        self.unless(_JEQ, match.value, otherwise)

    def finish(self) -> list[Instruction]:
        self.label("drop")
        self.emit(_RET, 0)
        self.label("keep")
        self.emit(_RET, SNAP_BYTES)
        program: list[Instruction] = []
        for position, (code, true, false, k) in enumerate(self._code):
            if isinstance(true, str):
                program.append((code, 0, 0, self._labels[true] - position - 1))
            else:
                program.append((code, int(true), int(false), k))
        return program
