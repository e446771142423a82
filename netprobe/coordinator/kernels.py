"""
What kernels say of packets that they discarded without a word: their counters, read around a question.

A counter is a host's, not a flow's. So the silent flows that are lost at one place of a host are asked
together, each with as many packets as a die says, while the counters that are about that place are looked at.
One that grew by exactly as many as were sent may have counted these; it is believed when it did so three
times. Where it grew by another number, some of the flows are meant: then each half is asked
alone. What grows while nothing is sent grows for others, and tells nothing.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from netprobe import wire
from netprobe.attempts import CONFIRM_MASK, COUNTED
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import Field
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S, Volleys
from netprobe.counters import BEFORE_SOCKETS, BEHIND_SOCKETS, CHECKSUMS, LEAVING, growth
from netprobe.model import Flow, Segment
from netprobe.observations import DAMAGED, Discard
from netprobe.template import Kind

_PATIENCE_S: Final = 8.0
_UNMEASURED_S: Final = 0.3
"""How long packets may take where no answer has told how long they do."""
_SURE: Final = 3
"""So many questions, each answered by exactly its own number, are no accident."""
_FEWEST, _MOST = 2, 9
"""Packets of each flow in a question."""
_MOST_PACKETS: Final = 400
"""Of a question; where there are many flows the number of packets is like no other anyway."""

_ABOUT: Final[Mapping[Segment, frozenset[str]]] = {
    Segment.DESTINATION_INGRESS: frozenset(BEFORE_SOCKETS),
    Segment.DESTINATION_EGRESS: frozenset({*BEHIND_SOCKETS, *LEAVING}),
    Segment.SOURCE_INGRESS: frozenset(BEFORE_SOCKETS),
}
"""Which counters are about packets that came so far and no further."""
_ABOUT_DAMAGED: Final = frozenset(CHECKSUMS)
"""And of packets whose checksum the agent has found wrong."""


class _Question(NamedTuple):
    """Flows that are lost at one place of a host, asked together; so often has a counter answered exactly."""

    flows: Sequence[Flow]
    about: frozenset[str]
    name: str = ""
    exactly: int = 0

    def halves(self) -> list[_Question]:
        """Each half of the flows, as a question of its own."""
        middle = len(self.flows) // 2
        return [_Question(some, self.about) for some in (self.flows[:middle], self.flows[middle:])]


class Kernels:
    """The counters of all hosts."""

    def __init__(self, crew: Asked, field: Field, rounds: Rounds, volleys: Volleys, told: Progress) -> None:
        self._crew = crew
        self._field = field
        self._rounds = rounds
        self._volleys = volleys
        self._told = told
        self._within_s = 0.0
        self._busy: dict[str, set[str]] = {}
        self._discards: list[tuple[Flow, Discard]] = []

    async def _read(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        requests = dict.fromkeys(names, wire.Nothing())
        answers = await self._crew.ask("counters", requests, wire.Counters, ANSWER_TIMEOUT_S)
        return {name: answer.counters for name, answer in answers.items()}

    async def ask(self) -> None:
        """Find out which counter, if any, tells of each flow that was lost inside a host without a word."""
        questions = self._questions()
        flows = [flow for waiting in questions.values() for each in waiting for flow in each.flows]
        if not flows:
            return
        self._told.phase("asking the kernels", len(flows))
        # All of them are known to arrive; it is only their answers that are not.
        self._within_s = self._volleys.patience_s(flows) if self._field.seen.rtt_us else _UNMEASURED_S
        await self._listen(flows)
        until = trio.current_time() + _PATIENCE_S
        while questions and trio.current_time() < until:
            turn = {host: waiting.pop() for host, waiting in questions.items()}
            copies = {host: self._copies(question) for host, question in turn.items()}
            grown = await self._answers(turn, copies)
            for host, question in turn.items():
                questions[host] += self._judged(host, question, copies[host], grown.get(host, {}))
            questions = {host: waiting for host, waiting in questions.items() if waiting}
        # What was discarded is no longer known to have come: taken back it must be before.
        await self._rounds.withdraw(flows)
        for flow, discard in self._discards:
            self._field.seen.discarded(flow, discard)

    def _questions(self) -> dict[str, list[_Question]]:
        """By host, the flows that were lost there, by the place; alike ones beside each other."""
        found: dict[str, dict[frozenset[str], list[Flow]]] = defaultdict(lambda: defaultdict(list))
        damaged = [self._field.seen.at(DAMAGED, kind) for kind in (Kind.PROBE, Kind.ACCEPT, Kind.RST)]
        for flow in self._field.testable(self._field.flows):
            if not self._field.seen.sent[flow.number] & CONFIRM_MASK:
                continue
            where = self._field.lost_at(flow)
            if where is not None and where in _ABOUT:
                host = flow.src if where is Segment.SOURCE_INGRESS else flow.dst
                is_damaged = any(seen[flow.number] for seen in damaged)
                found[host][_ABOUT_DAMAGED if is_damaged else _ABOUT[where]].append(flow)
        return {
            host: [_Question(sorted(flows, key=_likeness), about) for about, flows in alike.items()]
            for host, alike in found.items()
        }

    @staticmethod
    def _copies(question: _Question) -> int:
        """How many packets each flow is asked with."""
        most = max(1, min(_MOST, _MOST_PACKETS // len(question.flows)))
        least = min(_FEWEST, most)
        return least + secrets.randbelow(most - least + 1)

    async def _listen(self, flows: Sequence[Flow]) -> None:
        """Note which counters grow while nothing is sent, for as long as a question takes."""
        hosts = {host for flow in flows for host in (flow.src, flow.dst)}
        before = await self._read(hosts)
        await self._volleys.listen(before, self._within_s)
        after = await self._read(before)
        self._busy = {host: set(growth(before[host], counters)) for host, counters in after.items()}

    async def _answers(
        self, turn: Mapping[str, _Question], copies: Mapping[str, int]
    ) -> dict[str, dict[str, int]]:
        """By how much the counters of each host grew while its question was asked."""
        before = await self._read(turn)
        packets = [
            [flow for host, question in turn.items() if number < copies[host] for flow in question.flows]
            for number in range(max(copies.values()))
        ]
        await self._rounds.repeat(packets, COUNTED, self._within_s)
        after = await self._read(before)
        return {host: growth(before[host], counters) for host, counters in after.items()}

    def _judged(
        self, host: str, question: _Question, copies: int, grown: Mapping[str, int]
    ) -> list[_Question]:
        """Note what a counter tells; what is still to be asked."""
        flows = self._field.testable(question.flows)
        quiet = question.about - self._busy.get(host, set())
        telling = {name: number for name, number in grown.items() if name in quiet}
        exact = [name for name, number in telling.items() if number == copies * len(flows)]
        if question.name and question.name not in exact:
            return []
        if exact:
            name, exactly = question.name or exact[0], question.exactly + 1
            if exactly < _SURE:
                return [_Question(flows, question.about, name, exactly)]
            self._note(host, name, flows)
        elif telling and len(flows) > 1:
            return question.halves()
        return []

    def _note(self, host: str, name: str, flows: Collection[Flow]) -> None:
        self._told.advance(len(flows))
        self._discards += [(flow, Discard(host, name)) for flow in flows]


def _likeness(flow: Flow) -> tuple[int, int, str, str]:
    return flow.protocol, flow.port or 0, flow.family.value, flow.src
