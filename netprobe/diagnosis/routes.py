"""
Many ordered pairs of hosts in few words: as products of sources and destinations.

A firewall between two subnets blocks thousands of pairs, and one line says which: `a, b -> d, e`. A host
never probes itself, so a product may lack exactly the pairs of a host with itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

Pair = tuple[str, str]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """
    All pairs of some sources with some destinations, but for those of a host with itself.

    `both_ways` adds the same pairs in the other direction. `from_all` and `to_all` say that these sources are
    all that the destinations have, and the other way round.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    both_ways: bool = False
    from_all: bool = False
    to_all: bool = False

    @property
    def is_mesh(self) -> bool:
        """Whether these are the pairs of some hosts among themselves."""
        return self.sources == self.destinations

    @property
    def pairs(self) -> int:
        """How many pairs these are."""
        count = len(self.sources) * len(self.destinations) - len({*self.sources} & {*self.destinations})
        return 2 * count if self.both_ways else count


def routes(
    pairs: Collection[Pair], order: Mapping[str, int], universe: Collection[Pair]
) -> tuple[Route, ...]:
    """
    The pairs as few products, each pair in exactly one of them or in its mirror image.

    `order` is the place of each host in the inventory, `universe` are all pairs that there are; both decide
    what is called `all`. The result is greedy, not the smallest there is, and does not depend on the order of
    the pairs.
    """
    forward = products(pairs, order)
    backward = [(right, left) for left, right in products([(dst, src) for src, dst in pairs], order)]
    best = min(forward, backward, key=len)
    sources_of: dict[str, set[str]] = {}
    destinations_of: dict[str, set[str]] = {}
    for src, dst in universe:
        sources_of.setdefault(dst, set()).add(src)
        destinations_of.setdefault(src, set()).add(dst)
    found: list[Route] = []
    for sources, destinations in best:
        route = Route(
            sources=sources,
            destinations=destinations,
            from_all=len(sources) > 1 and _are_all(sources, destinations, sources_of),
            to_all=len(destinations) > 1 and _are_all(destinations, sources, destinations_of),
        )
        for at, earlier in enumerate(found):
            if (earlier.sources, earlier.destinations) == (destinations, sources):
                found[at] = msgspec.structs.replace(
                    earlier,
                    both_ways=True,
                    from_all=earlier.from_all and route.to_all,
                    to_all=earlier.to_all and route.from_all,
                )
                break
        else:
            found.append(route)
    return tuple(found)


def _are_all(these: Sequence[str], others: Sequence[str], all_of: Mapping[str, set[str]]) -> bool:
    here = set(these)
    return all(all_of[other] <= here for other in others)


def products(
    pairs: Collection[Pair], order: Mapping[str, int]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """
    Sources with alike destinations together: pairs of those and these, each pair of hosts in exactly one.

    Alike are sources that differ only in that none is its own destination.
    """
    # Sets of hosts are the bits of an integer, for speed.
    hosts = sorted(
        {name for pair in pairs for name in pair}, key=lambda name: (order.get(name, len(order)), name)
    )
    bit = {name: 1 << place for place, name in enumerate(hosts)}
    reach: dict[str, int] = {}
    for src, dst in pairs:
        reach[src] = reach.get(src, 0) | bit[dst]
    # Of each product: its sources, its destinations, and what every one of the sources reaches or is itself.
    products: list[tuple[list[str], int, int]] = []
    for src in hosts:
        if (mine := reach.get(src)) is None:
            continue
        for at, (sources, destinations, shared) in enumerate(products):
            if not destinations & ~(mine | bit[src]) and not mine & ~shared:
                products[at] = ([*sources, src], destinations | mine, shared & (mine | bit[src]))
                break
        else:
            products.append(([src], mine, mine | bit[src]))
    return [
        (tuple(sources), tuple(name for name in hosts if bit[name] & destinations))
        for sources, destinations, _ in products
    ]
