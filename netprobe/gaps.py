"""
What a mode needs and a run has not probed: left out by choice, or impossible for lack of addresses.

Hosts of the same roles and families have the same needs, and there are few such kinds. So flows are counted
by pairs of kinds, and a thousand hosts of which one was probed cost no more than two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from netprobe.model import Family, Host, Role, Symbol
from netprobe.probes import Probe

Kind = tuple[frozenset[Role], frozenset[Family]]
Pair = tuple[str, str]
Differ = Callable[[Host, Host, Family], bool]
"""Whether two hosts are in different subnets of a family, and so need what is needed only there."""

_IMPOSSIBLE: Final = -1


class Gap(Symbol):
    """Why nothing is known of what a mode needs between two hosts."""

    NOT_PROBED = "not-probed"
    IMPOSSIBLE = "impossible"


class Want(msgspec.Struct, frozen=True):
    """
    Probes of which a mode needs every flow that the families of two hosts allow, and at least one.

    `alike` are the probes, each with the number of its flows for a pair and family. With `differ` the hosts
    need them only where it says so. `probed` is how many flows of these probes there were, `needed` how many
    of them were needed, `pairs` between whom they were.
    """

    alike: tuple[tuple[Probe, int], ...]
    differ: Differ | None
    probed: int
    needed: int
    pairs: Callable[[], set[Pair]]

    @property
    def obstacle(self) -> str:
        """What two hosts lack between which it is impossible."""
        names = " and ".join(probe.name for probe, _ in self.alike)
        families = dict.fromkeys(family.label for probe, _ in self.alike for family in probe.families)
        label = "the same family" if len(families) > 1 else next(iter(families), "")
        return f"{names} {'need' if len(self.alike) > 1 else 'needs'} {label} at both ends"


class Gaps:
    """The gaps of one mode in one run."""

    def __init__(self, hosts: Sequence[Host], wants: Iterable[Want]) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._kinds = {host.name: _kind(host) for host in hosts}
        self._sizes = Counter(self._kinds.values())
        self._needed: dict[tuple[int, Kind, Kind], int] = {}
        self._wants = list(wants)
        self._pairs: list[set[Pair]] = []
        self.not_probed = 0
        self.impossible = 0
        self.obstacles: list[str] = []
        for number, want in enumerate(self._wants):
            flows, impossible = self._count(number)
            if flows > want.probed:
                needed = flows if want.differ is None else sum(self._where_different(number))
                self.not_probed += max(0, needed - want.needed)
            self.impossible += impossible
            if impossible:
                self.obstacles.append(want.obstacle)
        if self:
            self._pairs = [want.pairs() for want in self._wants]

    def __bool__(self) -> bool:
        return bool(self.not_probed or self.impossible)

    def sources(self) -> set[str]:
        """The hosts from which the mode needs something."""
        return {name for name, kind in self._kinds.items() if self._is_end(kind, source=True)}

    def destinations(self) -> set[str]:
        """The hosts to which the mode needs something."""
        return {name for name, kind in self._kinds.items() if self._is_end(kind, source=False)}

    def at(self, src: str, dst: str) -> Gap | None:
        """What is not known of a pair."""
        if not self or src == dst:
            return None
        found = None
        for number in range(len(self._wants)):
            needed = self._between(number, self._kinds[src], self._kinds[dst])
            if needed == _IMPOSSIBLE:
                return Gap.IMPOSSIBLE
            is_probed = not needed or (src, dst) in self._pairs[number]
            if not is_probed and self._different(number, self._hosts[src], self._hosts[dst]):
                found = Gap.NOT_PROBED
        return found

    def _is_end(self, own: Kind, *, source: bool) -> bool:
        """Whether something is needed from (or to) a host of a kind, by a host other than itself."""
        return any(
            self._between(number, own, other) if source else self._between(number, other, own)
            for number in range(len(self._wants))
            for other, hosts in self._sizes.items()
            if hosts > (other == own)
        )

    def _between(self, number: int, source: Kind, destination: Kind) -> int:
        """How many flows hosts of two kinds need."""
        key = number, source, destination
        if key not in self._needed:
            fitting = [
                (probe, flows)
                for probe, flows in self._wants[number].alike
                if probe.between[0] in source[0] and probe.between[1] in destination[0]
            ]
            needed = sum(
                flows * len(source[1] & destination[1] & set(probe.families)) for probe, flows in fitting
            )
            self._needed[key] = _IMPOSSIBLE if fitting and not needed else needed
        return self._needed[key]

    def _count(self, number: int) -> tuple[int, int]:
        """How many flows there could be, in whatever subnets, and how many are impossible."""
        flows = impossible = 0
        for source, sources in self._sizes.items():
            for destination, destinations in self._sizes.items():
                pairs = sources * (destinations - (source == destination))
                each = self._between(number, source, destination)
                flows += pairs * max(0, each)
                impossible += pairs * (each == _IMPOSSIBLE)
        return flows, impossible

    def _where_different(self, number: int) -> Iterator[int]:
        for src, source in self._kinds.items():
            for dst, destination in self._kinds.items():
                if src != dst and self._between(number, source, destination) > 0:
                    yield self._different(number, self._hosts[src], self._hosts[dst])

    def _different(self, number: int, src: Host, dst: Host) -> int:
        want = self._wants[number]
        return sum(
            flows
            for probe, flows in want.alike
            for family in probe.families
            if src.address(family) and dst.address(family)
            if want.differ is None or want.differ(src, dst, family)
        )


def _kind(host: Host) -> Kind:
    return frozenset(host.roles), frozenset(map(Family.of, host.addresses))
