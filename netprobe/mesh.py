"""Between which hosts a probe is sent, over which families and to which ports: one by one, and counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from netprobe.model import Family, Host, Inventory
from netprobe.probes import Probe, registry

BOTH_FAMILIES: Final = tuple(Family)


def probes(inventory: Inventory) -> dict[str, Probe]:
    """Every known probe as far as an inventory lets it be sent: a pod's in the families of `pod_cidr`."""
    found = {}
    for name, probe in registry().items():
        if not probe.forwarded:
            found[name] = probe
        elif has := tuple(family for family in probe.families if inventory.pod_address(family)):
            found[name] = msgspec.structs.replace(probe, families=has)
    return found


def ports(probe: Probe, inventory: Inventory) -> Sequence[int | None]:
    """The ports that a probe is sent to; one None for an IP protocol of its own."""
    return inventory.ports.get(probe.name, probe.ports) or (None,)


def families(probe: Probe, asked: Collection[Family] = BOTH_FAMILIES) -> list[Family]:
    """Those of the asked families that a probe knows, in its order."""
    return [family for family in probe.families if family in asked]


def pairs(
    probe: Probe, hosts: Iterable[Host], family: Family, only: Collection[str] = ()
) -> Iterator[tuple[Host, Host]]:
    """Source and destination of each flow of a probe and family, `only` those with such a host at one end."""
    sources, destinations = _ends(probe, hosts, family)
    for source in sources:
        for destination in destinations:
            is_asked = not only or source.name in only or destination.name in only
            if is_asked and destination is not source:
                yield source, destination


def counts(
    probe: Probe, hosts: Iterable[Host], family: Family, only: Collection[str] = ()
) -> Iterator[tuple[Host, int]]:
    """How many of these pairs each source has, without looking at one of them."""
    sources, destinations = _ends(probe, hosts, family)
    everywhere = {host.name for host in destinations}
    asked = everywhere & set(only)
    for source in sources:
        theirs = everywhere if not only or source.name in only else asked
        yield source, len(theirs) - (source.name in theirs)


def count(
    probe: Probe,
    hosts: Sequence[Host],
    asked: Collection[Family] = BOTH_FAMILIES,
    only: Collection[str] = (),
) -> int:
    """How many pairs there are over all families: 0 where the probe cannot be sent at all."""
    return sum(
        number for family in families(probe, asked) for _, number in counts(probe, hosts, family, only)
    )


def why_none(probe: Probe, hosts: Collection[Host]) -> str:
    """Why a probe has no pair among hosts."""
    for role in probe.between:
        if not any(role in host.roles for host in hosts):
            return f"no host has the role {role.value}"
    label = probe.families[0].label if len(probe.families) == 1 else ""
    return f"no two such hosts have {f'{label} addresses' if label else 'addresses of one family'}"


def _ends(probe: Probe, hosts: Iterable[Host], family: Family) -> tuple[list[Host], list[Host]]:
    there = [host for host in hosts if host.address(family) is not None]
    source_role, destination_role = probe.between
    return (
        [host for host in there if source_role in host.roles],
        [host for host in there if destination_role in host.roles],
    )
