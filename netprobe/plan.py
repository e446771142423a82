"""What a run will do: which flows there are, and how many packets they get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from netprobe import mesh, modes
from netprobe.attempts import FIRST, FRESH_PORT, OUTPUT, Attempts
from netprobe.model import Family, Flow, Inventory, Protocol, Settings
from netprobe.probes import Probe
from netprobe.template import MAX_FLOWS

__all__ = [
    "FirstLook",
    "Settings",
    "Share",
    "first_look",
    "flows",
    "numbered",
    "probes",
    "shares",
    "usual_count",
]

_FEWEST, _FIRST_ROUND_PACKETS = 3, 2000
_OF_SESSION: Final = 2
"""The SYN and the request of a session: where one of them is lost, that is noticed."""

SESSION_PACKETS: Final = 8
"""Of both ends together: three to open, one each for request and answer, three to close; about."""


def probes(inventory: Inventory) -> list[Probe]:
    """
    The probes that an inventory asks for: those it names, or else those its modes need, or else all.

    A probe that the inventory has no address for is none of them, and has no family that it lacks one of.
    """
    known = mesh.probes(inventory)
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


class FirstLook(NamedTuple):
    """
    The packets of a run in which nothing is lost.

    `several` for each flow; where a session follows, fewer `ahead` of it: its own segments tell a way that
    loses some as well. Flows that share a conntrack entry with their opposite are `leaving` through the
    source's OUTPUT chain as well, and come from a `fresh` port where they have ports.
    """

    ahead: Attempts
    several: Attempts
    leaving: Attempts
    fresh: Attempts

    def packets(self, probe: Probe, *, has_session: bool) -> int:
        """How many of them a flow of a probe gets."""
        if has_session:
            return self.ahead.total
        if not probe.shares_conntrack:
            return self.several.total
        fresh = self.fresh.total if probe.ports else 0
        return self.several.total + self.leaving.total + fresh


def first_look(settings: Settings, flows: int, hosts: int) -> FirstLook:
    """What so many flows between so many hosts get."""
    several = min(settings.count or usual_count(flows, hosts), FIRST.total)
    return FirstLook(
        ahead=Attempts(FIRST.first, max(1, several - _OF_SESSION)),
        several=Attempts(FIRST.first, several),
        # Half as many: all flows of a source together tell a chain that loses some.
        leaving=Attempts(OUTPUT.first, max(1, min(OUTPUT.total, several // 2))),
        fresh=Attempts(FRESH_PORT.first, max(1, min(FRESH_PORT.total, several // 4))),
    )


def may_hold_session(probe: Probe, settings: Settings) -> bool:
    """Whether a session follows the probe's SYN, if the port at the destination is free."""
    is_asked = settings.depth == "session"
    return is_asked and probe.protocol is Protocol.TCP and probe.application is not None


class Share(NamedTuple):
    """How many flows of a probe and family begin at a source."""

    probe: Probe
    family: Family
    source: str
    flows: int


def shares(inventory: Inventory, settings: Settings | None = None) -> list[Share]:
    """
    The flows that are asked for, counted and not listed; `ValueError` where tags cannot number so many.

    A thousand hosts have millions of flows, and each source's are counted at once.
    """
    found = list(_shares(inventory, settings or Settings()))
    _check_number(sum(share.flows for share in found))
    return found


def _shares(inventory: Inventory, asked: Settings) -> Iterator[Share]:
    only = set(asked.only)
    for probe in probes(inventory):
        ports = len(mesh.ports(probe, inventory))
        for family in mesh.families(probe, asked.families):
            for source, number in mesh.counts(probe, inventory.hosts, family, only):
                if number:
                    yield Share(probe, family, source.name, number * ports)


def flows(inventory: Inventory, settings: Settings | None = None) -> list[Flow]:
    """Every flow that is asked for, numbered; `ValueError` where tags cannot number so many."""
    asked = settings or Settings()
    shares(inventory, asked)
    only = set(asked.only)
    found: list[Flow] = []
    for probe in probes(inventory):
        for family in mesh.families(probe, asked.families):
            for port in mesh.ports(probe, inventory):
                for source, destination in mesh.pairs(probe, inventory.hosts, family, only):
                    src, dst = source.address(family), destination.address(family)
                    if src is None or dst is None:
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
                            pod_address=inventory.pod_address(family) if probe.forwarded else "",
                        )
                    )
    return found


def numbered(flows: Iterable[Flow]) -> list[Flow]:
    """Flows as a run of their own has them: numbered from 0."""
    return [msgspec.structs.replace(flow, number=number) for number, flow in enumerate(flows)]


def _check_number(flows: int) -> None:
    if flows >= MAX_FLOWS:
        message = f"{flows} flows are more than one run can number ({MAX_FLOWS}): probe fewer hosts at a time"
        raise ValueError(message)
