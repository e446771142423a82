"""When a silent flow has been asked often enough, and when it may have been refused unheard."""

from __future__ import annotations

from typing import Final

import pytest

from netprobe.coordinator.refusals import _ALONE, Ration, _Queue
from netprobe.model import Family, Flow, Protocol

FLOW: Final = Flow(0, "bgp", Family.IPV4, Protocol.TCP, 179, "a", "10.0.0.1", "b", "10.0.0.2")
WORDS: Final = 7


def queue() -> _Queue:
    """One silent flow whose listener has heard some refusals."""
    found = _Queue(Ration("a", "", Family.IPV4), [FLOW], [])
    found.words = WORDS
    return found


def test_a_flow_that_was_heard_is_asked_no_more() -> None:
    """
    Whatever else goes on.
    """
    asked = queue()

    assert not asked.asked(FLOW, WORDS + 1, heard=True, is_quiet=False)
    assert [] == list(asked.flows)


def test_silence_after_two_questions_is_silence() -> None:
    """
    Where nothing else drew on the ration.
    """
    asked = queue()

    assert [False, False] == [asked.asked(FLOW, WORDS, heard=False, is_quiet=True) for _ in range(2)]
    assert [] == list(asked.flows)


@pytest.mark.parametrize(("more", "is_quiet"), [(1, True), (0, False)], ids=["heard", "unheard"])
def test_silence_is_doubted_where_something_else_draws_on_the_ration(more: int, *, is_quiet: bool) -> None:
    """
    The flow is asked as often as it can be, and then it is said that its refusal may have been rationed.
    """
    asked, words, given_up = queue(), WORDS, []
    while FLOW in asked.flows:
        words += more
        given_up.append(asked.asked(FLOW, words, heard=False, is_quiet=is_quiet))

    assert [False] * (_ALONE.total - 1) + [True] == given_up
