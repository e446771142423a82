"""
Everything that a verdict can say is said of a real packet by some scenario.

Computed from what the scenarios expect; that it is found is proven by `test_scenarios.py`.
"""

from __future__ import annotations

from itertools import product

import pytest

from netprobe.model import Answer, Family, Fate, Protocol, Seen, Segment, Verdict, Word
from netprobe.verdict import outcome
from tests.described import PROTOCOLS, SCENARIOS, shown

Said = tuple[Verdict, Segment | None]


def _can_be_said(protocol: Protocol) -> set[Said]:
    """The outcomes of all fates that a packet of this protocol can have, and their mixtures."""
    answers = Answer if protocol is Protocol.TCP else (Answer.NONE,)
    fates = (Fate(*fate) for fate in product(Seen, answers, Word))
    said: set[Said] = {
        (found.verdict, found.segment) for found in (outcome(protocol, each) for each in fates)
    }
    # What another host gets.
    said.add((Verdict.INTERCEPTED, Segment.PATH))
    lossy = {segment for verdict, segment in said if verdict is Verdict.FILTERED}
    return said | set(product({Verdict.DEGRADED}, lossy))


def _is_said(protocol: Protocol, family: Family) -> set[Said]:
    cells = (cell for cell in shown(SCENARIOS) if cell[2:] == (protocol, family))
    return {(verdict, segment) for verdict, segment, *_ in cells}


@pytest.mark.parametrize(("protocol", "family"), PROTOCOLS)
def test_every_verdict_at_every_segment_is_some_scenarios_doing(protocol: Protocol, family: Family) -> None:
    """
    By a real firewall, a real route or a real proxy; `untested` alone is no network's doing.
    """
    assert _can_be_said(protocol) == _is_said(protocol, family)


def test_what_can_be_said_is_what_the_design_has() -> None:
    """
    Only TCP has answers: they can be lost at three more segments, refused by a kernel, or somebody else's.
    Datagrams are somebody else's where another host gets them.
    """
    there = {Segment.SOURCE_EGRESS, Segment.PATH, Segment.DESTINATION_INGRESS}
    lost = {Verdict.FILTERED, Verdict.REJECTED, Verdict.UNREACHABLE, Verdict.DEGRADED}

    got_by_another = Verdict.INTERCEPTED, Segment.PATH
    assert {(Verdict.OPEN, None), got_by_another, *product(lost, there)} == _can_be_said(Protocol.UDP)
    assert _can_be_said(Protocol.UDP) == _can_be_said(Protocol.IPIP)
    assert {
        (Verdict.OPEN, None),
        (Verdict.CLOSED, None),
        *product(lost, Segment),
        *product({Verdict.INTERCEPTED}, there),
    } == _can_be_said(Protocol.TCP)
