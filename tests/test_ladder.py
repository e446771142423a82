"""The search for a path's MTU, against model paths: with any limit, with losses, with outages."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.ladder import MOST, USUAL, Search, Volley

SMALLEST: Final = 94
ROUNDS: Final = 12

SIZES = st.integers(SMALLEST, 9216)


def searched(search: Search, fits: Callable[[int], bool], refuses: int | None = None) -> list[list[int]]:
    """Let a search ask until it is over; the volleys that it took."""
    asked: list[list[int]] = []
    sent: list[Volley] = []
    while sizes := search.ask():
        assert len(asked) < ROUNDS, (search.low, search.high)
        assert len(sizes) <= MOST
        assert all(search.smallest <= size <= search.top for size in sizes)
        asked.append(sizes)
        refused = sum(1 << place for place, size in enumerate(sizes) if refuses and size > refuses)
        came = sum(1 << place for place, size in enumerate(sizes) if fits(size)) & ~refused
        sent.append(Volley(sizes, came, refused))
        search.note(sent)
    return asked


@given(SIZES, SIZES)
def test_the_limit_is_found_to_the_byte(top: int, limit: int) -> None:
    """On a path that loses nothing but what is too big."""
    search = Search(SMALLEST, top)
    searched(search, lambda size: size <= limit)

    assert min(top, limit) == search.mtu


@pytest.mark.parametrize("limit", [size for size in USUAL if size <= 1500])
def test_a_usual_limit_takes_four_volleys_at_most(limit: int) -> None:
    """What is between two rungs fits one volley, and what is above the limit is asked again there."""
    search = Search(SMALLEST, 1500)
    asked = searched(search, lambda size: size <= limit)

    assert limit == search.mtu
    assert len(asked) <= (1 if limit == 1500 else 4)


@given(SIZES, SIZES, st.integers(0, 1 << 32), st.sampled_from([0.01, 0.1, 0.2, 0.3]))
def test_a_loss_is_not_taken_for_a_limit(top: int, limit: int, seed: int, loss: float) -> None:
    """A path that loses some packets of any size has the same limit as one that does not."""
    chance = random.Random(seed)  # noqa: S311 - a model's, not a secret
    search = Search(SMALLEST, top)
    searched(search, lambda size: size <= limit and chance.random() >= loss)

    assert min(top, limit) == search.mtu


@pytest.mark.parametrize(("wide", "loss"), [(1300, 0.8), (0, 0.75)])
def test_what_passes_now_and_then_is_no_limit(wide: int, loss: float) -> None:
    """Also where only large packets are lost: better no answer than one by chance."""
    found = set()
    for seed in range(200):
        chance = random.Random(seed)  # noqa: S311 - a model's, not a secret
        search = Search(SMALLEST, 1500)
        sent: list[Volley] = []
        for _ in range(ROUNDS):
            sizes = search.ask()
            came = [size <= wide or chance.random() >= loss for size in sizes]
            sent.append(Volley(sizes, sum(1 << place for place, each in enumerate(came) if each)))
            search.note(sent)
        found.add(search.mtu)

    assert found <= {1500, None}
    assert 1500 in found


@given(SIZES, SIZES, st.lists(st.integers(0, 10000), max_size=3))
def test_a_hint_is_tried_and_not_believed(top: int, limit: int, hints: list[int]) -> None:
    """Whatever a router says, the result is what came."""
    search = Search(SMALLEST, top)
    search.hint(hints)
    searched(search, lambda size: size <= limit)

    assert min(top, limit) == search.mtu


def test_a_true_hint_saves_volleys_and_packets() -> None:
    """The hinted size and the byte above it decide."""
    alone, told = Search(SMALLEST, 9000), Search(SMALLEST, 9000)
    told.hint([1456])
    many = searched(alone, lambda size: size <= 1456)
    few = searched(told, lambda size: size <= 1456)

    assert 1456 == alone.mtu == told.mtu
    assert sum(map(len, many)) > 2 * sum(map(len, few))


@given(SIZES, SIZES, SIZES)
def test_what_the_source_refuses_is_a_limit_at_once(top: int, limit: int, device: int) -> None:
    """Its kernel says so itself: that cannot be a loss."""
    search = Search(SMALLEST, top)
    searched(search, lambda size: size <= limit, refuses=device)

    assert min(top, limit, device) == search.mtu
    if device < min(limit, top):
        assert device + 1 == search.refused


def test_a_way_that_lets_nothing_through_is_blocked() -> None:
    """Also the smallest was sent several times, in two volleys."""
    search = Search(SMALLEST, 1500)
    asked = searched(search, lambda _size: False)

    assert search.is_blocked
    assert search.mtu is None
    assert 2 == len(asked)
    assert 10 == sum(sizes.count(SMALLEST) for sizes in asked)


@given(st.integers(1280, 1499), st.integers(1, 4))
def test_an_outage_is_no_limit(limit: int, out: int) -> None:
    """A volley in which also the controls are lost counts for nothing."""
    volleys = 0

    def fits(size: int) -> bool:
        return size <= limit and volleys != out

    search = Search(SMALLEST, 1500)
    sent: list[Volley] = []
    while sizes := search.ask():
        sent.append(Volley(sizes, sum(1 << place for place, size in enumerate(sizes) if fits(size))))
        search.note(sent)
        volleys += 1

    assert limit == search.mtu


@given(limit=st.integers(1280, 1499), out=st.integers(0, 4), turn=st.integers(0, MOST), ends=st.booleans())
def test_an_outage_within_a_volley_is_no_limit(limit: int, out: int, turn: int, *, ends: bool) -> None:
    """What is lost before the first packet that comes, or behind the last, counts for nothing."""
    search = Search(SMALLEST, 1500)
    sent: list[Volley] = []
    while sizes := search.ask():
        is_out = [len(sent) == out and (place < turn) == ends for place in range(MOST)]
        came = sum(1 << place for place, size in enumerate(sizes) if size <= limit and not is_out[place])
        sent.append(Volley(sizes, came))
        search.note(sent)

    assert limit == search.mtu


def test_a_volley_that_taps_had_no_room_for_is_no_evidence() -> None:
    """What came counts, what did not come does not."""
    search = Search(SMALLEST, 1500)
    sizes = search.ask()
    search.note([Volley(sizes, 1, is_evidence=False)])

    assert SMALLEST == search.low
    assert 1500 == search.high
    assert search.mtu is None


def test_a_late_arrival_counts() -> None:
    """What a volley brought is looked at again with every later one."""
    search = Search(SMALLEST, 1500)
    sizes = search.ask()
    search.note([Volley(sizes, 1)])
    search.note([Volley(sizes, (1 << len(sizes)) - 1)])

    assert 1500 == search.mtu


def test_below_the_floor_no_byte_is_sought() -> None:
    """Where only the unpadded packet comes, something else than its size is the matter."""
    search = Search(60, 1500, floor=128)
    asked = searched(search, lambda size: size <= 60)

    assert 60 == search.mtu
    assert set() == {size for sizes in asked for size in sizes if 60 < size < 128}
