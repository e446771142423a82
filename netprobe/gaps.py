"""
What a mode needs and a run has not probed: left out by choice, or impossible for lack of addresses.

Hosts of the same roles and families have the same needs, and there are few such kinds. So flows are counted
by pairs of kinds, and a thousand hosts of which one was probed cost no more than two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from netprobe.model import Family, Host, Role, Symbol
from netprobe.probes import Probe

Kind = tuple[frozenset[Role], frozenset[Family]]
Pair = tuple[str, str]
Where = Callable[[str, str, str, str], bool]
"""Whether something is needed between two hosts, each a name and an address: their subnets decide."""

_IMPOSSIBLE: Final = -1


class Gap(Symbol):
    """Why nothing is known of what a mode needs between two hosts."""

    NOT_PROBED = "not-probed"
    IMPOSSIBLE = "impossible"


class Want(msgspec.Struct, frozen=True):
    """
    Probes of which a mode needs every flow that the families of two hosts allow, and at least one.

    `alike` are the probes, each with the number of its flows for a pair and family. With `where` the hosts
    need them only where it says so. `probed` is how many flows of these probes there were, `needed` how many
    of them were needed, `pairs` between whom they were.
    """

    alike: tuple[tuple[Probe, int], ...]
    where: Where | None
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
        kinds = [_kind(host) for host in hosts]
        # Small numbers: they are looked up for each pair of hosts.
        self._kind_of = list(dict.fromkeys(kinds))
        numbers = {kind: number for number, kind in enumerate(self._kind_of)}
        self._kinds = {host.name: numbers[kind] for host, kind in zip(hosts, kinds, strict=True)}
        self._sizes = Counter(self._kinds.values())
        self._between_kinds: dict[tuple[int, int], tuple[int, ...] | Gap] = {}
        self._needed: dict[tuple[int, int, int], int] = {}
        self._wants = list(wants)
        self._pairs: list[set[Pair]] = []
        self.not_probed = 0
        self.impossible = 0
        self.obstacles: list[str] = []
        for number, want in enumerate(self._wants):
            flows, impossible = self._count(number)
            if flows > want.probed:
                needed = flows if want.where is None else self._where_needed(number)
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
        kinds = self._kinds[src], self._kinds[dst]
        if kinds not in self._between_kinds:
            self._between_kinds[kinds] = self._of_kinds(*kinds)
        wants = self._between_kinds[kinds]
        if isinstance(wants, Gap):
            return wants
        for number in wants:
            is_probed = (src, dst) in self._pairs[number]
            if not is_probed and self._is_needed(number, self._hosts[src], self._hosts[dst]):
                return Gap.NOT_PROBED
        return None

    @property
    def signature(self) -> object:
        """What two modes of a run have in common only if they have the same gaps."""
        if not self:
            return ()
        numbers = range(len(self._wants))
        return frozenset(
            (
                self._wants[number].where,
                frozenset(self._pairs[number]),
                tuple(
                    min(1, self._between(number, source, destination))
                    for source in self._sizes
                    for destination in self._sizes
                ),
            )
            for number in numbers
        )

    def _of_kinds(self, source: int, destination: int) -> tuple[int, ...] | Gap:
        """Which wants there are between hosts of two kinds, if none of them is impossible."""
        needed = [self._between(number, source, destination) for number in range(len(self._wants))]
        if _IMPOSSIBLE in needed:
            return Gap.IMPOSSIBLE
        return tuple(number for number, flows in enumerate(needed) if flows)

    def _is_end(self, own: int, *, source: bool) -> bool:
        """Whether something is needed from (or to) a host of a kind, by a host other than itself."""
        return any(
            self._between(number, own, other) if source else self._between(number, other, own)
            for number in range(len(self._wants))
            for other, hosts in self._sizes.items()
            if hosts > (other == own)
        )

    def _between(self, number: int, source: int, destination: int) -> int:
        """How many flows hosts of two kinds need."""
        key = number, source, destination
        if key not in self._needed:
            (from_roles, here), (to_roles, there) = self._kind_of[source], self._kind_of[destination]
            fitting = [
                (probe, flows)
                for probe, flows in self._wants[number].alike
                if probe.between[0] in from_roles and probe.between[1] in to_roles
            ]
            needed = sum(flows * len(here & there & set(probe.families)) for probe, flows in fitting)
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

    def _where_needed(self, number: int) -> int:
        """How many flows are needed where not all pairs need them."""
        want, needed = self._wants[number], 0
        for probe, flows in want.alike:
            for family in probe.families:
                ends = [
                    (host.name, address, host.roles)
                    for host in self._hosts.values()
                    if (address := host.address(family)) is not None
                ]
                destinations = [end for end in ends if probe.between[1] in end[2]]
                for src, here, roles in ends:
                    if probe.between[0] in roles:
                        needed += flows * sum(
                            dst != src and (want.where is None or want.where(src, here, dst, there))
                            for dst, there, _roles in destinations
                        )
        return needed

    def _is_needed(self, number: int, src: Host, dst: Host) -> bool:
        want = self._wants[number]
        return want.where is None or any(
            want.where(src.name, here, dst.name, there)
            for probe, _flows in want.alike
            for family in probe.families
            if (here := src.address(family)) and (there := dst.address(family))
        )


def _kind(host: Host) -> Kind:
    return frozenset(host.roles), frozenset(map(Family.of, host.addresses))
