"""
An agent that nobody talks to: it carries out a schedule, and writes down what it is answered.

Where no machine reaches all hosts, each gets its part of a run beforehand, and all begin at the same time.
The time is told by somebody else's clock, which was compared with this host's. What counts here is the clock
that nobody can set (CLOCK_MONOTONIC): the wall clock may be wrong, and may be corrected meanwhile.

A schedule's answers go to a file, a line for each step. Who was late, or uncertain of the time, does nothing,
and says so there. Whatever happens, the process ends a minute after its schedule at the latest; a second one
takes the directory away in which both came, if nobody has done so five minutes later.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time

from netprobe.agent.clocks import Clock
from netprobe.agent.conversation import make_ready
from netprobe.agent.main import Agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    Comparison = tuple[float, float, float]

FORMAT = 1
_LONGEST_WAIT_S = 3600.0
_GRACE_S = 60
_UNFETCHED_S = 300.0
_LOOK_S = 0.5
_OURS = "netprobe-"
"""How a directory is called that may be taken away: with the name of any other one somebody was mistaken."""
_UNDONE = 3
"""The exit status of a programme that did not do, or finish, what it was to do."""


class _StoppedError(BaseException):
    """Somebody wants this process to end; no error of a request, so that no request takes it for one."""


def comparisons(text: str) -> "list[Comparison]":
    """
    What `--clock` says: three numbers, and the next three behind a comma.

    They are the time by the clock of whoever started this, this host's wall clock a little later, and its
    monotonic clock.
    """
    found = []
    for each in text.split(","):
        before, wall, there = map(float, each.split())
        found.append((before, wall, there))
    return found


class Programme:
    """The schedule of one host, from its start to its end."""

    def __init__(self, schedule: "dict[str, object]", output: "TextIO") -> None:
        self._schedule = schedule
        self._output = output
        self._agent = Agent(self._answered)
        steps, self._shots = schedule["steps"], schedule["shots"]
        self._steps = iter(steps if isinstance(steps, list) else [])
        self._zero = 0.0
        self._begun = 0.0
        self._verb = ""
        self._reason = "it was stopped"

    def _write(self, line: "dict[str, object]") -> None:
        self._output.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._output.flush()

    def run(self, start: float, compared: "list[Comparison]") -> str:
        """Carry out the schedule at its time; why that was not done to its end, "" where it was."""
        schedule = self._schedule
        header = {name: schedule[name] for name in ("plan", "host", "margin")}
        now = {"time": time.time(), "monotonic": time.monotonic()}
        self._write(dict(header, netprobe=FORMAT, start=start, clock=compared, **now))
        reason = self._obstacle(start, compared)
        if not reason:
            signal.alarm(int(self._zero - time.monotonic() + float(str(schedule["duration"]))) + _GRACE_S)
            try:
                self._next()
                self._agent.loop.run()
            except _StoppedError:
                self._reason = f"its programme was stopped while it was to {self._verb or 'wait'}"
            finally:
                self._agent.end()
            reason = self._reason
        self._write({"end": reason, "time": time.time(), "monotonic": time.monotonic()})
        return reason

    def _obstacle(self, start: float, compared: "list[Comparison]") -> str:
        """Why the schedule cannot be carried out, "" where it can; notes when it begins."""
        clock = Clock([(before, monotonic) for before, _wall, monotonic in compared])
        self._zero = start + clock.ahead_s
        left_s = self._zero - time.monotonic()
        doubt = clock.doubt(float(str(self._schedule["margin"])) / 2)
        if doubt:
            return doubt
        if left_s < 0:
            return f"it was started {-left_s:.1f} s too late"
        if left_s > _LONGEST_WAIT_S:
            return f"it was started {left_s:.0f} s before its time, and waits {_LONGEST_WAIT_S:.0f} s at most"
        return ""

    def _next(self) -> None:
        step = next(self._steps, None)
        if step is None:
            self._reason = ""
            self._agent.loop.stop()
            return
        wait_s = self._zero + step["at"] - time.monotonic()
        self._agent.loop.later(max(0.0, wait_s), lambda: self._begin(step))

    def _begin(self, step: "dict[str, object]") -> None:
        self._begun, self._verb = time.monotonic(), str(step["verb"])
        shots, volleys = self._shots, step.get("volleys")
        if isinstance(volleys, list) and isinstance(shots, list):
            # Most volleys are about the same flows: these stand in the schedule once.
            step = dict(step, volleys=[dict(volley, shots=shots[volley["shots"]]) for volley in volleys])
        self._agent.carry_out(step)

    def _answered(self, answer: "dict[str, object]") -> None:
        begun, ended = self._begun - self._zero, time.monotonic() - self._zero
        self._write(dict(answer, begun=round(begun, 4), ended=round(ended, 4)))
        # As a coordinator would do: who cannot do one thing is asked for no other.
        if "error" in answer:
            self._reason = "the agent cannot {}: {}".format(self._verb, answer["error"])
        elif not self._is_alone(answer["ok"]):
            self._reason = "another netprobe run is at work on it"
        else:
            self._agent.loop.later(0, self._next)
            return
        self._agent.loop.stop()

    @staticmethod
    def _is_alone(result: object) -> bool:
        """Two runs at once would take each other's listeners for services."""
        return not isinstance(result, dict) or bool(result.get("alone", True))


def _sweep(directory: str, until: float) -> None:
    """Leave a process behind that takes a directory away after a time, and ends when it has gone."""
    if os.fork():
        return
    os.setsid()
    # Whoever waits for this program's output must not wait for it.
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(silence, descriptor)
    while os.path.isdir(directory) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def _stop(_number: int, _frame: object) -> None:
    raise _StoppedError


def main(schedule: "dict[str, object]") -> None:
    """Run the program of one host."""
    parser = argparse.ArgumentParser(
        description="netprobe's part of {host} in the run that was planned as {plan}.".format(**schedule)
    )
    parser.add_argument("--start", type=float, required=True, metavar="EPOCH", help="when all begin")
    parser.add_argument(
        "--clock",
        type=comparisons,
        required=True,
        metavar="COMPARISONS",
        help="the clock that EPOCH is told by, this host's wall clock, its monotonic clock; twice at least",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="where the observations go")
    parser.add_argument("--sweep", metavar="DIRECTORY", help="what to take away if nobody else does")
    asked = parser.parse_args()
    if asked.sweep and not os.path.basename(asked.sweep).startswith(_OURS):
        parser.error(f"--sweep {asked.sweep}: expected a directory that is called {_OURS}…")
    try:
        descriptor = os.open(asked.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        parser.error(f"cannot write {asked.output}: {error.strerror}")
    make_ready()
    if asked.sweep:
        waiting_s = max(0.0, asked.start - asked.clock[-1][0])
        until = time.monotonic() + min(waiting_s, _LONGEST_WAIT_S)
        _sweep(asked.sweep, until + float(str(schedule["duration"])) + _UNFETCHED_S)
    with os.fdopen(descriptor, "w") as output:
        for request in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(request, _stop)
        reason = Programme(schedule, output).run(asked.start, asked.clock)
    if reason:
        sys.stderr.write("netprobe: {}: {}\n".format(schedule["host"], reason))
        sys.exit(_UNDONE)
