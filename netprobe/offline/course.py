"""
The course of a planned run: everything at once, because nobody can look closer afterwards.

A live run looks closer only where something is missing. Here every flow gets all of that: the interfaces are
watched from the beginning, and each flow has the first look, the burst, the pattern of source ports, and a
question so slow that a refusal has its ration. What remains is the order: flows that share a conntrack entry
with their opposite go one way first, with all of this; then the entries are deleted everywhere; then the
other way. TCP goes as deep as a SYN: whether our own listener has answered, a source cannot know by itself,
and a session with somebody else's service must never be held.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from netprobe import wire
from netprobe.attempts import COUNTED, PATTERN, SLOW, Attempts
from netprobe.coordinator.deployment import Deployment
from netprobe.coordinator.doubts import Doubts
from netprobe.coordinator.field import KERNEL, LINK, Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.progress import Silent
from netprobe.coordinator.refusals import Refusals
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.state import State
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S, SPOKEN_PERIOD_S, Volley, Volleys
from netprobe.model import Flow, Protocol
from netprobe.observations import INTERFACE, LEFT, SOCKET
from netprobe.offline.scribe import Scribe
from netprobe.template import Kind

_MORE_THAN_EVER: Final = 0xFFFFFFFF
_INSISTENT_PACKETS: Final = 4000
"""Of a source, against chance."""
_MOST_COPIES: Final = 60
_MOST_OF_PATTERN: Final = 24_000
"""Of a source: each of eight ports of each flow is an entry in the conntrack of both ends."""
_REST_S: Final = 2.4
"""Until the rations of all errors have one more (an IPv4 route's costs two of a second)."""
_NEIGHBOUR_FAILED_S: Final = 3.6
"""Until a router that looks for a neighbour in vain has said so."""
_SLOWLY: Final = Attempts(SLOW.first, 1)


class Timetable(Volleys):
    """Volleys that are waited for as long as planned; what comes outside its time is noted."""

    def __init__(self, crew: Scribe, field: Field) -> None:
        super().__init__(crew, field)
        self._over = [0] * len(field.flows)
        self.untimely: set[int] = set()
        """The flows of which a packet was seen before it was sent, or long after."""

    async def settle(self, flows: Sequence[Flow], attempts: int) -> None:
        """Collect from all hosts what comes in the time that any packet may take."""
        del flows, attempts
        await self.listen(self._crew.names, self._field.settings.timeout_s)

    def close(self) -> None:
        """What has been sent by now has come, or will never; and what has not, cannot have come."""
        seen = self._field.seen
        self._over = list(seen.sent)
        self.untimely.update(
            number
            for masks in (seen.at(INTERFACE, Kind.PROBE), seen.at(SOCKET, Kind.PROBE))
            for number, (came, sent) in enumerate(zip(masks, seen.sent, strict=True))
            if came & ~sent
        )

    def _note(self, name: str, result: wire.Collected) -> None:
        seen, flows = self._field.seen, self._field.flows
        known = [seen.at(point, Kind.PROBE) for point in (INTERFACE, SOCKET)]
        for point, kind, masks in result.sightings:
            if kind is Kind.PROBE and point != LEFT:
                self.untimely.update(
                    number
                    for number, mask in masks
                    if number < len(flows)
                    and flows[number].dst == name
                    and mask & self._over[number] & ~(known[0][number] | known[1][number])
                )
        super()._note(name, result)


class Course:
    """The course of one plan, with what a run works with: `there`."""

    def __init__(self, field: Field, crew: Scribe, patience_s: float) -> None:
        self._field = field
        self._crew = crew
        self._patience_s = patience_s
        self._muster = Muster(crew, field)
        self._volleys = Timetable(crew, field)
        self._state = State(crew, field)
        self.there = Deployment(crew, field, self._muster, self._volleys, self._state)
        self._rounds = Rounds(field, self._muster, self._volleys, self._state, Silent())
        self._refusals = Refusals(field, self._volleys, self._rounds, Silent())
        self._periods_s: dict[str, float] = {}

    async def follow(self) -> None:
        """Ask everybody for everything, in its order."""
        await self._muster.facts()
        await self._state.look()
        await self._muster.arm()
        await self._muster.arm_points()
        await self._muster.listen()
        self._crew.barrier()
        direct, shared = self._field.by_entry(self._field.flows)
        for is_second in (False, True):
            theirs = [flow for flow in shared if self._field.is_second(flow) is is_second]
            if flows := (theirs if is_second else [*direct, *theirs]):
                await self._one_way(flows)
                await self._forget()
        await self._volleys.listen(self._crew.names, 0)

    async def _forget(self) -> None:
        """Delete the entries of one way when nobody sends any more, and before anybody does again."""
        self._crew.barrier()
        self._volleys.close()
        await self._state.forget()
        self._crew.barrier()

    async def _one_way(self, flows: Sequence[Flow]) -> None:
        direct, shared = self._field.by_entry(flows)
        await self._rounds.look(direct, shared)
        await self._rounds.burst_watched(flows)
        if max(map(len, _by_source(flows).values())) * PATTERN.total <= _MOST_OF_PATTERN:
            await self._rounds.pattern(flows)
        await self._insist(flows)
        if shared:
            await self._rounds.send_watched(shared)
        await self._withdraw()
        await self._volleys.listen(self._crew.names, _REST_S)
        await self._ask_slowly(flows)
        await self._volleys.listen(self._crew.names, _NEIGHBOUR_FAILED_S)
        await self._withdraw()

    async def _insist(self, flows: Sequence[Flow]) -> None:
        """One packet so often that chance does not lose it; it counts once."""
        busiest = max(map(len, _by_source(flows).values()))
        sent, injected = self._field.by_way(flows)
        copies = [Volley(sent, COUNTED, KERNEL), Volley(injected, COUNTED, LINK)]
        await self._volleys.fire(copies * max(1, min(_MOST_COPIES, _INSISTENT_PACKETS // busiest)))
        await self._volleys.settle(flows, COUNTED.mask)

    async def _withdraw(self) -> None:
        """Have every source take back the SYNs that nobody answered."""
        names = {flow.src for flow in self._field.flows if flow.protocol is Protocol.TCP}
        requests = dict.fromkeys(sorted(names), wire.Nothing())
        await self._crew.ask("withdraw", requests, wire.Nothing, ANSWER_TIMEOUT_S)

    async def _ask_slowly(self, flows: Iterable[Flow]) -> None:
        """
        Ask for each flow once, so slowly that whoever refuses it has a word left.

        Of a source all questions lie a ration's time apart, if there is patience for that; or else those to
        the same destination do.
        """
        # Whoever refuses a pod's packet tells the pod.
        turns = {
            source: in_turns(theirs)
            for source, theirs in _by_source(flow for flow in flows if not flow.forwarded).items()
        }
        periods_s = {source: period_s(theirs, self._patience_s) for source, theirs in turns.items()}
        for source, each in periods_s.items():
            self._periods_s[source] = min(each, self._periods_s.get(source, math.inf))
        volleys = []
        for turn in zip_longest(*turns.values()):
            sent, injected = self._field.by_way(flow for flow in turn if flow is not None)
            volleys += [Volley(sent, _SLOWLY, KERNEL), Volley(injected, _SLOWLY, LINK)]
        rates = {source: 1 / each for source, each in periods_s.items()}
        await self._volleys.fire(volleys, most_a_second=rates)

    def conclude(self, ahead_s: Mapping[str, float]) -> None:
        """
        When all has been read: what silence does not say, and what was not as planned.

        The clocks of the hosts are `ahead_s`.
        """
        field = self._field
        field.is_over = True
        self._muster.ahead_s.update(ahead_s)
        field.distrust_half_open(flow for flow in field.flows if flow.protocol is Protocol.TCP)
        Doubts(field, self._volleys, Silent()).conclude_unasked(_SLOWLY)
        self._refusals.conclude_asked(self._periods_s, self._crew.now_s)
        if self._volleys.untimely:
            self._exclude_untimely(self._volleys.untimely)

    def _exclude_untimely(self, numbers: Collection[int]) -> None:
        """Two hosts of which one saw the other's packets at another time than theirs have no common order."""
        pairs = {frozenset((self._field.flows[n].src, self._field.flows[n].dst)) for n in numbers}
        for flow in self._field.flows:
            if frozenset((flow.src, flow.dst)) in pairs:
                reason = (
                    f"{flow.src} and {flow.dst} saw packets of each other outside of their time: "
                    "a clock was set, or packets took seconds; repeat with a larger --margin"
                )
                self._field.exclude([flow], reason)


def _by_source(flows: Iterable[Flow]) -> Mapping[str, list[Flow]]:
    found: dict[str, list[Flow]] = defaultdict(list)
    for flow in flows:
        found[flow.src].append(flow)
    return found


def in_turns(flows: Sequence[Flow]) -> list[Flow]:
    """The flows of one source in an order in which those to the same destination lie far apart."""
    theirs: dict[str, list[Flow]] = defaultdict(list)
    for flow in flows:
        theirs[flow.dst].append(flow)
    places = {
        flow.number: (turn + (place + 0.5) / len(theirs)) / len(each)
        for place, each in enumerate(theirs.values())
        for turn, flow in enumerate(each)
    }
    return sorted(flows, key=lambda flow: places[flow.number])


def period_s(turns: Sequence[Flow], patience_s: float) -> float:
    """Seconds between two questions of a source that asks in these turns."""
    if len(turns) * SPOKEN_PERIOD_S <= patience_s:
        return SPOKEN_PERIOD_S
    last: dict[str, int] = {}
    nearest = len(turns)
    for place, flow in enumerate(turns):
        nearest = min(nearest, place - last.get(flow.dst, -len(turns)))
        last[flow.dst] = place
    return max(patience_s / len(turns), SPOKEN_PERIOD_S / nearest)
