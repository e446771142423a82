"""Packets as agents patch them: what scapy would have built, and whose checksums everybody accepts."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from netprobe import wire
from netprobe.agent import templates
from netprobe.agent.fire import Volley
from netprobe.attempts import SOURCE_PORTS
from netprobe.model import Family, Protocol
from netprobe.probes import Probe, _outer, announced_mss
from netprobe.template import AS_USUAL, ATTEMPT_BITS, MAX_FLOWS, Key, Kind, Shape, Template, shaped
from tests.crafted import ADDRESSES, HEADER_BYTES, KEY, SOURCE_PORT, crafts, on_an_agent, packed, sights

WORD: Final = 0xFFFFFFFF
TAGS: Final = st.integers(0, WORD)
PORTS: Final = st.integers(1, 0xFFFF)
ANY_ADDRESSES: Final = st.binary(min_size=32, max_size=32)
"""Two of IPv6; the first eight bytes serve as two of IPv4."""
TRANSPORT: Final = {Protocol.TCP: TCP, Protocol.UDP: UDP}
CHECKSUM_AT: Final = {Protocol.TCP: 16, Protocol.UDP: 6}

# What a run fires: every probe, what takes a SYN back, and WireGuard's probe from another port.
FIRED: Final[dict[str, tuple[Probe, Family, Template]]] = {}
for _probe, _family, _port in crafts():
    _name = f"{_probe.name}-{_port or 4}-{_family.value}"
    FIRED[_name] = _probe, _family, _probe.packet(_family, _port, KEY)
    if _probe.withdrawal is not None:
        FIRED[f"{_name}-withdrawal"] = _probe, _family, _probe.withdrawal(_family, _port, KEY)
    if _probe.fixed_source_port:
        _fresh = msgspec.structs.replace(FIRED[_name][2], source_port=HEADER_BYTES[_family])
        FIRED[f"{_name}-fresh-port"] = _probe, _family, _fresh
PODS: Final = {Family.IPV4: "10.244.255.254", Family.IPV6: "fd00:10:244:ff:ffff:ffff:ffff:fffe"}
FROM_PODS: Final = {name: each for name, each in FIRED.items() if each[0].forwarded}
fired = pytest.mark.parametrize(("probe", "family", "template"), FIRED.values(), ids=FIRED)


def ones_complement_sum(data: bytes) -> int:
    """The sum of RFC 1071: 0xFFFF over everything that a right checksum is part of."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(family: Family, data: bytes, protocol: Protocol) -> bytes:
    """The pseudo header of RFC 9293 §3.1, RFC 768 and RFC 8200 §8.1."""
    addresses = data[12:20] if family is Family.IPV4 else data[8:40]
    length = len(data) - HEADER_BYTES[family]
    return addresses + length.to_bytes(4, "big") + int(protocol).to_bytes(4, "big")


def parsed(family: Family, data: bytes) -> Packet:
    """The packet as scapy reads it."""
    return IP(data) if family is Family.IPV4 else IPv6(data)


def rebuilt(probe: Probe, family: Family, data: bytes, zero_checksum: bool) -> bytes:
    """The packet as scapy writes what it has read, with lengths and checksums of its own."""
    packet = parsed(family, data)
    for name in ("len", "plen", "chksum"):
        packet.fields.pop(name, None)
    if probe.protocol in TRANSPORT:
        segment = packet.payload
        segment.fields.pop("len", None)
        if not zero_checksum:
            segment.fields.pop("chksum", None)
    packet.clear_cache()
    return bytes(packet)


def is_vxlan_over_ipv4(probe: Probe, family: Family) -> bool:
    """The one kind of packet whose transport checksum is off, as kernels send it."""
    return probe.name in ("vxlan", "flannel") and family is Family.IPV4


def has_checksum(probe: Probe, family: Family) -> bool:
    """Whether there is a transport checksum."""
    return probe.protocol in TRANSPORT and not is_vxlan_over_ipv4(probe, family)


@fired
@settings(max_examples=12)
@given(addresses=ANY_ADDRESSES, tag=TAGS, port=PORTS)
def test_a_patched_packet_is_the_one_that_scapy_builds_with_these_values(
    probe: Probe, family: Family, template: Template, addresses: bytes, tag: int, port: int
) -> None:
    """
    For any addresses, tag and port: read back, it has them, and its lengths and checksums are those that
    scapy computes.
    """
    both = addresses[: len(packed(family))]
    patched = bytes(on_an_agent(template).packet(both, tag, port))
    packet = parsed(family, patched)
    transport = packet.payload

    assert both == (patched[12:20] if family is Family.IPV4 else patched[8:40])
    assert len(template.data) == len(patched)
    if family is Family.IPV4:
        assert (tag & 0xFFFF, 64, 0, 0) == (packet.id, packet.ttl, int(packet.flags), packet.frag)
        assert 0xFFFF == ones_complement_sum(patched[:20])
    else:
        assert 64 == packet.hlim
    if template.source_port is not None:
        assert port == transport.sport
    elif probe.protocol is Protocol.UDP:
        assert transport.dport == transport.sport
    if probe.protocol is Protocol.TCP:
        assert (tag + template.plus) & WORD == transport.seq
    # Zero and 0xFFFF are the same number, and scapy writes the other one here and there.
    again = rebuilt(probe, family, patched, is_vxlan_over_ipv4(probe, family))
    differing = {at & ~1 for at in range(len(patched)) if patched[at] != again[at]}
    checksums = {10, HEADER_BYTES[family] + CHECKSUM_AT.get(probe.protocol, 0)}
    assert len(patched) == len(again)
    assert differing <= checksums
    for at in differing:
        assert {b"\0\0", b"\xff\xff"} == {patched[at : at + 2], again[at : at + 2]}


@fired
@settings(max_examples=12)
@given(addresses=ANY_ADDRESSES, tag=TAGS, port=PORTS)
def test_a_transport_checksum_verifies_as_a_receiver_does_it(
    probe: Probe, family: Family, template: Template, addresses: bytes, tag: int, port: int
) -> None:
    """
    With the pseudo header for TCP and UDP; over the whole payload for protocol 4, where nft's `reject` looks
    for one (design trap 12); not at all for VXLAN over IPv4.
    """
    patched = bytes(on_an_agent(template).packet(addresses[: len(packed(family))], tag, port))
    payload = patched[HEADER_BYTES[family] :]

    if probe.protocol is Protocol.IPIP:
        assert 0xFFFF == ones_complement_sum(payload)
        return
    at = CHECKSUM_AT[probe.protocol]
    field = payload[at : at + 2]
    if is_vxlan_over_ipv4(probe, family):
        assert b"\0\0" == field
    else:
        assert b"\0\0" != field
        assert 0xFFFF == ones_complement_sum(pseudo_header(family, patched, probe.protocol) + payload)


@pytest.mark.parametrize(
    "name", [name for name, (probe, family, _) in FIRED.items() if has_checksum(probe, family)]
)
def test_a_checksum_that_comes_out_as_zero_is_written_as_its_other_form(
    name: str,
) -> None:
    """
    To UDP zero means that there is no checksum (RFC 768), and over IPv6 such a packet is dropped.
    """
    probe, family, template = FIRED[name]
    agent, addresses = on_an_agent(template), packed(family)
    at = HEADER_BYTES[family] + CHECKSUM_AT[probe.protocol]
    # What is missing to zero, added to the low half of the tag, wherever that stands; carries come around.
    places = len(template.tags)
    missing = int.from_bytes(agent.packet(addresses, 0, SOURCE_PORT)[at : at + 2], "big")
    found = {
        bytes(agent.packet(addresses, part + turn & 0xFFFF, SOURCE_PORT)[at : at + 2])
        for part in {(missing + around * 0xFFFF) // places for around in range(places)}
        for turn in range(-3, 4)
    }

    assert b"\xff\xff" in found
    assert b"\0\0" not in found


@pytest.mark.parametrize("size", [1, 2, 3, 99])
@pytest.mark.parametrize("family", Family)
def test_payloads_of_odd_length_are_summed_as_if_a_zero_followed(family: Family, size: int) -> None:
    """
    No probe has one today.
    """
    datagram = UDP(sport=1, dport=9) / Raw(bytes(range(1, size + 1)))
    template = _outer.packet(family, Protocol.UDP, datagram, tags=(), source_port=True)
    patched = bytes(on_an_agent(template).packet(packed(family), 7, 4321))
    udp = patched[HEADER_BYTES[family] :]

    assert 8 + size == len(udp)
    assert 0xFFFF == ones_complement_sum(pseudo_header(family, patched, Protocol.UDP) + udp)


@fired
def test_one_packet_leaves_nothing_behind_in_the_next(
    probe: Probe, family: Family, template: Template
) -> None:
    """
    All are patched in one buffer.
    """
    agent, fresh = on_an_agent(template), on_an_agent(template)
    other = packed(family, *reversed(ADDRESSES[family]))
    bytes(agent.packet(other, 0xDEADBEEF, 999))

    assert bytes(fresh.packet(packed(family), 5, 61000)) == bytes(agent.packet(packed(family), 5, 61000)), (
        probe.name
    )


@settings(max_examples=12)
@given(addresses=ANY_ADDRESSES, tag=TAGS, port=PORTS)
@pytest.mark.parametrize(("probe", "family", "template"), FROM_PODS.values(), ids=FROM_PODS)
def test_a_packet_that_bears_a_pods_address_keeps_it_whoever_sends_it(
    probe: Probe, family: Family, template: Template, addresses: bytes, tag: int, port: int
) -> None:
    """
    It is the packet that would be sent if the pod's address were the sender's: the checksums as well.
    """
    both = addresses[: len(packed(family))]
    pod = packed(family, PODS[family])[: len(both) // 2]
    as_if = bytes(on_an_agent(template).packet(pod + both[len(pod) :], tag, port))

    assert as_if == bytes(on_an_agent(template.bearing(PODS[family])).packet(both, tag, port)), probe.name


def test_the_addresses_of_a_template_are_nobodys() -> None:
    """
    Were one ever left in, it would be of a prefix for documentation (RFC 5737, RFC 3849).
    """
    for _probe, family, template in FIRED.values():
        packet = parsed(family, template.data)
        prefix = "192.0.2." if family is Family.IPV4 else "2001:db8::"

        assert packet.src.startswith(prefix)
        assert packet.dst.startswith(prefix)


@given(tag=TAGS)
def test_a_payload_has_the_tag_and_is_told_from_any_other(tag: int) -> None:
    """
    What the listening end accepts is this very payload with some tag, and says which.
    """
    for probe, _family, _port in crafts():
        if probe.application is None:
            continue
        for craft in (probe.application.request, probe.application.answer):
            agent = on_an_agent(craft(KEY))
            said = agent.payload(tag)

            assert tag == agent.tag_of(said)
            assert agent.tag_of(said[:-1]) is None
            assert agent.tag_of(said + b"\0") is None
            assert agent.tag_of(bytes([said[0] ^ 1]) + said[1:]) is None


@given(st.integers(0, MAX_FLOWS - 1), st.integers(0, (1 << ATTEMPT_BITS) - 1), TAGS)
def test_a_tag_is_of_one_attempt_of_one_flow(flow: int, attempt: int, nonce: int) -> None:
    """
    32 bits hold both, whatever the nonce.
    """
    tag = Key(nonce=nonce, mark=bytes(8)).tag(flow, attempt)

    assert 0 <= tag <= WORD
    assert (flow, attempt) == divmod(tag ^ nonce, 1 << ATTEMPT_BITS)


def test_coordinator_and_agent_divide_a_tag_alike() -> None:
    """
    The agent is a program of its own, and has the number written a second time.
    """
    assert ATTEMPT_BITS == templates.ATTEMPT_BITS


def test_a_fresh_key_has_a_window_that_is_open_and_a_whole_mark() -> None:
    """
    A SYN with a window of zero would be a strange one; two keys are never the same.
    """
    keys = [Key.fresh() for _ in range(64)]

    assert all(0x4000 <= key.window <= 0xFFFF for key in keys)
    assert all(8 == len(key.mark) for key in keys)
    assert 64 == len({key.mark for key in keys})
    assert 60 < len({key.nonce for key in keys})


@given(
    flow=st.integers(0, MAX_FLOWS - 1),
    attempt=st.integers(0, (1 << ATTEMPT_BITS) - 1),
    same=st.integers(1, 5),
    nonce=st.integers(0, 0xFFFFFFFF),
)
def test_coordinator_and_agent_count_source_ports_alike(
    flow: int, attempt: int, same: int, nonce: int
) -> None:
    """
    Which ports fail is told by the coordinator, and the agent sends from them: all within the range.
    """
    first, span = SOURCE_PORTS
    request: dict[str, object] = {
        "way": "kernel",
        "attempts": [0, 1],
        "ports": [first, span, same],
        "shots": [[0, ADDRESSES[Family.IPV4][0], [[flow, ADDRESSES[Family.IPV4][1]]], None]],
    }
    volley = Volley(request, [on_an_agent(FIRED["vxlan-4789-ipv4"][2])])
    port = volley.source_port(attempt, volley.shots[0], nonce)

    assert wire.source_port(flow, attempt, (first, span, same), nonce) == port
    assert first <= port < first + span <= 0xFFFF


@fired
@given(size=st.integers(200, 9000), hops=st.integers(1, 255), may_be_cut=st.booleans(), tag=TAGS)
@settings(max_examples=10)
def test_a_packet_of_another_shape_is_what_scapy_would_have_built(
    probe: Probe, family: Family, template: Template, size: int, hops: int, may_be_cut: bool, tag: int
) -> None:
    """
    As long as asked for, with that TTL, DF as asked for, and lengths and checksums that fit.
    """
    made = shaped(template, Shape(hops=hops, size=size, may_be_cut=may_be_cut))
    data = bytes(on_an_agent(made).packet(packed(family), tag, SOURCE_PORT))
    packet = parsed(family, data)

    assert size == len(data)
    if isinstance(packet, IP):
        assert (hops, size, not may_be_cut) == (packet.ttl, packet.len, packet.flags.DF)
        assert ones_complement_sum(data[:20]) == WORD >> 16
    else:
        assert (hops, size - 40) == (packet.hlim, packet.plen)
    if UDP in packet:
        assert size - HEADER_BYTES[family] == packet[UDP].len
    if probe.protocol in TRANSPORT and not is_vxlan_over_ipv4(probe, family):
        total = pseudo_header(family, data, probe.protocol) + data[HEADER_BYTES[family] :]
        assert ones_complement_sum(total) == WORD >> 16


def test_a_shape_changes_what_a_protocol_has() -> None:
    """
    A SYN announces another segment size, a VXLAN packet belongs to another network; the rest stays.
    """
    for probe, family, template in FIRED.values():
        data = bytes(on_an_agent(shaped(template, Shape(mss=8960))).packet(packed(family), 7, SOURCE_PORT))
        if probe.protocol is Protocol.TCP and parsed(family, data)[TCP].flags == "S":
            header = HEADER_BYTES[family]
            assert 8960 == announced_mss(data[header:])
            total = pseudo_header(family, data, probe.protocol) + data[header:]
            assert ones_complement_sum(total) == WORD >> 16
        if probe.name == "vxlan":
            data = bytes(on_an_agent(shaped(template, Shape(vni=77))).packet(packed(family), 7, SOURCE_PORT))
            assert 77 == parsed(family, data)[VXLAN].vni


@given(st.binary(max_size=60))
def test_no_segment_confuses_the_search_for_its_size(segment: bytes) -> None:
    """
    Whatever options come, in whatever number.
    """
    found = announced_mss(segment)

    assert found is None or 0 <= found <= WORD >> 16


def test_a_packet_of_the_usual_shape_is_the_probe() -> None:
    """
    And none can be shorter than what it carries.
    """
    for _probe, _family, template in FIRED.values():
        assert template == shaped(template, AS_USUAL)
        with pytest.raises(ValueError, match=f"a packet of {len(template.data)} bytes cannot have 30"):
            shaped(template, Shape(size=30))


def test_a_burst_leaves_from_many_source_ports() -> None:
    """
    A dead member of a bundle loses only some of them (design trap 9).
    """
    ports = [wire.source_port(17, attempt, (*SOURCE_PORTS, 1), KEY.nonce) for attempt in range(64)]

    assert 64 == len(set(ports))
    assert len({port % 2 for port in ports}) == 2


def test_ports_of_several_packets_are_none_of_those_of_one() -> None:
    """
    A SYN from the port of a connection that is half open gets no answer of its own.
    """
    once, thrice = (
        {wire.source_port(17, attempt, (*SOURCE_PORTS, same), KEY.nonce) for attempt in range(64)}
        for same in (1, 3)
    )

    assert not once & thrice


def test_every_sight_of_a_probe_reads_the_tag_where_the_template_has_it() -> None:
    """
    Written at an offset from the packet's beginning, read at one from its transport header.
    """
    for probe, family, template in FIRED.values():
        read = {
            (sight.tag + HEADER_BYTES[family], sight.minus)
            for sight in sights()
            if sight in probe.sights(KEY) and sight.kind in (Kind.PROBE, Kind.WITHDRAWAL)
        }

        assert {(at, template.plus) for at in template.tags} <= read
        assert template.tags
