"""
Random networks by real packets, each cell against the model; scripts/random-labs runs many more.

These few hold, between them, what others hold rarely: see `tests/lab/seeds.py` for what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest
import trio

from netprobe.model import Segment, Verdict
from tests.lab.random_labs import Result, probed, report

SEEDS: Final = (339, 398, 438, 475, 510, 577, 596, 1060, 1075)
_NOT_DRAWN: Final = {Verdict.CLOSED, Verdict.UNTESTED, Verdict.DEGRADED}
_MOST_RATIONED: Final = 0.02


@pytest.fixture(scope="module")
def results() -> Mapping[int, Result]:
    """What came of each seed. A run is mostly waiting, so all of them go on at the same time."""
    return trio.run(_probe)


async def _probe() -> dict[int, Result]:
    found: dict[int, Result] = {}

    async def probe(seed: int) -> None:
        found[seed] = await probed(seed)

    async with trio.open_nursery() as nursery:
        for seed in SEEDS:
            nursery.start_soon(probe, seed)
    return found


@pytest.mark.lab
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_network_is_found_as_it_is(results: Mapping[int, Result], seed: int) -> None:
    """
    No wrong verdict, no wrong segment, nobody wrong who refuses, no caveat too many or too few.
    """
    assert not results[seed].wrong, report(results[seed])


@pytest.mark.lab
def test_few_refusals_go_unheard(results: Mapping[int, Result]) -> None:
    """
    There is time for nearly all of those that are rationed.
    """
    cells = sum(result.cells for result in results.values())

    assert sum(result.rationed for result in results.values()) <= _MOST_RATIONED * cells


@pytest.mark.lab
def test_the_networks_have_everything(results: Mapping[int, Result]) -> None:
    """
    Losses at every segment, and all that can be made of them.
    """
    held = {words for result in results.values() for words in result.held}

    assert {segment.value for segment in Segment} <= {words.partition(" @ ")[2] for words in held}
    assert {*Verdict} - _NOT_DRAWN == {Verdict(words.partition(" @ ")[0]) for words in held}
