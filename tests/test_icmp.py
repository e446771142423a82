"""ICMP and ICMPv6 errors: who says what about which packet, however little of it is quoted."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from netprobe.icmp import Quote, as_quoted, parse, parse_too_big
from netprobe.model import Word

ROUTER, ROUTER_6 = "192.0.2.1", "2001:db8::1"
A, B, A_6, B_6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"
OUTER_BYTES, OUTER_6_BYTES = 20 + 8, 40 + 8

# By hand, after RFC 792, RFC 1812 §5.2.7.1 and RFC 4443 §3: a router that has no way, or somebody who does
# not want it. What is not here is no refusal: a packet that is too big, a fragment that was not put together.
UNREACHABLE: Final = [(3, code) for code in (0, 1, 5, 6, 7, 8, 11, 12)] + [(11, 0)]
PROHIBITED: Final = [(3, code) for code in (2, 3, 9, 10, 13, 14, 15)]
UNREACHABLE_6: Final = [(1, 0), (1, 2), (1, 3), (3, 0)]
PROHIBITED_6: Final = [(1, 1), (1, 4), (1, 5), (1, 6), (4, 1)]
SAYS: Final = dict.fromkeys(UNREACHABLE, Word.UNREACHABLE) | dict.fromkeys(PROHIBITED, Word.PROHIBITED)
SAYS_6: Final = dict.fromkeys(UNREACHABLE_6, Word.UNREACHABLE) | dict.fromkeys(PROHIBITED_6, Word.PROHIBITED)

QUOTED: Final = IP(src=A, dst=B, id=0xBEEF) / UDP(sport=1234, dport=4789) / Raw(bytes(range(200)))
QUOTED_6: Final = IPv6(src=A_6, dst=B_6) / UDP(sport=1234, dport=4789) / Raw(bytes(range(200)))


def error(
    kind: int, code: int, quoted: bytes | Packet, *, proto: int = 1, options: tuple[Packet, ...] = ()
) -> bytes:
    """An ICMP error of a router, with its checksums and lengths, about a packet or the beginning of one."""
    outer = IP(src=ROUTER, dst=A, proto=proto, options=list(options))
    return bytes(outer / ICMP(type=kind, code=code) / Raw(bytes(quoted)))


def error_6(kind: int, code: int, quoted: bytes | Packet) -> bytes:
    """The same in ICMPv6."""
    message = ICMPv6DestUnreach(type=kind, code=code) / Raw(bytes(quoted))
    return bytes(IPv6(src=ROUTER_6, dst=A_6, nh=58) / message)


def parsed(packet: bytes) -> Quote:
    """The error in a packet that is one."""
    quote = parse(packet)

    assert quote is not None
    return quote


@pytest.mark.parametrize(("kind", "code"), SAYS)
def test_an_icmp_error_says_who_what_and_about_which_packet(kind: int, code: int) -> None:
    """
    All that the tables know, as scapy writes them.
    """
    quote = parsed(error(kind, code, QUOTED))

    assert SAYS[kind, code] is quote.word
    assert quote.reason.startswith(f"ICMP {kind}/{code} ")
    assert (ROUTER, A, B, 17, 0xBEEF) == (
        quote.by,
        quote.source,
        quote.destination,
        quote.protocol,
        quote.identification,
    )
    assert bytes(QUOTED)[20:] == quote.transport
    assert 4789 == quote.destination_port()


@pytest.mark.parametrize(("kind", "code"), SAYS_6)
def test_an_icmpv6_error_says_who_what_and_about_which_packet(kind: int, code: int) -> None:
    """
    The same, without an identification, which IPv6 has not.
    """
    quote = parsed(error_6(kind, code, QUOTED_6))

    assert SAYS_6[kind, code] is quote.word
    assert quote.reason.startswith(f"ICMPv6 {kind}/{code} ")
    assert (ROUTER_6, A_6, B_6, 17, None) == (
        quote.by,
        quote.source,
        quote.destination,
        quote.protocol,
        quote.identification,
    )
    assert bytes(QUOTED_6)[40:] == quote.transport
    assert 4789 == quote.destination_port()


def test_messages_that_refuse_nothing_are_no_errors() -> None:
    """
    Of all types and codes only those of the tables above are refusals.
    """
    plain, six = bytearray(error(3, 0, QUOTED)), bytearray(error_6(1, 0, QUOTED_6))
    found, found_6 = set(), set()
    for kind in range(256):
        for code in range(256):
            plain[20:22] = six[40:42] = kind, code
            if parse(bytes(plain)) is not None:
                found.add((kind, code))
            if parse(bytes(six)) is not None:
                found_6.add((kind, code))

    assert set(SAYS) == found
    assert set(SAYS_6) == found_6


@pytest.mark.parametrize("size", [8, 28, 128, 208])
def test_a_quote_may_end_after_any_number_of_bytes(size: int) -> None:
    """
    RFC 792 asks for 8 bytes behind the header, RFC 1812 for up to 576 in all, RFC 4884 pads to 128.
    """
    quote = parsed(error(3, 13, bytes(QUOTED)[: 20 + size]))
    quote_6 = parsed(error_6(1, 1, bytes(QUOTED_6)[: 40 + size]))

    assert bytes(QUOTED)[20 : 20 + size] == quote.transport
    assert bytes(QUOTED_6)[40 : 40 + size] == quote_6.transport
    assert 208 == quote.size == quote_6.size


def test_options_of_either_ip_header_are_skipped() -> None:
    """
    A router that records its route in the answer, and one that quotes a packet with options.
    """
    options = (IPOption_RR(routers=[ROUTER, "0.0.0.0"]),)
    segment = TCP(sport=1, dport=179, seq=0x01020304)
    quoted = bytes(IP(src=A, dst=B, options=list(options)) / segment)
    quote = parsed(error(3, 1, quoted, options=options))

    assert (ROUTER, A, B, 6) == (quote.by, quote.source, quote.destination, quote.protocol)
    assert quoted[-20:] == quote.transport
    assert 20 == quote.size
    assert 179 == quote.destination_port()


def test_a_quoted_fragment_other_than_the_first_has_no_transport_header() -> None:
    """
    What would be read as one is data.
    """
    data = Raw(bytes(100))

    assert parse(error(3, 13, IP(src=A, dst=B, proto=17, frag=1) / data)) is None
    assert parse(error(3, 13, IP(src=A, dst=B, proto=17, frag=0x1FFF, flags="MF") / data)) is None
    assert parse(error(3, 13, IP(src=A, dst=B, proto=17, flags="MF") / data)) is not None


@pytest.mark.parametrize(
    "packet",
    [
        bytes(QUOTED),
        bytes(QUOTED_6),
        bytes(IP(src=ROUTER, dst=A) / ICMP(type=8) / Raw(bytes(QUOTED))),
        # An error about a packet of the other family, which no router sends.
        error(3, 13, QUOTED_6),
        error_6(1, 1, QUOTED),
        # The right bytes under another protocol number.
        error(3, 13, QUOTED, proto=17),
        b"",
    ],
)
def test_what_is_no_error_about_a_packet_is_nothing(packet: bytes) -> None:
    """
    Nobody's word is made out of other traffic.
    """
    assert parse(packet) is None


@pytest.mark.parametrize(
    ("packet", "least", "transport"),
    [
        (error(3, 13, QUOTED), OUTER_BYTES + 20, OUTER_BYTES + 20),
        (error_6(1, 1, QUOTED_6), OUTER_6_BYTES + 40, OUTER_6_BYTES + 40),
    ],
)
def test_a_packet_that_is_cut_off_says_as_much_as_it_has(packet: bytes, least: int, transport: int) -> None:
    """
    Nothing before the quoted header is whole, then what is there of the quoted bytes.
    """
    for size in range(len(packet)):
        quote = parse(packet[:size])
        if size < least:
            assert quote is None
        else:
            assert quote is not None
            assert packet[transport:size] == quote.transport
            assert (4789 if size >= transport + 4 else None) == quote.destination_port()


@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda rest: b"\x45" + rest))
def test_garbage_is_never_more_than_nothing(packet: bytes) -> None:
    """
    Whatever somebody sends, a run does not end by it.
    """
    quote = parse(packet)
    if quote is not None:
        quote.destination_port()


@given(
    st.sampled_from((error(3, 13, QUOTED), error_6(1, 1, QUOTED_6))),
    st.dictionaries(st.integers(0, 100), st.integers(0, 255), max_size=6),
    st.integers(0, 300),
)
def test_an_error_with_wrong_bytes_is_never_more_than_another(
    packet: bytes, wrong: dict[int, int], size: int
) -> None:
    """
    Impossible header lengths, families and fragments included.
    """
    changed = bytearray(packet)
    for at, value in wrong.items():
        changed[at] = value
    quote = parse(bytes(changed[:size]))
    if quote is not None:
        assert quote.transport in bytes(changed)


def too_big(mtu: int, quoted: bytes | Packet = QUOTED) -> bytes:
    """A router's word that a packet needs to be cut (RFC 1191 §4)."""
    return bytes(IP(src=ROUTER, dst=A) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(quoted)))


def too_big_6(mtu: int, quoted: bytes | Packet = QUOTED_6) -> bytes:
    """The same in ICMPv6 (RFC 4443 §3.2)."""
    return bytes(IPv6(src=ROUTER_6, dst=A_6, nh=58) / ICMPv6PacketTooBig(mtu=mtu) / Raw(bytes(quoted)))


@pytest.mark.parametrize(
    ("packet", "mtu", "by"),
    [(too_big(1400), 1400, ROUTER), (too_big(0), 0, ROUTER), (too_big_6(0x12345), 0x12345, ROUTER_6)],
)
def test_who_says_that_a_packet_was_too_big_says_what_fits(packet: bytes, mtu: int, by: str) -> None:
    """
    A router of before RFC 1191 says 0. It is no refusal: a smaller packet gets through.
    """
    said = parse_too_big(packet)

    assert said is not None
    assert (by, mtu) == (said[0].by, said[1])
    assert 17 == said[0].protocol
    assert 4789 == said[0].destination_port()
    assert parse(packet) is None


def test_nothing_else_says_that_a_packet_was_too_big() -> None:
    """
    Of all types and codes only one each.
    """
    plain, six = bytearray(too_big(1400)), bytearray(too_big_6(1400))
    found, found_6 = set(), set()
    for kind in range(256):
        for code in range(256):
            plain[20:22] = six[40:42] = kind, code
            if parse_too_big(bytes(plain)) is not None:
                found.add((kind, code))
            if parse_too_big(bytes(six)) is not None:
                found_6.add((kind, code))

    assert {(3, 4)} == found
    assert {(2, 0)} == found_6


@given(st.binary(max_size=120))
def test_whatever_comes_is_read_or_is_nothing(data: bytes) -> None:
    """
    Bytes from the network never raise.
    """
    parse_too_big(data)
    as_quoted(data)


@pytest.mark.parametrize(("packet", "header"), [(QUOTED, 20), (QUOTED_6, 40)])
def test_a_packet_itself_reads_like_its_quote(packet: Packet, header: int) -> None:
    """
    With its addresses, its length and all of its bytes.
    """
    quote = as_quoted(bytes(packet))

    assert quote is not None
    assert (packet.src, packet.dst, 17, 208) == (quote.source, quote.destination, quote.protocol, quote.size)
    assert bytes(packet)[header:] == quote.transport
