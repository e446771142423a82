"""What a plan asks for, and in which order: read from the schedules, as the hosts get them."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe import bundle
from netprobe.agent.clocks import Clock
from netprobe.attempts import OUTPUT_MASK, Attempts
from netprobe.coordinator.volleys import SPOKEN_PERIOD_S
from netprobe.model import Family, Flow, Protocol, Settings
from netprobe.offline.course import in_turns, period_s
from netprobe.offline.directory import draw_up
from netprobe.plan import flows
from netprobe.probes import registry
from tests.offline.made_up import MARGIN_S, inventory

Schedules = dict[str, Any]

INVENTORY: Final = inventory(4, None)


@pytest.fixture(scope="module")
def schedules() -> Schedules:
    """Those of four hosts, with all probes."""
    found = draw_up(INVENTORY, Settings(), MARGIN_S, 5).schedules()
    return {name: json.loads(schedule) for name, schedule in found.items()}


def _sent(schedules: Schedules, name: str) -> list[tuple[float, str, int, int]]:
    """When a host sends which attempts (a mask) of which flow, and by which way; no withdrawals."""
    found = []
    by_number = {flow.number: flow for flow in flows(INVENTORY)}
    for step in schedules[name]["steps"]:
        for volley in step.get("volleys", ()):
            mask = Attempts(*volley["attempts"]).mask
            for _template, _address, targets, undo in schedules[name]["shots"][volley["shots"]]:
                for number, _destination in targets:
                    if undo is not None or by_number[number].protocol is not Protocol.TCP:
                        found.append((step["at"], volley["way"], number, mask))
    return found


def test_every_flow_is_sent_by_its_source_and_nobody_else(schedules: Schedules) -> None:
    """All of them, and to their destinations."""
    for name in schedules:
        assert {flow.number for flow in flows(INVENTORY) if flow.src == name} == {
            number for _at, _way, number, _mask in _sent(schedules, name)
        }


def test_all_watch_before_anybody_sends_and_longer(schedules: Schedules) -> None:
    """A margin before the first packet of any host, and a margin after the last one."""
    first = min(at for name in schedules for at, *_ in _sent(schedules, name))
    last = max(at for name in schedules for at, *_ in _sent(schedules, name))
    for schedule in schedules.values():
        armed = [step["at"] for step in schedule["steps"] if step["verb"] in ("arm", "listen", "conntrack")][
            :4
        ]
        collected = [step["at"] for step in schedule["steps"] if step["verb"] == "collect"]
        assert max(armed) + MARGIN_S <= first
        assert last + MARGIN_S <= max(collected)


def test_one_way_of_all_pairs_comes_first_with_all_its_packets(schedules: Schedules) -> None:
    """Between the two ways all hosts delete the entries, a margin from the packets of either."""
    order = list(schedules)
    times: dict[bool, list[float]] = defaultdict(list)
    for flow in flows(INVENTORY):
        if registry()[flow.probe].shares_conntrack:
            is_second = order.index(flow.src) > order.index(flow.dst)
            times[is_second] += [
                at for at, _way, number, _mask in _sent(schedules, flow.src) if number == flow.number
            ]
    deletions = [
        [step["at"] for step in schedule["steps"] if step["verb"] == "conntrack" and step["delete"]]
        for schedule in schedules.values()
    ]

    assert 1 == len(set(map(tuple, deletions)))
    between, end = deletions[0]
    assert max(times[False]) + MARGIN_S <= between
    assert between + MARGIN_S <= min(times[True])
    assert max(times[True]) + MARGIN_S <= end


def test_what_tests_the_sources_output_never_counts_as_an_arrival(schedules: Schedules) -> None:
    """What shares an entry goes through the kernel with numbers of its own; all else is injected."""
    by_number = {flow.number: flow for flow in flows(INVENTORY)}
    ways: dict[str, int] = defaultdict(int)
    for name in schedules:
        for _at, way, number, mask in _sent(schedules, name):
            if registry()[by_number[number].probe].shares_conntrack:
                ways[way] |= mask

    assert ways["kernel"] & OUTPUT_MASK
    assert not ways["kernel"] & ways["link"]


def test_steps_follow_each_other_and_times_do_not_depend_on_the_host(schedules: Schedules) -> None:
    """The same step is at the same time everywhere."""
    times: dict[int, set[float]] = defaultdict(set)
    for schedule in schedules.values():
        steps = [(step["id"], step["at"]) for step in schedule["steps"]]
        assert steps == sorted(steps)
        for number, at in steps:
            times[number].add(at)

    assert {1} == {len(each) for each in times.values()}


def test_a_schedule_grows_with_its_host_and_not_with_the_number_of_pairs() -> None:
    """Twice as many hosts make each programme less than twice as large."""
    sizes = [
        max(len(text) for text in draw_up(inventory(hosts, None), Settings(), 3, 5).programmes().values())
        for hosts in (10, 20)
    ]

    assert sizes[1] < 1.2 * sizes[0]
    assert sizes[1] < 100_000


def test_the_same_key_makes_the_same_plan_again() -> None:
    """And another one another."""
    one, two = (draw_up(INVENTORY, Settings(), 3, 5).plan for _ in range(2))

    assert one.id != two.id
    assert one == one.sealed()


def test_a_programme_is_python_3_6(tmp_path: Path) -> None:
    """It parses as that, and tells what it wants."""
    text = bundle.programme("A part.", b'{"plan": "p", "host": "h", "margin": 1, "duration": 1}')
    ast.parse(text, feature_version=(3, 6))
    path = tmp_path / "programme.py"
    path.write_text(text)
    told = subprocess.run(
        [sys.executable, "-I", "-S", path, "-h"], capture_output=True, text=True, check=True
    )

    assert "--clock COMPARISONS" in told.stdout
    assert "planned as p" in told.stdout


def _flows(destinations: list[int]) -> list[Flow]:
    return [
        Flow(
            number=number,
            probe="bgp",
            family=Family.IPV4,
            protocol=Protocol.TCP,
            port=179,
            src="a",
            src_address="10.0.0.1",
            dst=f"n{destination}",
            dst_address=f"10.0.1.{destination}",
        )
        for number, destination in enumerate(destinations)
    ]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=120), st.floats(0, 100))
def test_questions_to_the_same_destination_lie_a_ration_apart(
    destinations: list[int], patience_s: float
) -> None:
    """Each flow is asked once; and all lie so far apart where there is patience for it."""
    asked = in_turns(_flows(destinations))
    period = period_s(asked, patience_s)
    times: dict[str, list[float]] = defaultdict(list)
    for turn, flow in enumerate(asked):
        times[flow.dst].append(turn * period)

    assert sorted(flow.number for flow in asked) == list(range(len(destinations)))
    assert all(
        after - before >= SPOKEN_PERIOD_S - 1e-6
        for each in times.values()
        for before, after in itertools.pairwise(each)
    )
    if len(asked) * SPOKEN_PERIOD_S <= patience_s:
        assert period == SPOKEN_PERIOD_S


def test_the_time_to_ask_does_not_grow_with_the_number_of_destinations() -> None:
    """Ten flows to each take as long, be it to three hosts or to a hundred."""
    spans = [
        len(asked) * period_s(asked, 0) for asked in (in_turns(_flows([*range(n)] * 10)) for n in (3, 100))
    ]

    assert spans[0] == pytest.approx(10 * SPOKEN_PERIOD_S)
    assert spans[1] == pytest.approx(spans[0])


@given(
    st.floats(-1e5, 1e5),
    st.lists(st.tuples(st.floats(0.001, 2), st.floats(0.001, 2), st.floats(0, 2)), min_size=2, max_size=8),
)
def test_a_host_knows_the_time_as_well_as_it_says(
    ahead_s: float, turns: list[tuple[float, float, float]]
) -> None:
    """However long a command takes on its way there and back."""
    now, compared = 1_800_000_000.0, []
    for there_s, back_s, pause_s in turns:
        compared.append((now, now + there_s + ahead_s))
        now += there_s + back_s + pause_s
    clock = Clock(compared)

    assert abs(clock.ahead_s - ahead_s) <= clock.uncertainty_s + 1e-5
    assert clock.uncertainty_s <= min(sum(each) for each in turns[:-1]) / 2 + 1e-5


@pytest.mark.parametrize(
    "comparisons", [[], [(0.0, 0.0)], [(0.0, 10.0), (1.0, 12.0), (2.0, 22.0), (3.0, 23.0)]]
)
def test_comparisons_that_tell_nothing_are_a_doubt(comparisons: list[tuple[float, float]]) -> None:
    """There are too few, or a clock was set between them."""
    assert "its clock was not compared" in Clock(comparisons).doubt(1e9)
