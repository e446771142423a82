"""
Volleys: many packets fired by many hosts at once, then one wait for everybody.

A run is dominated by waiting for what never comes. So a volley is waited for once: until all that can be
expected has arrived, or for as long as the slowest answer of the run makes sensible.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from netprobe import icmp, wire
from netprobe.attempts import SOURCE_PORTS, Attempts
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import KERNEL, LINK, Craft, Field
from netprobe.model import Family, Flow, Protocol, Refusal
from netprobe.template import AS_USUAL, Shape

ANSWER_TIMEOUT_S: Final = 10.0
"""For an agent to answer what it can answer at once; a loaded host is slow, a hung one is lost."""

SPOKEN_RATE: Final = 500.0
"""Packets a second that a host may refuse with a word each: Linux says 1,000 (net.ipv4.icmp_msgs_per_sec)."""

SPOKEN_PERIOD_S: Final = 1.1
"""A little more than the second that Linux takes to give out another error to the same destination."""

_MORE_THAN_EVER: Final = 0xFFFFFFFF
_FIRST_LOOK_S: Final = 0.05
_RTT_FACTOR: Final = 4
_NEIGHBOUR_S: Final = 3.5  # the longest that resolving a neighbour takes


class Volley(NamedTuple):
    """The same attempts of many flows, by one way out."""

    flows: Sequence[Flow]
    attempts: Attempts
    way: str
    same_port: int = 1
    craft: Craft = Craft.PROBE
    shape: Shape = AS_USUAL


class Volleys:
    """Fires, waits and collects; what was seen goes into the field's observations."""

    def __init__(self, crew: Asked, field: Field) -> None:
        self._crew = crew
        self._field = field
        self.most_a_second = math.inf
        """As fast as any host may send from now on, whatever the settings say."""
        self.overhear: Callable[[str, bytes], None] = lambda _name, _packet: None
        """Whom to tell of each packet that a host's taps have kept whole."""

    @property
    def rate(self) -> float:
        """Packets a second that a host may send."""
        return min(self._field.settings.rate, self.most_a_second)

    async def fire(
        self,
        volleys: Sequence[Volley],
        *,
        after_s: float = 0,
        most_a_second: float | Mapping[str, float] = math.inf,
        timed: bool = False,
    ) -> None:
        """
        Fire volleys from all sources at once, at each one after the other; return when all have left.

        `most_a_second` goes for every source, or is given by source. `timed`: how long words about each
        packet take is wanted.
        """
        shots: dict[str, list[wire.Volley]] = defaultdict(list)
        theirs: dict[str, list[tuple[Attempts, list[Flow]]]] = defaultdict(list)
        packets: Counter[str] = Counter()
        for volley in volleys:
            for source, flows in self._by_source(volley.flows).items():
                shots[source].append(self._shots(source, flows, volley))
                packets[source] += len(flows) * volley.attempts.total
                if volley.craft is not Craft.WITHDRAWAL:
                    theirs[source].append((volley.attempts, flows))
        seen, rate = self._field.seen, self.rate
        most = most_a_second if isinstance(most_a_second, Mapping) else dict.fromkeys(shots, most_a_second)
        requests = {
            source: wire.Fire(rate=min(rate, most[source]), after=after_s, volleys=each, timed=timed)
            for source, each in shots.items()
        }
        longest_s = max((packets[name] / request.rate for name, request in requests.items()), default=0.0)
        injected = sum(volley.way == LINK for volley in volleys if volley.flows)
        timeout_s = ANSWER_TIMEOUT_S + after_s + 3 * longest_s + _NEIGHBOUR_S * injected
        fired = await self._crew.ask("fire", requests, wire.Fired, timeout_s)
        for source, result in fired.items():
            for attempts, flows in theirs[source]:
                mask = attempts.mask
                for flow in flows:
                    seen.sent[flow.number] |= mask
            # What takes a probe back has its number. That a firewall keeps it in says nothing of the probe.
            for name, masks in result.errors if theirs[source] else ():
                seen.failed(source, name, masks)
            seen.depart(source, result.times)
            self._field.packets += result.sent

    def _by_source(self, flows: Iterable[Flow]) -> dict[str, list[Flow]]:
        by_source: dict[str, list[Flow]] = defaultdict(list)
        for flow in self._field.testable(flows):
            by_source[flow.src].append(flow)
        return by_source

    def _shots(self, source: str, flows: Sequence[Flow], volley: Volley) -> wire.Volley:
        targets: dict[tuple[int, str, int | None], list[tuple[int, str]]] = defaultdict(list)
        templates = self._field.templates
        for flow in self._staggered(source, flows):
            template = templates.packet(flow, volley.craft, volley.shape)
            if template is not None:
                is_probe = volley.craft is not Craft.WITHDRAWAL
                undo = templates.packet(flow, Craft.WITHDRAWAL) if is_probe else None
                targets[template, flow.src_address, undo].append((flow.number, flow.dst_address))
        return wire.Volley(
            way=volley.way,
            attempts=volley.attempts,
            ports=(*SOURCE_PORTS, volley.same_port),
            shots=[
                (template, address, theirs, undo) for (template, address, undo), theirs in targets.items()
            ],
        )

    def _staggered(self, source: str, flows: Iterable[Flow]) -> list[Flow]:
        # Each source begins with the host after itself, so that no destination is hit by all of them at once.
        order, hosts = self._field.order, len(self._field.order)
        return sorted(flows, key=lambda flow: (order[flow.dst] - order[source]) % hosts)

    async def withdraw(self, flows: Sequence[Flow], made: Iterable[tuple[Attempts, int]]) -> None:
        """
        Take back the SYNs whose answer got lost, before the destinations repeat it for a minute.

        Of flows that were `made` these attempts, so many of them from one source port.
        """
        seen = self._field.seen
        half_open = [flow for flow in flows if seen.is_half_open(flow)]
        if half_open:
            await self.fire(
                [
                    Volley(
                        [flow for flow in half_open if seen.sent[flow.number] & attempts.mask],
                        attempts,
                        KERNEL,
                        same_port,
                        Craft.WITHDRAWAL,
                    )
                    for attempts, same_port in made
                ]
            )

    async def settle(self, flows: Sequence[Flow], attempts: int) -> None:
        """
        Wait for what attempts (a mask) of flows bring, and collect it.

        Ends as soon as everything has come. What is missing is waited for by the round-trip times that the
        run has seen; between two hosts of which nothing has been heard, for the whole timeout.
        """
        field = self._field
        started = trio.current_time()
        within_s = min(_FIRST_LOOK_S, field.settings.timeout_s)
        missing = field.testable(flows)
        while missing:
            await self._collect(self._expected(missing, attempts), within_s)
            missing = [flow for flow in field.testable(missing) if field.seen.pending(flow, attempts)]
            within_s = self.patience_s(missing) - (trio.current_time() - started)
            if within_s <= 0:
                return

    async def listen(self, names: Iterable[str], seconds: float) -> None:
        """Collect from hosts what they see in so many seconds."""
        await self._collect(dict.fromkeys(names, _MORE_THAN_EVER), seconds)

    async def _collect(self, expected: dict[str, int], within_s: float) -> None:
        """Collect from hosts, each as soon as it has seen as many packets as expected of it."""
        requests = {name: wire.Collect(expect=count, within=within_s) for name, count in expected.items()}
        collected = await self._crew.ask("collect", requests, wire.Collected, ANSWER_TIMEOUT_S + within_s)
        for name, result in collected.items():
            self._note(name, result)

    def _expected(self, flows: Iterable[Flow], attempts: int) -> dict[str, int]:
        expected: dict[str, int] = defaultdict(int)
        for flow in flows:
            made = self._field.seen.pending(flow, attempts).bit_count()
            expected[flow.dst] += made
            # A source has something to tell in any case: what left it.
            expected[flow.src] += made if flow.protocol is Protocol.TCP else 0
        return expected

    def patience_s(self, missing: Sequence[Flow]) -> float:
        """How long to wait for flows in all, by the round-trip times of the run so far, if there are any."""
        if not missing:
            return 0.0
        timeout_s = self._field.settings.timeout_s
        if self.unheard(missing) or not self._field.seen.rtt_us:
            return timeout_s
        return min(timeout_s, _FIRST_LOOK_S + _RTT_FACTOR * self.slowest_rtt_s())

    def slowest_rtt_s(self) -> float:
        """The longest round-trip time of the run so far."""
        return max(self._field.seen.rtt_us.values(), default=0) / 1e6

    def unheard(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those between whose ends nothing at all came through, in their direction and family."""
        heard = self._heard_pairs()
        return [flow for flow in flows if (flow.src, flow.dst, flow.family) not in heard]

    def _heard_pairs(self) -> set[tuple[str, str, Family]]:
        return {(flow.src, flow.dst, flow.family) for flow in self._field.seen.arrived()}

    def _note(self, name: str, result: wire.Collected) -> None:
        seen = self._field.seen
        for point, kind, masks in result.sightings:
            seen.saw(name, point, kind, masks)
        for kind, address, ttl, port, numbers in result.origins:
            seen.came_from(name, kind, address, ttl, port, numbers)
        seen.took(name, result.rtts)
        seen.serve(name, result.served, result.resent)
        self._field.overflowed[name] += sum(result.drops.values())
        for _point, packet, at_us in result.kept:
            self.overhear(name, packet)
            quote = icmp.parse(packet)
            found = None if quote is None else self._field.recogniser.find(quote)
            if quote is not None and found is not None:
                flow, mask = found
                seen.heard(name, flow.number, mask, Refusal(quote.word, quote.by, quote.reason), at_us)
