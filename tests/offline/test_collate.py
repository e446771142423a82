"""Observations become cells; whatever else stands in their place becomes a reason."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from netprobe.attempts import SLOW
from netprobe.cli.app import status_of
from netprobe.model import Caveat, Run, Verdict
from netprobe.offline import PlanError, collate
from netprobe.plan import flows
from tests.lab.probing import held
from tests.offline.made_up import MARGIN_S, MONOTONIC, START, MadeUp

Lines = list[dict[str, Any]]


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    """Three hosts of which everything arrives."""
    return MadeUp(tmp_path / "plan")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """The same, for tests that put everything back."""
    return MadeUp(tmp_path_factory.mktemp("shared") / "plan")


def _untested(run: Run) -> dict[str, str]:
    """The reason by which each host's flows are untested; all of a host's flows are, or none."""
    found: dict[str, str] = {}
    for cell in run.cells:
        if cell.judgement.verdict is Verdict.UNTESTED:
            name, _colon, reason = cell.judgement.detail.partition(": ")
            assert name in (cell.flow.src, cell.flow.dst)
            assert reason == found.setdefault(name, reason)
    for name in found:
        theirs = [cell for cell in run.cells if name in (cell.flow.src, cell.flow.dst)]
        assert {Verdict.UNTESTED} == {cell.judgement.verdict for cell in theirs}
    others = [cell for cell in run.cells if not {cell.flow.src, cell.flow.dst} & set(found)]
    assert {Verdict.OPEN} >= {cell.judgement.verdict for cell in others}
    return found


def test_a_network_without_a_fault_is_open(made_up: MadeUp) -> None:
    """Every flow, and the record says when that was."""
    run = collate([made_up.directory]).run

    assert {} == _untested(run)
    assert 3 * 2 * 3 == len(run.cells)
    assert run.started == "2027-01-15T08:00:00.000+00:00"
    assert [0.0] * 3 == [report.clock_offset_ms for report in run.hosts]
    assert "syn" == run.settings.depth
    assert run.packets > 0


def _end(reason: str) -> Callable[[Lines], None]:
    return lambda lines: lines[-1].update(end=reason)


def _shift_monotonic(lines: Lines) -> None:
    lines[0]["monotonic"] += 2


def _without(verb_place: int) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        del lines[verb_place]

    return change


def _late(lines: Lines) -> None:
    for line in lines[6:-1]:
        line["begun"] += 30
        line["ended"] += 30


def _early(lines: Lines) -> None:
    for line in lines[1:-1]:
        line["begun"] -= 30
        line["ended"] -= 30


CHANGES: Final[dict[str, tuple[Callable[[Lines], object], str]]] = {
    "its programme says why": (_end("it was started 3.0 s too late"), "it was started 3.0 s too late"),
    "cut off": (
        lambda lines: lines.pop(),
        "{path} is cut off: its programme was killed, or the file was fetched too early",
    ),
    "another plan": (
        lambda lines: lines[0].update(plan="0" * 16),
        "{path} is of another plan: run this one's playbook",
    ),
    "another host": (lambda lines: lines[0].update(host="n1"), "{path} has observations of another host"),
    "another run": (
        lambda lines: lines[0].update(start=START - 86400),
        "{path} is of another run: it began at 2027-01-14T08:00:00.000+00:00",
    ),
    "another format": (
        lambda lines: lines[0].update(netprobe=2),
        "{path}: observations of format 2; this netprobe reads 1",
    ),
    "a step is missing": (_without(4), "garbage in {path}: there is no step 3"),
    "the first step is missing": (_without(1), "garbage in {path}: there is no step 0"),
    "an error": (lambda lines: lines[3].update(ok=None, error="EPERM: no"), "step 2 failed: EPERM: no"),
    "late": (_late, "it was 28.5 s late: plan with a larger --margin, or a lower --rate"),
    "early": (_early, "its programme was 30.0 s ahead of its time"),
    "an uncertain clock": (
        lambda lines: lines[0].update(clock=[[START - 20, START, MONOTONIC], [START - 10, START, MONOTONIC]]),
        "its clock is known to 5.0 s only, and 1.5 s are allowed",
    ),
    "a contradictory clock": (
        lambda lines: lines[0].update(
            clock=[[0, 0.1, MONOTONIC], [0.2, 9.3, MONOTONIC + 9], [0.4, 9.5, MONOTONIC + 9.2]]
        ),
        "its clock was not compared with another one often enough, or one of them was set meanwhile",
    ),
    "no clock": (
        lambda lines: lines[0].update(clock=[]),
        "its clock was not compared with another one often enough, or one of them was set meanwhile",
    ),
    "a clock that was set": (
        _shift_monotonic,
        "its clock was set by -2.0 s while it waited for the start; run the play again",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_trusted_is_untested_and_the_reason_is_said(made_up: MadeUp, change: str) -> None:
    """For the host that it is about, and for no other one."""
    make, reason = CHANGES[change]
    make(made_up.lines["n2"])
    made_up.write("n2")
    run = collate([made_up.directory]).run

    assert {"n2": reason.format(path=made_up.path("n2"))} == _untested(run)
    assert [reason.format(path=made_up.path("n2"))] == [each.error for each in run.hosts if each.error]


def test_without_any_observations_there_is_no_run(made_up: MadeUp) -> None:
    """Nobody knows when it began, and a report would be about nothing; the first host says why."""
    for name in made_up.lines:
        made_up.path(name).unlink()
    absent = (
        f"no host has observations that can be read; of n1: no observations: there is no {made_up.path('n1')}"
    )

    with pytest.raises(PlanError, match=re.escape(absent)):
        collate([made_up.directory])


def test_a_host_without_observations_is_untested(made_up: MadeUp) -> None:
    """The file that is missing is named."""
    made_up.path("n3").unlink()

    assert {"n3": f"no observations: there is no {made_up.path('n3')}"} == _untested(
        collate([made_up.directory]).run
    )


def test_a_wall_clock_that_is_wrong_changes_nothing(made_up: MadeUp) -> None:
    """The schedule went by the other one; it is said."""
    header = made_up.lines["n1"][0]
    header["time"] += 3600
    header["clock"] = [[before, wall + 3600, there] for before, wall, there in header["clock"]]
    made_up.write("n1")
    run, clocks = collate([made_up.directory])

    assert {} == _untested(run)
    assert {"n1": 3600.0} == {name: round(ahead_s, 3) for name, ahead_s in clocks.items()}
    assert [3_600_000.0, 0.0, 0.0] == [report.clock_offset_ms for report in run.hosts]


def test_a_clock_that_may_be_right_is_not_called_wrong(made_up: MadeUp) -> None:
    """On a busy host the comparisons take long; what lies in the middle of their bounds is a guess."""
    start, after_s = START - 9, 2.6
    made_up.lines["n1"][0]["clock"] = [
        [start + at, start + at + after_s, start + at + after_s - START + MONOTONIC] for at in (0, 2.8)
    ]
    made_up.write("n1")

    assert {} == collate([made_up.directory]).clocks


def _of(made_up: MadeUp, name: str, verb: str) -> Lines:
    """The lines of a host that answer a verb."""
    numbers = {step["id"] for step in made_up.schedules[name]["steps"] if step["verb"] == verb}
    return [line for line in made_up.lines[name] if line.get("id") in numbers]


def test_who_holds_a_port_is_asked_beforehand(made_up: MadeUp) -> None:
    """The question went to all hosts, because nobody knew where a service is."""
    (facts,), (listening,) = (_of(made_up, "n2", verb) for verb in ("facts", "listen"))
    sockets = next(step for step in made_up.schedules["n2"]["steps"] if step["verb"] == "listen")["sockets"]
    held = next(number for number, each in enumerate(sockets) if each[2] == 179)
    facts["ok"]["ports"] = [[6, "10.0.0.2", 179, "bird (pid 7)"]]
    listening["ok"]["failed"] = [[held, "EADDRINUSE"]]
    made_up.write("n2")
    (asked,) = (step for step in made_up.schedules["n2"]["steps"] if step["verb"] == "facts")
    found = {
        cell.judgement.caveats: cell.judgement.detail
        for cell in collate([made_up.directory]).run.cells
        if (cell.flow.probe, cell.flow.dst) == ("bgp", "n2")
    }

    assert [6, 179] in asked["ports"]
    assert {(Caveat.PORT_IN_USE,): "bird (pid 7) holds the port"} == found


def test_an_entry_that_was_there_before_is_a_caveat(made_up: MadeUp) -> None:
    """It may have let in what arrived; the programme has left it there."""
    look = _of(made_up, "n2", "conntrack")[0]
    look["ok"]["found"] = list(range(4))
    made_up.write("n2")
    details = {
        cell.judgement.detail
        for cell in collate([made_up.directory]).run.cells
        if cell.flow.probe == "ipip" and "n2" in (cell.flow.src, cell.flow.dst)
    }

    assert {"conntrack of n2 had an entry for these two addresses before the run"} == details


@pytest.mark.parametrize(
    ("others", "verdict", "detail"),
    [
        ([1, 1 | 1 << SLOW.first], Verdict.UNTESTED, "something limits the rate of packets"),
        (
            [1 | 1 << SLOW.first] * 2,
            Verdict.FILTERED,
            "a limit on the rate of packets may be all that stops it",
        ),
        ([1, 1], Verdict.FILTERED, ""),
    ],
    ids=["some pass slowly", "all pass slowly", "none passes slowly"],
)
def test_beside_a_limit_silence_is_not_a_firewall(
    made_up: MadeUp, others: list[int], verdict: Verdict, detail: str
) -> None:
    """Of two flows little passes, of a third nothing, all at the same place."""
    wanted = {("ipip", "n1"): 0, ("vxlan", "n1"): others[0], ("vxlan", "n3"): others[1]}
    passing = {
        flow.number: wanted[flow.probe, flow.src]
        for flow in flows(made_up.plan.inventory)
        if flow.dst == "n2" and (flow.probe, flow.src) in wanted
    }
    for line in _of(made_up, "n2", "collect"):
        for point, _kind, masks in line["ok"]["sightings"]:
            if point == "socket":
                masks[:] = [[number, mask & passing.get(number, ~0)] for number, mask in masks]
    made_up.write("n2")
    (cell,) = (
        cell
        for cell in collate([made_up.directory]).run.cells
        if (cell.flow.probe, cell.flow.src, cell.flow.dst) == ("ipip", "n1", "n2")
    )

    assert verdict is cell.judgement.verdict
    assert detail in cell.judgement.detail
    assert bool(detail) == ("limit" in cell.judgement.detail)


def _collects(lines: Lines) -> list[int]:
    return [place for place, line in enumerate(lines) if "sightings" in line.get("ok", {})]


def _delay(lines: Lines) -> None:
    """Let what came in the first half be seen in the last collection, as if a clock were wrong."""
    first, last = _collects(lines)[1], _collects(lines)[-1]
    lines[last]["ok"]["sightings"] = lines[first]["ok"]["sightings"]
    for place in _collects(lines)[:-1]:
        lines[place]["ok"]["sightings"] = []


def _hasten(lines: Lines) -> None:
    """Let what came at all be seen in the first collection."""
    first, *others = _collects(lines)
    for place in others:
        lines[first]["ok"]["sightings"] += lines[place]["ok"]["sightings"]
        lines[place]["ok"]["sightings"] = []


@pytest.mark.parametrize(("change", "partners"), [(_delay, {"n1", "n3"}), (_hasten, {"n3"})])
def test_packets_tell_that_a_clock_is_wrong(
    made_up: MadeUp, change: Callable[[Lines], None], partners: set[str]
) -> None:
    """
    Who saw packets long after they were sent, or before, did not work at the same time as their sender.

    Of two hosts the one that comes first in the inventory has sent in the first half.
    """
    change(made_up.lines["n2"])
    made_up.write("n2")
    untested = [
        cell for cell in collate([made_up.directory]).run.cells if cell.judgement.verdict is Verdict.UNTESTED
    ]

    assert {frozenset(("n2", name)) for name in partners} == {
        frozenset((cell.flow.src, cell.flow.dst)) for cell in untested
    }
    assert all(
        "saw packets of each other outside of their time" in cell.judgement.detail for cell in untested
    )


def test_several_controllers_have_fetched_a_part_each(made_up: MadeUp, tmp_path: Path) -> None:
    """Each has a copy of the plan; together they have all."""
    other = tmp_path / "other"
    shutil.copytree(made_up.directory, other)
    made_up.path("n1").unlink()
    for name in ("n2", "n3"):
        (other / "observations" / f"{name}.jsonl").unlink()

    assert {} == _untested(collate([made_up.directory, other]).run)
    assert {"n2", "n3"} == set(_untested(collate([other]).run))


def test_directories_of_different_plans_are_refused(made_up: MadeUp, tmp_path: Path) -> None:
    """What belongs together has one plan."""
    other = MadeUp(tmp_path / "other")

    with pytest.raises(PlanError, match="have different plans: collate them apart"):
        collate([made_up.directory, other.directory])


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _keys(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """The way to everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(key for name, each in items for key in _keys(each, (*path, name)))]


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
@example(b"")
@example(b"\n")
@example(b"[" * 100_000)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_observations_or_a_reason(shared: MadeUp, data: bytes) -> None:
    """No host can break the report, and none spoils the flows of others."""
    shared.path("n2").write_bytes(data)
    try:
        assert {"n2"} == set(_untested(collate([shared.directory]).run))
    finally:
        shared.write("n2")


@given(st.data())
@settings(max_examples=120)
def test_a_host_that_lies_spoils_nobody_elses_cells(shared: MadeUp, data: st.DataObject) -> None:
    """Whatever stands in the place of a value: the flows of other hosts are as they are."""
    lines = json.loads(json.dumps(shared.lines["n2"]))
    place = data.draw(st.integers(0, len(lines) - 1))
    way = data.draw(st.sampled_from([key for key in _keys(lines[place]) if key]))
    holder = lines[place]
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = data.draw(_JSON)
    shared.path("n2").write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        run = collate([shared.directory]).run
    finally:
        shared.write("n2")
    others = {name: each for name, each in held(run).items() if "n2" not in name}

    assert {Verdict.OPEN} == {each.verdict for each in others.values()}
    assert 6 == len(others)


def _garble(path: Path) -> None:
    path.write_bytes(b"{")


def _retouch(path: Path) -> None:
    path.write_text(path.read_text().replace('"margin_s": 3.0', '"margin_s": 300.0'))


def _age(path: Path) -> None:
    path.write_text(path.read_text().replace('"netprobe": "', '"netprobe": "0.0.'))


def _succeed(path: Path) -> None:
    path.write_text(path.read_text().replace("netprobe.plan/1", "netprobe.plan/2"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Path.unlink, r"{directory} has no plan.json: name a directory that `netprobe plan` wrote"),
        (_garble, r"{directory}/plan.json: no plan: Input data was truncated"),
        (_retouch, r"{directory}/plan.json was changed: plan again"),
        (_age, r"{directory}/plan.json: a plan of netprobe 0.0.*: use the same version"),
        (_succeed, r"{directory}/plan.json: a plan of schema 'netprobe.plan/2'; this netprobe reads .*"),
    ],
)
def test_what_is_no_plan_is_one_line(
    made_up: MadeUp, capfd: pytest.CaptureFixture[str], change: Callable[[Path], object], error: str
) -> None:
    """With the file and what to do; nothing is printed, and the status is that of a usage error."""
    import re

    change(made_up.directory / "plan.json")
    assert 2 == status_of(["collate", str(made_up.directory)])
    out, err = capfd.readouterr()

    assert "" == out
    assert re.fullmatch(f"netprobe: error: {error.format(directory=made_up.directory)}\n", err)


def test_a_plan_that_was_not_carried_out_is_no_result(
    made_up: MadeUp, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command that does it is named."""
    shutil.rmtree(made_up.directory / "observations")
    directory = made_up.directory.rename(made_up.directory.with_name("the plan's"))

    assert 2 == status_of(["collate", str(directory)])
    *_said, command = capfd.readouterr().err.rpartition("ansible-playbook ")
    assert ["-i", f"{directory}/inventory.yaml", f"{directory}/playbook.yaml"] == shlex.split(command)


def test_collate_has_the_formats_and_the_exit_status_of_a_run(
    made_up: MadeUp, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """0 where all is open, 3 where something is untested; CSV has a line for each cell."""
    assert 0 == status_of(["collate", str(made_up.directory), "--format", "csv"])
    assert 1 + 18 == len(capfd.readouterr().out.splitlines())
    made_up.path("n2").unlink()
    assert 3 == status_of(["collate", str(made_up.directory), "-o", str(tmp_path / "result.json")])
    assert "netprobe.run/1" in (tmp_path / "result.json").read_text()


@pytest.mark.parametrize(("late_s", "is_trusted"), [(MARGIN_S / 2, True), (MARGIN_S / 2 + 2, False)])
def test_half_of_the_margin_is_a_hosts(made_up: MadeUp, late_s: float, is_trusted: bool) -> None:
    """Who is later than that, with a second's reserve, may have met the work of others."""
    for line in made_up.lines["n2"][1:-1]:
        line["ended"] += late_s
    made_up.write("n2")

    assert is_trusted == (_untested(collate([made_up.directory]).run) == {})
