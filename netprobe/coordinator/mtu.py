"""
The path MTU of every pair of nodes: the largest packet that arrives whole, seen at the destination itself.

Three kinds of packets are sent, because the way may treat them differently: VXLAN's, IP-in-IP's, and BGP's
SYN. Each is the harmless probe of a usual run, padded with zeros to a size; a search (`netprobe.ladder`) says
which sizes. A packet counts where the destination's interface sees it in one piece; its firewall, behind
that, has no say. ICMP errors are evidence of who limits the path, and hints where to search, never the limit
itself.

A volley numbers its sizes by the attempts in the tags. So that nothing that comes late is taken for another
size, each later volley is sent as flows of another number: a flow is there once for each of its volleys.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from typing import Final

import msgspec

from netprobe import icmp, ladder, plan
from netprobe.attempts import Attempts
from netprobe.coordinator.deployment import Deployment, deployed
from netprobe.coordinator.field import Craft
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.volleys import KERNEL, LINK, SPOKEN_RATE, Volley
from netprobe.ladder import Search
from netprobe.model import (
    Family,
    Flow,
    Fragments,
    Inventory,
    KindMtu,
    Limit,
    Outcome,
    PathMtu,
    Protocol,
    Run,
    Settings,
    TooBig,
)
from netprobe.observations import INTERFACE, SOCKET
from netprobe.probes import announced_mss
from netprobe.template import MAX_FLOWS, Kind, Shape

KINDS: Final = ("vxlan", "ipip", "bgp")
"""The probes that are padded, one of each protocol that carries a cluster's packets."""

_SEARCHES: Final = 9
"""So many volleys a search may take; at a loss of one in five packets, one in ten thousand takes more."""
_VOLLEYS: Final = _SEARCHES + 2
_CUTTING, _ASKING = _SEARCHES, _SEARCHES + 1
"""The numbers of the last two volleys: packets that may be cut, and silent failures asked again."""

_IP_HEADER: Final = {Family.IPV4: 20, Family.IPV6: 40}
_TCP_HEADER: Final = 20
_SYN_FLOOR: Final = 128
"""What any path carries. Where no SYN with data of this size comes, it is the data that is not wanted."""
_CUT_TRIES, _CUT_CONTROLS = 8, 2
_TIMES_ASKED: Final = 3
_PAUSE_S: Final = 0.35
"""Between two times that a router is asked why: many have two errors a second (RFC 1812 §4.3.2.8)."""

_Pair = tuple[str, str, Family]


async def measure(inventory: Inventory, settings: Settings, progress: Progress | None = None) -> Run:
    """
    A run without cells that has the path MTUs between all nodes of an inventory.

    Of the settings `families`, `only`, `rate` and `timeout_s` count. Hosts that fail are in the result with
    their reasons. Raises `ValueError` where there are more pairs than tags can number; nothing has been
    started then.
    """
    told = Silent() if progress is None else progress
    started = _now()
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
    async with deployed(asked, settings, told, copies) as there:
        measurement = _Measurement(there, len(flows), told)
        await measurement.make()
    return Run(
        inventory=inventory,
        settings=settings,
        hosts=there.muster.reports(),
        cells=(),
        mtus=tuple(measurement.results()),
        packets=there.field.packets,
        started=started,
        finished=_now(),
        versions={"netprobe": version("netprobe"), "python": platform.python_version()},
    )


def _inventory(inventory: Inventory) -> Inventory:
    """The same hosts, with one flow of each kind between two of them."""
    ports = {name: ports[:1] for name, ports in inventory.ports.items()}
    return msgspec.structs.replace(inventory, probes=KINDS, modes=None, ports=ports)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class _Track:
    """The measurement of one pair with one kind: its search, and the volleys that were sent for it."""

    def __init__(self, flow: Flow, smallest: int, top: int) -> None:
        self.flow = flow
        self.top = max(top, smallest)
        self.smallest = smallest
        # Whoever gets a SYN is found out before one has data.
        self.is_greeting = flow.protocol is Protocol.TCP
        self.search = Search(smallest, smallest if self.is_greeting else top)
        self.volleys: list[tuple[int, list[int], bool]] = []
        """Number, sizes, and whether what did not come is evidence."""
        self.mss: int | None = None
        self.reason = ""
        """Why the search was given up."""

    @property
    def pair(self) -> _Pair:
        """Who sends to whom, over which family."""
        return self.flow.src, self.flow.dst, self.flow.family

    @property
    def sent_mss(self) -> int:
        """The maximum segment size that a connection from this source announces."""
        return self.top - _IP_HEADER[self.flow.family] - _TCP_HEADER

    def pad(self, limits: Iterable[int]) -> None:
        """Begin the search with data, once it is known that our own listener gets the SYNs."""
        self.is_greeting = False
        self.volleys.clear()
        self.search = Search(self.smallest, self.top, floor=_SYN_FLOOR)
        self.search.hint(limits)


class _Measurement:
    """All searches of a run, from the first volley to the results."""

    def __init__(self, there: Deployment, flows: int, told: Progress) -> None:
        self._field = there.field
        self._muster = there.muster
        self._volleys = there.volleys
        self._told = told
        self._flows = flows
        self._tracks: list[_Track] = []
        self._by_pair: dict[_Pair, list[_Track]] = defaultdict(list)
        self._sizes: dict[int, list[int]] = {}
        """The sizes of a volley's attempts, by the number that its flow has there."""
        self._bare: dict[int, int] = defaultdict(int)
        """The attempts that came as SYNs without data, by the number of their flow."""
        self._said: dict[_Pair, dict[tuple[str, int], int]] = defaultdict(dict)
        """The smallest packet about which a router said a maximum, by pair, router and that."""
        self._fragments: dict[_Pair, Fragments] = {}

    async def make(self) -> None:
        """Send everything."""
        self._volleys.overhear = self._overhear
        routes = await self._muster.routes()
        await self._muster.arm_sizes()
        for flow in self._field.flows[: self._flows]:
            route = routes.get(flow.src, {}).get(flow.dst_address)
            smallest = self._size_of(flow)
            track = _Track(flow, smallest, route.mtu if route else smallest)
            self._tracks.append(track)
            self._by_pair[track.pair].append(track)
        self._told.phase("searching path MTUs", len(self._tracks))
        for number in range(_SEARCHES):
            asked = {track: sizes for track in self._searching() if (sizes := track.search.ask())}
            if not asked:
                break
            await self._send(number, asked)
            self._look()
            self._told.advance(len(asked) - len(self._searching()))
        await self._cut()
        await self._ask_again()

    def _size_of(self, flow: Flow) -> int:
        template = self._field.templates.packet(flow)
        return 0 if template is None else len(self._field.templates.all[template].data)

    def _searching(self) -> list[_Track]:
        return [
            track
            for track in self._tracks
            if not track.search.is_over and not track.reason and track.flow.number not in self._field.reasons
        ]

    def _copy(self, track: _Track, volley: int) -> Flow:
        return self._field.flows[track.flow.number + volley * self._flows]

    # Sending.

    async def _send(self, number: int, asked: Mapping[_Track, list[int]]) -> None:
        """One volley of each search, and what comes of it."""
        dropped = dict(self._field.overflowed)
        await self._fire(number, asked)
        self._level()
        await self._volleys.settle([self._copy(track, number) for track in asked], (1 << ladder.MOST) - 1)
        for track, sizes in asked.items():
            dst = track.flow.dst
            track.volleys.append((number, sizes, self._field.overflowed[dst] == dropped[dst]))

    async def _fire(
        self,
        number: int,
        asked: Mapping[_Track, list[int]],
        *,
        first: int = 0,
        may_be_cut: bool = False,
        after_s: float = 0,
        most_a_second: float = 0,
    ) -> None:
        """Fire packets of these sizes, the attempts counted from `first`."""
        groups: dict[tuple[int, str, Shape], list[Flow]] = defaultdict(list)
        for track, sizes in asked.items():
            flow = self._copy(track, number)
            # What shares a conntrack entry with its opposite must make none at the source (design trap 2).
            way = LINK if self._field.shares_conntrack(flow) else KERNEL
            for place, size in enumerate(sizes, start=first):
                mss = track.sent_mss if flow.protocol is Protocol.TCP else 0
                shape = Shape(size=size, may_be_cut=may_be_cut, mss=mss)
                groups[place, way, shape].append(flow)
            self._sizes.setdefault(flow.number, []).extend(sizes)
        for (_place, _way, shape), flows in groups.items():
            for flow in {(flow.probe, flow.family): flow for flow in flows}.values():
                self._field.templates.packet(flow, Craft.PROBE, shape)
        await self._muster.teach()
        rate = {"most_a_second": most_a_second} if most_a_second else {}
        await self._volleys.fire(
            [
                Volley(flows, Attempts(place, 1), way, shape=shape)
                for (place, way, shape), flows in sorted(groups.items(), key=lambda item: item[0][:2])
            ],
            after_s=after_s,
            **rate,
        )

    def _level(self) -> None:
        """Count the shortest round-trip time of each pair: a busy agent measures its own delays as well."""
        best: dict[_Pair, int] = {}
        rtt_us = self._field.seen.rtt_us
        pairs = {number: self._tracks[number % self._flows].pair for number in rtt_us}
        for number, pair in pairs.items():
            best[pair] = min(rtt_us[number], best.get(pair, rtt_us[number]))
        for number, pair in pairs.items():
            rtt_us[number] = best[pair]

    # Looking.

    def _overhear(self, name: str, packet: bytes) -> None:
        """A packet that a host's taps have kept: a SYN without data, or who says that one was too big."""
        said = icmp.parse_too_big(packet)
        quote = said[0] if said else icmp.as_quoted(packet)
        found = None if quote is None else self._field.recogniser.find(quote)
        if quote is None or found is None:
            return
        flow, attempts = found
        if said and name == flow.src:
            self._hear(flow, attempts, quote.by, said[1])
        elif not said and name == flow.dst and quote.protocol == Protocol.TCP:
            self._bare[flow.number] |= attempts
            track = self._tracks[flow.number % self._flows]
            mss = announced_mss(quote.transport)
            if track.mss is None or (mss is not None and mss < track.mss):
                track.mss = mss

    def _hear(self, flow: Flow, attempts: int, by: str, mtu: int) -> None:
        sizes = self._sizes.get(flow.number, [])
        place = attempts.bit_length() - 1
        if place < len(sizes) and attempts & self._field.seen.sent[flow.number]:
            said = self._said[flow.src, flow.dst, flow.family]
            said[by, mtu] = min(sizes[place], said.get((by, mtu), sizes[place]))

    def _look(self) -> None:
        """Tell each search what has come so far, and let the others profit from what it found."""
        for track in self._tracks:
            if track.volleys:
                track.search.note(self._noted(track))
        for pair, tracks in self._by_pair.items():
            hints = {mtu for _by, mtu in self._said.get(pair, ())}
            hints |= {track.search.mtu for track in tracks if track.search.mtu and not track.is_greeting}
            for track in tracks:
                track.search.hint(hints)
                if track.is_greeting and track.search.mtu:
                    self._go_on(track, hints)

    def _go_on(self, track: _Track, hints: Iterable[int]) -> None:
        """Send SYNs with data from now on, if nobody but our own listener gets them."""
        flow, seen = track.flow, self._field.seen
        copies = [self._copy(track, number) for number, _sizes, _ in track.volleys]
        holder = next(filter(None, map(self._field.holder, copies)), None)
        is_ours = (flow.dst_address, flow.port) in self._field.speeches
        if holder:
            track.reason = f"{holder} holds the port: no SYN with data is sent to it"
        elif not is_ours or not any(seen.at(SOCKET, Kind.PROBE)[copy.number] for copy in copies):
            track.reason = f"the SYN does not come to a socket of ours on {flow.dst}: none with data is sent"
        else:
            track.pad(hints)

    def _noted(self, track: _Track) -> Iterator[ladder.Volley]:
        for number, sizes, is_evidence in track.volleys:
            copy = self._copy(track, number).number
            refused = self._field.seen.errors.get(copy, {}).get("EMSGSIZE", 0)
            yield ladder.Volley(sizes, self._came(track, number), refused, is_evidence)

    def _came(self, track: _Track, number: int) -> int:
        """
        The attempts that came whole.

        Behind the interface the kernel puts fragments together again: what came to the socket came whole only
        where the taps at the interfaces see nothing of this flow at all (a transport that decrypts first).
        """
        copy = self._copy(track, number).number
        at_interface = self._field.seen.at(INTERFACE, Kind.PROBE)
        sees = any(at_interface[self._copy(track, each).number] for each, _sizes, _ in track.volleys)
        came = at_interface[copy] if sees else self._field.seen.at(SOCKET, Kind.PROBE)[copy]
        return came & ~self._stripped(track, copy)

    def _stripped(self, track: _Track, copy: int) -> int:
        """The attempts whose SYN came without the data that it had left with."""
        sizes = self._sizes.get(copy, [])
        padded = sum(1 << place for place, size in enumerate(sizes) if size > track.smallest)
        return self._bare.get(copy, 0) & padded

    # After the search.

    def _measured(self, tracks: Iterable[_Track]) -> list[_Track]:
        return [track for track in tracks if self._outcome(track).outcome is Outcome.MEASURED]

    async def _cut(self) -> None:
        """Send packets above the path MTU that may be cut, where the source can send any."""
        asked: dict[_Track, list[int]] = {}
        for (_src, _dst, family), tracks in self._by_pair.items():
            mtu = self._mtu(tracks)
            if family is not Family.IPV4 or mtu is None:
                continue
            for track in self._measured(tracks):
                is_delivered = self._field.seen.at(SOCKET, Kind.PROBE)[self._copy(track, 0).number]
                largest = track.top if track.search.refused is None else track.search.refused - 1
                if track.flow.protocol is not Protocol.TCP and is_delivered and mtu < largest:
                    asked[track] = [mtu] * _CUT_CONTROLS + [largest] * _CUT_TRIES
                    break
        if not asked:
            return
        self._told.phase("sending what may be cut", len(asked))
        await self._muster.arm_points()
        await self._fire(_CUTTING, asked, may_be_cut=True)
        flows = [self._copy(track, _CUTTING) for track in asked]
        await self._volleys.settle(flows, (1 << _CUT_CONTROLS + _CUT_TRIES) - 1)
        controls = (1 << _CUT_CONTROLS) - 1
        for track, flow in zip(asked, flows, strict=True):
            socket = self._field.seen.at(SOCKET, Kind.PROBE)[flow.number]
            if socket & ~controls:
                self._fragments[track.pair] = Fragments.DELIVERED
            elif socket & controls:
                began = self._field.seen.at(INTERFACE, Kind.PROBE)[flow.number] & ~controls
                self._fragments[track.pair] = Fragments.PARTIAL if began else Fragments.LOST

    async def _ask_again(self) -> None:
        """Send what failed without a word several times more, with pauses in which a router may find one."""
        asked: dict[_Track, list[int]] = {}
        for tracks in self._by_pair.values():
            if self._mtu(tracks) is not None and self._limit(tracks)[0] is Limit.BLACK_HOLE:
                for track in self._measured(tracks):
                    if track.search.mtu is not None and track.search.mtu < track.top:
                        asked[track] = [track.search.mtu + 1, track.top]
        if not asked:
            return
        self._told.phase("asking who limits silent paths", len(asked))
        for time in range(_TIMES_ASKED):
            first = 2 * time
            await self._fire(_ASKING, asked, first=first, after_s=_PAUSE_S, most_a_second=SPOKEN_RATE)
            await self._volleys.settle([self._copy(track, _ASKING) for track in asked], 3 << first)
        for track, sizes in asked.items():
            track.volleys.append((_ASKING, sizes * _TIMES_ASKED, True))
        self._look()

    # The results.

    def results(self) -> Iterator[PathMtu]:
        """What there is to say of each pair."""
        for (src, dst, family), tracks in self._by_pair.items():
            yield self._result(src, dst, family, tracks)

    def _result(self, src: str, dst: str, family: Family, tracks: Sequence[_Track]) -> PathMtu:
        kinds = tuple(map(self._outcome, tracks))
        mtu = self._mtu(tracks)
        limit, by = self._limit(tracks)
        tcp = next((track for track in tracks if track.flow.protocol is Protocol.TCP), None)
        reasons = dict.fromkeys(kind.reason for kind in kinds)
        return PathMtu(
            src=src,
            dst=dst,
            family=family,
            mtu=mtu,
            interface_mtu=max(track.top for track in tracks) if mtu else 0,
            limit=limit,
            by=by,
            too_big=tuple(self._too_big((src, dst, family))),
            kinds=kinds,
            tcp_mss=tcp.mss if tcp else None,
            tcp_mss_sent=tcp.sent_mss if tcp and tcp.mss is not None else None,
            fragments=self._fragments.get((src, dst, family)),
            untested="; ".join(reasons) if mtu is None else "",
            notes=tuple(self._notes(tracks)),
        )

    def _mtu(self, tracks: Iterable[_Track]) -> int | None:
        """The path MTU of a pair: the smallest that any kind has that gets through."""
        found = [kind.mtu for kind in map(self._outcome, tracks) if kind.mtu is not None]
        return min(found, default=None)

    def _outcome(self, track: _Track) -> KindMtu:
        flow, search = track.flow, track.search
        made = partial(KindMtu, probe=flow.probe)
        if flow.number in self._field.reasons:
            return made(outcome=Outcome.UNTESTED, reason=self._field.reasons[flow.number])
        if track.reason:
            return made(outcome=Outcome.UNTESTED, reason=track.reason)
        if search.is_blocked:
            return made(outcome=Outcome.BLOCKED, reason=self._why_blocked(track))
        if search.mtu is None or track.is_greeting:
            lossy = f"too much was lost to tell: {search.low} bytes came, {search.high} did not"
            return made(outcome=Outcome.UNTESTED, reason=f"{flow.probe}: {lossy}")
        if search.mtu < search.floor < track.top:
            reason = f"SYNs with data do not arrive at {flow.dst}, of whatever size: something drops them"
            return made(outcome=Outcome.UNTESTED, reason=reason)
        return made(outcome=Outcome.MEASURED, mtu=search.mtu)

    def _why_blocked(self, track: _Track) -> str:
        errors = self._field.seen.errors.get(self._copy(track, 0).number)
        if errors:
            return f"{track.flow.src} could not send {track.flow.probe}: {next(iter(errors))}"
        return f"{track.flow.probe} does not arrive, of whatever size"

    def _too_big(self, pair: _Pair) -> Iterator[TooBig]:
        for (by, mtu), smallest in sorted(self._said.get(pair, {}).items(), key=lambda item: item[0][1]):
            yield TooBig(by=by, mtu=mtu, lies=mtu >= smallest)

    def _limit(self, tracks: Sequence[_Track]) -> tuple[Limit | None, str]:
        """What limits a pair's path, and which router says so."""
        mtu = self._mtu(tracks)
        if mtu is None:
            return None, ""
        # Of several kinds the one that has the smallest tells.
        track = next(track for track in tracks if self._outcome(track).mtu == mtu)
        if track.search.high is None or track.search.refused == mtu + 1:
            return Limit.SOURCE_INTERFACE, ""
        said = [each for each in self._too_big(track.pair) if not each.lies and each.mtu <= mtu]
        if not said:
            # Of a wider link somebody may speak; of the one that loses these, nobody does.
            return Limit.BLACK_HOLE, ""
        return Limit.ROUTER, max(said, key=lambda each: each.mtu).by

    def _notes(self, tracks: Sequence[_Track]) -> Iterator[str]:
        found = {kind.probe: kind.mtu for kind in map(self._outcome, tracks) if kind.mtu is not None}
        if len(set(found.values())) > 1:
            yield "differs by kind: " + ", ".join(f"{probe} {mtu}" for probe, mtu in found.items())
        for track in tracks:
            copies = [self._copy(track, number) for number, _sizes, _ in track.volleys]
            if any(self._stripped(track, copy.number) for copy in copies):
                yield "SYNs arrive without the data that they left with"
            if any(self._is_cut(track, copy.number) for copy in copies):
                yield f"{track.flow.probe} arrives in pieces although it must not be cut"

    def _is_cut(self, track: _Track, copy: int) -> int:
        """The attempts that came to the socket, and not to the interface in one piece."""
        at_interface = self._field.seen.at(INTERFACE, Kind.PROBE)
        if not any(at_interface[self._copy(track, each).number] for each, _sizes, _ in track.volleys):
            return 0
        return self._field.seen.at(SOCKET, Kind.PROBE)[copy] & ~at_interface[copy]
