"""What a run will do: which flows there are, and how many packets they get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from netprobe import modes
from netprobe.attempts import FIRST
from netprobe.model import Family, Flow, Host, Inventory
from netprobe.probes import Probe, registry
from netprobe.template import MAX_FLOWS

DEFAULT_RATE: Final = 5000.0
DEFAULT_TIMEOUT_S: Final = 1.0

_FEWEST, _FIRST_ROUND_PACKETS = 3, 2000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to probe.

    `count` packets a flow in the first round (None: `usual_count`); `rate` packets a second and host at most;
    `timeout_s` the longest wait for what may still arrive; `depth` `syn` or `session`; `families` those to
    probe; `only` the hosts that every flow must have at one end (empty: any).
    """

    count: int | None = None
    rate: float = DEFAULT_RATE
    timeout_s: float = DEFAULT_TIMEOUT_S
    depth: str = "session"
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    only: tuple[str, ...] = ()


def probes(inventory: Inventory) -> list[Probe]:
    """The probes that an inventory asks for: those it names, or else those its modes need, or else all."""
    known = registry()
    if inventory.probes is not None:
        wanted = set(inventory.probes)
    elif inventory.modes is not None:
        wanted = {need.probe for name in inventory.modes for need in modes.MODES[name].needs}
    else:
        wanted = set(known)
    return [probe for name, probe in known.items() if name in wanted]


def usual_count(flows: int, hosts: int) -> int:
    """
    How many packets each flow gets in the first round.

    More packets find a way that loses some more surely; what they cost is bounded for each host.
    """
    return max(_FEWEST, min(FIRST.total, _FIRST_ROUND_PACKETS * hosts // max(1, flows)))


def flows(inventory: Inventory, settings: Settings | None = None) -> list[Flow]:
    """Every flow that is asked for, numbered; `ValueError` where tags cannot number so many."""
    asked = settings or Settings()
    only = set(asked.only or (host.name for host in inventory.hosts))
    found: list[Flow] = []
    for probe in probes(inventory):
        for family in (each for each in probe.families if each in set(asked.families)):
            for port in _ports(probe, inventory):
                for source, destination in _pairs(probe, inventory.hosts):
                    src, dst = source.address(family), destination.address(family)
                    if src is None or dst is None or not {source.name, destination.name} & only:
                        continue
                    found.append(
                        Flow(
                            number=len(found),
                            probe=probe.name,
                            family=family,
                            protocol=probe.protocol,
                            port=port,
                            src=source.name,
                            src_address=src,
                            dst=destination.name,
                            dst_address=dst,
                        )
                    )
    if len(found) >= MAX_FLOWS:
        message = (
            f"{len(found)} flows are more than one run can number ({MAX_FLOWS}): probe fewer hosts at a time"
        )
        raise ValueError(message)
    return found


def _ports(probe: Probe, inventory: Inventory) -> Sequence[int | None]:
    return inventory.ports.get(probe.name, probe.ports) or (None,)


def _pairs(probe: Probe, hosts: Sequence[Host]) -> Iterable[tuple[Host, Host]]:
    source_role, destination_role = probe.between
    for source in hosts:
        if source_role in source.roles:
            for destination in hosts:
                if destination_role in destination.roles and destination is not source:
                    yield source, destination
