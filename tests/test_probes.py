"""The probes: the rows of the page, packets that are what they claim to be, and one file for a new one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest
import trio
from scapy.contrib.geneve import GENEVE
from scapy.contrib.wireguard import Wireguard, WireguardInitiation
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from netprobe import bpf, coordinator, inventory, plan, probes
from netprobe.attempts import SOURCE_PORTS
from netprobe.bpf import Direction
from netprobe.coordinator.field import Field
from netprobe.icmp import Quote
from netprobe.lab import Lab, describe
from netprobe.model import Family, Host, Inventory, Protocol, Role, Segment, Verdict, Word
from netprobe.plan import Settings
from netprobe.probes import Probe, registry
from netprobe.template import Base, Kind, Template
from tests.crafted import (
    HEADER_BYTES,
    KEY,
    SOURCE_PORT,
    Crafted,
    on_an_agent,
    packed,
    packets,
    sight_on_an_agent,
    sights,
)
from tests.test_bpf import in_kernel, interpreted

with pytest.MonkeyPatch.context() as _quiet:
    # It warns of its own default when it is imported.
    _quiet.setattr(logging.getLogger("scapy.runtime"), "level", logging.ERROR)
    from scapy.contrib import bgp

CONTRIBUTING: Final = Path(__file__).parents[1] / "CONTRIBUTING.md"
EXAMPLE: Final = Path(__file__).with_name("examples") / "geneve.py"
FLOW, ATTEMPT = 617, 9
TAG: Final = KEY.tag(FLOW, ATTEMPT)
PACKETS: Final = packets(FLOW, ATTEMPT)
TEST_NETS: Final = ("192.0.2.", "198.51.100.", "203.0.113.")  # RFC 5737


class Row(NamedTuple):
    """A row of the page, and what it means to a probe."""

    configuration: str
    hosts: str
    connection: str
    traffic: str
    probe: str
    protocol: Protocol
    ports: tuple[int, ...]
    to: Role


# Calico 3.28, System requirements, Network requirements: the whole table, with the page's words first.
PAGE: Final = (
    Row(
        "Calico networking (BGP)",
        "All",
        "Bidirectional",
        "TCP 179",
        "bgp",
        Protocol.TCP,
        (179,),
        Role.NODE,
    ),
    Row(
        "Calico networking with IP-in-IP enabled (default)",
        "All",
        "Bidirectional",
        "IP-in-IP, often represented by its protocol number 4",
        "ipip",
        Protocol.IPIP,
        (),
        Role.NODE,
    ),
    Row(
        "Calico networking with VXLAN enabled",
        "All",
        "Bidirectional",
        "UDP 4789",
        "vxlan",
        Protocol.UDP,
        (4789,),
        Role.NODE,
    ),
    Row(
        "Calico networking with Typha enabled",
        "Typha agent hosts",
        "Incoming",
        "TCP 5473 (default)",
        "typha",
        Protocol.TCP,
        (5473,),
        Role.TYPHA,
    ),
    Row(
        "Calico networking with IPv4 Wireguard enabled",
        "All",
        "Bidirectional",
        "UDP 51820 (default)",
        "wireguard",
        Protocol.UDP,
        (51820,),
        Role.NODE,
    ),
    Row(
        "Calico networking with IPv6 Wireguard enabled",
        "All",
        "Bidirectional",
        "UDP 51821 (default)",
        "wireguard-v6",
        Protocol.UDP,
        (51821,),
        Role.NODE,
    ),
    Row(
        "flannel networking (VXLAN)",
        "All",
        "Bidirectional",
        "UDP 4789",
        "flannel",
        Protocol.UDP,
        (4789,),
        Role.NODE,
    ),
    Row(
        "All",
        "kube-apiserver host",
        "Incoming",
        "Often TCP 443 or 6443",
        "apiserver",
        Protocol.TCP,
        (443, 6443),
        Role.APISERVER,
    ),
    Row(
        "etcd datastore",
        "etcd hosts",
        "Incoming",
        "Officially TCP 2379 but can vary",
        "etcd",
        Protocol.TCP,
        (2379,),
        Role.ETCD,
    ),
)
FAMILIES: Final = {
    "ipip": {Family.IPV4},
    "wireguard": {Family.IPV4},
    "wireguard-v6": {Family.IPV6},
}


def outer(packet: Crafted) -> Packet:
    """A packet as scapy reads it."""
    return IP(packet.data) if packet.family is Family.IPV4 else IPv6(packet.data)


def probe_packets(*names: str) -> list[Crafted]:
    """The probe packets of these probes."""
    found = [packet for packet in PACKETS if packet.kind is Kind.PROBE and packet.probe in names]

    assert found
    return found


def payloads(name: str) -> tuple[bytes, bytes]:
    """The request and the answer of a probe's session, with the tag of the run."""
    application = registry()[name].application
    assert application is not None
    request, answer = (
        on_an_agent(craft(KEY)).payload(TAG) for craft in (application.request, application.answer)
    )
    return request, answer


def test_every_row_of_the_page_is_a_probe_and_there_is_one_other() -> None:
    """
    In the order of the page; what goes without encapsulation is no row of it.
    """
    assert [row.probe for row in PAGE] == [name for name in registry() if name != "pod-route"]
    assert {
        "bgp",
        "ipip",
        "vxlan",
        "typha",
        "wireguard",
        "wireguard-v6",
        "flannel",
        "apiserver",
        "etcd",
        "pod-route",
    } == set(registry())


@pytest.mark.parametrize("row", PAGE, ids=[row.probe for row in PAGE])
def test_a_probe_sends_what_its_row_says(row: Row) -> None:
    """
    Protocol, port and ends; flannel's own default for Linux, 8472, comes on top of the page's.
    """
    probe = registry()[row.probe]
    extra = {"flannel": (8472,)}.get(row.probe, ())

    assert row.protocol is probe.protocol
    assert {*row.ports, *extra} == set(probe.ports)
    assert (Role.NODE, row.to) == probe.between
    assert FAMILIES.get(row.probe, set(Family)) == set(probe.families)
    assert all(str(port) in row.traffic for port in row.ports)
    assert probe.any_port == (row.probe == "apiserver")


@pytest.mark.parametrize("row", PAGE, ids=[row.probe for row in PAGE])
def test_a_probe_names_its_row_as_the_source(row: Row) -> None:
    """
    Whoever doubts a requirement finds the line on the page.
    """
    source = registry()[row.probe].source.casefold()

    assert source.startswith(f"{row.configuration}: {row.hosts}, {row.connection}, ".casefold())


def test_probes_are_ranked_each_for_itself() -> None:
    """
    Reports have them in one order, and the registry has that order.
    """
    ranks = [probe.rank for probe in registry().values()]

    assert sorted(set(ranks)) == ranks


def test_flows_that_share_a_conntrack_entry_with_their_opposite_are_known() -> None:
    """
    Those without ports, and those between the same port at both ends (design trap 2).
    """
    assert {"ipip", "wireguard", "wireguard-v6"} == {
        name for name, probe in registry().items() if probe.shares_conntrack
    }
    for packet in probe_packets("wireguard", "wireguard-v6"):
        datagram = outer(packet).payload

        assert packet.port == datagram.sport == datagram.dport


@pytest.mark.parametrize("probe", registry().values(), ids=registry())
def test_a_probe_packet_goes_to_its_port_from_one_that_varies(probe: Probe) -> None:
    """
    Except where the real traffic has a port of its own, or none.
    """
    for packet in probe_packets(probe.name):
        segment = outer(packet).payload
        if probe.protocol is not Protocol.IPIP:
            assert packet.port == segment.dport
            assert (packet.port if probe.fixed_source_port else SOURCE_PORT) == segment.sport


def test_a_syn_is_a_linux_syn_and_nothing_more() -> None:
    """
    No payload, no acknowledgement, options as kernels send them, an open window: firewalls take it for one.
    """
    for packet in probe_packets("bgp", "typha", "apiserver", "etcd"):
        segment = outer(packet).payload

        assert isinstance(segment, TCP)
        assert ("S", TAG, 0, KEY.window) == (str(segment.flags), segment.seq, segment.ack, segment.window)
        assert ["MSS", "SAckOK", "Timestamp", "NOP", "WScale"] == [name for name, _ in segment.options]
        assert not bytes(segment.payload)


def test_a_withdrawal_is_the_reset_that_a_kernel_would_send() -> None:
    """
    It carries the very next sequence number, or the destination ignores it (RFC 5961 §3.2).
    """
    withdrawals = [packet for packet in PACKETS if packet.kind is Kind.WITHDRAWAL]

    assert {"bgp", "typha", "apiserver", "etcd"} == {packet.probe for packet in withdrawals}
    for packet in withdrawals:
        segment = outer(packet).payload

        assert ("R", (TAG + 1) & 0xFFFFFFFF) == (str(segment.flags), segment.seq)
        assert (SOURCE_PORT, packet.port) == (segment.sport, segment.dport)


def test_an_ip_in_ip_packet_ends_at_the_first_host_that_unwraps_it() -> None:
    """
    IPv4 in IPv4, between nobody's addresses and with a TTL of 1 inside (design trap 5); an ICMP error, so
    that no other is sent about it.
    """
    (packet,) = probe_packets("ipip")
    whole = outer(packet)
    inner = whole.payload

    assert isinstance(inner, IP)
    assert (4, 1, 1) == (whole.proto, inner.ttl, inner.proto)
    assert 3 == inner.payload.type
    assert inner.src.startswith(TEST_NETS)
    assert inner.dst.startswith(TEST_NETS)
    assert bytes(whole)[20:40] == bytes(IP(src=inner.src, dst=inner.dst, ttl=1, id=0, proto=1, len=inner.len))
    assert whole.len == 20 + inner.len == len(packet.data)


@pytest.mark.parametrize(("name", "vni"), [("vxlan", 4096), ("flannel", 1)])
def test_a_vxlan_packet_has_its_networks_number_and_a_frame_for_nobody(name: str, vni: int) -> None:
    """
    RFC 7348 §5; the inner addresses are locally administered, unicast and no node's, the inner IP TEST-NET.
    """
    for packet in probe_packets(name):
        # By its form, not by its port: 8472 is as good.
        message = bytes(outer(packet).payload.payload)
        frame = VXLAN(message).payload

        assert b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" == message[:8]
        assert isinstance(frame, Ether)
        for address in (frame.src, frame.dst):
            first = int(address[:2], 16)

            assert (0x02, 0x00) == (first & 0x02, first & 0x01)
        inner = frame.payload
        assert isinstance(inner, IP)
        assert 1 == inner.ttl
        assert inner.src.startswith(TEST_NETS)
        assert inner.dst.startswith(TEST_NETS)


def test_calico_and_flannel_do_not_share_a_network() -> None:
    """
    The same port, and different numbers: that is how the kernel tells them apart.
    """
    numbers = {
        packet.data[packet.transport + 12 : packet.transport + 15] for packet in probe_packets("vxlan")
    }

    assert numbers.isdisjoint(
        packet.data[packet.transport + 12 : packet.transport + 15] for packet in probe_packets("flannel")
    )


def test_a_wireguard_packet_is_a_handshake_initiation_that_no_peer_accepts() -> None:
    """
    Type 1, 148 bytes, and a mac1 that is keyed with nobody's public key; the sender's index is the tag.
    """
    for packet in probe_packets("wireguard", "wireguard-v6"):
        message = bytes(outer(packet).payload.payload)
        read = Wireguard(message)
        initiation = read.payload

        assert 148 == len(message)
        assert b"\x01\0\0\0" == message[:4]
        assert isinstance(initiation, WireguardInitiation)
        assert TAG.to_bytes(4, "big") == message[4:8]
        assert any(message[-32:-16])


def test_wireguard_noise_differs_from_run_to_run() -> None:
    """
    A peer that remembers an initiation does not see it again.
    """
    craft = registry()["wireguard"].packet
    other = msgspec.structs.replace(KEY, mark=bytes(range(8)))

    assert craft(Family.IPV4, 51820, KEY).data[-100:] != craft(Family.IPV4, 51820, other).data[-100:]


@pytest.mark.parametrize(("place", "hold_time"), [(0, 90), (1, 240)])
def test_a_bgp_session_begins_with_a_correct_open(place: int, hold_time: int) -> None:
    """
    RFC 4271 §4.2, with the capabilities of a node of Calico: IPv4 unicast, route refresh, four-byte AS
    numbers, graceful restart; the identifier is the tag.
    """
    message = payloads("bgp")[place]
    header = bgp.BGPHeader(message)
    opening = header.payload

    assert b"\xff" * 16 == message[:16]
    assert (1, len(message)) == (header.type, header.len)
    assert isinstance(opening, bgp.BGPOpen)
    assert (4, 64512, hold_time) == (opening.version, opening.my_as, opening.hold_time)
    assert TAG.to_bytes(4, "big") == message[24:28]
    assert (
        opening.opt_param_len
        == len(message) - 29
        == sum(2 + each.param_length for each in opening.opt_params)
    )
    assert [1, 2, 65, 64] == [each.param_value.code for each in opening.opt_params]


class Reader:
    """Bytes of a TLS message, in order (RFC 8446 §3)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        """The next bytes, all of which must be there."""
        assert size <= len(self._data)
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> Reader:
        """What stands behind a length of so many bytes."""
        return Reader(self.take(self.number(size)))

    def __bool__(self) -> bool:
        return bool(self._data)


class Hello(NamedTuple):
    """The parts of a ClientHello or ServerHello."""

    kind: int
    random: bytes
    suites: list[int]
    extensions: dict[int, bytes]


def hello(record: bytes) -> Hello:
    """A hello that is one whole record, with nothing left over anywhere."""
    outside = Reader(record)
    assert 22 == outside.number(1)  # handshake
    assert outside.number(2) in (0x0301, 0x0303)
    message = outside.vector(2)
    kind = message.number(1)
    body = message.vector(3)
    assert not outside
    assert not message
    assert 0x0303 == body.number(2)
    random = body.take(32)
    body.vector(1)
    if kind == 1:
        listed = body.vector(2)
        suites = []
        while listed:
            suites.append(listed.number(2))
        compressions = body.vector(1)
        assert 0 == compressions.number(1)
        assert not compressions
    else:
        suites = [body.number(2)]
        assert 0 == body.number(1)
    rest, extensions = body.vector(2), {}
    assert not body
    while rest:
        number = rest.number(2)
        content = rest.vector(2)
        extensions[number] = content.take(len(content._data))
    return Hello(kind, random, suites, extensions)


@pytest.mark.parametrize(
    ("name", "alpn"), [("typha", []), ("apiserver", [b"h2", b"http/1.1"]), ("etcd", [b"h2"])]
)
def test_a_tls_session_begins_with_a_client_hello(name: str, alpn: list[bytes]) -> None:
    """
    A whole one in one segment, that offers TLS 1.3 and the protocols that the real client offers (RFC 7301).
    """
    request = payloads(name)[0]
    greeting = hello(request)
    offered = []
    if 16 in greeting.extensions:
        listed = Reader(greeting.extensions[16]).vector(2)
        while listed:
            named = listed.vector(1)
            offered.append(named.take(len(named._data)))

    assert 1 == greeting.kind
    assert TAG.to_bytes(4, "big") + KEY.mark == greeting.random[:12]
    assert 0x1301 in greeting.suites
    assert b"\x03\x04" in greeting.extensions[43]
    assert alpn == offered
    assert len(request) < 1220  # the MSS of a path of IPv6's least MTU


@pytest.mark.parametrize("name", ["typha", "apiserver", "etcd"])
def test_the_answer_of_a_tls_session_has_the_form_of_a_server_hello(name: str) -> None:
    """
    RFC 8446 §4.1.3: one suite, TLS 1.3 chosen; a firewall that reads along has nothing to object to.
    """
    greeting = hello(payloads(name)[1])

    assert (2, [0x1301], {43: b"\x03\x04"}) == (greeting.kind, greeting.suites, greeting.extensions)
    assert TAG.to_bytes(4, "big") + KEY.mark == greeting.random[:12]


def test_no_two_kinds_of_packets_are_taken_for_each_other() -> None:
    """
    Of all sights of a run, in their order, the first that recognises a packet is that of its kind, with its
    tag; and of probes that are not TCP's it is the packet's own probe's, and the only one.
    """
    for packet in PACKETS:
        buffer = bytearray(2048)
        buffer[: len(packet.data)] = packet.data
        found = [
            (sight, tag)
            for sight in sights()
            if sight.protocol == packet.protocol
            and (tag := sight_on_an_agent(sight).tag(buffer, packet.transport, len(packet.data))) is not None
            and (tag ^ KEY.nonce) >> 6 < 1000
        ]

        assert found, packet.name
        sight, tag = found[0]
        assert (packet.kind, TAG) == (sight.kind, tag), packet.name
        if packet.protocol is not Protocol.TCP:
            assert [sight] == [each for each, _tag in found]
            assert sight in registry()[packet.probe].sights(KEY)


@pytest.mark.parametrize("probe", registry().values(), ids=registry())
def test_what_a_probe_lacks_it_does_not_need(probe: Probe) -> None:
    """
    Only TCP has sessions to hold and connections to take back, and only sessions have payloads to recognise.
    """
    tcp = probe.protocol is Protocol.TCP

    assert tcp == (probe.application is not None) == (probe.withdrawal is not None)
    assert all(sight.base is Base.TRANSPORT for sight in probe.sights(KEY))
    if probe.application is not None:
        found = probe.application.sights(KEY)

        assert all(sight.base is Base.PAYLOAD for sight in found)
        assert [Kind.REQUEST, Kind.ANSWER] == [sight.kind for sight in found]


def test_packets_are_small() -> None:
    """
    None needs fragments on a path of IPv6's least MTU (RFC 8200 §5), nor in the frames of a tunnel.
    """
    for packet in PACKETS:
        assert len(packet.data) <= 1280, packet.name


@pytest.fixture
def with_example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of probes as if the example's file had been added to it, and nothing else."""
    monkeypatch.setattr(probes, "__path__", [*probes.__path__, str(EXAMPLE.parent)])
    registry.cache_clear()
    yield
    registry.cache_clear()
    del sys.modules["netprobe.probes.geneve"], probes.geneve  # type: ignore[attr-defined]


HOSTS: Final = tuple(
    Host(name=name, addresses=(f"10.0.0.{place}", f"fd00::{place}"), roles=(Role.NODE,))
    for place, name in enumerate("abc", 1)
)


def test_no_probe_leaves_from_a_port_that_another_goes_to() -> None:
    """
    A rule about WireGuard's source port must not meet a VXLAN packet.
    """
    first, span = SOURCE_PORTS

    assert not [port for probe in registry().values() for port in probe.ports if first <= port < first + span]


@pytest.mark.usefixtures("with_example")
def test_a_new_probe_is_found_with_its_file() -> None:
    """
    It is in the registry, in its place.
    """
    assert "geneve" == list(registry())[-1]
    assert 11 == len(registry())


def test_without_its_file_there_is_no_such_probe() -> None:
    """
    The fixture cleans up after itself.
    """
    assert 10 == len(registry())
    assert not hasattr(probes, "geneve")


@pytest.mark.usefixtures("with_example")
def test_an_inventory_may_name_a_new_probe_and_its_port() -> None:
    """
    Like any other; its flows are in the plan.
    """
    asked = inventory.loads(
        "hosts: [{name: a, addresses: [10.0.0.1]}, {name: b, addresses: [10.0.0.2]}]\n"
        "probes: [geneve]\n"
        "ports: {geneve: [7081]}\n"
    )

    assert [("geneve", Protocol.UDP, 7081, "a", "b"), ("geneve", Protocol.UDP, 7081, "b", "a")] == [
        (flow.probe, flow.protocol, flow.port, flow.src, flow.dst) for flow in plan.flows(asked)
    ]


@pytest.mark.usefixtures("with_example")
def test_a_new_probe_is_sent_seen_and_recognised_when_it_is_refused() -> None:
    """
    Flows, packets, filters, sights and the recogniser of a run know it with all others.
    """
    field = Field(Inventory(hosts=HOSTS), Settings())
    field.craft()
    on_agents = [sight_on_an_agent(sight) for sight in field.sights]
    tap = partial(bpf.for_packet_tap, field.sights, nonce=field.key.nonce, flows=len(field.flows))
    flows = [flow for flow in field.flows if flow.probe == "geneve"]

    assert 12 == len(flows)
    for flow in flows:
        number = field.templates.packet(flow)
        assert number is not None
        tag = field.key.tag(flow.number, ATTEMPT)
        data = _patched(field.templates.all[number], flow.family, flow.src_address, flow.dst_address, tag)
        header = HEADER_BYTES[flow.family]
        geneve = GENEVE(data[header + 8 :])
        buffer = bytearray(2048)
        buffer[: len(data)] = data
        quote = Quote(
            "192.0.2.1", Word.PROHIBITED, "", flow.src_address, flow.dst_address, 17, None, 200, data[header:]
        )

        assert (0xFFFFFF, 0x6558, "02:6e:70:00:00:02") == (geneve.vni, geneve.proto, geneve[Ether].dst)
        with in_kernel(tap(direction=Direction.IN)) as filtered:
            assert filtered.passes(data)
        assert interpreted(tap(direction=Direction.OUT), data, 4)
        assert {tag} == {
            sight.tag(buffer, header, len(data)) for sight in on_agents if sight.protocol == 17
        } - {None}
        assert (flow, 1 << ATTEMPT) == field.recogniser.find(quote)


def _patched(template: Template, family: Family, source: str, destination: str, tag: int) -> bytes:
    return bytes(on_an_agent(template).packet(packed(family, source, destination), tag, SOURCE_PORT))


@pytest.mark.lab
@pytest.mark.usefixtures("with_example")
def test_a_new_probe_finds_the_firewall_that_refuses_it() -> None:
    """
    With real packets, agents and firewalls that have never heard of it.
    """
    lab = Lab(
        describe(
            "name: a router that prohibits Geneve one way\n"
            "hosts: [a, b]\n"
            "faults:\n"
            "  - {on: router, nft: 'iifname \"a\" udp dport 6081 reject with icmpx admin-prohibited'}\n",
            "example",
        )
    )
    with lab:
        asked = msgspec.structs.replace(lab.inventory(), probes=("geneve",))
        run = trio.run(coordinator.run, asked, Settings())

    assert {
        ("a", "b", Verdict.REJECTED, Segment.PATH),
        ("b", "a", Verdict.OPEN, None),
    } == {
        (cell.flow.src, cell.flow.dst, cell.judgement.verdict, cell.judgement.segment) for cell in run.cells
    }
    assert 4 == len(run.cells)


@pytest.mark.skipif(not CONTRIBUTING.exists(), reason="CONTRIBUTING.md is not written yet")
def test_contributors_are_shown_this_very_example() -> None:
    """
    `CONTRIBUTING.md` has the file that these tests load, letter by letter.
    """
    assert EXAMPLE.read_text(encoding="utf-8") in CONTRIBUTING.read_text(encoding="utf-8")
