"""
Paths in parallel: routers and bundles choose one of several ways by the source port, among others.

The packets of a search come from many source ports, and what came by the widest of the ways counts for it. So
a few ports are asked for by themselves in the end: each sends the smallest packet and the largest that came.
Where a port has only the former, more sizes say how much its way takes, to the next usual MTU.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from netprobe.coordinator.tracks import Track, Tracks
from netprobe.ladder import USUAL
from netprobe.model import Protocol

_PORTS: Final = 8
"""How many: with a narrow way among two, one pair in 256 has no port that takes it."""
_TRIES, _FIRST_TRIES = 8, 3
"""How often a size that may have been lost is asked for: by then of few pairs, and before of all."""
_RUNGS: Final = 6
_LEAST: Final = 1280

Send = Callable[[int, Mapping[Track, list[int]], int], Awaitable[None]]
"""Sends sizes as a volley of a number, where so many successive packets have one source port; and waits."""


class Parallel:
    """The look at single source ports, for the kind of packets that leaves from many."""

    def __init__(self, tracks: Tracks, send: Send) -> None:
        self._tracks = tracks
        self._send = send

    async def look(self, first: int, second: int) -> None:
        """Ask, as volleys of two numbers, and note in the tracks what the narrowest of the ways takes."""
        suspects = {
            track: [track.smallest, track.search.mtu]
            for track in self._tracks.measured(self._tracks.all)
            if track.flow.protocol is Protocol.UDP and track.search.mtu and track.search.mtu > track.smallest
        }
        for _ in range(_FIRST_TRIES):
            if suspects:
                await self._ask(first, suspects, 2)
            suspects = {
                track: sizes for track, sizes in suspects.items() if self._narrowest(track, first, sizes)
            }
        asked = {track: self._rungs(track) for track in suspects}
        for _ in range(_TRIES if asked else 0):
            await self._ask(second, asked, _RUNGS + 2)
        for track, sizes in asked.items():
            track.narrowest = self._narrowest(track, second, sizes)

    async def _ask(self, number: int, asked: Mapping[Track, list[int]], each: int) -> None:
        await self._send(number, {track: sizes * _PORTS for track, sizes in asked.items()}, each)

    def _rungs(self, track: Track) -> list[int]:
        """The sizes to ask for: both ends, what was said, and usual ones, as many as there is room for."""
        mtu = track.search.mtu or track.smallest
        said = sorted(size for size in self._tracks.limits(track.pair) if track.smallest < size < mtu)
        usual = [size for size in USUAL if _LEAST <= size < mtu and size not in said]
        room = max(0, _RUNGS - len(said))
        chosen = {usual[place * len(usual) // room] for place in range(room)} if usual and room else set()
        rungs = sorted([*said[:_RUNGS], *chosen])
        return [track.smallest, *rungs, mtu, *[mtu] * (_RUNGS - len(rungs))]

    def _narrowest(self, track: Track, number: int, sizes: list[int]) -> tuple[int, int, int] | None:
        """The largest size of the narrowest way, of how many ports, and of how many in all; None for none."""
        came = self._tracks.whole(track, number)
        ports = [came >> port * len(sizes) & (1 << len(sizes)) - 1 for port in range(_PORTS)]
        # A port of which not even the smallest came tells of no size.
        largest = [sizes[bits.bit_length() - 1] for bits in ports if bits & 1]
        least = min(largest, default=sizes[-1])
        return None if least == sizes[-1] else (least, largest.count(least), len(largest))
