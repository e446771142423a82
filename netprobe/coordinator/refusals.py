"""
Refusals that were not heard: silence is only silence when nobody was short of words.

Linux gives out about one ICMP error a second to each destination, after a small burst
(net.ipv4.icmp_ratelimit; design trap 11). A mesh fired at once therefore hears few of the refusals that it
gets. So, when everything else is done, each silent flow is asked once more, a ration's time after the first
round; and where somebody on its way is known to refuse, once more alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import trio

from netprobe.coordinator.field import Field
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.volleys import Volleys
from netprobe.evidence import fates
from netprobe.model import Family, Flow, Seen, Segment, Verdict
from netprobe.plan import CONFIRM_MASK, FIRST, SLOW, Attempts
from netprobe.verdict import outcome

_PERIOD_S: Final = 1.1
"""A little more than the second that Linux takes to give out another error to the same destination."""
_MAX_TURNS: Final = 8
"""How many flows of one ration are asked again, one a period: a run must end."""
_NEIGHBOUR_FAILED_S: Final = 3.4
"""A router says "host unreachable" when three requests for the neighbour, one a second, stayed unanswered."""
_TRIES: Final = 3
"""
How often a flow is asked alone: what else is refused on the host, retransmissions say, draws on the ration
too.
"""
_TOGETHER: Final = Attempts(SLOW.first, 1)


class Ration(NamedTuple):
    """The errors that one host is told: by whom (an address, "" for the routers between), in a family."""

    listener: str
    by: str
    family: Family


class Refusals:
    """The last round: silent flows are asked again."""

    def __init__(self, field: Field, volleys: Volleys, rounds: Rounds) -> None:
        self._field = field
        self._volleys = volleys
        self._rounds = rounds

    async def ask_again(self, started: float) -> None:
        """Ask all silent flows together, then one by one those whose refusal may have been rationed."""
        silent = self._silent(self._field.missing(self._field.flows, FIRST))
        if not silent:
            return
        after_s = max(0.0, started + _PERIOD_S - trio.current_time())
        await self._rounds.fire(silent, _TOGETHER, after_s=after_s)
        await self._volleys.settle(silent, _TOGETHER)
        for attempt in range(SLOW.first + 1, SLOW.first + 1 + _TRIES):
            for turn in self._turns(self._silent(silent)):
                await self._rounds.fire(turn, Attempts(attempt, 1), after_s=_PERIOD_S)
                await self._volleys.settle(turn, Attempts(attempt, 1))
        unheard = [flow for flow in self._silent(silent) if not self._volleys.heard(flow)]
        left_s = started + _NEIGHBOUR_FAILED_S - trio.current_time()
        if unheard and left_s > 0:
            # Nothing at all came through between these hosts: a router may still be looking for the
            # neighbour.
            await self._volleys.listen({flow.src for flow in unheard}, left_s)

    def _silent(self, flows: Iterable[Flow]) -> list[Flow]:
        return [flow for flow in self._field.testable(flows) if self._lost_at(flow) is not None]

    def _lost_at(self, flow: Flow) -> Segment | None:
        """Where a flow was lost without a word, None where it was not."""
        field = self._field
        found = fates(field.sides(flow), flow, field.counted(flow, FIRST.mask | CONFIRM_MASK))
        outcomes = {outcome(flow.protocol, fate) for fate, _count in found if fate.seen > Seen.UNSENT}
        if len(outcomes) != 1:
            return None
        ((verdict, segment),) = outcomes
        return segment if verdict is Verdict.FILTERED else None

    def _turns(self, silent: Sequence[Flow]) -> list[list[Flow]]:
        """The silent flows of each ration that has been drawn upon, in turns of one each."""
        drawn = self._drawn()
        taken: Counter[Ration] = Counter()
        turns: list[list[Flow]] = []
        for flow in silent:
            ration = self._ration(flow)
            if ration is None or ration not in drawn:
                continue
            if taken[ration] == _MAX_TURNS:
                self._field.unasked.add(flow.number)
                continue
            if taken[ration] == len(turns):
                turns.append([])
            turns[taken[ration]].append(flow)
            taken[ration] += 1
        return turns

    def _drawn(self) -> set[Ration]:
        """The rations that errors have come out of."""
        addresses = {address for host in self._field.inventory.hosts for address in host.addresses}
        return {
            Ration(listener, by if by in addresses else "", Family.of(by))
            for listener, observations in self._field.observations.items()
            for by in observations.refusers()
        }

    def _ration(self, flow: Flow) -> Ration | None:
        """Whom a refusal at the place where the flow was lost would tell, and who would."""
        match self._lost_at(flow):
            case Segment.PATH:
                return Ration(flow.src, "", flow.family)
            case Segment.DESTINATION_INGRESS:
                return Ration(flow.src, flow.dst_address, flow.family)
            case Segment.RETURN_PATH:
                return Ration(flow.dst, "", flow.family)
            case Segment.SOURCE_INGRESS:
                return Ration(flow.dst, flow.src_address, flow.family)
            case _:
                # A host's refusals of its own packets are not rationed: they never leave it.
                return None
