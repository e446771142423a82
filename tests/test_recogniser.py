"""Which packet of a run an ICMP error is about: with little of it quoted, translated, or somebody else's."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet, Raw

from netprobe import plan
from netprobe.attempts import FIRST, OUTPUT_WATCHED
from netprobe.icmp import Quote, parse
from netprobe.model import Family, Flow, Host, Inventory, Protocol, Role, Word
from netprobe.probes import registry
from netprobe.recogniser import Recogniser
from netprobe.template import ATTEMPT_BITS, Key, Kind
from tests.crafted import HEADER_BYTES, KEY, on_an_agent, packed, sights

HOSTS: Final = tuple(
    Host(name=name, addresses=(f"10.0.0.{place}", f"fd00::{place}"), roles=tuple(Role))
    for place, name in enumerate("abc", 1)
)
FLOWS: Final = plan.flows(Inventory(hosts=HOSTS, pod_cidr=("10.244.0.0/16", "fd00:10:244::/56")))
RECOGNISER: Final = Recogniser(KEY, sights(), FLOWS)
ATTEMPTS: Final = (FIRST.first, 17, OUTPUT_WATCHED.first, 63)
WHOLE: Final = 1280
PORT: Final = 61234


def packet(flow: Flow, attempt: int, key: Key = KEY, *, kind: Kind = Kind.PROBE) -> bytes:
    """A probe, or what takes it back, as the source sends it."""
    probe = registry()[flow.probe]
    craft = probe.packet if kind is Kind.PROBE else probe.withdrawal
    assert craft is not None
    crafted = craft(flow.family, flow.port, key)
    template = on_an_agent(crafted.bearing(flow.pod_address) if flow.forwarded else crafted)
    addresses = packed(flow.family, flow.src_address, flow.dst_address)
    return bytes(template.packet(addresses, key.tag(flow.number, attempt), PORT))


def answer(flow: Flow, attempt: int, flags: str) -> bytes:
    """What the destination's kernel sends back."""
    acknowledged = KEY.tag(flow.number, attempt) + 1 & 0xFFFFFFFF
    segment = TCP(sport=flow.port, dport=PORT, seq=77, ack=acknowledged, flags=flags)
    return bytes(ip(flow.family, flow.dst_address, flow.src_address) / segment)


def ip(family: Family, source: str, destination: str, identification: int = 1) -> Packet:
    """An IP header."""
    if family is Family.IPV4:
        return IP(src=source, dst=destination, id=identification)
    return IPv6(src=source, dst=destination)


def error(quoted: bytes, size: int = WHOLE, by: str = "") -> Quote:
    """A router's refusal of a packet, quoting so many bytes behind its IP header."""
    family = Family.IPV4 if quoted[0] >> 4 == 4 else Family.IPV6
    data = Raw(quoted[: HEADER_BYTES[family] + size])
    if family is Family.IPV4:
        message = IP(src=by or "192.0.2.1", dst="10.0.0.1") / ICMP(type=3, code=13) / data
    else:
        message = IPv6(src=by or "2001:db8::1", dst="fd00::1", nh=58) / ICMPv6DestUnreach(code=1) / data
    quote = parse(bytes(message))

    assert quote is not None
    return quote


def one(probe: str, family: Family = Family.IPV4) -> Flow:
    """The flow of a probe from a to b."""
    return next(
        flow for flow in FLOWS if (flow.probe, flow.family, flow.src, flow.dst) == (probe, family, "a", "b")
    )


@pytest.mark.parametrize("size", [8, 28, 128, WHOLE])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_quoted_probe_is_that_attempt_of_that_flow(size: int, attempt: int) -> None:
    """
    Of every flow of three hosts, by 8 quoted bytes over IPv4; over IPv6, where a quote has all that fits
    (RFC 4443 §2.4), of TCP.
    """
    for flow in FLOWS:
        if size == 8 and flow.family is Family.IPV6 and flow.protocol is not Protocol.TCP:
            continue
        if size == 28 and flow.family is Family.IPV6 and flow.probe in ("vxlan", "flannel"):
            # Their tag stands behind the inner headers.
            continue

        assert (flow, 1 << attempt) == RECOGNISER.find(error(packet(flow, attempt), size))


def test_an_ipv6_datagram_of_which_too_little_is_quoted_is_nobodys() -> None:
    """
    There is no identification in its header to fall back on.
    """
    assert RECOGNISER.find(error(packet(one("wireguard-v6", Family.IPV6), 3), 8)) is None


def test_quoted_packets_are_recognised_with_any_number_of_bytes_from_eight_on() -> None:
    """
    Where a quote ends in the middle of the mark or the tag, the header's identification decides.
    """
    for name in ("bgp", "ipip", "vxlan", "wireguard"):
        flow = one(name)
        whole = packet(flow, 5)
        for size in range(8, len(whole)):
            assert (flow, 1 << 5) == RECOGNISER.find(error(whole, size))


@pytest.mark.parametrize("flags", ["SA", "RA"])
@pytest.mark.parametrize("family", Family)
def test_a_quoted_answer_is_that_of_its_attempt(flags: str, family: Family) -> None:
    """
    A firewall on the way back that refuses a SYN-ACK, or the refusal of a port where nothing listens.
    """
    flow = one("bgp", family)

    assert (flow, 1 << 9) == RECOGNISER.find(error(answer(flow, 9, flags)))
    assert (flow, 1 << 9) == RECOGNISER.find(error(answer(flow, 9, flags), 20))


@pytest.mark.parametrize("size", [20, 28, WHOLE])
@pytest.mark.parametrize("family", Family)
def test_a_refusal_of_what_ends_a_connection_is_none_of_the_probe(size: int, family: Family) -> None:
    """
    A firewall may accept a SYN and refuse the RST that takes it back; that says nothing about the SYN.
    """
    flow = one("bgp", family)
    ends = KEY.tag(flow.number, 9) + 1 & 0xFFFFFFFF
    identification = KEY.tag(flow.number, 9) & 0xFFFF
    header = ip(family, flow.src_address, flow.dst_address, identification)
    reset = header / TCP(sport=PORT, dport=179, seq=ends, flags="R")

    assert RECOGNISER.find(error(packet(flow, 9, kind=Kind.WITHDRAWAL), size)) is None
    assert RECOGNISER.find(error(bytes(reset), size)) is None


@pytest.mark.parametrize("name", ["bgp", "ipip", "vxlan", "wireguard"])
def test_a_translated_probe_is_recognised_by_its_tag(name: str) -> None:
    """
    One address may be another, as behind masquerade or a load balancer; with neither right it is not ours.
    """
    flow = one(name)
    quote = error(packet(flow, 5))
    masqueraded = msgspec.structs.replace(quote, source="192.0.2.77")
    balanced = msgspec.structs.replace(quote, destination="192.0.2.78")

    assert (flow, 1 << 5) == RECOGNISER.find(masqueraded)
    assert (flow, 1 << 5) == RECOGNISER.find(balanced)
    assert RECOGNISER.find(msgspec.structs.replace(masqueraded, destination="192.0.2.78")) is None


@pytest.mark.parametrize("name", ["ipip", "vxlan", "wireguard"])
def test_by_its_identification_a_packet_is_ours_only_with_all_else_right(name: str) -> None:
    """
    Sixteen bits are few: both addresses, the protocol and the port must be the flow's.
    """
    flow = one(name)
    quote = error(packet(flow, 5), 8)
    other = one("bgp")

    assert (flow, 1 << 5) == RECOGNISER.find(quote)
    for changed in (
        msgspec.structs.replace(quote, source="192.0.2.77"),
        msgspec.structs.replace(quote, destination="192.0.2.78"),
        msgspec.structs.replace(quote, source=flow.dst_address, destination=flow.src_address),
        msgspec.structs.replace(quote, protocol=Protocol.TCP if name == "ipip" else Protocol.IPIP),
        msgspec.structs.replace(quote, identification=KEY.tag(other.number, 5) & 0xFFFF),
        msgspec.structs.replace(quote, identification=None),
    ):
        assert RECOGNISER.find(changed) is None
    if flow.port is not None:
        elsewhere = quote.transport[:2] + b"\x00\x09" + quote.transport[4:]

        assert RECOGNISER.find(msgspec.structs.replace(quote, transport=elsewhere)) is None


@pytest.mark.parametrize(
    "flow", [one(name) for name in registry() if name != "wireguard-v6"], ids=lambda f: f.probe
)
@pytest.mark.parametrize(
    "key",
    [
        msgspec.structs.replace(KEY, nonce=KEY.nonce ^ 0x80008000),
        msgspec.structs.replace(KEY, mark=bytes.fromhex("7b1dfacec0ffee43")),
    ],
    ids=["another nonce", "another mark"],
)
def test_packets_of_another_run_between_the_same_hosts_are_not_ours(flow: Flow, key: Key) -> None:
    """
    Two runs at once do not hear each other's refusals.
    """
    assert RECOGNISER.find(error(packet(flow, 5, key))) is None


def test_a_flow_that_the_run_does_not_have_is_not_ours() -> None:
    """
    A tag with a number beyond the last flow is somebody else's number by chance.
    """
    flow = msgspec.structs.replace(one("bgp"), number=len(FLOWS))

    assert RECOGNISER.find(error(packet(flow, 5))) is None


@pytest.mark.parametrize(
    "segment",
    [
        TCP(sport=40000, dport=179, flags="S", seq=KEY.tag(1 << 20, 0), window=64240),
        TCP(sport=40000, dport=179, flags="PA", seq=KEY.tag(0, 0), ack=1, window=KEY.window),
        UDP(sport=51820, dport=51820) / Raw(b"\x04\0\0\0" + bytes(44)),
        UDP(sport=40000, dport=4789) / Raw(b"\x08" + bytes(90)),
        UDP(sport=40000, dport=53) / Raw(bytes(90)),
        UDP(sport=51820, dport=51820) / Raw(b"\x04\0\0\0" + bytes(28)),
        IP(src="192.0.2.4", dst="198.51.100.4") / UDP(sport=9, dport=9) / Raw(bytes(20)),
    ],
    ids=["a SYN", "a segment", "WireGuard data", "VXLAN", "DNS", "a keepalive", "a tunnel's packet"],
)
def test_the_hosts_own_traffic_is_not_ours(segment: Packet) -> None:
    """
    Between the same addresses and to the same ports, and though its identification is that of an attempt: it
    is quoted far enough to see that it has no tag, or not all that stands beside one.
    """
    own = bytes(segment)
    for flow in FLOWS:
        if (flow.src, flow.dst, flow.family) == ("a", "b", Family.IPV4):
            header = IP(src=flow.src_address, dst=flow.dst_address, proto=flow.protocol)
            header.id = KEY.tag(flow.number, 0) & 0xFFFF

            assert RECOGNISER.find(error(bytes(header / Raw(own)))) is None


@given(
    st.builds(
        Quote,
        by=st.just("192.0.2.1"),
        word=st.sampled_from(Word),
        reason=st.just(""),
        source=st.sampled_from(("10.0.0.1", "10.0.0.2", "fd00::1", "192.0.2.9")),
        destination=st.sampled_from(("10.0.0.2", "10.0.0.3", "fd00::2", "192.0.2.8")),
        protocol=st.sampled_from((*Protocol, 1, 58)),
        identification=st.none() | st.integers(0, 0xFFFF),
        size=st.integers(-40, 0xFFFF),
        transport=st.binary(max_size=100),
    )
)
def test_any_quote_is_of_a_flow_between_its_addresses_or_of_none(quote: Quote) -> None:
    """
    Never an error, and never a flow of hosts that the quoted packet was not between.
    """
    found = RECOGNISER.find(quote)

    if found is not None:
        flow, mask = found
        assert {quote.source, quote.destination} & {flow.src_address, flow.dst_address}
        assert mask.bit_length() <= 1 << ATTEMPT_BITS
        assert 1 == mask.bit_count()
