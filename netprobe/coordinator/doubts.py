"""
Doubts: flows that are lost whole beside flows of which some packets pass.

A way that loses nine of ten packets loses a whole burst now and then, and a limit on the rate of many flows
lets those pass that come first. Neither of them filters a flow. So what is lost whole beside such flows gets
more packets: many against chance, and then one at a time, a second apart, against a limit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, TypeAlias

import trio

from netprobe.attempts import ARRIVALS_MASK, BURST, Attempts
from netprobe.coordinator.field import KERNEL, LINK, Field
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.volleys import Volley, Volleys
from netprobe.model import Flow, Segment

_BURSTS: Final = 12
"""With what came before, of a way that loses nine of ten one flow in ten million is lost whole."""
_MOST_PACKETS: Final = 4000
"""Of a source; where more flows are in doubt, each gets fewer."""
_MOST_ALONE: Final = 1000
"""The same, of flows beside which nothing passes."""
_FEW: Final = 4
"""Of so many packets at most one passes a limit that is worth waiting for."""
_PERIOD_S: Final = 1.1
"""A little more than the second after which most limits let another packet pass."""
_PATIENCE_S: Final = 15.0
"""How long flows are asked one by one: a run must end."""
_ENOUGH: Final = 2
"""A flow that does not pass alone so often is not simply unlucky."""
_IN_VAIN: Final = 6
"""So many flows that do not pass alone either, and none that does: there is no limit."""

_Place: TypeAlias = tuple[Segment | None, str]
"""Where a flow is lost: the segment, and the host that it is at or in front of."""

_AT_SOURCE: Final = (Segment.SOURCE_EGRESS, Segment.RETURN_PATH, Segment.SOURCE_INGRESS)


class Doubts:
    """More packets for flows that chance, or a limit, may have kept from passing."""

    def __init__(self, field: Field, volleys: Volleys, told: Progress) -> None:
        self._field = field
        self._volleys = volleys
        self._told = told
        self._patience_s = _PATIENCE_S
        self._limits: set[_Place] = set()

    async def insist(self, flows: Sequence[Flow]) -> None:
        """
        Ask flows again that have lost all, and beside which nothing passes that would raise a doubt.

        Where they are few: many are no accident. What does not leave its host has no neighbour there, or a
        filter at the interface: a queue that fills up, and no chance.
        """
        busiest = max(Counter(flow.src for flow in flows).values(), default=0)
        if busiest * BURST.total <= _MOST_ALONE:
            outside = [
                flow for flow in self._lost(flows) if self._field.lost_at(flow) is not Segment.SOURCE_EGRESS
            ]
            await self._burst(outside, _MOST_ALONE)

    async def _burst(self, flows: Sequence[Flow], most: int) -> None:
        """As many packets more as chance takes, or `most` of any source."""
        if flows:
            busiest = max(Counter(flow.src for flow in flows).values())
            bursts = max(1, min(_BURSTS, most // (busiest * BURST.total)))
            self._field.insisted.update(dict.fromkeys((flow.number for flow in flows), bursts + 1))
            await self._ask(flows, BURST, times=bursts)

    async def resolve(self, flows: Sequence[Flow], too_late: Sequence[Flow] = ()) -> list[Flow]:
        """
        Of flows that may lose packets for the same reason, ask those again that have lost all: those asked.

        Those that are `too_late` to be asked cannot be told from them.
        """
        doubtful = self._lost(flows)
        await self._burst(doubtful, _MOST_PACKETS)
        starving = self._lost(doubtful)
        if starving and self._are_limited(flows) and await self._one_by_one(starving):
            self._field.starving.update(flow.number for flow in self._lost(too_late))
        return doubtful

    def conclude(self) -> None:
        """Where a limit was found at work, silence of flows that were not asked alone says nothing."""
        flows = self._lost(self._field.flows) if self._limits else []
        self._field.starving.update(
            flow.number
            for flow in flows
            if self._place(flow) in self._limits and flow.number not in self._field.limited
        )

    def conclude_unasked(self, slowly: Attempts) -> None:
        """
        The same for flows of which none was asked alone, but each `slowly`.

        Where some flows pass seldom, and pass then, there is a limit. If all of them pass then, what does not
        is not stopped by the limit; if some do not either, they are too many for it.
        """
        suspects: dict[_Place, set[bool]] = defaultdict(set)
        for flow in self._field.flows:
            if self._are_limited([flow]):
                for where in self._field.losing(flow):
                    suspects[_place(flow, where)].add(bool(self._passed(flow) & slowly.mask))
        limits = {place: passed for place, passed in suspects.items() if True in passed}
        for flow in self._lost(self._field.flows) if limits else ():
            if found := limits.get(self._place(flow)):
                (self._field.starving if False in found else self._field.limited).add(flow.number)

    def _place(self, flow: Flow) -> _Place:
        return _place(flow, self._field.lost_at(flow))

    def _lost(self, flows: Sequence[Flow]) -> list[Flow]:
        """Those of which no packet passed, and nobody said anything."""
        testable = self._field.testable(flows)
        return [flow for flow in testable if not self._passed(flow) and self._field.lost_at(flow) is not None]

    def _passed(self, flow: Flow) -> int:
        return self._field.seen.passed(flow, ARRIVALS_MASK & ~self._field.too_late(flow))

    def _are_limited(self, flows: Sequence[Flow]) -> bool:
        """Whether so little passes of some of them that there may be a limit."""
        sent = self._field.seen.sent
        counts = (
            (self._passed(flow).bit_count(), (sent[flow.number] & ARRIVALS_MASK).bit_count())
            for flow in self._field.testable(flows)
        )
        return any(0 < passed <= made / _FEW for passed, made in counts)

    async def _ask(
        self, flows: Sequence[Flow], attempts: Attempts, *, times: int = 1, after_s: float = 0
    ) -> None:
        """The same packets again, so many times."""
        sent, injected = self._field.by_way(flows)
        volleys = [Volley(sent, attempts, KERNEL), Volley(injected, attempts, LINK)]
        await self._volleys.fire(volleys * times, after_s=after_s)
        await self._volleys.settle(flows, attempts.mask)

    async def _one_by_one(self, flows: Sequence[Flow]) -> bool:
        """Let each be the only one for a while, twice if need be; whether any passes then."""
        self._told.phase("waiting for a limit", len(flows))
        started = trio.current_time()
        places = {flow.number: self._place(flow) for flow in flows}
        mixed = _mixed(flows)
        questions = [*mixed, *mixed]
        in_vain: Counter[int] = Counter()
        is_limit = False
        for flow in questions:
            is_vain = not is_limit and len(in_vain) == _IN_VAIN
            if is_vain or trio.current_time() > started + self._patience_s:
                break
            if not self._passed(flow):
                await self._ask([flow], Attempts(BURST.first, 1), after_s=_PERIOD_S)
                if self._passed(flow):
                    is_limit = True
                    self._limits.add(places[flow.number])
                in_vain[flow.number] += not self._passed(flow)
        self._patience_s = max(0.0, self._patience_s - (trio.current_time() - started))
        if is_limit:
            for flow in self._lost(flows):
                few = self._field.starving if in_vain[flow.number] < _ENOUGH else self._field.limited
                few.add(flow.number)
        return is_limit


def _place(flow: Flow, where: Segment | None) -> _Place:
    return where, flow.src if where in _AT_SOURCE else flow.dst


def _mixed(flows: Sequence[Flow]) -> list[Flow]:
    """The flows in another order: as long as there are others, no two of one kind behind each other."""
    kinds: dict[tuple[object, ...], list[Flow]] = defaultdict(list)
    for flow in flows:
        kinds[flow.probe, flow.port, flow.family].append(flow)
    return [flow for turn in zip_longest(*kinds.values()) for flow in turn if flow is not None]
