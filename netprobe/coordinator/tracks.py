"""
What is known of each pair while its path MTU is measured, and what it comes to in the end.

A `Track` is one pair with one kind of packet. A volley numbers its sizes by the attempts in the tags. So that
nothing that comes late is taken for another size, each later volley is sent as a flow of another number: a
flow of the field is there once for each of its volleys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from netprobe import icmp, ladder
from netprobe.coordinator.field import Field
from netprobe.ladder import Search
from netprobe.model import Family, Flow, Fragments, KindMtu, Limit, Outcome, PathMtu, Protocol, TooBig
from netprobe.observations import INTERFACE, SOCKET
from netprobe.probes import announced_mss
from netprobe.template import Kind, Shape

_IP_HEADER: Final = {Family.IPV4: 20, Family.IPV6: 40}
_TCP_HEADER: Final = 20
_LARGEST: Final = 0xFFFF  # RFC 791 §3.1
_SYN_FLOOR: Final = 128
"""What any path carries. Where no SYN with data of this size comes, it is the data that is not wanted."""
_NOBODYS_VNI: Final = 0xFFFFFE
"""
A kernel with a VXLAN device of a VNI takes what routers say about its packets' size for its own route.

That of nobody's network concerns none (linux/drivers/net/vxlan/vxlan_core.c, vxlan_err_lookup).
"""

Pair = tuple[str, str, Family]


class Track:
    """The measurement of one pair with one kind: its search, and the volleys that were sent for it."""

    def __init__(self, flow: Flow, smallest: int, top: int) -> None:
        self.flow = flow
        self.top = max(min(top, _LARGEST), smallest)
        self.smallest = smallest
        # Whoever gets a SYN is found out before one has data.
        self.is_greeting = flow.protocol is Protocol.TCP
        self.search = Search(smallest, smallest if self.is_greeting else self.top)
        self.volleys: list[tuple[int, list[int], bool]] = []
        """Number, sizes, and whether what did not come is evidence."""
        self._padded_since = 0
        self.mss: int | None = None
        self.narrowest: tuple[int, int, int] | None = None
        """Of parallel paths what the narrowest takes, of how many source ports, and of how many in all."""
        self.reason = ""
        """Why the search was given up."""

    @property
    def pair(self) -> Pair:
        """Who sends to whom, over which family."""
        return self.flow.src, self.flow.dst, self.flow.family

    @property
    def sent_mss(self) -> int:
        """The maximum segment size that a connection from this source announces."""
        return self.top - _IP_HEADER[self.flow.family] - _TCP_HEADER

    @property
    def searched(self) -> list[tuple[int, list[int], bool]]:
        """The volleys of the search that is under way."""
        return self.volleys[self._padded_since :]

    @property
    def sizes(self) -> list[list[int]]:
        """The sizes of each volley."""
        return [sizes for _number, sizes, _is_evidence in self.volleys]

    def shape(self, size: int, *, may_be_cut: bool = False) -> Shape:
        """The packet of a size; the probe's own is what no search asks for."""
        if self.flow.protocol is Protocol.TCP:
            return Shape(size=size, may_be_cut=may_be_cut, mss=self.sent_mss)
        if self.flow.protocol is Protocol.UDP:
            return Shape(size=size, may_be_cut=may_be_cut, vni=_NOBODYS_VNI)
        return Shape(size=size, may_be_cut=may_be_cut)

    def pad(self, limits: Iterable[int]) -> None:
        """Begin the search with data, once it is known that our own listener gets the SYNs."""
        self.is_greeting = False
        self._padded_since = len(self.volleys)
        self.search = Search(self.smallest, self.top, floor=_SYN_FLOOR)
        self.search.hint(limits)


class Tracks:
    """
    All pairs and kinds, with what was seen and heard of them; `flows` of the field are a volley each.

    `fragments` is what became of packets that may be cut, by pair.
    """

    def __init__(self, field: Field, flows: int) -> None:
        self._field = field
        self._flows = flows
        self.all: list[Track] = []
        self.by_pair: dict[Pair, list[Track]] = defaultdict(list)
        self.fragments: dict[Pair, Fragments] = {}
        self._sizes: dict[int, list[int]] = defaultdict(list)
        """The sizes of a volley's attempts, by the number that its flow has there."""
        self._bare: dict[int, int] = defaultdict(int)
        """The attempts that came as SYNs without data, by the number of their flow."""
        self._told: dict[int, int] = defaultdict(int)
        """The attempts that somebody called too big, by the number of their flow."""
        self._said: dict[Pair, dict[tuple[str, int], int]] = defaultdict(dict)
        """The smallest packet about which a router said a maximum, by pair, router and that."""

    def add(self, track: Track) -> None:
        """Take one more, in the order of the flows."""
        self.all.append(track)
        self.by_pair[track.pair].append(track)

    def of(self, number: int) -> Track:
        """Whose volley a flow of the field is, by its number."""
        return self.all[number % self._flows]

    def copy(self, track: Track, volley: int) -> Flow:
        """The flow that a volley of a track is sent as."""
        return self._field.flows[track.flow.number + volley * self._flows]

    def copies(self, track: Track) -> list[Flow]:
        """The flows of the volleys that were sent so far."""
        return [self.copy(track, volley) for volley, _sizes, _is_evidence in track.volleys]

    def searching(self) -> list[Track]:
        """Those whose searches are not over."""
        reasons = self._field.reasons
        return [
            track
            for track in self.all
            if not track.search.is_over and not track.reason and track.flow.number not in reasons
        ]

    def ready(self) -> list[Track]:
        """
        Those of them that are to go on now.

        Where nobody has said anything, one kind of a pair searches first, and the others try what it found.
        """
        searching = self.searching()
        leaders: dict[Pair, Track] = {}
        for track in reversed(searching):
            if track.search.low and not track.is_greeting:
                leaders.setdefault(track.pair, track)

        def goes_on(track: Track) -> bool:
            is_behind = leaders.get(track.pair, track) is not track
            return track.is_greeting or track.search.is_hinted or not is_behind

        return [track for track in searching if goes_on(track)]

    def pending(self, copy: Flow) -> int:
        """The attempts of a volley of which something may still come."""
        seen, number = self._field.seen, copy.number
        arrived = seen.at(INTERFACE, Kind.PROBE)[number] | seen.at(SOCKET, Kind.PROBE)[number]
        return seen.sent[number] & ~arrived & ~seen.unsent(number) & ~self._told[number]

    def sent(self, copy: Flow, sizes: Iterable[int]) -> None:
        """Note the sizes of the next attempts of a volley."""
        self._sizes[copy.number].extend(sizes)

    # What is seen and heard.

    def overhear(self, name: str, packet: bytes) -> None:
        """A packet that a host's taps have kept: a SYN without data, or who says that one was too big."""
        said = icmp.parse_too_big(packet)
        quote = said[0] if said else icmp.as_quoted(packet)
        found = None if quote is None else self._field.recogniser.find(quote)
        if quote is None or found is None:
            return
        flow, attempts = found
        if said and name == flow.src:
            self._told[flow.number] |= attempts
            self._hear(flow, attempts, quote.by, said[1])
        elif not said and name == flow.dst and quote.protocol == Protocol.TCP:
            self._bare[flow.number] |= attempts
            track = self.of(flow.number)
            mss = announced_mss(quote.transport)
            if track.mss is None or (mss is not None and mss < track.mss):
                track.mss = mss

    def _hear(self, flow: Flow, attempts: int, by: str, mtu: int) -> None:
        sizes = self._sizes.get(flow.number, [])
        place = attempts.bit_length() - 1
        if place < len(sizes) and attempts & self._field.seen.sent[flow.number]:
            said = self._said[flow.src, flow.dst, flow.family]
            said[by, mtu] = min(sizes[place], said.get((by, mtu), sizes[place]))

    def limits(self, pair: Pair) -> set[int]:
        """What routers said of a pair's path."""
        return {mtu for _by, mtu in self._said.get(pair, ())}

    def noted(self, track: Track) -> Iterator[ladder.Volley]:
        """What was sent for a track, and what has come of it by now."""
        for number, sizes, is_evidence in track.searched:
            copy = self.copy(track, number).number
            refused = self._field.seen.errors.get(copy, {}).get("EMSGSIZE", 0)
            yield ladder.Volley(sizes, self.whole(track, number), refused, is_evidence)

    def whole(self, track: Track, number: int) -> int:
        """
        The attempts that came whole.

        Behind the interface the kernel puts fragments together again: what came to the socket came whole only
        where the taps at the interfaces see nothing of this flow at all (a transport that decrypts first).
        """
        copy = self.copy(track, number).number
        at_interface = self._field.seen.at(INTERFACE, Kind.PROBE)
        sees = any(at_interface[each.number] for each in self.copies(track))
        came = at_interface[copy] if sees else self._field.seen.at(SOCKET, Kind.PROBE)[copy]
        return came & ~self._stripped(track, copy)

    def forget(self, track: Track, number: int) -> None:
        """Forget what came of a volley, before its attempts are sent again and looked at by themselves."""
        copy = self.copy(track, number).number
        for point in (INTERFACE, SOCKET):
            self._field.seen.at(point, Kind.PROBE)[copy] = 0

    def _stripped(self, track: Track, copy: int) -> int:
        """The attempts whose SYN came without the data that it had left with."""
        sizes = self._sizes.get(copy, [])
        padded = sum(1 << place for place, size in enumerate(sizes) if size > track.smallest)
        return self._bare.get(copy, 0) & padded

    # What it comes to.

    def measured(self, tracks: Iterable[Track]) -> list[Track]:
        """Those whose search has a result."""
        return [track for track in tracks if self._outcome(track).outcome is Outcome.MEASURED]

    def results(self) -> Iterator[PathMtu]:
        """What there is to say of each pair."""
        for (src, dst, family), tracks in self.by_pair.items():
            yield self._result(src, dst, family, tracks)

    def _result(self, src: str, dst: str, family: Family, tracks: Sequence[Track]) -> PathMtu:
        kinds = tuple(map(self._outcome, tracks))
        mtu = self.mtu(tracks)
        limit, by = self.limit(tracks)
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
            fragments=self.fragments.get((src, dst, family)),
            untested="; ".join(reasons) if mtu is None else "",
            notes=tuple(self._notes(tracks)),
        )

    def mtu(self, tracks: Iterable[Track]) -> int | None:
        """The path MTU of a pair: the smallest that any kind has that gets through."""
        found = [kind.mtu for kind in map(self._outcome, tracks) if kind.mtu is not None]
        return min(found, default=None)

    def _outcome(self, track: Track) -> KindMtu:
        flow, search = track.flow, track.search
        made = partial(KindMtu, probe=flow.probe)
        if reason := self._field.reasons.get(flow.number) or track.reason:
            return made(outcome=Outcome.UNTESTED, reason=reason)
        if search.is_blocked:
            return made(outcome=Outcome.BLOCKED, reason=self._why_blocked(track))
        if search.mtu is None or track.is_greeting:
            lossy = f"too much was lost to tell: {search.low} bytes came, {search.high} did not"
            return made(outcome=Outcome.UNTESTED, reason=f"{flow.probe}: {lossy}")
        if track.narrowest:
            return made(outcome=Outcome.MEASURED, mtu=track.narrowest[0])
        if search.mtu < search.floor < track.top:
            tried = self._tried(track)
            reason = f"SYNs with data do not arrive at {flow.dst}, of {tried}: something drops them"
            return made(outcome=Outcome.UNTESTED, reason=reason)
        return made(outcome=Outcome.MEASURED, mtu=search.mtu)

    def _why_blocked(self, track: Track) -> str:
        errors = self._field.seen.errors.get(self.copy(track, 0).number)
        if errors:
            return f"{track.flow.src} could not send {track.flow.probe}: {next(iter(errors))}"
        return f"{track.flow.probe} does not arrive, of {self._tried(track)}"

    def _tried(self, track: Track) -> str:
        """The smallest and the largest size that were sent in vain."""
        tried = {size for _number, sizes, _ in track.searched for size in sizes if size > track.search.low}
        return " or ".join(str(size) for size in sorted({min(tried), max(tried)})) + " bytes"

    def _too_big(self, pair: Pair) -> Iterator[TooBig]:
        for (by, mtu), smallest in sorted(self._said.get(pair, {}).items(), key=lambda item: item[0][1]):
            yield TooBig(by=by, mtu=mtu, lies=mtu >= smallest)

    def limit(self, tracks: Sequence[Track]) -> tuple[Limit | None, str]:
        """What limits a pair's path, and which router says so."""
        mtu = self.mtu(tracks)
        if mtu is None:
            return None, ""
        # Of several kinds the one that has the smallest tells.
        track = next(track for track in tracks if self._outcome(track).mtu == mtu)
        is_own = track.search.high is None or track.search.refused == mtu + 1
        if is_own and not track.narrowest:
            return Limit.SOURCE_INTERFACE, ""
        said = [each for each in self._too_big(track.pair) if not each.lies and each.mtu <= mtu]
        if said:
            return Limit.ROUTER, max(said, key=lambda each: each.mtu).by
        if any(self._is_cut(track, copy.number) for copy in self.copies(track)):
            return Limit.CUT, ""
        # Of a wider link somebody may speak; of the one that loses these, nobody does.
        return Limit.BLACK_HOLE, ""

    def _notes(self, tracks: Sequence[Track]) -> Iterator[str]:
        found = {kind.probe: kind.mtu for kind in map(self._outcome, tracks) if kind.mtu is not None}
        if len(set(found.values())) > 1:
            yield "differs by kind: " + ", ".join(f"{probe} {mtu}" for probe, mtu in found.items())
        for track in tracks:
            if track.narrowest:
                size, narrow, ports = track.narrowest
                yield f"parallel paths differ: of {ports} source ports {narrow} take but {size} bytes"
            copies = self.copies(track)
            if any(self._stripped(track, copy.number) for copy in copies):
                yield "SYNs arrive without the data that they left with"

    def _is_cut(self, track: Track, copy: int) -> int:
        """The attempts that came to the socket, and not to the interface in one piece."""
        at_interface = self._field.seen.at(INTERFACE, Kind.PROBE)
        if not any(at_interface[each.number] for each in self.copies(track)):
            return 0
        return self._field.seen.at(SOCKET, Kind.PROBE)[copy] & ~at_interface[copy]
