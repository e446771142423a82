"""What a programme has written down: read with suspicion, because a host may be wrong, late or hostile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from netprobe.agent.clocks import Clock
from netprobe.offline.scribe import Barrier

FORMAT: Final = 1
_MAX_BYTES: Final = 512 << 20
_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
_EARLY_S: Final = 0.01
_SHOWN: Final = 200

_T = TypeVar("_T")

Seconds = Annotated[float, Meta(ge=-1e12, le=1e12)]


class RecordError(Exception):
    """Observations that are none; the text says why in one line."""


class Header(msgspec.Struct, frozen=True):
    """
    The first line: whose observations these are, and by which clock.

    `clock` are the planner's clock, the host's wall clock and its monotonic clock, some times; `time` and
    `monotonic` the latter two for the programme itself, when it began.
    """

    netprobe: int
    plan: str
    host: str
    start: Seconds
    clock: list[tuple[Seconds, Seconds, Seconds]]
    time: Seconds
    monotonic: Seconds


class Line(msgspec.Struct, frozen=True):
    """A step: when it began and ended, from the start of the plan, and its answer; after an error no more."""

    id: int
    begun: Seconds
    ended: Seconds
    ok: msgspec.Raw = msgspec.Raw()
    error: str = ""


class _Footer(msgspec.Struct, frozen=True):
    """The last line: why the programme ended, "" at its proper end."""

    end: str


class Record:
    """The observations of one host in a file; `RecordError` where they are none."""

    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise RecordError(f"{path}: over {_MAX_BYTES >> 20} MiB are no observations")
            first, *lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}") from None
        try:
            self.header = msgspec.json.decode(first, type=Header)
        except _NOT_JSON as error:
            raise RecordError(f"{path}: no observations: {_one_line(error)}") from None
        if self.header.netprobe != FORMAT:
            raise RecordError(
                f"{path}: observations of format {self.header.netprobe}; this netprobe reads {FORMAT}"
            )
        self.path = path
        self.steps: dict[int, Line] = {}
        self._end: str | None = None
        self._garbage = ""
        try:
            self._read(lines)
        except _NOT_JSON as error:
            self._garbage = _one_line(error)

    @property
    def start(self) -> float:
        """When the run began, by the clock of whoever started it."""
        return self.header.start

    def _read(self, lines: Iterable[bytes]) -> None:
        for line in filter(None, lines):
            if line.startswith(b'{"end"'):
                self._end = msgspec.json.decode(line, type=_Footer).end
            else:
                step = msgspec.json.decode(line, type=Line)
                self.steps.setdefault(step.id, step)

    def answer(self, number: int, kind: type[_T]) -> _T:
        """The answer that a step was given; `RecordError` where it is none."""
        step = self.steps[number]
        if step.error:
            raise RecordError(f"step {number} failed: {_one_line(step.error)}")
        try:
            return msgspec.json.decode(step.ok, type=kind)
        except _NOT_JSON as error:
            raise RecordError(f"garbage in {self.path}: {_one_line(error)}") from None

    def trouble(self, asked: Collection[int], barriers: Sequence[Barrier], margin_s: float) -> str:
        """Why the answers to what was asked are not complete, or not to be trusted; "" where they are."""
        if self._garbage:
            return f"garbage in {self.path}: {self._garbage}"
        if self._end is None:
            return f"{self.path} is cut off: its programme was killed, or the file was fetched too early"
        if self._end:
            return _one_line(self._end)
        if missing := [number for number in asked if number not in self.steps]:
            return f"garbage in {self.path}: there is no step {missing[0]}"
        return self._clock(margin_s) or self._lateness(barriers, margin_s)

    def _compared(self, place: int) -> Clock:
        """One of the host's clocks, as it was compared."""
        return Clock([(each[0], each[place]) for each in self.header.clock])

    @property
    def ahead_s(self) -> float:
        """By how much the host's wall clock is ahead."""
        return self._compared(1).ahead_s

    def is_off_by(self, seconds: float) -> bool:
        """Whether the host's wall clock is wrong by more than that for certain."""
        clock = self._compared(1)
        return abs(clock.ahead_s) - clock.uncertainty_s > seconds

    def _clock(self, margin_s: float) -> str:
        """Why the programme cannot have known what time it is."""
        header, allowed_s = self.header, margin_s / 2
        if doubt := self._compared(2).doubt(allowed_s):
            return doubt
        _controller, wall, monotonic = header.clock[-1]
        moved_s = (header.time - header.monotonic) - (wall - monotonic)
        if not abs(moved_s) <= allowed_s or header.monotonic < monotonic:
            return f"its clock was set by {moved_s:.1f} s while it waited for the start; run the play again"
        return ""

    def _lateness(self, barriers: Sequence[Barrier], margin_s: float) -> str:
        """Which part was not done in its time."""
        late_s = max(
            (
                step.ended - barrier.at
                for barrier in barriers
                for step in self.steps.values()
                if step.id < barrier.step
            ),
            default=0.0,
        )
        early_s = max(
            (
                barrier.at + margin_s - step.begun
                for barrier in barriers
                for step in self.steps.values()
                if step.id >= barrier.step
            ),
            default=0.0,
        )
        if early_s > _EARLY_S:
            return f"its programme was {early_s:.1f} s ahead of its time"
        if late_s + self._compared(2).uncertainty_s > margin_s / 2:
            return f"it was {late_s:.1f} s late: plan with a larger --margin, or a lower --rate"
        return ""


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:_SHOWN]
