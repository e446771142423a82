"""Every scenario and the demo can be built, and together they show all that a network can do to a packet."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from netprobe import plan
from netprobe.lab import Lab, describe_file
from netprobe.model import Family, Protocol, Role, Segment, Verdict
from tests.described import DEMO, PROTOCOLS, SCENARIOS, shown


@pytest.mark.lab
@pytest.mark.parametrize("path", [*SCENARIOS, DEMO], ids=lambda path: path.stem)
def test_every_scenario_builds(path: Path) -> None:
    """Its rules load, its routes exist."""
    with Lab.from_file(path) as lab:
        for fault in lab.description.faults:
            for on in fault.targets if fault.rules else ():
                loaded = lab.run(on, ["nft", "list", "ruleset"]).stdout

                assert f"hook {fault.hook.value}" in loaded if fault.hook else "hook" in loaded


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_is_one_fact(path: Path) -> None:
    """Short, named by a phrase, and by no two of them the same."""
    names = [describe_file(each).name for each in SCENARIOS]

    assert len(path.read_text(encoding="utf-8").splitlines()) < 20
    assert " " in describe_file(path).name
    assert 1 == names.count(describe_file(path).name)


@pytest.mark.parametrize(("protocol", "family"), PROTOCOLS)
def test_the_scenarios_show_every_verdict_and_every_segment(protocol: Protocol, family: Family) -> None:
    """`untested` is no network's doing, and only TCP has answers that can be lost or refused by a kernel."""
    cells = [cell for cell in shown(SCENARIOS) if cell[2:] == (protocol, family)]
    verdicts, segments = set(Verdict) - {Verdict.UNTESTED}, set(Segment)
    if protocol is not Protocol.TCP:
        verdicts.discard(Verdict.CLOSED)
        segments &= {Segment.SOURCE_EGRESS, Segment.PATH, Segment.DESTINATION_INGRESS}

    assert verdicts == {verdict for verdict, *_ in cells}
    assert segments == {segment for _, segment, *_ in cells} - {None}


def test_the_demo_is_a_small_cluster_with_at_least_six_faults() -> None:
    """Five hosts in two subnets, every role, both families; each fault is said and shows."""
    description = describe_file(DEMO)
    faults = Lab(description).planted

    assert 5 == len(description.roles)
    assert 2 == len(description.networks)
    assert set(Role) == set(chain.from_iterable(description.roles.values()))
    assert set(Family) == set(description.families)
    assert len(description.faults) == len(faults) >= 6
    assert all(fault.patterns for fault in faults)


def test_no_two_faults_of_the_demo_meet_in_a_cell() -> None:
    """What is found for one of them is not hidden by another."""
    lab = Lab.from_file(DEMO)
    flows = plan.flows(lab.inventory())

    assert {0, 1} == {sum(fault.shows_in(flow) for fault in lab.planted) for flow in flows}


def test_the_demo_shows_every_kind_of_loss() -> None:
    """Most verdicts, most segments, every protocol, both families."""
    cells = shown([DEMO])

    assert {
        Verdict.OPEN,
        Verdict.FILTERED,
        Verdict.REJECTED,
        Verdict.UNREACHABLE,
        Verdict.DEGRADED,
    } == {verdict for verdict, *_ in cells}
    assert set(Segment) - {Segment.SOURCE_INGRESS} == {segment for _, segment, *_ in cells} - {None}
