"""
The rounds of a run: a first look at everything, then a closer one at what did not come through.

Flows whose two orientations share one conntrack entry (IP protocol 4, WireGuard) need an order of their own,
so that no packet opens the way for a later one (design trap 2): arrivals are judged on packets that enter
below the source's netfilter, one orientation of all pairs first, with all its confirmation; only then the
other; and the sources' OUTPUT chains are tried last, by packets that never count as arrivals, with every
entry that they make deleted in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from netprobe import plan
from netprobe.coordinator.field import Craft, Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.state import State
from netprobe.coordinator.volleys import KERNEL, LINK, Volleys
from netprobe.evidence import has_left, is_half_open, passed
from netprobe.model import Flow
from netprobe.plan import BURST, FIRST, FRESH_PORT, OUTPUT, PATTERN, SAME_PORT, SLOW, Attempts

_MAX_BURST_PACKETS: Final = 4000
_MIN_BURST: Final = 5
_FRESH: Final = Attempts(FRESH_PORT.first, 2)
_SEND: Final = Attempts(OUTPUT.first, 1)
_SEND_AGAIN: Final = Attempts(OUTPUT.first + 1, 4)


class Rounds:
    """All volleys of a run, in their order."""

    def __init__(self, field: Field, muster: Muster, volleys: Volleys, state: State) -> None:
        self._field = field
        self._muster = muster
        self._volleys = volleys
        self._state = state

    async def all(self) -> None:
        """Every flow, as far as it can be tested."""
        flows = self._field.testable(self._field.flows)
        shared = [flow for flow in flows if self._field.shares_conntrack(flow)]
        direct = [flow for flow in flows if not self._field.shares_conntrack(flow)]
        first = [flow for flow in shared if not self._field.is_second(flow)]
        second = [flow for flow in shared if self._field.is_second(flow)]
        await self._arrivals([*direct, *first])
        await self._arrivals(second)
        await self._fresh_ports(shared)
        await self._leaving(first)
        await self._leaving(second)

    async def _arrivals(self, flows: Sequence[Flow]) -> None:
        """What arrives where: a first look, and the confirmation of all that was missed."""
        if not flows:
            return
        dropped = dict(self._field.overflowed)
        # Where a session follows, its own segments will tell a way that loses some: one SYN opens it.
        once = [flow for flow in flows if self._field.will_hold_session(flow)]
        known = {flow.number for flow in once}
        settings = self._field.settings
        usual = plan.usual_count(len(self._field.flows), len(self._field.order))
        count = min(settings.count or usual, FIRST.total)
        others = [flow for flow in flows if flow.number not in known]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fire, once, Attempts(FIRST.first, 1))
            nursery.start_soon(self.fire, others, Attempts(FIRST.first, count))
        await self._volleys.settle(flows, FIRST)
        self._field.distrust(flows, FIRST, dropped)
        await self._confirm(flows)

    async def _volley(
        self, flows: Sequence[Flow], attempts: Attempts, *, same_port: int = 1, craft: Craft = Craft.PROBE
    ) -> None:
        """Fire, each flow by its way, and settle."""
        dropped = dict(self._field.overflowed)
        await self.fire(flows, attempts, same_port=same_port, craft=craft)
        await self._volleys.settle(flows, attempts)
        self._field.distrust(flows, attempts, dropped)

    async def fire(
        self,
        flows: Sequence[Flow],
        attempts: Attempts,
        *,
        same_port: int = 1,
        craft: Craft = Craft.PROBE,
        after_s: float = 0,
    ) -> None:
        """Fire, each flow by its way."""
        shared = [flow for flow in flows if self._field.shares_conntrack(flow)]
        direct = [flow for flow in flows if not self._field.shares_conntrack(flow)]
        async with trio.open_nursery() as nursery:
            for theirs, way in ((direct, KERNEL), (shared, LINK)):
                if theirs:

                    async def fire(theirs: Sequence[Flow] = theirs, way: str = way) -> None:
                        await self._volleys.fire(
                            theirs,
                            attempts,
                            way=way,
                            same_port=same_port,
                            craft=craft,
                            after_s=after_s,
                        )

                    nursery.start_soon(fire)

    async def _confirm(self, flows: Sequence[Flow]) -> None:
        """A burst for every miss, and for what may share its cause; then the pattern of those that vary."""
        missing = self._field.missing(flows, FIRST)
        if not missing:
            return
        await self._muster.arm_points()
        await self._burst(missing)
        lossy = [flow for flow in missing if self._passed(flow, FIRST.mask | BURST.mask)]
        known = {flow.number for flow in missing}
        suspects = [flow for flow in self._related(flows, lossy) if flow.number not in known]
        if suspects:
            await self._burst(suspects)
        await self._pattern([*lossy, *suspects])
        await self.withdraw(missing)

    async def withdraw(self, flows: Sequence[Flow]) -> None:
        """Take back the SYNs whose answer got lost, before the destinations repeat it for a minute."""
        half_open = [flow for flow in flows if is_half_open(self._field.sides(flow), flow)]
        for attempts, same_port in ((FIRST, 1), (BURST, 1), (PATTERN, SAME_PORT), (SLOW, 1)):
            made = [flow for flow in half_open if self._made(flow, attempts)]
            if made:
                await self._volleys.withdraw(made, attempts, same_port=same_port)

    def _made(self, flow: Flow, attempts: Attempts) -> int:
        return self._field.observations[flow.src].sent.get(flow.number, 0) & attempts.mask

    async def look_closer(self, flows: Sequence[Flow]) -> None:
        """A burst, and the pattern, for flows that came through with an effort."""
        if flows:
            await self._muster.arm_points()
            await self._burst(flows)
            await self._pattern(flows)

    async def _pattern(self, flows: Iterable[Flow]) -> None:
        varying = [flow for flow in flows if self._varies(flow)]
        if varying:
            await self._volley(varying, PATTERN, same_port=SAME_PORT)

    async def _burst(self, flows: Sequence[Flow]) -> None:
        # Many misses are no accident: the more of them, the fewer packets each needs.
        busiest = max(Counter(flow.src for flow in flows).values())
        count = min(BURST.total, max(_MIN_BURST, _MAX_BURST_PACKETS // busiest))
        await self._volley(flows, Attempts(BURST.first, count))

    def _passed(self, flow: Flow, attempts: int) -> int:
        return passed(self._field.sides(flow), flow, attempts)

    def _varies(self, flow: Flow) -> bool:
        made = self._made(flow, BURST)
        through = self._passed(flow, FIRST.mask | BURST.mask)
        return through != 0 and through & made != made

    @staticmethod
    def _related(flows: Sequence[Flow], lossy: Iterable[Flow]) -> list[Flow]:
        """
        Flows that may lose packets for the same reason as these.

        Single packets pass a way that loses half of them often enough. Where one flow of a probe or pair
        loses some, the flows beside it deserve a closer look before they are called open.
        """
        sources = {(flow.probe, flow.src) for flow in lossy}
        destinations = {(flow.probe, flow.dst) for flow in lossy}
        pairs = {(flow.src, flow.dst) for flow in lossy}
        return [
            flow
            for flow in flows
            if (flow.probe, flow.src) in sources
            or (flow.probe, flow.dst) in destinations
            or (flow.src, flow.dst) in pairs
        ]

    async def _fresh_ports(self, flows: Sequence[Flow]) -> None:
        """
        From another source port, where a state on the way could explain an arrival.

        No earlier packet has opened the way for it; if it gets through as well, none was needed.
        """
        assisted = [
            flow
            for flow in self._field.testable(flows)
            if flow.port is not None
            and self._passed(flow, FIRST.mask)
            and (self._field.is_second(flow) or flow.number in self._field.before[flow.dst])
        ]
        if assisted:
            await self._volley(assisted, _FRESH, craft=Craft.FRESH_PORT)

    async def _leaving(self, flows: Sequence[Flow]) -> None:
        """Whether the sources' own OUTPUT chains and routes let flows out; no arrival of these counts."""
        if not flows:
            return
        await self._state.forget()
        await self._send(flows, _SEND)
        inside = [flow for flow in self._field.testable(flows) if not self._has_left(flow, _SEND)]
        if inside:
            await self._muster.arm_points()
            await self._send(inside, _SEND_AGAIN)
        await self._state.forget()

    async def _send(self, flows: Sequence[Flow], attempts: Attempts) -> None:
        await self._volleys.fire(flows, attempts, way=KERNEL)
        if self._muster.watching:
            # Leaving is seen at the source, and at once.
            await self._volleys.listen({flow.src for flow in flows}, 0)
            flows = [flow for flow in flows if not self._has_left(flow, attempts)]
        await self._volleys.settle(flows, attempts, has_left)

    def _has_left(self, flow: Flow, attempts: Attempts) -> bool:
        """Whether these packets were seen outside: leaving, or anywhere at the destination."""
        return has_left(self._field.sides(flow), flow, attempts.mask)
