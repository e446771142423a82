"""What an agent takes for a packet of its run, among all that a busy host sees."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from netprobe.agent.loop import Loop
from netprobe.agent.taps import Tap, Taps, is_whole
from netprobe.model import Family
from netprobe.template import ATTEMPT_BITS, Kind
from tests.crafted import ADDRESSES, KEY, packets, sight_on_an_agent, sights

FLOW, ATTEMPT = 617, 9

Ends = tuple[bytes, bytes, int]

PAYLOADS = [b"", b"odd", b"even" * 20]
"""Sums are of words of two bytes: the last of an odd number has a zero beside it."""


def segments(payload: bytes) -> Iterator[tuple[int, Ends, bytearray]]:
    """Segments and datagrams of both families, as raw sockets get them: protocol, ends, bytes."""
    for family, (source, destination) in ADDRESSES.items():
        ip = IP if family is Family.IPV4 else IPv6
        length = 4 if family is Family.IPV4 else 16
        for protocol, upper in ((6, TCP(dport=179, flags="S")), (17, UDP(dport=4789))):
            packet = bytes(ip(src=source, dst=destination) / upper / Raw(payload))
            at = 12 if family is Family.IPV4 else 8
            ends = packet[at : at + length], packet[at + length : at + 2 * length], 64
            yield protocol, ends, bytearray(packet[at + 2 * length :])


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_checksum_is_right_wrong_or_not_made_yet(payload: bytes) -> None:
    """
    A wrong byte, and an address that it was not made for, are found; a sum of the pseudo header is trusted.
    """
    for protocol, ends, segment in segments(payload):
        at = {6: 16, 17: 6}[protocol]
        source, destination, ttl = ends
        pseudo = sum(struct.unpack(f"!{len(source)}H", source + destination)) + protocol + len(segment)
        partial = segment.copy()
        struct.pack_into("!H", partial, at, (pseudo & 0xFFFF) + (pseudo >> 16))

        assert is_whole(protocol, ends, segment)
        assert is_whole(protocol, ends, partial)
        assert not is_whole(protocol, (source, source, ttl), segment)
        for place in range(len(segment)):
            broken = segment.copy()
            broken[place] ^= 0x40
            assert not is_whole(protocol, ends, broken), place


def test_only_ipv4_lets_datagrams_do_without_a_checksum() -> None:
    """
    RFC 768 against RFC 8200 §8.1; IP protocol 4 has none at all.
    """
    for protocol, ends, segment in segments(b"some"):
        if protocol == 17:
            segment[6:8] = bytes(2)
            assert is_whole(protocol, ends, segment) is (len(ends[0]) == 4)
    assert is_whole(4, (bytes(4), bytes(4), 64), bytearray(20))


@pytest.mark.parametrize(("flags", "kind"), [("SA", "accept"), ("RA", "rst")])
@pytest.mark.parametrize(("point", "counts"), [("socket", False), ("interface", False), ("left", True)])
def test_an_answer_counts_where_it_arrives_only_for_what_was_sent(
    flags: str, kind: str, point: str, *, counts: bool
) -> None:
    """
    Of the numbers that the peers of a busy host acknowledge, some are tags of a large run.

    Where it leaves, the packet that it answers was not sent.
    """
    taps = Taps(Loop())
    taps._nonce, taps._flows = KEY.nonce, FLOW + 1
    taps._sights = {6: [sight_on_an_agent(sight) for sight in sights() if sight.protocol == 6]}
    source, destination = next(iter(ADDRESSES.values()))
    tag = KEY.tag(FLOW, ATTEMPT)
    answer = bytes(IP(src=destination, dst=source) / TCP(sport=179, dport=40000, flags=flags, ack=tag + 1))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.settimeout(0)
        tap = Tap.__new__(Tap)
        tap.socket, tap.point, tap.bare, tap.awaited = near, point, None, False
        seen = []
        for _ in range(2):
            far.send(answer)
            taps._count(tap)
            seen.append(dict(taps._seen.masks))
            taps.sent(tag ^ KEY.nonce)

    expected = {(point, kind): {FLOW: 1 << ATTEMPT}}
    assert [expected if counts else {}, expected] == seen
    assert FLOW == (tag ^ KEY.nonce) >> ATTEMPT_BITS


def test_what_resets_an_answer_that_may_be_a_repeated_one_does_not_count() -> None:
    """
    Where answers are late from now on, of a probe that came before nobody knows when that was.
    """
    taps = Taps(Loop())
    taps._nonce, taps._flows = KEY.nonce, FLOW + 1
    taps._sights = {6: [sight_on_an_agent(sight) for sight in sights() if sight.protocol == 6]}
    crafted = {each.kind: each.data for each in packets(FLOW, ATTEMPT) if each.probe == "bgp"}
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.settimeout(0)
        tap = Tap.__new__(Tap)
        tap.socket, tap.point, tap.bare, tap.awaited = near, "interface", None, False
        tap.read_until = time.monotonic()
        seen = []
        far.send(crafted[Kind.PROBE])
        taps._count(tap)
        for late_s, comes_again in ((0.9, False), (0.9, True), (0.0, False)):
            taps._late_s = late_s
            taps._seen.masks.clear()
            for data in [*([crafted[Kind.PROBE]] if comes_again else []), crafted[Kind.RESET]]:
                far.send(data)
            taps._count(tap)
            seen.append(("interface", "reset") in taps._seen.masks)

    assert [False, True, True] == seen


@pytest.mark.parametrize("is_awaited", [True, False])
def test_packets_end_the_waiting_where_they_are_awaited(*, is_awaited: bool) -> None:
    """
    Some arrive at a socket and some at an interface: the coordinator says which tap is the one to wait for.
    """
    loop = Loop()
    taps = Taps(loop)
    taps._nonce, taps._flows = KEY.nonce, FLOW + 1
    taps._sights = {17: [sight_on_an_agent(sight) for sight in sights() if sight.protocol == 17]}
    datagrams = [
        each.data for each in packets(FLOW, ATTEMPT) if (each.probe, each.kind) == ("pod-route", Kind.PROBE)
    ]
    ready: list[bool] = []
    taps.when(len(datagrams), 60, lambda: ready.append(True))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.settimeout(0)
        tap = Tap.__new__(Tap)
        tap.kind, tap.socket, tap.point, tap.bare, tap.awaited = "packet", near, "interface", None, is_awaited
        for data in datagrams:
            assert [] == ready
            far.send(data)
            taps._reader(tap)(0)

    assert ([True] if is_awaited else []) == ready
    assert {("interface", "probe"): {FLOW: 1 << ATTEMPT}} == taps._seen.masks
