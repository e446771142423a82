"""
What kernels say of packets that they discarded without a word: their counters, read around a question.

A counter is a host's, not a flow's. So the silent flows that are lost at one host are asked together, while
its counters are looked at: where one grew by exactly as many packets as were sent, it has counted these.
Where it grew by another number, some of the flows are meant, or other packets than ours: then each half is
asked alone. What grew by chance must not be taken for a cause: one or two packets are asked for again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import trio

from netprobe import wire
from netprobe.attempts import COUNTED
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.field import Field
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S, Volleys
from netprobe.counters import growth
from netprobe.model import Flow, Segment
from netprobe.observations import Discard

_PATIENCE_S: Final = 5.0
_SURE: Final = 3
"""So many packets in all, each counted, are no accident."""


class _Question(NamedTuple):
    """Flows that are lost at one host, asked together; so many packets has a counter, by `name`, counted."""

    flows: Sequence[Flow]
    name: str = ""
    counted: int = 0

    def halves(self) -> list[_Question]:
        """Each half of the flows, as a question of its own."""
        middle = len(self.flows) // 2
        return [_Question(self.flows[:middle]), _Question(self.flows[middle:])]


class Kernels:
    """The counters of all hosts."""

    def __init__(self, crew: Crew, field: Field, rounds: Rounds, volleys: Volleys, told: Progress) -> None:
        self._crew = crew
        self._field = field
        self._rounds = rounds
        self._volleys = volleys
        self._told = told
        self._discards: list[tuple[Flow, Discard]] = []

    async def _read(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        requests = dict.fromkeys(names, wire.Nothing())
        answers = await self._crew.ask("counters", requests, wire.Counters, ANSWER_TIMEOUT_S)
        return {name: answer.counters for name, answer in answers.items()}

    async def ask(self) -> None:
        """Find out which counter, if any, tells of each flow that was lost inside a host without a word."""
        suspects = self._suspects()
        flows = [flow for theirs in suspects.values() for flow in theirs]
        if not flows:
            return
        self._told.phase("asking the kernels", len(flows))
        until = trio.current_time() + _PATIENCE_S
        questions = {host: [_Question(theirs)] for host, theirs in suspects.items()}
        while questions and trio.current_time() < until:
            turn = {host: waiting.pop() for host, waiting in questions.items()}
            grown = await self._answers(turn)
            for host, question in turn.items():
                questions[host] += self._judged(host, question, grown.get(host, {}))
            questions = {host: waiting for host, waiting in questions.items() if waiting}
        # What was discarded is no longer known to have come: taken back it must be before.
        await self._rounds.withdraw(flows)
        for flow, discard in self._discards:
            self._field.seen.discarded(flow, discard)

    def _suspects(self) -> dict[str, list[Flow]]:
        """By host, the flows that were lost there, alike ones beside each other."""
        found: dict[str, list[Flow]] = defaultdict(list)
        for flow in self._field.missing(self._field.flows, COUNTED):
            match self._field.lost_at(flow):
                case Segment.DESTINATION_INGRESS | Segment.DESTINATION_EGRESS:
                    found[flow.dst].append(flow)
                case Segment.SOURCE_INGRESS:
                    found[flow.src].append(flow)
        for flows in found.values():
            flows.sort(key=lambda flow: (flow.protocol, flow.port or 0, flow.family.value, flow.src))
        return found

    async def _answers(self, turn: dict[str, _Question]) -> dict[str, dict[str, int]]:
        """By how much the counters of each host grew while its question was asked."""
        before = await self._read(turn)
        flows = [flow for question in turn.values() for flow in question.flows]
        await self._rounds.repeat(flows, COUNTED)
        after = await self._read(before)
        return {host: growth(before[host], counters) for host, counters in after.items()}

    def _judged(self, host: str, question: _Question, grown: dict[str, int]) -> list[_Question]:
        """Note what a counter tells; what is still to be asked."""
        flows = self._field.testable(question.flows)
        exact = [name for name, number in grown.items() if number == len(flows)]
        if question.name and question.name not in exact:
            return []
        if exact:
            name, counted = question.name or exact[0], question.counted + len(flows)
            if counted < _SURE:
                return [_Question(flows, name, counted)]
            self._note(host, name, flows)
        elif grown and len(flows) > 1:
            return _Question(flows).halves()
        return []

    def _note(self, host: str, name: str, flows: Collection[Flow]) -> None:
        self._told.advance(len(flows))
        self._discards += [(flow, Discard(host, name)) for flow in flows]
