"""
Refusals that were not heard: silence is only silence when nobody was short of words.

Linux gives out about one ICMP error a second to each destination, after a small burst
(net.ipv4.icmp_ratelimit; design trap 11). A mesh fired at once therefore hears few of the refusals that it
gets. So, when everything else is done, each silent flow is asked once more, a ration's time after the first
round; and where somebody on its way is known to refuse, once more alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from netprobe.attempts import ARRIVALS_MASK, CONFIRM_MASK, FIRST, SLOW, Attempts
from netprobe.coordinator.field import Field
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.volleys import Volleys
from netprobe.evidence import fates
from netprobe.model import Family, Flow, Seen, Segment, Verdict
from netprobe.verdict import outcome

_PERIOD_S: Final = 1.1
"""A little more than the second that Linux takes to give out another error to the same destination."""
_ROUTE_PERIOD_S: Final = 2.2
"""An error of an IPv4 route costs two of these rations (linux/net/ipv4/route.c, ip_error)."""
_ROUTE_REASONS: Final = ("ICMP 3/0 ", "ICMP 3/1 ", "ICMP 3/13 ")
_PATIENCE_S: Final = 10.0
"""How long flows are asked one by one: a run must end."""
_NEIGHBOUR_FAILED_S: Final = 3.4
"""A router says "host unreachable" when three requests for the neighbour, one a second, stayed unanswered."""
_TOGETHER: Final = Attempts(SLOW.first, 1)
_TOGETHER_LATE: Final = Attempts(SLOW.first + 1, 1)
_ALONE: Final = Attempts(SLOW.first + 2, 3)
"""More than once: what else is refused on the host, retransmissions say, draws on the same ration."""


class Ration(NamedTuple):
    """The errors that one host is told: by whom (an address, "" for the routers between), in a family."""

    listener: str
    by: str
    family: Family


class Refusals:
    """The last round: silent flows are asked again."""

    def __init__(self, field: Field, volleys: Volleys, rounds: Rounds, told: Progress) -> None:
        self._field = field
        self._volleys = volleys
        self._rounds = rounds
        self._told = told

    async def ask_again(self, started: float) -> None:
        """Ask the silent flows again; the first round began at `started`, by the clock of trio."""
        silent = self._silent(self._field.missing(self._field.flows, FIRST))
        if not silent:
            return
        self._told.phase("asking the silent ones again", len(silent))
        await self._together(silent, _TOGETHER, started + _PERIOD_S)
        unheard = [flow for flow in self._silent(silent) if not self._volleys.heard(flow)]
        if unheard:
            # Nothing at all comes through between these hosts: a router may still be looking for the
            # neighbour. When it has given up, it says so about every packet.
            left_s = max(0.0, started + _NEIGHBOUR_FAILED_S - trio.current_time())
            await self._volleys.listen({flow.src for flow in unheard}, left_s)
            await self._together(self._silent(unheard), _TOGETHER_LATE, 0)
        await self._one_by_one(silent)
        await self._rounds.withdraw(silent)

    async def _together(self, flows: Sequence[Flow], attempts: Attempts, not_before: float) -> None:
        if flows:
            await self._rounds.fire(flows, attempts, after_s=max(0.0, not_before - trio.current_time()))
            await self._volleys.settle(flows, attempts.mask)

    async def _one_by_one(self, flows: Sequence[Flow]) -> None:
        """Ask each flow alone whose refusal may have been rationed, as long as there is patience."""
        until = trio.current_time() + _PATIENCE_S
        for attempt in range(_ALONE.first, _ALONE.first + _ALONE.total):
            drawn = self._drawn()
            for planned in self._turns(self._silent(flows), drawn):
                # A late answer to an earlier question may have come in the turns before.
                turn = self._silent(planned)
                if not turn:
                    continue
                period_s = max(drawn[ration] for ration in map(self._ration, turn) if ration in drawn)
                if trio.current_time() + period_s > until:
                    self._field.unasked.update(flow.number for flow in turn)
                    continue
                await self._rounds.fire(turn, Attempts(attempt, 1), after_s=period_s)
                await self._volleys.settle(turn, 1 << attempt)

    def _silent(self, flows: Iterable[Flow]) -> list[Flow]:
        return [flow for flow in self._field.testable(flows) if self._lost_at(flow) is not None]

    def _lost_at(self, flow: Flow) -> Segment | None:
        """Where a flow was lost without a word, None where it was not."""
        field = self._field
        found = fates(field.seen, flow, field.counted(flow, CONFIRM_MASK), ARRIVALS_MASK)
        outcomes = {outcome(flow.protocol, fate) for fate, _count in found if fate.seen > Seen.UNSENT}
        if len(outcomes) != 1:
            return None
        ((verdict, segment),) = outcomes
        return segment if verdict is Verdict.FILTERED else None

    def _turns(self, silent: Sequence[Flow], drawn: Mapping[Ration, float]) -> list[list[Flow]]:
        """The silent flows of each ration that was drawn upon, in turns of one each."""
        taken: Counter[Ration] = Counter()
        turns: list[list[Flow]] = []
        for flow in silent:
            ration = self._ration(flow)
            if ration is None or ration not in drawn:
                continue
            if taken[ration] == len(turns):
                turns.append([])
            turns[taken[ration]].append(flow)
            taken[ration] += 1
        return turns

    def _drawn(self) -> dict[Ration, float]:
        """The rations that errors have come out of, and how many seconds each takes to give one more."""
        addresses = {address for host in self._field.inventory.hosts for address in host.addresses}
        drawn: dict[Ration, float] = {}
        for heard in self._field.seen.refused.values():
            for refused in heard:
                refusal = refused.refusal
                by = refusal.by if refusal.by in addresses else ""
                ration = Ration(refused.listener, by, Family.of(refusal.by))
                is_route = refusal.reason.startswith(_ROUTE_REASONS)
                drawn[ration] = max(_ROUTE_PERIOD_S if is_route else _PERIOD_S, drawn.get(ration, 0))
        return drawn

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
