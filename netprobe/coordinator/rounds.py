"""
The rounds of a run: a first look at everything, then a closer one at what did not come through.

Flows whose two orientations share one conntrack entry (IP protocol 4, WireGuard) need an order of their own,
so that no packet opens the way for a later one (design trap 2). Their arrivals are judged on packets that
enter below the source's netfilter, and the source's OUTPUT chain is tried by packets of its own, which never
count as arrivals. One orientation of all pairs goes first, with all its confirmation; then every entry that
it made is deleted; only then the other follows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from netprobe import plan
from netprobe.attempts import (
    ARRIVALS_MASK,
    BURST,
    COUNTED,
    FIRST,
    FRESH_PORT,
    FRESH_PORT_OUTPUT,
    FRESH_PORT_WATCHED,
    OUTPUT,
    OUTPUT_WATCHED,
    PATTERN,
    SAME_PORT,
    SLOW,
    Attempts,
)
from netprobe.coordinator.doubts import Doubts
from netprobe.coordinator.field import KERNEL, LINK, Craft, Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.state import State
from netprobe.coordinator.volleys import SPOKEN_RATE, Volley, Volleys
from netprobe.model import Flow, Protocol

_MAX_BURST_PACKETS: Final = 4000
_MIN_BURST: Final = 5
_ROTATION: Final = 3

_CROWD: Final = 8
_CROWD_SHARE: Final = 0.25
"""So many flows of a host that lose some packets, and such a share of all: the run itself may be too fast."""
_CALM_RATE: Final = 200.0
"""Packets a second of a host that also a link of a few hundred kbit/s carries, beside the login."""
_CALM_S: Final = 15.0
"""A burst at that rate lasts no longer; where there are more packets, it is as slow as that allows."""

_ROUNDS: Final = ((FIRST, 1), (BURST, 1), (PATTERN, SAME_PORT), (SLOW, 1), (COUNTED, 1))
"""The attempts of all rounds, and how many of each have a source port in common."""


class Rounds:
    """All volleys of a run, in their order."""

    def __init__(self, field: Field, muster: Muster, volleys: Volleys, state: State, told: Progress) -> None:
        self._field = field
        self._muster = muster
        self._volleys = volleys
        self._state = state
        self._told = told
        self._doubts = Doubts(field, volleys, told)

    async def one_way(self) -> None:
        """Every flow, as far as it can be tested, but those that share an entry with one of these."""
        direct, shared = self._field.by_entry(self._field.testable(self._field.flows))
        await self._round("first look", direct, [each for each in shared if not self._field.is_second(each)])

    async def other_way(self) -> None:
        """The rest."""
        _direct, shared = self._field.by_entry(self._field.testable(self._field.flows))
        await self._state.forget()
        await self._round("the other way", [], [each for each in shared if self._field.is_second(each)])
        await self._state.forget()

    async def _round(self, name: str, direct: Sequence[Flow], shared: Sequence[Flow]) -> None:
        """A first look, and the confirmation of all that was missed."""
        flows = [*direct, *shared]
        if not flows:
            return
        self._told.phase(name, len(flows))
        await self.look(direct, shared)
        await self._confirm(flows)
        await self._send_again(flows, shared)

    async def look(self, direct: Sequence[Flow], shared: Sequence[Flow]) -> None:
        """A first look at flows, and at those that share an entry with their opposite."""
        flows = [*direct, *shared]
        look = plan.first_look(self._field.settings, len(self._field.flows), len(self._field.order))
        ahead = [flow for flow in direct if self._field.will_hold_session(flow)]
        more, forwarded = self._field.by_way(
            flow for flow in direct if not self._field.will_hold_session(flow)
        )
        dropped = dict(self._field.overflowed)
        await self._volleys.fire(
            [
                Volley(ahead, look.ahead, KERNEL),
                # What leaves through the kernel finds the next hops that injected packets then need.
                Volley(more, look.several, KERNEL),
                Volley(shared, look.leaving, KERNEL),
                Volley([*shared, *forwarded], look.several, LINK),
                # No earlier packet has opened the way for these; where one gets through, none was needed.
                Volley(self._with_ports(shared), look.fresh, LINK, craft=Craft.FRESH_PORT),
                Volley(self._let_out(shared), FRESH_PORT_OUTPUT, KERNEL, craft=Craft.FRESH_PORT),
            ]
        )
        await self._volleys.settle(flows, FIRST.mask | OUTPUT.mask | FRESH_PORT.mask)
        self._field.distrust(flows, FIRST, dropped)

    def _with_ports(self, shared: Iterable[Flow]) -> list[Flow]:
        """Flows that can be tried from another source port."""
        return [flow for flow in shared if flow.port is not None]

    def _let_out(self, shared: Iterable[Flow]) -> list[Flow]:
        """The same, where a state at the source could explain that its OUTPUT chain lets the flow out."""
        return [
            flow
            for flow in self._with_ports(shared)
            if self._field.is_planned or flow.number in self._field.before[flow.src]
        ]

    async def _volley(self, flows: Sequence[Flow], attempts: Attempts, *, same_port: int = 1) -> None:
        """Fire, each flow by its way, and settle."""
        dropped = dict(self._field.overflowed)
        sent, injected = self._field.by_way(flows)
        await self._volleys.fire(
            [Volley(sent, attempts, KERNEL, same_port), Volley(injected, attempts, LINK, same_port)]
        )
        await self._volleys.settle(flows, attempts.mask)
        self._field.distrust(flows, attempts, dropped)

    async def ask(self, flows: Sequence[Flow], attempts: Attempts, *, after_s: float = 0) -> None:
        """Fire no faster than a host can find words for each packet, and settle."""
        sent, injected = self._field.by_way(flows)
        # Who has few words has had them for those that were always first, and they may have been lost.
        await self._volleys.fire(
            [Volley(injected, attempts, LINK), Volley(sent, attempts, KERNEL)],
            after_s=after_s,
            most_a_second=SPOKEN_RATE,
        )
        await self._volleys.settle(flows, attempts.mask)

    async def repeat(self, times: Sequence[Sequence[Flow]], attempts: Attempts, within_s: float) -> None:
        """Fire attempts that may have been made before, each time of some flows, and let them come."""
        volleys = []
        for flows in times:
            sent, injected = self._field.by_way(flows)
            volleys += [Volley(injected, attempts, LINK), Volley(sent, attempts, KERNEL)]
        await self._volleys.fire(volleys)
        ends = {name for flows in times for flow in flows for name in (flow.src, flow.dst)}
        await self._volleys.listen(ends, within_s)

    async def _confirm(self, flows: Sequence[Flow]) -> None:
        """A burst for every miss, and for what may share its cause; then the pattern of those that vary."""
        missing = self._field.missing(flows, FIRST)
        self._told.advance(len(flows) - len(missing))
        if not missing:
            return
        self._told.phase("confirming", len(missing))
        await self._muster.arm_points()
        if self._is_crowded(flows):
            await self._calm(missing, FIRST.mask)
        await self.burst_watched(missing)
        await self._burst_calmly(flows, missing)
        lossy = [flow for flow in missing if self._loses_some(flow)]
        beside = await self._look_beside(flows, lossy)
        known = {flow.number for flow in beside}
        silent = [flow for flow in missing if flow.number not in known]
        await self._doubts.insist(silent)
        if late := [flow for flow in silent if self._passed(flow, BURST.mask)]:
            beside += await self._look_beside(flows, late)
        await self.withdraw(list(dict.fromkeys([*missing, *beside])))

    def _loses_some(self, flow: Flow) -> bool:
        """Whether some packets came; where the run was too fast for a link, whether some did not later."""
        if not self._passed(flow, FIRST.mask | BURST.mask):
            return False
        counted = self._field.counted(flow, FIRST.mask | BURST.mask)
        is_calm = self._volleys.most_a_second < math.inf
        return not is_calm or self._passed(flow, counted) != counted

    def _is_crowded(self, flows: Sequence[Flow]) -> bool:
        """Whether some host loses some packets of so many flows that the run itself may be the reason."""
        if self._volleys.most_a_second <= _CALM_RATE:
            return False
        tested: Counter[tuple[str, str]] = Counter()
        partly: Counter[tuple[str, str]] = Counter()
        for flow in self._field.testable(flows):
            made = self._field.seen.sent[flow.number] & (FIRST.mask | BURST.mask)
            ends = ("from", flow.src), ("to", flow.dst)
            tested.update(ends)
            if self._passed(flow, made) not in (0, made):
                partly.update(ends)
        return any(n >= max(_CROWD, _CROWD_SHARE * tested[end]) for end, n in partly.items())

    async def _calm(self, flows: Sequence[Flow], attempts: int) -> None:
        """Send no faster, from now on, than a slow link carries; these flows get a burst, which counts."""
        self._field.distrust_missed(flows, attempts)
        busiest = max(Counter(flow.src for flow in flows).values())
        rate = max(_CALM_RATE, busiest * _MIN_BURST / _CALM_S)
        self._volleys.most_a_second = min(rate, self._volleys.most_a_second)
        self._told.note(
            "many flows lose some packets and not all: a link may be too slow for the run's pace; "
            f"going on with {rate:.0f} packets a second from any host"
        )
        await self._muster.beware_of_repeats()

    async def _burst_calmly(self, flows: Sequence[Flow], missing: Sequence[Flow]) -> None:
        """Another burst, slower, where only the first one shows that the run itself may be too fast."""
        busiest = max(Counter(flow.src for flow in missing).values())
        first = self._burst_of(busiest)
        rest = Attempts(first.first + first.total, min(first.total, BURST.total - first.total))
        if rest.total and self._is_crowded(flows):
            await self._calm(missing, FIRST.mask | BURST.mask)
            await self._volley(missing, rest)

    async def burst_watched(self, flows: Sequence[Flow]) -> None:
        """A burst while the interfaces are watched, and before it a packet from a port that none has had."""
        fresh = self._with_ports(flow for flow in flows if self._field.shares_conntrack(flow))
        await self._volleys.fire([Volley(fresh, FRESH_PORT_WATCHED, LINK, craft=Craft.FRESH_PORT)])
        await self._burst(flows)

    async def look_again(self) -> None:
        """Look beside flows of which the first packet passed when they were asked slowly: a limit, maybe."""
        flows, _shared = self._field.by_entry(self._field.testable(self._field.flows))
        late = [
            flow
            for flow in flows
            if self._passed(flow, SLOW.mask) and not self._passed(flow, ARRIVALS_MASK & ~SLOW.mask)
        ]
        if late:
            await self.withdraw(await self._look_beside(flows, late))
        self._doubts.conclude()
        # What came late is known only now.
        self._field.distrust_half_open(
            flow for flow in flows if flow.protocol is Protocol.TCP and self._made(flow, PATTERN)
        )

    async def _look_beside(self, flows: Sequence[Flow], lossy: Sequence[Flow]) -> list[Flow]:
        """Look at the flows that may lose packets for the same reason as lossy ones; which these are."""
        related = self._related(flows, lossy)
        if unconfirmed := [flow for flow in related if not self._made(flow, BURST)]:
            await self._burst(unconfirmed)
        await self._vary([flow for flow in related if not self._made(flow, PATTERN)])
        await self._doubts.resolve(related)
        return related

    async def withdraw(self, flows: Sequence[Flow]) -> None:
        """Take back what any round has left half open."""
        await self._volleys.withdraw(flows, _ROUNDS)

    def _made(self, flow: Flow, attempts: Attempts) -> int:
        return self._field.seen.sent[flow.number] & attempts.mask

    async def look_at_answers(self) -> None:
        """See what leaves destinations whose answers come without the mark of our own listener there."""
        flows = [
            flow
            for flow in self._field.testable(self._field.flows)
            if (flow.dst_address, flow.port) in self._field.speeches
            and self._field.seen.answered_by_another(flow.number)
            and not self._made(flow, BURST)
        ]
        if flows:
            await self._muster.arm_points()
            await self._burst(flows)
            await self.withdraw(flows)

    async def look_closer(self, flows: Sequence[Flow]) -> None:
        """A burst, and the pattern, for flows that came through with an effort, if that is news."""
        # A packet that is sent twice hides the loss of one of the two.
        flows = [flow for flow in flows if not self._made(flow, BURST)]
        if not flows:
            return
        await self._muster.arm_points()
        await self._burst(flows)
        lossy = [flow for flow in flows if self._may_vary(flow)]
        direct, shared = self._field.by_entry(self._field.testable(self._field.flows))
        suspects = [flow for flow in self._related(direct, lossy) if not self._made(flow, BURST)]
        if suspects:
            await self._burst(suspects)
        await self._vary([flow for flow in (*lossy, *suspects) if not self._made(flow, PATTERN)])
        asked = await self._doubts.resolve(*self._field.by_entry(self._related([*direct, *shared], lossy)))
        await self.withdraw([*flows, *suspects, *asked])

    async def _vary(self, flows: Sequence[Flow]) -> None:
        """
        The pattern for flows that may lose packets for the same reason.

        A way that loses half of all packets loses a whole burst now and then, and one that loses a tenth
        often loses nothing of it: as long as they are not too many, what has lost nothing gets it as well.
        """
        flows = [flow for flow in flows if self._leaves(flow)]
        busiest = max(Counter(flow.src for flow in flows).values(), default=0)
        if busiest * PATTERN.total > _MAX_BURST_PACKETS:
            flows = [flow for flow in flows if self._may_vary(flow)]
        await self.pattern(flows)

    async def pattern(self, flows: Sequence[Flow]) -> None:
        """
        Several packets from each of several source ports, in turns.

        A SYN that finds a connection of its port half open gets no answer of its own, so each turn is taken
        back before the next: also where the answer came, for the kernel's own RST can get lost as well.
        """
        if not flows:
            return
        dropped = dict(self._field.overflowed)
        sent, injected = self._field.by_way(flows)
        for number in range(SAME_PORT):
            first = PATTERN.first + number
            turn = [Attempts(each, 1) for each in range(first, PATTERN.first + PATTERN.total, SAME_PORT)]
            # Each in an order of its own: a bundle that takes its links in turns, packet by packet, must not
            # look like one that chooses them by the port.
            turn = turn[number * _ROTATION :] + turn[: number * _ROTATION]
            await self._volleys.fire(
                [Volley(sent, each, KERNEL, SAME_PORT) for each in turn]
                + [Volley(injected, each, LINK, SAME_PORT) for each in turn]
            )
            await self._volleys.settle(flows, sum(each.mask for each in turn))
            await self._volleys.fire(
                [Volley(sent, each, KERNEL, SAME_PORT, Craft.WITHDRAWAL) for each in turn]
            )
        self._field.distrust(flows, PATTERN, dropped)
        self._field.distrust_half_open(flow for flow in sent if flow.protocol is Protocol.TCP)

    async def _burst(self, flows: Sequence[Flow]) -> None:
        # Many misses are no accident: the more of them, the fewer packets each needs.
        busiest = max(Counter(flow.src for flow in flows).values())
        await self._volley(flows, self._burst_of(busiest))

    @staticmethod
    def _burst_of(busiest: int) -> Attempts:
        """The burst, where a source has so many flows that get one."""
        return Attempts(BURST.first, min(BURST.total, max(_MIN_BURST, _MAX_BURST_PACKETS // busiest)))

    def _passed(self, flow: Flow, attempts: int) -> int:
        return self._field.seen.passed(flow, attempts)

    def _may_vary(self, flow: Flow) -> bool:
        """Whether some were lost, and not by the kernel's refusal to send any."""
        made = self._field.seen.sent[flow.number] & (FIRST.mask | BURST.mask)
        return self._passed(flow, made) != made and self._leaves(flow)

    def _leaves(self, flow: Flow) -> bool:
        """Whether the kernel has not refused to send any."""
        made = self._field.seen.sent[flow.number] & (FIRST.mask | BURST.mask)
        return self._field.seen.unsent(flow.number) & made != made

    @staticmethod
    def _related(flows: Sequence[Flow], lossy: Sequence[Flow]) -> list[Flow]:
        """
        Flows that may lose packets for the same reason as these.

        Single packets pass a way that loses half of them often enough. Where one flow of a probe or pair
        loses some, the flows beside it deserve a closer look before they are called open, and so do those
        whose answers take the same way, or that take the way of its answers.
        """
        sources = {(flow.probe, flow.src) for flow in lossy}
        destinations = {(flow.probe, flow.dst) for flow in lossy}
        pairs = {(flow.src, flow.dst) for flow in lossy}
        answering = {(flow.dst, flow.src) for flow in lossy}
        answers = {(flow.dst, flow.src) for flow in lossy if flow.protocol is Protocol.TCP}
        return [
            flow
            for flow in flows
            if (flow.probe, flow.src) in sources
            or (flow.probe, flow.dst) in destinations
            or (flow.src, flow.dst) in pairs | answers
            or (flow.protocol is Protocol.TCP and (flow.src, flow.dst) in answering)
        ]

    def _keeps_some(self, flow: Flow) -> bool:
        """Whether the flow's source refused to send some of its packets, and sent others."""
        shares = self._field.shares_conntrack(flow)
        made = self._field.seen.sent[flow.number] & (OUTPUT.mask if shares else ARRIVALS_MASK)
        refused = made & self._field.seen.unsent(flow.number)
        return refused not in (0, made)

    async def _send_again(self, flows: Sequence[Flow], shared: Sequence[Flow]) -> None:
        """
        Try the sources' OUTPUT chains again where not all of the first packets were seen outside.

        Now the interfaces are watched: what leaves is seen at the source, even if it gets no further. A chain
        that loses some packets of one flow may have let those of another through by chance.
        """
        seen = self._field.seen
        losing = {flow.src for flow in flows if self._keeps_some(flow)}
        inside = [
            flow
            for flow in self._field.testable(shared)
            if flow.src in losing or not seen.has_left(flow.number, self._made(flow, OUTPUT))
        ]
        if inside:
            await self._muster.arm_points()
            await self.send_watched(inside)

    async def send_watched(self, shared: Sequence[Flow]) -> None:
        """Try the sources' OUTPUT chains while the interfaces are watched."""
        await self._volleys.fire([Volley(shared, OUTPUT_WATCHED, KERNEL)], most_a_second=SPOKEN_RATE)
        await self._volleys.listen({flow.src for flow in shared}, 0)
        await self._volleys.settle(shared, OUTPUT_WATCHED.mask)
