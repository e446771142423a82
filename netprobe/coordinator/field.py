"""What a run knows while it goes on: its flows, its templates, and what every host saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from netprobe import plan, wire
from netprobe.attempts import (
    ARRIVALS_MASK,
    CONFIRM_MASK,
    LATE_MASK,
    OUTPUT_MASK,
    PATTERN,
    SAME_PORT,
    SOURCE_PORTS,
    Attempts,
)
from netprobe.evidence import fates
from netprobe.model import Family, Flow, Inventory, Protocol, Seen, Segment, Symbol, Verdict
from netprobe.observations import INTERFACE, LEFT, SOCKET, Observations
from netprobe.plan import Settings
from netprobe.probes import Probe, registry
from netprobe.probes.base import Application
from netprobe.recogniser import Recogniser
from netprobe.template import AS_USUAL, Key, Kind, Shape, Sight, Template, shaped
from netprobe.verdict import Outcome, outcome

_TRANSPORT_AT: Final = {Family.IPV4: 20, Family.IPV6: 40}


LINK, KERNEL = "link", "kernel"
"""The ways out of a host: below its netfilter, or through it."""


class Craft(Symbol):
    """Which packet of a flow: its probe, the probe from an open source port, or what takes the probe back."""

    PROBE = "probe"
    FRESH_PORT = "fresh-port"
    WITHDRAWAL = "withdrawal"


class Templates:
    """Every template of a run with its number, crafted when it is first asked for."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._numbers: dict[tuple[object, ...], int] = {}
        self.all: list[Template] = []

    def _number(self, name: tuple[object, ...], template: Template) -> int:
        self._numbers[name] = len(self.all)
        self.all.append(template)
        return self._numbers[name]

    def packet(self, flow: Flow, craft: Craft = Craft.PROBE, shape: Shape = AS_USUAL) -> int | None:
        """A packet of a flow, None where its probe knows none of this craft."""
        name = (flow.probe, flow.family, flow.port, craft, shape)
        if name not in self._numbers and shape != AS_USUAL:
            usual = self.packet(flow, craft)
            if usual is None:
                return None
            self._number(name, shaped(self.all[usual], shape))
        elif name not in self._numbers:
            probe = registry()[flow.probe]
            make = probe.withdrawal if craft is Craft.WITHDRAWAL else probe.packet
            if make is None:
                return None
            template = make(flow.family, flow.port, self._key)
            if flow.forwarded:
                template = template.bearing(flow.pod_address)
            if craft is Craft.FRESH_PORT:
                template = msgspec.structs.replace(template, source_port=_TRANSPORT_AT[flow.family])
            self._number(name, template)
        return self._numbers[name]

    def speech(self, application: Application) -> tuple[int, int]:
        """The request and the answer of an application."""
        for part, craft in (("request", application.request), ("answer", application.answer)):
            if (application.name, id(application), part) not in self._numbers:
                self._number((application.name, id(application), part), craft(self._key))
        request, answer = ((application.name, id(application), part) for part in ("request", "answer"))
        return self._numbers[request], self._numbers[answer]


class Field:
    """
    The state of a run over all flows of an inventory, or over `flows`, which are numbered from 0.

    `ending_at` are, by host, the flows that have an end there, at either side. `reasons` say why a flow
    cannot be tested, by number. `holders` are the programs that hold a destination port, by (protocol,
    address, port); `speeches` the request and the answer that our own listeners know, by (address, port): a
    service may hold a port at one address of a host, and we at another. `claimants` are the hosts that have a
    probed address although it is another's, `xdp` the interfaces of hosts that have an XDP program. `before`
    are, by host, the flows whose conntrack tuple had an entry there before the run. `overflowed` counts the
    packets that each host's taps had no room for. `unasked` are silent flows that were too many to be asked
    again slowly, `insisted` how often each packet of a flow's burst was sent where that was more than once.
    Of flows that others like them showed a limit for, `limited` did not pass alone either, and `starving`
    were too many to be asked alone.

    `is_planned`: what is asked was written down before anything was answered, with this `key`. So it must not
    depend on any answer, until the plan `is_over`.
    """

    def __init__(
        self,
        inventory: Inventory,
        settings: Settings,
        flows: Sequence[Flow] | None = None,
        *,
        key: Key | None = None,
        is_planned: bool = False,
    ) -> None:
        self.inventory = inventory
        self.settings = settings
        self.key = key or Key.fresh()
        self.is_planned = is_planned
        self.is_over = False
        self.flows = plan.flows(inventory, settings) if flows is None else list(flows)
        self.probes: dict[str, Probe] = {probe.name: probe for probe in plan.probes(inventory)}
        self.ending_at: dict[str, list[Flow]] = {host.name: [] for host in inventory.hosts}
        for flow in self.flows:
            self.ending_at[flow.src].append(flow)
            self.ending_at[flow.dst].append(flow)
        self.seen = Observations(self.flows)
        self.order = {host.name: place for place, host in enumerate(inventory.hosts)}
        self.templates = Templates(self.key)
        self.sights = self._sights()
        self.recogniser = Recogniser(self.key, self.sights, self.flows)
        self.reasons: dict[int, str] = {}
        self.holders: dict[tuple[Protocol, str, int], str] = {}
        self.speeches: dict[tuple[str, int | None], tuple[int, int]] = {}
        self.claimants: dict[str, list[str]] = {}
        self.xdp: dict[str, list[str]] = {}
        self.before: dict[str, set[int]] = {host.name: set() for host in inventory.hosts}
        self.overflowed: dict[str, int] = dict.fromkeys(self.order, 0)
        self.unasked: set[int] = set()
        self.insisted: dict[int, int] = {}
        self.limited: set[int] = set()
        self.starving: set[int] = set()
        self.packets = 0
        self._distrusted: dict[int, int] = {}

    def _sights(self) -> list[Sight]:
        sights: dict[Sight, None] = {}
        for probe in self.probes.values():
            sights.update(dict.fromkeys(probe.sights(self.key)))
        for probe in self.probes.values():
            if probe.application is not None:
                sights.update(dict.fromkeys(probe.application.sights(self.key)))
        return list(sights)

    def craft(self) -> None:
        """Craft every template: slow, because it imports scapy, and therefore done while agents start."""
        for flow in {(flow.probe, flow.family, flow.port): flow for flow in self.flows}.values():
            self.templates.packet(flow)
            self.templates.packet(flow, Craft.WITHDRAWAL)
            if self.shares_conntrack(flow) and flow.port is not None:
                self.templates.packet(flow, Craft.FRESH_PORT)
        for probe in self.probes.values():
            if probe.application is not None:
                self.templates.speech(probe.application)

    def is_forwarded(self, sight: Sight) -> bool:
        """Whether a sight is that of packets that hosts forward."""
        return any(probe.forwarded and sight in probe.sights(self.key) for probe in self.probes.values())

    def is_injected(self, flow: Flow) -> bool:
        """Whether the packets whose arrival counts enter below the source's netfilter."""
        return flow.forwarded or self.shares_conntrack(flow)

    def way(self, flow: Flow) -> str:
        """The way out for the packets whose arrival counts."""
        return LINK if self.is_injected(flow) else KERNEL

    def by_way(self, flows: Iterable[Flow]) -> tuple[list[Flow], list[Flow]]:
        """Flows that leave through the kernel, and those that enter below its netfilter."""
        return _parted(flows, self.is_injected)

    def by_entry(self, flows: Iterable[Flow]) -> tuple[list[Flow], list[Flow]]:
        """Flows that have their conntrack entries for themselves, and those that share them."""
        return _parted(flows, self.shares_conntrack)

    def shares_conntrack(self, flow: Flow) -> bool:
        """Whether the flow and its opposite are one conntrack entry."""
        return self.probes[flow.probe].shares_conntrack

    def is_second(self, flow: Flow) -> bool:
        """Whether the flow is probed after its opposite (design trap 2)."""
        return self.order[flow.src] > self.order[flow.dst]

    def holder(self, flow: Flow) -> str | None:
        """What holds the flow's port at its destination, None where it is free or ours."""
        if flow.number in self.seen.redirected:
            return f"a redirection to port {self.seen.redirected[flow.number]}"
        is_listening = (flow.dst_address, flow.port) in self.speeches
        if is_listening and self.seen.answered_by_another(flow.number):
            return "another program than netprobe's listener, to judge by its answer,"
        return None if flow.port is None else self.holders.get((flow.protocol, flow.dst_address, flow.port))

    def will_hold_session(self, flow: Flow) -> bool:
        """Whether a session is to follow the flow's SYN: as far as is known, our listener waits for it."""
        if self.holder(flow) is not None:
            return False
        return self.settings.depth == "session" and (flow.dst_address, flow.port) in self.speeches

    def testable(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those that nothing speaks against so far; of a plan, all: what does is known when it is over."""
        if self.is_planned and not self.is_over:
            return list(flows)
        return [flow for flow in flows if flow.number not in self.reasons]

    def missing(self, flows: Iterable[Flow], attempts: Attempts) -> list[Flow]:
        """Those of which some packet of these attempts is not known to have got through."""
        return self.seen.missing(self.testable(flows), attempts.mask)

    def exclude(self, flows: Iterable[Flow], reason: str) -> None:
        """Note why flows cannot be tested; the first reason stands."""
        for flow in flows:
            self.reasons.setdefault(flow.number, reason)

    def lose(self, name: str, reason: str) -> None:
        """
        Note that a host takes no further part.

        From now on nothing of its flows is sent, waited for or asked again. What it saw of them before is
        not evidence enough either: what it would have seen later is missing.
        """
        self.exclude(self.ending_at[name], f"{name}: {reason}")

    def takes_part(self, name: str) -> bool:
        """Whether any flow that ends at a host can be tested."""
        return self.is_planned or any(flow.number not in self.reasons for flow in self.ending_at[name])

    def distrust(self, flows: Iterable[Flow], attempts: Attempts, dropped_before: dict[str, int]) -> None:
        """Where taps lost packets during a volley, its misses are no evidence."""
        lossy = {name for name, dropped in self.overflowed.items() if dropped > dropped_before[name]}
        for flow in self.missing(flows, attempts) if lossy else ():
            if flow.src in lossy or flow.dst in lossy:
                missed = attempts.mask & ~self.seen.passed(flow, attempts.mask)
                self._distrusted[flow.number] = self._distrusted.get(flow.number, 0) | missed

    def distrust_missed(self, flows: Iterable[Flow], attempts: int) -> None:
        """Note that what is missing may be lost because of the run's other packets: that says nothing."""
        for flow in flows:
            missed = self.seen.sent[flow.number] & attempts & ~self.seen.passed(flow, attempts)
            self._distrusted[flow.number] = self._distrusted.get(flow.number, 0) | missed

    def distrust_met(self, flow: Flow, attempt: int) -> None:
        """
        Note a SYN that met a connection with its own addresses and ports: a real client's.

        Whoever listens, the kernel answers it with a word about that connection (RFC 5961 §4).
        """
        self._distrusted[flow.number] = self._distrusted.get(flow.number, 0) | 1 << attempt

    def source_port(self, flow: Flow, attempt: int) -> int:
        """The port that an attempt of the flow leaves from, where its packet leaves that open."""
        same_port = SAME_PORT if PATTERN.mask >> attempt & 1 else 1
        return wire.source_port(flow.number, attempt, (*SOURCE_PORTS, same_port), self.key.nonce)

    def distrust_half_open(self, flows: Iterable[Flow]) -> None:
        """
        Where a connection of a port may have stayed half open, later SYNs from that port are no evidence.

        A kernel answers them with a word about the earlier one, or with nothing. That the earlier one was
        taken back is known, and not whether it was in time.
        """
        answered = self.seen.at(LEFT, Kind.ACCEPT)
        for flow in flows:
            number = flow.number
            came = self.seen.at(SOCKET, Kind.PROBE)[number]
            for first in range(PATTERN.first, PATTERN.first + PATTERN.total, SAME_PORT):
                for attempt in range(first + 1, first + SAME_PORT):
                    before = came & (1 << attempt) - (1 << first)
                    if before and not answered[number] >> attempt & 1:
                        self._distrusted[number] = self._distrusted.get(number, 0) | 1 << attempt

    def lost_at(self, flow: Flow) -> Segment | None:
        """Where a flow was lost without a word, None where it was not."""
        outcomes = self._outcomes(flow)
        if len(outcomes) != 1:
            return None
        ((verdict, segment),) = outcomes
        return segment if verdict is Verdict.FILTERED else None

    def losing(self, flow: Flow) -> set[Segment | None]:
        """Where packets of a flow were lost without a word, be it all of them or some."""
        return {segment for verdict, segment in self._outcomes(flow) if verdict is Verdict.FILTERED}

    def _outcomes(self, flow: Flow) -> set[Outcome]:
        heard = (ARRIVALS_MASK | OUTPUT_MASK) & ~self.too_late(flow)
        found = fates(self.seen, flow, self.counted(flow, CONFIRM_MASK), heard)
        return {
            outcome(flow.protocol, fate, forwarded=flow.forwarded)
            for fate, _count in found
            if fate.seen > Seen.UNSENT
        }

    def counted(self, flow: Flow, attempts: int) -> int:
        """Those of the attempts that are evidence: not what taps had no room for, nor what was too late."""
        return attempts & ~self._distrusted.get(flow.number, 0) & ~self.too_late(flow)

    def too_late(self, flow: Flow) -> int:
        """
        Late attempts of a flow that shares a conntrack entry with its opposite, if they got further than all.

        By then the opposite direction has been through, and a stateful device between remembers it.
        """
        if self.is_planned or not self.shares_conntrack(flow):
            # A plan has no such attempts: all of one way come before the other.
            return 0
        further = 0
        for point in (SOCKET, INTERFACE):
            there = self.seen.at(point, Kind.PROBE)[flow.number] & ARRIVALS_MASK
            if there & ~LATE_MASK:
                break
            further |= there
        return further


def _parted(flows: Iterable[Flow], is_apart: Callable[[Flow], bool]) -> tuple[list[Flow], list[Flow]]:
    ordinary: list[Flow] = []
    apart: list[Flow] = []
    for flow in flows:
        (apart if is_apart(flow) else ordinary).append(flow)
    return ordinary, apart
