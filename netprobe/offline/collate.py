"""The observations of all hosts, put together: the same course again, and now with answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import trio

from netprobe.coordinator.cells import cells
from netprobe.coordinator.record import record
from netprobe.model import Run
from netprobe.offline.ansible import command
from netprobe.offline.course import Course
from netprobe.offline.directory import OBSERVATIONS, PLAN, Plan, PlanError, load
from netprobe.offline.records import Record, RecordError
from netprobe.offline.scribe import Scribe

_FAR_S: Final = 1.0
"""A clock that is certainly so far from another one deserves a word."""

_T = TypeVar("_T")


class Collated(NamedTuple):
    """A run, and the hosts whose clocks are wrong, by how many seconds they are ahead."""

    run: Run
    clocks: Mapping[str, float]


def collate(directories: Sequence[Path]) -> Collated:
    """
    The run whose observations are in some directories of one plan.

    A host without observations, or with such as cannot be trusted, makes its flows `untested`. `PlanError`
    where there is no plan, where these are several, or where nothing has been observed at all.
    """
    plan = _plan(directories)
    found = _find(plan, directories)
    reader = Reader(plan.names, plan.margin_s, found)
    run = trio.run(_read, plan, reader, found.start)
    far = {name: each.ahead_s for name, each in reader.records.items() if each.is_off_by(_FAR_S)}
    return Collated(run, far)


def _plan(directories: Sequence[Path]) -> Plan:
    plans = [load(directory) for directory in directories]
    for directory, each in zip(directories, plans, strict=True):
        if each != plans[0]:
            raise PlanError(f"{directory} and {directories[0]} have different plans: collate them apart")
    return plans[0]


class _Found(NamedTuple):
    """The record of each host that has one, why others have none, and when all began (seconds since 1970)."""

    records: dict[str, Record]
    reasons: dict[str, str]
    start: float


def _find(plan: Plan, directories: Sequence[Path]) -> _Found:
    """The observations of each host: of one run of the plan, that of which there are most."""
    if not any((directory / OBSERVATIONS).is_dir() for directory in directories):
        raise PlanError(
            f"{directories[0]} has no {OBSERVATIONS} yet: run its playbook first, {command(directories[0])}"
        )
    candidates: dict[str, list[Record]] = {}
    reasons: dict[str, str] = {}
    for name in plan.names:
        paths = [directory / OBSERVATIONS / f"{name}.jsonl" for directory in directories]
        candidates[name] = []
        for path in paths:
            try:
                if path.exists():
                    candidates[name].append(_record(path, name, plan))
            except RecordError as error:
                reasons[name] = str(error)
        if not candidates[name]:
            reasons.setdefault(name, f"no observations: there is no {paths[0]}")
    starts = Counter(start for records in candidates.values() for start in {each.start for each in records})
    if not starts:
        name, why = next(iter(reasons.items()))
        raise PlanError(f"no host has observations that can be read; of {name}: {why}")
    start = max(starts, key=lambda each: (starts[each], each))
    records = {name: each for name, theirs in candidates.items() for each in theirs if each.start == start}
    for name, theirs in candidates.items():
        if theirs and name not in records:
            reasons[name] = f"{theirs[0].path} is of another run: it began at {_iso(theirs[0].start)}"
    return _Found(records, {name: why for name, why in reasons.items() if name not in records}, start)


def _record(path: Path, name: str, plan: Plan) -> Record:
    found = Record(path)
    if found.header.plan != plan.id:
        raise RecordError(f"{path} is of another plan: run this one's playbook")
    if found.header.host != name:
        raise RecordError(f"{path} has observations of another host")
    return found


class Reader(Scribe):
    """
    Writes down the same once more, and gives the answers that hosts have recorded.

    `reasons` say what is wrong with what a host has recorded, or why there is nothing.
    """

    def __init__(self, names: Sequence[str], margin_s: float, found: _Found) -> None:
        super().__init__(names, margin_s)
        self.records = found.records
        self.reasons = dict(found.reasons)

    def _answers(self, number: int, names: Sequence[str], kind: type[_T]) -> dict[str, _T]:
        answers: dict[str, _T] = {}
        for name in names:
            theirs = self.records.get(name)
            if theirs is not None and number in theirs.steps:
                try:
                    answers[name] = theirs.answer(number, kind)
                except RecordError as error:
                    self.reasons.setdefault(name, str(error))
        return answers

    def lose(self, course: Course) -> None:
        """Let the hosts be lost whose records are not to be trusted, now that all has been read."""
        for name, theirs in self.records.items():
            if reason := theirs.trouble(self.numbers(name), self.barriers, self.margin_s):
                self.reasons.setdefault(name, reason)
        for name, reason in self.reasons.items():
            self.lost[name] = reason
            course.there.field.lose(name, reason)


async def _read(plan: Plan, reader: Reader, start: float) -> Run:
    course = await plan.follow(reader)
    if reader.identity() != plan.id:
        raise PlanError(f"{PLAN} is not what the programmes were made of: plan again")
    reader.lose(course)
    course.conclude({name: each.ahead_s for name, each in reader.records.items()})
    started, finished = _iso(start), _iso(start + plan.duration_s)
    return record(
        course.there,
        plan.inventory,
        plan.settings,
        started,
        finished=finished,
        cells=cells(course.there.field),
    )


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"
