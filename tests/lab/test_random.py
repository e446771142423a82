"""
Random networks by real packets, each cell against the model; scripts/random-labs runs many more.

The seeds are of two kinds. The fixed ones hold between them all that a network, and all that a cell, can have
(tested below, without a lab), also what is drawn rarely: so a change that breaks any of it is found by the
commit that makes it, and every time. The fresh ones are another ten each day, so that what nobody thought of
is found sooner or later. They come from the date (UTC) and not from the commit: a failure that yesterday's
code has as well is no fault of today's. Every failure names its seed, and `scripts/random-labs SEED` repeats
it.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec
import pytest

from netprobe import plan
from netprobe.lab import Hook, Lab
from netprobe.model import Caveat, Family, Segment, Verdict
from tests.lab.halves import Truth
from tests.lab.random_labs import Result, report
from tests.lab.rules import ROUTER, Loss, Net, Reject, State
from tests.lab.seeds import network
from tests.lab.truth import Model

# fmt: off
FIXED: Final = (
    56, 70, 119, 156, 249, 271, 344, 355, 383, 387, 400, 433, 466, 475, 557, 664, 695, 731, 743, 771, 863,
    895, 962, 1026, 1105, 1119, 1140, 1162, 1181, 1201, 1248, 1272, 1375, 1415, 2049, 3063, 3108,
)
# fmt: on
_FRESH: Final = 10
_TODAY: Final = datetime.now(timezone.utc).date().toordinal()
FRESH: Final = tuple(range(_TODAY * _FRESH, (_TODAY + 1) * _FRESH))
SEEDS: Final = FIXED + FRESH
_JOBS: Final = 5
_ROOT: Final = Path(__file__).parents[2]
_NOT_DRAWN: Final = {Verdict.UNTESTED}
_MOST_RATIONED: Final = 0.1
"""Of the flows that are refused beyond their source."""
_MOST_BY_LUCK: Final = 0.02
"""Of the flows that lose half of their packets."""


@pytest.fixture(scope="module")
def results() -> Mapping[int, Result]:
    """What came of each seed. A run is mostly waiting: more go on at a time than there are cores."""
    argv = [sys.executable, "-m", "tests.lab.random_labs", "--json", "--jobs", str(_JOBS), *map(str, SEEDS)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, cwd=_ROOT, check=False)
    found = [msgspec.json.decode(line, type=Result) for line in done.stdout.splitlines()]
    return {result.seed: result for result in found}


@pytest.mark.lab
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_network_is_found_as_it_is(results: Mapping[int, Result], seed: int) -> None:
    """
    No wrong verdict, no wrong segment, nobody wrong who refuses, no caveat too many or too few.
    """
    assert seed in results, "its process ended without a result: see what it said"
    assert not results[seed].wrong, report(results[seed])


@pytest.mark.lab
def test_few_refusals_go_unheard(results: Mapping[int, Result]) -> None:
    """
    There is time for nearly all of those that are rationed, in the networks that are the same every day.
    """
    fixed = [results[seed] for seed in FIXED]
    refused = sum(result.refused for result in fixed)

    assert sum(result.rationed for result in fixed) <= _MOST_RATIONED * refused


@pytest.mark.lab
def test_little_is_left_to_luck(results: Mapping[int, Result]) -> None:
    """
    Of the flows that lose half of their packets nearly all are seen to.
    """
    lossy = sum(result.lossy for result in results.values())
    lucky = [each for result in results.values() for each in result.lucky]

    assert len(lucky) <= _MOST_BY_LUCK * lossy, "\n".join(lucky)


def _has(net: Net) -> Iterator[object]:
    """What a network has: hosts, words of rules, tables, translations, services."""
    yield from (len(net.hosts), net.families, bool(net.racks), bool(net.untracked), bool(net.snat_to))
    yield from (bool(net.handovers), bool(net.masquerade))
    yield from (("route", route.type, route.on == ROUTER) for route in net.routes)
    yield from (("redirect", redirect.protocol) for redirect in net.redirects)
    yield from (("service", each.protocol, each.family, each.is_anywhere) for each in net.services)
    for (on, hook), chains in net.chains.items():
        yield from (hook, ("tables", on == ROUTER, len(chains) > 1))
        for chain in chains:
            yield from (word for rule in chain.rules for word in (rule.does, rule.loss, rule.state))
            yield "stateful", on == ROUTER, any(rule.state for rule in chain.rules)


def _truths(net: Net) -> list[Truth]:
    """What the cells of a network hold."""
    model = Model(net)
    return [model.truth(flow) for flow in plan.flows(Lab(net.description()).inventory())]


def test_the_fixed_seeds_have_everything_between_them() -> None:
    """
    Every part that networks are made of, each loss at every segment, every caveat, and states that lie.
    """
    nets = [network(seed) for seed in FIXED]
    parts = set(itertools.chain.from_iterable(map(_has, nets)))
    truths = [truth for net in nets for truth in _truths(net)]
    bad = (Verdict.FILTERED, Verdict.REJECTED, Verdict.UNREACHABLE, Verdict.DEGRADED)
    otherwise = [truth.found for truth in truths if truth.found[:2] != truth.fresh[:2] and not truth.rare]

    assert parts >= {4, 5, 6, True, False, *Hook, *State, *Reject, *Loss} - {State.UNTRACKED}
    assert parts >= {("tables", is_router, True) for is_router in (False, True)}
    assert parts >= {("stateful", *each) for each in itertools.product((False, True), repeat=2)}
    assert parts >= {("redirect", protocol) for protocol in ("tcp", "udp")}
    assert parts >= {("service", *each) for each in itertools.product(("tcp", "udp"), Family, (False, True))}
    assert {truth.found[:2] for truth in truths} >= {*itertools.product(bad, Segment)}
    assert {truth.found.verdict for truth in truths} == {*Verdict} - _NOT_DRAWN
    assert {caveat for truth in truths for caveat in truth.found.caveats} == {*Caveat} - {Caveat.RETRIED}
    assert {False, True} == {Caveat.STATE_ASSISTED in held.caveats for held in otherwise}
