"""What an agent takes for a packet of its run, among all that a busy host sees."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP

from netprobe.agent.loop import Loop
from netprobe.agent.taps import Tap, Taps
from netprobe.template import ATTEMPT_BITS, Kind
from tests.crafted import ADDRESSES, KEY, packets, sight_on_an_agent, sights

FLOW, ATTEMPT = 617, 9


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
