"""
The path MTU of every pair of nodes: the largest packet that arrives whole, seen at the destination itself.

Three kinds of packets are sent, because the way may treat them differently: VXLAN's, IP-in-IP's, and BGP's
SYN. Each is the harmless probe of a usual run, padded with zeros to a size; a search (`netprobe.ladder`) says
which sizes. A packet counts where the destination's interface sees it in one piece; its firewall, behind
that, has no say. ICMP errors are evidence of who limits the path, and hints where to search, never the limit
itself.

What a pair comes to is worked out in `netprobe.coordinator.tracks`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from netprobe import plan, wire
from netprobe.access import Access
from netprobe.attempts import Attempts
from netprobe.coordinator.deployment import Deployment, deployed
from netprobe.coordinator.field import Craft
from netprobe.coordinator.parallel import Parallel
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.record import now, record
from netprobe.coordinator.tracks import Pair, Track, Tracks
from netprobe.coordinator.volleys import SPOKEN_RATE, Volley
from netprobe.model import (
    Family,
    Flow,
    Fragments,
    Inventory,
    Limit,
    Protocol,
    Run,
    Settings,
)
from netprobe.observations import INTERFACE, SOCKET
from netprobe.template import MAX_FLOWS, Kind, Shape

KINDS: Final = ("vxlan", "ipip", "bgp")
"""The probes that are padded, one of each protocol that carries a cluster's packets."""

_SEARCHES: Final = 9
"""So many volleys a search may take; at a loss of one in five packets, one in ten thousand takes more."""
_CUTTING, _ASKING, _PORTS, _PORTS_AGAIN = range(_SEARCHES, _SEARCHES + 4)
"""The numbers of other volleys: what may be cut, what failed in silence, and single source ports."""
_VOLLEYS: Final = _SEARCHES + 4

_LOOK_S: Final = 0.02
_CUT_TRIES, _CUT_CONTROLS = 8, 2
_BYTES_A_SECOND: Final = 12.5e6
"""Of a host at most: 100 Mbit/s. Only packets of more than 2,500 bytes are slowed down by it."""
_TIMES_ASKED: Final = 2
_PAUSE_S: Final = 0.35
"""Between two times that a router is asked why: many have two errors a second (RFC 1812 §4.3.2.8)."""


async def measure(
    inventory: Inventory,
    settings: Settings,
    progress: Progress | None = None,
    access: Access | None = None,
) -> Run:
    """
    A run without cells that has the path MTUs between all nodes of an inventory.

    Of the settings `families`, `only`, `rate` and `timeout_s` count. Hosts that fail are in the result with
    their reasons. Raises `ValueError` where there are more pairs than tags can number; nothing has been
    started then.
    """
    told = Silent() if progress is None else progress
    started = now()
    asked = _inventory(inventory)
    flows = plan.flows(asked, settings)
    if len(flows) * _VOLLEYS >= MAX_FLOWS:
        message = f"path MTUs of {len(flows)} flows are more than one run can number: take fewer hosts"
        raise ValueError(message)
    copies = [
        msgspec.structs.replace(flow, number=flow.number + volley * len(flows))
        for volley in range(_VOLLEYS)
        for flow in flows
    ]
    async with deployed(asked, settings, told, access, copies) as there:
        measurement = _Measurement(there, len(flows), told)
        await measurement.make()
    mtus = tuple(measurement.tracks.results())
    return record(there, inventory, settings, started, mtus=mtus)


def _inventory(inventory: Inventory) -> Inventory:
    """The same hosts, with one flow of each kind between two of them."""
    ports = {name: ports[:1] for name, ports in inventory.ports.items()}
    return msgspec.structs.replace(inventory, probes=KINDS, modes=None, ports=ports)


class _Measurement:
    """All volleys of a measurement, in their order."""

    def __init__(self, there: Deployment, flows: int, told: Progress) -> None:
        self._field = there.field
        self._muster = there.muster
        self._volleys = there.volleys
        self._told = told
        self._flows = self._field.flows[:flows]
        self.tracks = Tracks(there.field, flows)

    async def make(self) -> None:
        """Send everything."""
        self._volleys.overhear = self.tracks.overhear
        routes = await self._muster.routes()
        await self._muster.arm_sizes()
        for flow in self._flows:
            route = routes.get(flow.src, {}).get(flow.dst_address, wire.Route())
            track = Track(flow, self._size_of(flow), route.mtu)
            if not route.mtu:
                why = f": {route.error}" if route.error else ""
                track.reason = f"{flow.src} knows no interface for {flow.dst_address}{why}"
            self.tracks.add(track)
        self._told.phase("searching path MTUs", len(self._flows))
        for number in range(_SEARCHES):
            ready = self.tracks.ready()
            if not ready:
                break
            asked = {track: track.search.ask() for track in ready}
            await self._send(number, asked)
            self._look()
            self._told.advance(len(asked) - len(self.tracks.searching()))
        self._told.phase("looking for parallel paths", len(self._flows))
        await Parallel(self.tracks, self._of_ports).look(_PORTS, _PORTS_AGAIN)
        await self._ask_again()
        await self._cut()
        await self._withdraw()

    def _size_of(self, flow: Flow) -> int:
        template = self._field.templates.packet(flow)
        return 0 if template is None else len(self._field.templates.all[template].data)

    # Sending.

    async def _send(self, number: int, asked: Mapping[Track, list[int]]) -> None:
        """One volley of each search, and what comes of it."""
        dropped = dict(self._field.overflowed)
        await self._fire(number, asked)
        self._level()
        await self._settle([self.tracks.copy(track, number) for track in asked])
        for track, sizes in asked.items():
            dst = track.flow.dst
            track.volleys.append((number, sizes, self._field.overflowed[dst] == dropped[dst]))

    async def _fire(
        self,
        number: int,
        asked: Mapping[Track, list[int]],
        *,
        first: int = 0,
        same_port: int = 1,
        may_be_cut: bool = False,
        after_s: float = 0,
        most_a_second: float = 0,
        begin: int = 0,
    ) -> None:
        """Fire packets of these sizes, the attempts counted from `first`, and `begin` with a later one."""
        groups: dict[tuple[int, str, Shape], list[Flow]] = defaultdict(list)
        for track, sizes in asked.items():
            flow = self.tracks.copy(track, number)
            way = self._field.way(flow)
            for place, size in enumerate(sizes, start=first):
                groups[place, way, track.shape(size, may_be_cut=may_be_cut)].append(flow)
            self.tracks.sent(flow, sizes)
        for (_place, _way, shape), flows in groups.items():
            for flow in {(flow.probe, flow.family): flow for flow in flows}.values():
                self._field.templates.packet(flow, Craft.PROBE, shape)
        await self._muster.teach()

        def in_turn(place: int, way: str) -> tuple[bool, int, str]:
            return place < begin, place, way

        largest = max((shape.size for _place, _way, shape in groups), default=0)
        await self._volleys.fire(
            [
                Volley(flows, Attempts(place, 1), way, same_port, shape=shape)
                for (place, way, shape), flows in sorted(
                    groups.items(), key=lambda item: in_turn(*item[0][:2])
                )
            ],
            after_s=after_s,
            most_a_second=min(most_a_second or math.inf, _BYTES_A_SECOND / max(1, largest)),
        )

    async def _of_ports(
        self, number: int, asked: Mapping[Track, list[int]], same_port: int, begin: int
    ) -> None:
        """A volley in which so many successive packets have one source port, and what comes of it."""
        await self._fire(number, asked, same_port=same_port, begin=begin)
        await self._settle([self.tracks.copy(track, number) for track in asked])

    async def _settle(self, flows: Sequence[Flow]) -> None:
        """
        Wait until each packet has arrived, or a router has said that it was too big; or for long enough.

        Agents do not know of the latter, so that they are asked now and then.
        """
        started, missing = trio.current_time(), list(flows)
        deadline = started
        while missing:
            hosts = {name for flow in missing for name in (flow.src, flow.dst)}
            await self._volleys.listen(hosts, _LOOK_S)
            missing = [flow for flow in self._field.testable(missing) if self.tracks.pending(flow)]
            if trio.current_time() >= deadline:
                deadline = started + self._volleys.patience_s(missing)
                if trio.current_time() >= deadline:
                    return

    def _level(self) -> None:
        """Count the shortest round-trip time of each pair: a busy agent measures its own delays as well."""
        best: dict[Pair, int] = {}
        rtt_us = self._field.seen.rtt_us
        pairs = {number: self.tracks.of(number).pair for number in rtt_us}
        for number, pair in pairs.items():
            best[pair] = min(rtt_us[number], best.get(pair, rtt_us[number]))
        for number, pair in pairs.items():
            rtt_us[number] = best[pair]

    # Looking.

    def _look(self) -> None:
        """Tell each search what has come so far, and let the others profit from what it found."""
        for track in self.tracks.all:
            if track.volleys:
                track.search.note(self.tracks.noted(track))
        for pair, tracks in self.tracks.by_pair.items():
            hints = self.tracks.limits(pair)
            hints |= {track.search.mtu for track in tracks if track.search.mtu and not track.is_greeting}
            for track in tracks:
                track.search.hint(hints)
                if track.is_greeting and track.search.mtu:
                    self._go_on(track, hints)

    def _go_on(self, track: Track, hints: Iterable[int]) -> None:
        """Send SYNs with data from now on, if nobody but our own listener gets them."""
        flow, seen = track.flow, self._field.seen
        copies = self.tracks.copies(track)
        holder = next(filter(None, map(self._field.holder, copies)), None)
        is_ours = (flow.dst_address, flow.port) in self._field.speeches
        if holder:
            track.reason = f"{holder} holds the port: no SYN with data is sent to it"
        elif not is_ours or not any(seen.at(SOCKET, Kind.PROBE)[copy.number] for copy in copies):
            track.reason = f"the SYN does not come to a socket of ours on {flow.dst}: none with data is sent"
        else:
            track.pad(hints)

    # After the search.

    async def _cut(self) -> None:
        """Send packets above the path MTU that may be cut, where the source can send any."""
        asked: dict[Track, list[int]] = {}
        for (_src, _dst, family), tracks in self.tracks.by_pair.items():
            mtu = self.tracks.mtu(tracks)
            if family is not Family.IPV4 or mtu is None:
                continue
            for track in self.tracks.measured(tracks):
                at_socket = self._field.seen.at(SOCKET, Kind.PROBE)
                is_delivered = any(at_socket[copy.number] for copy in self.tracks.copies(track))
                largest = track.top if track.search.refused is None else track.search.refused - 1
                # What another kind's limit does to fragments says nothing of the pair's.
                sets_it = track.search.mtu == mtu and not track.narrowest
                if not sets_it or track.flow.protocol is Protocol.TCP:
                    continue
                if is_delivered and mtu < largest:
                    asked[track] = [mtu] * _CUT_CONTROLS + [largest] * _CUT_TRIES
                    break
        if not asked:
            return
        self._told.phase("sending what may be cut", len(asked))
        await self._muster.arm_points()
        await self._fire(_CUTTING, asked, may_be_cut=True)
        flows = [self.tracks.copy(track, _CUTTING) for track in asked]
        await self._volleys.settle(flows, (1 << _CUT_CONTROLS + _CUT_TRIES) - 1)
        controls = (1 << _CUT_CONTROLS) - 1
        for track, flow in zip(asked, flows, strict=True):
            socket = self._field.seen.at(SOCKET, Kind.PROBE)[flow.number]
            if socket & ~controls:
                self.tracks.fragments[track.pair] = Fragments.DELIVERED
            elif socket & controls:
                began = self._field.seen.at(INTERFACE, Kind.PROBE)[flow.number] & ~controls
                self.tracks.fragments[track.pair] = Fragments.PARTIAL if began else Fragments.LOST

    async def _ask_again(self) -> None:
        """Send what failed without a word several times more, with pauses in which a router may find one."""
        asked: dict[Track, list[int]] = {}
        for tracks in self.tracks.by_pair.values():
            if self.tracks.mtu(tracks) is not None and self.tracks.limit(tracks)[0] is Limit.BLACK_HOLE:
                for track in self.tracks.measured(tracks)[:1]:
                    if track.search.mtu is not None and track.search.mtu < track.top:
                        asked[track] = [track.search.mtu + 1, track.top]
        if not asked:
            return
        self._told.phase("asking who limits silent paths", len(asked))
        for time in range(_TIMES_ASKED):
            first = 2 * time
            await self._fire(_ASKING, asked, first=first, after_s=_PAUSE_S, most_a_second=SPOKEN_RATE)
            await self._settle([self.tracks.copy(track, _ASKING) for track in asked])
        for track, sizes in asked.items():
            track.volleys.append((_ASKING, sizes * _TIMES_ASKED, True))
        self._look()

    async def _withdraw(self) -> None:
        """Take back what a volley of any search has left half open; one of so many sizes."""
        copies: dict[int, list[Flow]] = defaultdict(list)
        for track in self.tracks.all:
            for copy, sizes in zip(self.tracks.copies(track), track.sizes, strict=True):
                copies[len(sizes)].append(copy)
        for count, flows in copies.items():
            await self._volleys.withdraw(flows, [(Attempts(0, count), 1)])
