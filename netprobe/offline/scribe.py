"""
Writes down what hosts are asked, and when, as a schedule for each of them.

All hosts have the same timetable. A step begins when the one before it has surely ended, on every host. Where
the work of one host must not meet the work of another (taps are armed before anybody sends, one way of all
pairs comes before the other), there is a barrier: a time in which nobody does anything, as long as the margin
by which the hosts may be late or their clocks may be wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from netprobe import wire
from netprobe.coordinator.field import LINK

_STEP_S: Final = 0.5
_FACTS_S: Final = 2.0
"""To look at every process that may hold a port."""
_SURE_RATE: Final = 2000.0
"""Packets a second that any host can send."""
_NEIGHBOUR_S: Final = 3.6
"""To look for a neighbour in vain; it is done once."""
_SLACK_S: Final = 1.0

_T = TypeVar("_T")


class Barrier(NamedTuple):
    """All steps before number `step` have ended by `at`, and it begins a margin later (s)."""

    step: int
    at: float


class Scribe:
    """
    Stands in the place of the agents, and has no answers.

    `now_s` is the time at which the next step begins, from the start of the plan.
    """

    def __init__(self, names: Sequence[str], margin_s: float) -> None:
        self.lost: dict[str, str] = {}
        self.names = list(names)
        self.margin_s = margin_s
        self.now_s = 0.0
        self.barriers: list[Barrier] = []
        self._asked = 0
        self._steps: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self._shots: dict[str, dict[bytes, int]] = defaultdict(dict)
        self._known: set[str] = set()

    async def ask(
        self, verb: str, requests: Mapping[str, msgspec.Struct], kind: type[_T], timeout_s: float
    ) -> dict[str, _T]:
        """Write down what several hosts are asked at once."""
        del timeout_s  # an agent that nobody talks to is watched by its own clock
        number, self._asked = self._asked, self._asked + 1
        at, longest_s = round(self.now_s, 3), 0.0
        for name, request in requests.items():
            longest_s = max(longest_s, self._duration_s(name, request))
            step = {"id": number, "at": at, "verb": verb, **msgspec.structs.asdict(request)}
            if isinstance(request, wire.Fire):
                step["volleys"] = [self._volley(name, volley) for volley in request.volleys]
            self._steps[name].append(step)
        self.now_s += longest_s
        return self._answers(number, list(requests), kind)

    def _answers(self, number: int, names: Sequence[str], kind: type[_T]) -> dict[str, _T]:
        """What hosts have answered in a step."""
        del number, names, kind
        return {}

    def _volley(self, name: str, volley: wire.Volley) -> dict[str, Any]:
        """A volley with the number of its shots, which stand in the schedule once."""
        shots = msgspec.json.encode(volley.shots)
        number = self._shots[name].setdefault(shots, len(self._shots[name]))
        return {**msgspec.structs.asdict(volley), "shots": number}

    def _duration_s(self, name: str, request: msgspec.Struct) -> float:
        """How long a host may take for what it is asked."""
        if isinstance(request, wire.Collect):
            return request.within
        if isinstance(request, wire.AskFacts):
            return _FACTS_S
        if not isinstance(request, wire.Fire):
            return _STEP_S
        packets = sum(
            volley.attempts[1] * sum(len(targets) for _template, _address, targets, _undo in volley.shots)
            for volley in request.volleys
        )
        neighbours_s = 0.0
        if name not in self._known and any(volley.way == LINK for volley in request.volleys):
            self._known.add(name)
            neighbours_s = _NEIGHBOUR_S
        return _STEP_S + request.after + packets / min(request.rate, _SURE_RATE) + neighbours_s

    def barrier(self) -> None:
        """What comes next begins when all of what came before has ended on all hosts."""
        self.now_s += _SLACK_S
        self.barriers.append(Barrier(self._asked, self.now_s))
        self.now_s += self.margin_s

    def numbers(self, name: str) -> list[int]:
        """The numbers of the steps that a host has a part in."""
        return [step["id"] for step in self._steps[name]]

    def identity(self) -> str:
        """What this plan, and no other one, is called; the same for whoever writes it again."""
        digest = sha256()
        for name in self.names:
            # A ClientHello is OpenSSL's, and random.
            steps = [{**step, "templates": len(step.get("templates", ()))} for step in self._steps[name]]
            digest.update(self._timetable(name, steps))
        return digest.hexdigest()[:16]

    def _timetable(self, name: str, steps: Sequence[Mapping[str, Any]]) -> bytes:
        shots = [msgspec.Raw(each) for each in self._shots[name]]
        return msgspec.json.encode({"host": name, "steps": steps, "shots": shots})

    def schedules(self) -> Mapping[str, bytes]:
        """The schedule of each host as JSON, as `netprobe.agent.offline` reads it."""
        head = msgspec.json.encode(
            {"plan": self.identity(), "margin": self.margin_s, "duration": round(self.now_s, 3)}
        )
        return {name: head[:-1] + b"," + self._timetable(name, self._steps[name])[1:] for name in self.names}
