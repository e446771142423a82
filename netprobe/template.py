"""
Packet templates: bytes crafted once, and what an agent must patch in them for every packet it sends.

100 hosts probing each other are tens of thousands of flows. The coordinator therefore crafts one packet per
probe and family, and says where the tag, the source port and the checksums are; agents fill those in, and the
addresses of the outer IP header, without knowing what the packet is.
"""

from __future__ import annotations

import secrets
from ipaddress import ip_address
from typing import Final

import msgspec

from netprobe.model import Symbol

ATTEMPT_BITS: Final = 6
"""Low bits of a tag that number the attempts of one flow; the bits above carry the flow number."""

MAX_FLOWS: Final = 1 << (32 - ATTEMPT_BITS)

_SOURCE_AT: Final = {4: 12, 6: 8}  # RFC 791 §3.1, RFC 8200 §3


class Key(msgspec.Struct, frozen=True):
    """
    What tells this run's packets from all others: a 32-bit nonce, and an 8-byte mark.

    The nonce is mixed into every tag. The mark stands in the packet beside the tag, whole in tunnel packets
    and its first two bytes as the window of a TCP SYN, because 32 bits alone would let a busy host's own
    traffic pass for ours now and then.
    """

    nonce: int
    mark: bytes

    @classmethod
    def fresh(cls) -> Key:
        """A new random key; the window that it implies is never zero, which would be a closed one."""
        return cls(
            nonce=secrets.randbits(32), mark=bytes([secrets.randbits(7) | 0x40]) + secrets.token_bytes(7)
        )

    @property
    def window(self) -> int:
        """The TCP window, in bytes, of this run's SYNs."""
        return int.from_bytes(self.mark[:2], "big")

    @property
    def mss(self) -> int:
        """
        The maximum segment size, in bytes, that this run's own listeners announce.

        Less than any that a network would set, more than their payloads need.
        """
        return 1024 + self.mark[2] % 128

    def tag(self, flow: int, attempt: int) -> int:
        """The 32-bit tag of one packet (design trap 6)."""
        return self.nonce ^ (flow << ATTEMPT_BITS | attempt)


class Checksum(msgspec.Struct, frozen=True, array_like=True):
    """
    A 16-bit Internet checksum (RFC 1071) at offset `at`, over the bytes from `start` to `end`.

    With `pseudo` the pseudo header of the outer addresses is added (RFC 9293, RFC 768, RFC 8200 §8.1).
    """

    at: int
    start: int
    end: int
    pseudo: bool


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """
    One packet from its outer IP header on, or one payload, and the byte offsets of what differs per packet.

    `tags` are where the 32-bit tag, plus `plus`, goes, `idents` where its low 16 bits go (the IPv4
    identification, so that a router that quotes only 8 bytes of payload still names the flow), `source_port`
    where the source port goes unless it is fixed. With `keeps_source` the packet's source address stays as
    it is, whoever sends it. A payload (`network=False`) has no addresses and no checksums. `pad` zero bytes
    follow the data.
    """

    data: bytes
    pad: int = 0
    network: bool = True
    tags: tuple[int, ...] = ()
    plus: int = 0
    idents: tuple[int, ...] = ()
    source_port: int | None = None
    checksums: tuple[Checksum, ...] = ()
    keeps_source: bool = False

    def bearing(self, source: str) -> Template:
        """The same packet with a source address that is not its sender's."""
        address = ip_address(source)
        at = _SOURCE_AT[address.version]
        data = self.data[:at] + address.packed + self.data[at + len(address.packed) :]
        return msgspec.structs.replace(self, data=data, keeps_source=True)


class Shape(msgspec.Struct, frozen=True):
    """
    In what a packet differs from its probe's usual one, where anything but 0 is given.

    `hops` is its TTL or hop limit. `size` is its length in bytes with the IP header, which padding makes up;
    it is then sent whole or not at all (over IPv4: DF is set) unless it `may_be_cut`.
    """

    hops: int = 0
    size: int = 0
    may_be_cut: bool = False


AS_USUAL: Final = Shape()

_IPV4_HEADER, _IPV6_HEADER = 20, 40
_DONT_FRAGMENT: Final = 0x40
_UDP: Final = 17


def shaped(template: Template, shape: Shape) -> Template:
    """
    A packet of another shape; `ValueError` where it would have to be shorter than it is.

    Lengths and TTL stand where RFC 791 §3.1, RFC 8200 §3 and RFC 768 have them.
    """
    data = bytearray(template.data)
    is_v4 = data[0] >> 4 == 4
    if shape.hops:
        data[8 if is_v4 else 7] = shape.hops
    pad = shape.size - len(data) if shape.size else 0
    if pad < 0:
        message = f"a packet of {len(data)} bytes cannot have {shape.size}"
        raise ValueError(message)
    if shape.size:
        header, protocol = (_IPV4_HEADER, data[9]) if is_v4 else (_IPV6_HEADER, data[6])
        length = shape.size if is_v4 else shape.size - header
        data[2 if is_v4 else 4 : 4 if is_v4 else 6] = length.to_bytes(2, "big")
        if protocol == _UDP:
            data[header + 4 : header + 6] = (shape.size - header).to_bytes(2, "big")
        if is_v4 and not shape.may_be_cut:
            data[6] |= _DONT_FRAGMENT
    checksums = tuple(
        msgspec.structs.replace(each, end=each.end + pad) if each.end == len(data) else each
        for each in template.checksums
    )
    return msgspec.structs.replace(template, data=bytes(data), pad=pad, checksums=checksums)


class Base(Symbol):
    """Where the offsets of a sight count from."""

    TRANSPORT = "transport"
    PAYLOAD = "payload"


class Kind(Symbol):
    """What a sighted packet is within its flow."""

    PROBE = "probe"
    ACCEPT = "accept"
    OURS = "ours"  # an ACCEPT by our own listener
    RST = "rst"
    RESET = "reset"
    WITHDRAWAL = "withdrawal"
    REQUEST = "request"
    ANSWER = "answer"


class Match(msgspec.Struct, frozen=True, array_like=True):
    """A condition on `width` bytes (1, 2 or 4) at `offset`: masked, they equal `value`."""

    offset: int
    width: int
    mask: int
    value: int


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a packet of this run is recognised, and where its tag is read.

    `tag` is an offset from `base`; the number found there minus `minus` is the tag (a TCP acknowledgement is
    the sequence number plus one). One that `answers` carries no mark of the run, only the tag of the packet
    that it is about: it counts where that packet was sent, and nowhere else.
    """

    kind: Kind
    protocol: int
    base: Base = Base.TRANSPORT
    matches: tuple[Match, ...] = ()
    tag: int
    minus: int = 0
    answers: bool = False


def mark_matches(offset: int, key: Key) -> tuple[Match, Match]:
    """The two conditions that say the run's mark stands at an offset."""
    return (
        Match(offset, 4, 0xFFFFFFFF, int.from_bytes(key.mark[:4], "big")),
        Match(offset + 4, 4, 0xFFFFFFFF, int.from_bytes(key.mark[4:], "big")),
    )
