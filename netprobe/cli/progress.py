"""The story of a run on stderr: phases with counts, while somebody looks; lines where only a log is kept."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING

from netprobe.reports.base import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress:
    """
    What the coordinator tells its progress to; a context manager, so that a terminal is always left in order.

    On a terminal each phase is a bar, and they vanish at the end. Elsewhere there are no bars; with `verbose`
    each phase and each note is a line.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._verbose = verbose
        self._clock = clock
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._phase: tuple[str, int, float] | None = None

    def __enter__(self) -> Progress:  # noqa: PYI034 - Python 3.10 has no Self
        if self._stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_phase()
        if self._bars is not None:
            self._bars.stop()

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` steps begins, and the one before it is done."""
        self._end_phase()
        self._phase = name, total, self._clock()
        if self._bars is not None:
            self._bar = self._bars.add_task(name, total=total)

    def advance(self, n: int = 1) -> None:
        """Some steps of the phase are done."""
        if self._bars is not None and self._bar is not None:
            self._bars.advance(self._bar, n)

    def note(self, text: str) -> None:
        """Something happened that the user will want to know; it may have been said by a host."""
        line = printable(text)
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self._verbose:
            self._line(line)

    def _end_phase(self) -> None:
        if self._phase is None:
            return
        name, total, started = self._phase
        self._phase = None
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=total)
        elif self._verbose:
            self._line(f"{name}: {total:,} in {self._clock() - started:.1f} s")

    def _line(self, text: str) -> None:
        self._stream.write(f"netprobe: {text}\n")
        self._stream.flush()


def _bars(stream: IO[str]) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=stream),  # which respects NO_COLOR
        transient=True,
    )
