"""What an agent takes for a packet of its run, among all that a busy host sees."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP

from netprobe.agent.loop import Loop
from netprobe.agent.taps import Tap, Taps
from netprobe.template import ATTEMPT_BITS
from tests.crafted import ADDRESSES, KEY, sight_on_an_agent, sights

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
        tap.socket, tap.point, tap.bare = near, point, None
        seen = []
        for _ in range(2):
            far.send(answer)
            taps._count(tap)
            seen.append(dict(taps._seen.masks))
            taps.sent(tag ^ KEY.nonce)

    expected = {(point, kind): {FLOW: 1 << ATTEMPT}}
    assert [expected if counts else {}, expected] == seen
    assert FLOW == (tag ^ KEY.nonce) >> ATTEMPT_BITS
