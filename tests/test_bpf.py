"""
Filters for the taps: only packets of the run pass.

They run in this machine's kernel, without any privilege: a filter on a socket of the AF_UNIX family sees a
datagram from its first byte on, as the taps' do, and finds it to be arriving. What is said of leaving packets
runs in a small interpreter, which has to agree with the kernel about all others.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet, Raw

from netprobe import bpf
from netprobe.agent import filters
from netprobe.agent.taps import Sight as AgentSight
from netprobe.bpf import Direction, Instruction
from netprobe.model import Family, Protocol
from netprobe.template import ATTEMPT_BITS, Base, Key, Kind
from tests.crafted import KEY, Crafted, packets, sight_on_an_agent, sights

FLOWS: Final = 1000
FLOW, ATTEMPT = 617, 9
PACKETS: Final = packets(FLOW, ATTEMPT)
SIGHTS: Final = sights()
OF_PACKETS: Final = [sight for sight in SIGHTS if sight.base is Base.TRANSPORT]
OF_PAYLOADS: Final = [sight for sight in SIGHTS if sight.base is Base.PAYLOAD]
ON_AGENTS: Final[list[AgentSight]] = [sight_on_an_agent(sight) for sight in SIGHTS]
VERSIONS: Final = {Family.IPV4: 4, Family.IPV6: 6}
HOST, OUTGOING = 0, 4  # linux/if_packet.h
ARRIVING: Final = (HOST, 1, 2)  # as broadcast or multicast as well: a cluster's address may be one
ETHERNET, LOOPBACK = 1, 772  # linux/if_arp.h
MOST_INSTRUCTIONS: Final = 4096  # linux/bpf_common.h, BPF_MAXINSNS
SNAP_BYTES: Final = 2048

TAP_IN: Final = bpf.for_packet_tap(SIGHTS, Direction.IN, KEY.nonce, FLOWS)
TAP_OUT: Final = bpf.for_packet_tap(SIGHTS, Direction.OUT, KEY.nonce, FLOWS)
RAW: Final = {
    (protocol, family): bpf.for_raw_socket(OF_PACKETS, protocol, version, KEY.nonce, FLOWS)
    for protocol in Protocol
    for family, version in VERSIONS.items()
}
ICMP_ERRORS: Final = bpf.for_icmp_errors()


class InKernel:
    """A filter in the kernel."""

    def __init__(self, program: list[Instruction]) -> None:
        self._program = program
        self._from, self._to = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        filters.attach(self._to, program)
        self._to.settimeout(0)

    def passes(self, packet: bytes) -> bool:
        """Whether an arriving packet passes, unharmed."""
        self._from.send(packet)
        try:
            received = self._to.recv(len(packet) + 1)
        except BlockingIOError:
            return self._agreed(packet, passes=False)

        assert packet == received
        return self._agreed(packet, passes=True)

    def _agreed(self, packet: bytes, *, passes: bool) -> bool:
        assert passes == bool(interpreted(self._program, packet, HOST))
        return passes

    def close(self) -> None:
        """Close both ends."""
        self._from.close()
        self._to.close()


@contextlib.contextmanager
def in_kernel(program: list[Instruction]) -> Iterator[InKernel]:
    """A filter in the kernel, for a while."""
    filtered = InKernel(program)
    try:
        yield filtered
    finally:
        filtered.close()


class _Beyond(Exception):  # noqa: N818 - no error: it ends a program
    """A load beyond the end of the packet."""


def interpreted(program: Sequence[Instruction], packet: bytes, kind: int, hardware: int = ETHERNET) -> int:
    """
    What a program returns about a packet of this kind, on a device of this type.

    See linux/Documentation/networking/filter.rst.
    """
    try:
        return _interpreted(program, packet, {0xFFFFF004: kind, 0xFFFFF01C: hardware})
    except _Beyond:
        return 0


def _interpreted(program: Sequence[Instruction], packet: bytes, ancillary: Mapping[int, int]) -> int:
    a = x = at = 0
    while True:
        code, true, false, k = program[at]
        at += 1
        match code & 0x07, code & 0xF8:
            case 0, mode:  # BPF_LD: a word, a half-word, a byte
                width = {0x00: 4, 0x08: 2, 0x10: 1}[mode & 0x18]
                where = k + (x if mode & 0xE0 == 0x40 else 0)
                a = ancillary[where] if where in ancillary else _load(packet, where, width)
            case 1, 0x00:  # BPF_LDX, immediate
                x = k
            case 1, 0xB0:  # BPF_LDX | BPF_B | BPF_MSH
                x = 4 * (_load(packet, k, 1) & 0xF)
            case 4, operation:  # BPF_ALU
                operand = x if operation & 0x08 else k
                a = {
                    0x00: a + operand,
                    0x10: a - operand,
                    0x50: a & operand,
                    0x70: a >> operand,
                    0xA0: a ^ operand,
                }[operation & 0xF0] & 0xFFFFFFFF
            case 5, 0x00:  # BPF_JA
                at += k
            case 5, condition:  # BPF_JMP
                holds = {0x10: a == k, 0x30: a >= k, 0x40: bool(a & k)}[condition]
                at += true if holds else false
            case 6, 0x00:  # BPF_RET
                return k
            case 7, 0x00:  # BPF_TAX
                x = a
            case _:
                pytest.fail(f"no instruction that the filters need: {code:#x}")


def _load(packet: bytes, at: int, width: int) -> int:
    if at + width > len(packet):
        raise _Beyond
    return int.from_bytes(packet[at : at + width], "big")


def tag_on_an_agent(packet: bytes) -> int | None:
    """The tag that an agent reads from a packet which begins with its IP header."""
    buffer = bytearray(SNAP_BYTES)
    buffer[: len(packet)] = packet
    if buffer[0] >> 4 == 4:
        protocol, transport = buffer[9], (buffer[0] & 0xF) * 4
    else:
        protocol, transport = buffer[6], 40
    for sight in ON_AGENTS:
        if sight.protocol == protocol:
            word = sight.tag(buffer, transport, len(packet))
            if word is not None and (word ^ KEY.nonce) >> ATTEMPT_BITS < FLOWS:
                return word
    return None


def names(crafted: Sequence[Crafted]) -> list[str]:
    """What the tests of these packets are called."""
    return [each.name for each in crafted]


def at_sockets(packet: Crafted) -> bytes:
    """What a raw socket gets of a packet: over IPv6 the IP header is missing."""
    return packet.data if packet.family is Family.IPV4 else packet.data[40:]


@pytest.fixture(scope="module")
def tap() -> Iterator[InKernel]:
    """The filter of a tap for arriving packets."""
    with in_kernel(TAP_IN) as filtered:
        yield filtered


def test_every_packet_of_the_run_passes_at_interfaces(tap: InKernel) -> None:
    """
    Arriving ones the tap for arriving ones, leaving ones the tap for leaving ones.
    """
    for packet in PACKETS:
        assert tap.passes(packet.data), packet.name
        assert interpreted(TAP_OUT, packet.data, OUTGOING), packet.name


@pytest.mark.parametrize("kind", range(8))
def test_a_tap_sees_one_direction(kind: int) -> None:
    """
    To this host or from it; what is for all, for other hosts or looped back is neither.
    """
    for packet in PACKETS:
        assert (kind in ARRIVING) == bool(interpreted(TAP_IN, packet.data, kind))
        assert (kind == OUTGOING) == bool(interpreted(TAP_OUT, packet.data, kind))


def test_what_a_host_sends_to_itself_has_not_left_it() -> None:
    """
    A rule of its own may have redirected it; what comes back that way has come, though.
    """
    for packet in PACKETS:
        assert not interpreted(TAP_OUT, packet.data, OUTGOING, LOOPBACK)
        assert interpreted(TAP_IN, packet.data, HOST, LOOPBACK)


def test_the_kernel_takes_what_is_no_leaving_packet_for_none() -> None:
    """
    As the interpreter does.
    """
    with in_kernel(TAP_OUT) as filtered:
        assert not any(filtered.passes(packet.data) for packet in PACKETS)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("protocol", Protocol)
def test_every_packet_of_its_protocol_passes_at_sockets(protocol: Protocol, family: Family) -> None:
    """
    And no payload of a session, which is not looked for there.
    """
    of_this = [packet for packet in PACKETS if (packet.protocol, packet.family) == (protocol, family)]
    with in_kernel(RAW[protocol, family]) as filtered:
        for packet in of_this:
            payload = packet.kind in (Kind.REQUEST, Kind.ANSWER)

            assert payload != filtered.passes(at_sockets(packet)), packet.name


def test_payloads_pass_where_only_payloads_are_looked_for() -> None:
    """
    The taps for a second look at sessions do not wake the agents for anything else.
    """
    with in_kernel(bpf.for_packet_tap(OF_PAYLOADS, Direction.IN, KEY.nonce, FLOWS)) as filtered:
        for packet in PACKETS:
            assert (packet.kind in (Kind.REQUEST, Kind.ANSWER)) == filtered.passes(packet.data), packet.name


def test_no_filter_is_longer_than_the_kernel_takes() -> None:
    """
    With all probes at once, and room for as many again.
    """
    for program in (TAP_IN, TAP_OUT, ICMP_ERRORS, *RAW.values()):
        assert len(program) < MOST_INSTRUCTIONS / 2


@pytest.mark.parametrize("bit", range(ATTEMPT_BITS, 32))
def test_packets_of_another_nonce_do_not_pass(bit: int, tap: InKernel) -> None:
    """
    Unless the difference makes another attempt or flow of ours of them, which is what numbers are.
    """
    other = msgspec.structs.replace(KEY, nonce=KEY.nonce ^ 1 << bit)
    ours = FLOW ^ 1 << bit - ATTEMPT_BITS < FLOWS
    for packet in packets(FLOW, ATTEMPT, other):
        assert ours == tap.passes(packet.data), packet.name


def test_packets_of_another_mark_do_not_pass(tap: InKernel) -> None:
    """
    Where it stands in them: in all probes, and in the payloads of TLS.
    """
    other = msgspec.structs.replace(KEY, mark=bytes.fromhex("7b1dfacec0ffee42"))
    for packet in packets(FLOW, ATTEMPT, other):
        marked = packet.kind is Kind.PROBE or (
            packet.kind in (Kind.REQUEST, Kind.ANSWER) and packet.probe != "bgp"
        )

        assert marked != tap.passes(packet.data), packet.name


@pytest.mark.parametrize("byte", range(8))
def test_every_byte_of_the_mark_counts(byte: int, tap: InKernel) -> None:
    """
    In tunnel packets, which have it whole.
    """
    mark = bytearray(KEY.mark)
    mark[byte] ^= 1
    for packet in packets(FLOW, ATTEMPT, msgspec.structs.replace(KEY, mark=bytes(mark))):
        if packet.protocol is not Protocol.TCP:
            assert not tap.passes(packet.data), packet.name


@pytest.mark.parametrize(("flow", "passes"), [(0, True), (FLOWS - 1, True), (FLOWS, False), (1 << 25, False)])
def test_flows_that_the_run_does_not_have_do_not_pass(flow: int, passes: bool, tap: InKernel) -> None:
    """
    The first and the last, and the first that is none.
    """
    for attempt in (0, (1 << ATTEMPT_BITS) - 1):
        for packet in packets(flow, attempt):
            assert passes == tap.passes(packet.data), packet.name


def test_fragments_other_than_the_first_do_not_pass(tap: InKernel) -> None:
    """
    They have no transport header, whatever stands in its place; first ones have.
    """
    for packet in PACKETS:
        if packet.family is Family.IPV4:
            for word, passes in ((0x2000, True), (0x4000, True), (0x0001, False), (0x3FFF, False)):
                changed = packet.data[:6] + word.to_bytes(2, "big") + packet.data[8:]

                assert passes == tap.passes(changed), packet.name


def test_a_header_with_options_is_skipped(tap: InKernel) -> None:
    """
    As a router that records its route may lengthen it.
    """
    options = [IPOption_RR(routers=["192.0.2.1", "0.0.0.0"])]
    for packet in PACKETS:
        if packet.family is Family.IPV4:
            source, destination = (str(IPv4Address(packet.data[at : at + 4])) for at in (12, 16))
            longer = IP(src=source, dst=destination, proto=packet.protocol, options=options)

            assert tap.passes(bytes(longer / Raw(packet.data[20:]))), packet.name


FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10  # RFC 9293 §3.1
BY_FLAGS: Final = {
    Kind.PROBE: {flags for flags in range(256) if flags & (FIN | SYN | RST | ACK) == SYN},
    Kind.ACCEPT: {
        flags
        for flags in range(256)
        if flags & (FIN | SYN | RST | ACK) == SYN | ACK or flags & (RST | ACK) == RST | ACK
    },
    Kind.RESET: {flags for flags in range(256) if flags & (RST | ACK) == RST},
}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kind", BY_FLAGS)
def test_a_segment_is_what_its_flags_say(kind: Kind, family: Family) -> None:
    """
    SYN alone, SYN and ACK, RST with and without ACK; congestion, urgency and PSH do not matter.
    """
    # A tag of which the numbers before and after it are no flow's: each kind has its own place for it.
    key = msgspec.structs.replace(KEY, nonce=0x5EED0000 ^ (FLOW << ATTEMPT_BITS | ATTEMPT))
    packet = next(
        packet for packet in packets(FLOW, ATTEMPT, key) if (packet.kind, packet.family) == (kind, family)
    )
    at = packet.transport + 13
    with in_kernel(bpf.for_packet_tap(SIGHTS, Direction.IN, key.nonce, FLOWS)) as filtered:
        passing = {
            flags
            for flags in range(256)
            if filtered.passes(packet.data[:at] + bytes([flags]) + packet.data[at + 1 :])
        }

    assert BY_FLAGS[kind] == passing


# How much of a packet is looked at, from its transport header on: by hand, from the RFCs and the probes.
NEEDED: Final = {
    "bgp-request": 20 + 12 + 28,
    "bgp-answer": 20 + 12 + 28,
    "ipip-probe": 20 + 8 + 8 + 4,
    "vxlan-probe": 8 + 8 + 14 + 20 + 8 + 8 + 4,
    "flannel-probe": 8 + 8 + 14 + 20 + 8 + 8 + 4,
    "wireguard-probe": 8 + 4 + 4 + 8,
    "wireguard-v6-probe": 8 + 4 + 4 + 8,
    "pod-route-probe": 8 + 4 + 8,
}
OF_TLS: Final = 20 + 12 + 5 + 4 + 2 + 4 + 8
OF_TCP: Final = {
    Kind.PROBE: 16,
    Kind.ACCEPT: 14,
    Kind.OURS: 14,  # an ACCEPT until its options are looked at
    Kind.RST: 14,
    Kind.RESET: 14,
    Kind.WITHDRAWAL: 14,
}


@pytest.mark.parametrize("packet", PACKETS, ids=names(PACKETS))
def test_a_packet_that_is_cut_off_passes_only_with_all_that_is_looked_at(
    packet: Crafted, tap: InKernel
) -> None:
    """
    A load beyond the end of a packet ends a filter, and no sight is tried after one that looks further.
    """
    needed = packet.transport + NEEDED.get(
        f"{packet.probe}-{packet.kind.value}", OF_TCP.get(packet.kind, OF_TLS)
    )

    assert [size >= needed for size in range(len(packet.data) + 1)] == [
        tap.passes(packet.data[:size]) for size in range(len(packet.data) + 1)
    ]


@given(st.binary(max_size=120))
def test_random_bytes_do_not_pass(data: bytes) -> None:
    """
    Of no length, at no point, whatever family and protocol they claim.
    """
    for program in (TAP_IN, *RAW.values()):
        assert 0 == interpreted(program, data, HOST)
    for head in (b"\x45" + bytes(8), b"\x60" + bytes(5)):
        for protocol in Protocol:
            assert 0 == interpreted(TAP_IN, head + bytes([protocol]) + data, HOST)


TINKERED: Final = st.tuples(
    st.sampled_from(PACKETS),
    st.dictionaries(st.integers(0, 110), st.integers(0, 255), max_size=3),
    st.integers(0, 110) | st.just(1 << 16),
    st.integers(0, (1 << 32 - ATTEMPT_BITS) - 1) | st.integers(0, FLOWS + 1),
)


@settings(max_examples=400)
@given(TINKERED)
def test_kernel_interpreter_and_agent_agree(
    tinkered: tuple[Crafted, dict[int, int], int, int],
) -> None:
    """
    Whatever bytes of a packet are changed, wherever it is cut off: what passes the filter is what an agent
    finds a tag in.
    """
    packet, changes, size, flow = tinkered
    tag, other = KEY.tag(FLOW, ATTEMPT), KEY.tag(flow, ATTEMPT)
    data = packet.data
    for plus in (0, 1):
        data = data.replace((tag + plus).to_bytes(4, "big"), (other + plus & 0xFFFFFFFF).to_bytes(4, "big"))
    changed = bytearray(data)
    for at, value in changes.items():
        if at == 0:
            # Another version is no packet that a tap would be given; another length of header is.
            changed[0] = changed[0] & 0xF0 | value & 0x0F
        elif at < len(changed):
            changed[at] = value
    sent = bytes(changed[:size])
    with in_kernel(TAP_IN) as filtered:
        passes = bool(sent) and filtered.passes(sent)
    later_fragment = sent[:1] > b"\x40" and sent[0] >> 4 == 4 and int.from_bytes(sent[6:8], "big") & 0x1FFF

    assert passes == (tag_on_an_agent(sent) is not None and not later_fragment)


def error(kind: int, code: int, *, version: int, options: bool = False) -> bytes:
    """An ICMP message that quotes something."""
    quoted = Raw(bytes(28))
    if version == 4:
        outer = IP(src="192.0.2.1", dst="10.0.0.1", options=[IPOption_RR()] if options else [])
        return bytes(outer / ICMP(type=kind, code=code) / quoted)
    return bytes(
        IPv6(src="2001:db8::1", dst="fd00::1", nh=58) / ICMPv6DestUnreach(type=kind, code=code) / quoted
    )


@pytest.mark.parametrize(("version", "errors"), [(4, {3, 11, 12}), (6, {1, 2, 3, 4})])
def test_icmp_errors_pass_and_nothing_else_of_icmp(version: int, errors: set[int]) -> None:
    """
    Of RFC 792 what says that a packet was not delivered, and the errors of RFC 4443.
    """
    with in_kernel(ICMP_ERRORS) as filtered:
        for options in (False, True):
            passing = {
                kind
                for kind in range(256)
                if filtered.passes(error(kind, 1, version=version, options=options))
            }

            assert errors == passing


@pytest.mark.parametrize("version", [4, 6])
def test_icmp_errors_pass_when_they_arrive(version: int) -> None:
    """
    What this host itself tells others is not heard.
    """
    message = error(3, 1, version=version)

    assert list(ARRIVING) == [kind for kind in range(8) if interpreted(ICMP_ERRORS, message, kind)]


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=3, dport=11),
        IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=0x0301, dport=53),
        IPv6(src="fd00::2", dst="fd00::1") / UDP(sport=0x0101, dport=53),
    ],
)
def test_other_traffic_is_no_icmp_error(packet: Packet) -> None:
    """
    Whatever stands where a type would.
    """
    with in_kernel(ICMP_ERRORS) as filtered:
        assert not filtered.passes(bytes(packet))
        assert not filtered.passes(b"")


def test_a_filter_of_no_sights_lets_nothing_pass() -> None:
    """
    A host without flows of a protocol has nothing to look for.
    """
    with in_kernel(bpf.for_raw_socket([], Protocol.UDP, 4, KEY.nonce, FLOWS)) as filtered:
        assert not any(filtered.passes(packet.data) for packet in PACKETS)


@given(st.integers(0, FLOWS - 1), st.integers(0, (1 << ATTEMPT_BITS) - 1), st.integers(0, 0xFFFFFFFF))
@settings(max_examples=20)
def test_agents_read_the_tag_of_every_packet_that_passes(flow: int, attempt: int, nonce: int) -> None:
    """
    The right flow and the right attempt, of every kind of packet, for any nonce.
    """
    key = Key(nonce=nonce, mark=KEY.mark)
    for packet in packets(flow, attempt, key):
        buffer = bytearray(SNAP_BYTES)
        buffer[: len(packet.data)] = packet.data
        for sight in ON_AGENTS:
            word = sight.tag(buffer, packet.transport, len(packet.data))
            if sight.kind == packet.kind.value and sight.protocol == packet.protocol and word is not None:
                assert key.tag(flow, attempt) == word
                break
        else:
            pytest.fail(f"{packet.name} has no tag")
