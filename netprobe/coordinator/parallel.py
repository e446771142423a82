"""
Paths in parallel: routers and bundles choose one of several ways by the source port, among others.

The packets of a search come from many source ports, and what came by the widest of the ways counts for it. So
a few ports are asked for by themselves in the end: each sends the smallest packet and the largest that came.
Where a port has only the former, more sizes say how much its way takes, to the next usual MTU.

That a size fails from a port proves nothing as long as it may have been lost: how often it must fail is said
by how many of this size are lost from the ports that pass it. A size that none passes now, or all but seldom,
says nothing of ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from netprobe.coordinator.tracks import Track, Tracks
from netprobe.ladder import USUAL, enough
from netprobe.model import Protocol

_PORTS: Final = 8
"""How many: with a narrow way among two, one pair in 256 has no port that takes it."""
_FIRST_TRIES: Final = 3
"""How often both ends are asked for, of all pairs."""
_FEW_TRIES, _MOST_TRIES = 8, 24
"""How often more sizes are, of few pairs; the former where so much is lost that the latter will not do."""
_HOPELESS: Final = 2 * _MOST_TRIES
"""What few tries say of the loss is rough: where they ask for less than this, the rest may still do."""
_RUNGS: Final = 6
_LEAST: Final = 1280

Send = Callable[[int, Mapping[Track, list[int]], int, int], Awaitable[None]]
"""
Sends sizes as a volley of a number, where so many successive packets have one source port, and waits.

The last number is the place of the packet that is sent first; those before it follow the others.
"""


class Parallel:
    """The look at single source ports, for the kind of packets that leaves from many."""

    def __init__(self, tracks: Tracks, send: Send) -> None:
        self._tracks = tracks
        self._send = send

    async def look(self, first: int, second: int) -> None:
        """Ask, as volleys of two numbers, and note in the tracks what the narrowest of the ways takes."""
        suspects = {
            track: [track.smallest, track.search.mtu] * _PORTS
            for track in self._tracks.measured(self._tracks.all)
            if track.flow.protocol is Protocol.UDP and track.search.mtu and track.search.mtu > track.smallest
        }
        for _ in range(_FIRST_TRIES):
            if suspects:
                await self._send(first, suspects, 2, 0)
            suspects = {track: sizes for track, sizes in suspects.items() if self._is_suspect(track, first)}
        found = {track: _Ports(self._rungs(track)) for track in suspects}
        for turn in range(_MOST_TRIES):
            asked = {
                track: ports.sizes * _PORTS
                for track, ports in found.items()
                if not ports.is_certain and (turn < _FEW_TRIES or not ports.is_hopeless)
            }
            if not asked:
                break
            # Each time another port is the first one: a limit of rate lets the first packets pass.
            begin = turn % _PORTS * (_RUNGS + 2)
            for track in asked:
                self._tracks.forget(track, second)
            await self._send(second, asked, _RUNGS + 2, begin)
            for track in asked:
                found[track].note(self._tracks.whole(track, second), begin)
        for track, ports in found.items():
            if ports.is_certain:
                track.narrowest = ports.narrowest
            else:
                track.reason = f"{track.flow.probe}: too much was lost to tell whether parallel paths differ"

    def _is_suspect(self, track: Track, number: int) -> bool:
        """Whether from any port the smaller came and the larger did not."""
        came = self._tracks.whole(track, number)
        return any(came >> 2 * port & 0b11 == 0b01 for port in range(_PORTS))

    def _rungs(self, track: Track) -> list[int]:
        """The sizes to ask for: both ends, what was said, and usual ones, as many as there is room for."""
        mtu = track.search.mtu or track.smallest
        said = sorted(size for size in self._tracks.limits(track.pair) if track.smallest < size < mtu)
        usual = [size for size in USUAL if _LEAST <= size < mtu and size not in said]
        room = max(0, _RUNGS - len(said))
        chosen = {usual[place * len(usual) // room] for place in range(room)} if usual and room else set()
        rungs = sorted([*said[:_RUNGS], *chosen])
        return [track.smallest, *rungs, mtu, *[mtu] * (_RUNGS - len(rungs))]


class _Ports:
    """What came from each source port of one flow; `sizes`, from the smallest on, are what each sends."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self._tries: Counter[tuple[int, int]] = Counter()
        self._came: Counter[tuple[int, int]] = Counter()
        """How often, by port and size."""

    def note(self, came: int, begin: int) -> None:
        """
        Take what came (a mask) of a volley that began with a place.

        What is lost before the first packet that comes, or after the last, may have been lost in an outage.
        """
        count = len(self.sizes) * _PORTS
        order = [(place + begin) % count for place in range(count)]
        arrived = [turn for turn, place in enumerate(order) if came >> place & 1]
        for turn in range(arrived[0], arrived[-1] + 1) if arrived else ():
            port, place = divmod(order[turn], len(self.sizes))
            self._tries[port, self.sizes[place]] += 1
            self._came[port, self.sizes[place]] += came >> order[turn] & 1

    @property
    def is_certain(self) -> bool:
        """Whether what did not come from a port did not by chance."""
        return all(self._tries[port, size] >= self._needed(size) for port, size in self._failed())

    @property
    def is_hopeless(self) -> bool:
        """Whether more is lost than tries can make up for."""
        return any(self._needed(size) > _HOPELESS for _port, size in self._failed())

    @property
    def narrowest(self) -> tuple[int, int, int] | None:
        """The largest size of the narrowest way, of how many ports, and of how many in all; None for none."""
        # A port from which nothing came tells of no size.
        largest = [size for size in self._largest() if size]
        least = min(largest, default=self.sizes[-1])
        return None if least == self.sizes[-1] else (least, largest.count(least), len(largest))

    def _largest(self) -> Sequence[int]:
        """The largest size that came from each port, 0 for none."""
        return [
            max((size for size in self.sizes if self._came[port, size]), default=0) for port in range(_PORTS)
        ]

    def _failed(self) -> list[tuple[int, int]]:
        """The ports with each size that is larger than all that came from them."""
        return [
            (port, size) for port, most in enumerate(self._largest()) for size in self.sizes if size > most
        ]

    def _needed(self, size: int) -> float:
        """How often a size must fail from a port; for ever where no other passes it."""
        passing = [port for port, most in enumerate(self._largest()) if most >= size]
        sent = sum(self._tries[port, size] for port in passing)
        came = sum(self._came[port, size] for port in passing)
        return enough(sent - came, sent) if passing else float("inf")
