"""
The search for the largest packet that arrives whole: which sizes to try next, and what is known by then.

Whatever arrives proves that its size fits, at once and for good. What does not arrive proves nothing at
first: it may have been lost, or its taps were busy. So the smallest size that fails is asked again, each time
beside the largest one that came, until chance would have let it through once with near certainty.

The first volley asks for the smallest and the largest, and mostly that is all. Where the largest fails, the
path usually has one of a few MTUs: a ladder of these is asked at once, then every byte between the largest
that came and the smallest that did not, or a spread of them where they are too many. What a router said of
its MTU is only a hint for which to ask first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MOST: Final = 60
"""Packets of one flow in a volley: its attempts are numbered with six bits."""

USUAL: Final = (
    576,  # what every host takes, RFC 791 §3.1
    1006,  # SLIP, RFC 1055
    1280,  # the least of IPv6, RFC 8200 §5
    1370,
    1400,  # tunnels of clouds and VPNs
    1420,  # WireGuard
    1430,  # VXLAN over IPv6
    1440,
    1450,  # VXLAN
    1460,  # a cloud's network
    1472,
    1476,  # GRE
    1480,  # IP in IP
    1492,  # PPPoE
    1500,  # Ethernet
    4470,  # POS, FDDI
    8500,
    8896,
    8900,
    8950,
    8951,
    8980,
    9000,  # jumbo frames
    9001,  # the same, of a cloud
)
"""Usual path MTUs in bytes: those of links, and what tunnels leave of them."""

_RISK: Final = 1e-6
"""How probable it may be that a size that fits is lost each time that it is asked for."""
_LEAST_TRIES: Final = 4
_MOST_TRIES: Final = 24
"""Of one size in a volley."""
_CONTROLS: Final = 2
_HINT_TRIES: Final = 3
_HINTED_TRIES: Final = 6
_SMALLEST_TRIES: Final = 10
_BOTH_ENDS: Final = 2


class Volley(NamedTuple):
    """Sizes that were sent at once; masks have a bit for each: what came, and what the source refused."""

    sizes: Sequence[int]
    came: int
    refused: int = 0
    is_evidence: bool = True


class Search:
    """
    One flow's search; sizes are those of whole packets in bytes.

    `smallest` is the packet without padding, `top` the largest that the source's interface takes, `rungs` are
    asked first between them. A limit below `floor` is not sought to the byte.
    """

    def __init__(self, smallest: int, top: int, rungs: Iterable[int] = USUAL, floor: int = 0) -> None:
        self.smallest = smallest
        self.top = max(top, smallest)
        self.floor = floor
        self._rungs = [size for size in sorted({floor, *rungs}) if smallest < size < self.top]
        self._is_laddered = False
        self._hints: set[int] = set()
        self._hinted: set[int] = set()
        self.low = 0
        """The largest size that came whole, 0 for none."""
        self.refused: int | None = None
        """The smallest size that the source's own kernel refused to send."""
        self._tries: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        """How many were sent of each size that fits, and how many of them were lost."""

    def hint(self, sizes: Iterable[int]) -> None:
        """Take somebody's word for where the limit may be; it is tried, not believed."""
        self._hints.update(sizes)

    @property
    def is_hinted(self) -> bool:
        """Whether there is any word of where the limit may be."""
        return bool(self._hints)

    def note(self, volleys: Iterable[Volley]) -> None:
        """
        Take all that was sent so far, and what has come of it by now: late arrivals count.

        What is lost before the first packet that comes, or after the last, is no evidence of a limit: that
        may have been an outage.
        """
        volleys = list(volleys)
        self.low = max((self.low, *(size for volley in volleys for size in _those(volley, volley.came))))
        refused = [size for volley in volleys for size in _those(volley, volley.refused & ~volley.came)]
        self.refused = min((size for size in refused if size > self.low), default=None)
        self._tries, self._sent, self._lost = Counter(), Counter(), Counter()
        for volley in volleys:
            first, last = _ends(volley) if self.low else (-1, len(volley.sizes))
            for place, size in enumerate(volley.sizes):
                if volley.refused >> place & 1 or not volley.is_evidence or not first <= place <= last:
                    continue
                if size <= self.low:
                    self._sent[size] += 1
                    self._lost[size] += not volley.came >> place & 1
                else:
                    self._tries[size] += 1

    @property
    def high(self) -> int | None:
        """The smallest size that failed so far; None where the top came."""
        if self.low == self.top:
            return None
        failed = [*self._tries, *([] if self.refused is None else [self.refused])]
        return min(failed, default=self.top)

    @property
    def is_blocked(self) -> bool:
        """Whether not even the smallest came, often enough."""
        return not self.low and self._tries[self.smallest] >= _SMALLEST_TRIES

    @property
    def mtu(self) -> int | None:
        """The answer, None while there is none."""
        high = self.high
        if high is None:
            return self.low
        if not self.low or (high > self.low + 1 and high > self.floor):
            return None
        return self.low if self._is_certain(high) else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more need be asked."""
        return self.is_blocked or self.mtu is not None

    def ask(self) -> list[int]:
        """The sizes of the next volley, at most `MOST`, in the order of sending; none when it is over."""
        if self.is_over:
            return []
        if not self.low:
            return self._first()
        controls = [self.low] * _CONTROLS
        return [*controls, *self._between(MOST - 2 * _CONTROLS), *controls]

    def _between(self, room: int) -> list[int]:
        """What is asked between the controls."""
        high = self.top if self.high is None else self.high
        if high == self.low + 1 or high <= self.floor:
            return [high] * min(_MOST_TRIES, max(1, self._needed() - self._tries[high]))
        if hinted := self._of_hints(high):
            return hinted
        rungs = [] if self._is_laddered else [size for size in self._rungs if self.low < size < high]
        self._is_laddered = True
        sizes = rungs[: room - 2] or _spread(
            self.low + 1, high - 1, room - 2, min(_MOST_TRIES, self._needed())
        )
        return sizes + [high] * 2

    def _first(self) -> list[int]:
        """Both ends; where nothing came, only the smallest again, until that is called blocked."""
        if self._tries[self.smallest]:
            return [self.smallest] * (_SMALLEST_TRIES - self._tries[self.smallest])
        floor = [self.floor] if self.smallest < self.floor < self.top else []
        top = [self.top] * _BOTH_ENDS if self.top > self.smallest else []
        return [self.smallest, *floor, *self._of_hints(self.top), *top, self.smallest]

    def _of_hints(self, high: int) -> list[int]:
        """Hinted limits that may still be it, each with the byte above it, as often as decides; once."""
        known = max(self.low, self.smallest)
        near = {near for size in self._hints - self._hinted for near in (size, size + 1)}
        sizes = sorted(size for size in near if known < size < high)[: MOST // _HINTED_TRIES - 1]
        self._hinted |= self._hints
        above = [size for size in sizes if size - 1 in self._hints]
        return sizes * _HINT_TRIES + above * (_HINTED_TRIES - _HINT_TRIES)

    def _needed(self) -> int:
        """
        How often a size must fail to be a limit, by how many fitting ones were lost.

        Large packets may be lost more often than small ones: those of the largest size count by themselves.
        """
        of_all = enough(self._lost.total(), self._sent.total())
        return max(of_all, enough(self._lost[self.low], self._sent[self.low]))

    def _is_certain(self, high: int) -> bool:
        return high == self.refused or self._tries[high] >= self._needed()


def enough(lost: int, sent: int) -> int:
    """How often a size must fail until chance is improbable, where so many that fit were lost of so many."""
    loss = (lost + 1) / (sent + 2)
    return max(_LEAST_TRIES, math.ceil(math.log(_RISK) / math.log(loss)))


def _those(volley: Volley, mask: int) -> Iterable[int]:
    return (size for place, size in enumerate(volley.sizes) if mask >> place & 1)


def _ends(volley: Volley) -> tuple[int, int]:
    """The places of the first and of the last packet that came; none is between them where nothing did."""
    came = volley.came
    return ((came & -came).bit_length() - 1, came.bit_length() - 1) if came else (0, -1)


def _spread(first: int, last: int, room: int, most_each: int) -> list[int]:
    """Sizes from `first` to `last`: each several times where there is room, else some of them once."""
    count = last - first + 1
    if count <= room:
        return [*range(first, last + 1)] * max(1, min(most_each, room // count))
    return sorted({first + (count - 1) * place // (room - 1) for place in range(room)})
