"""
The encapsulation modes as data, and what a run means for each of them.

A mode says which probes must get through between two hosts. What it needs of one run is a list of *required
flows*: usually one cell each, but of a probe whose ports are alternatives (the API server's 6443 and 443) all
cells of one pair and family are one required flow, and its best port counts. The matrix, the counts, the
sentence "usable as it is" and the exit status all stand on the same required flows, so that they cannot
disagree.

A run may know less than a mode needs: some of the flows were left out on purpose, or two hosts have no
addresses with which they could exist. These are its gaps, and a mode with a gap is never "usable as it is".
Optional needs, for which an inventory may have no addresses, are no gaps where it has none: the mode is then
"usable as far as probed".
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from types import MappingProxyType
from typing import Final

import msgspec

from netprobe import mesh
from netprobe.gaps import Gap, Gaps, Want, Where
from netprobe.model import Cell, Flow, Inventory, Run, Verdict, severity
from netprobe.probes import Probe


class When(enum.Enum):
    """Between which hosts a mode needs a probe."""

    ALWAYS = "always"
    DIFFERENT_SUBNETS = "different-subnets"
    SAME_SUBNET = "same-subnet"


class Need(msgspec.Struct, frozen=True):
    """
    A probe that a mode needs; the probe itself knows between which roles.

    An `optional` one is none where the inventory has no addresses to send the probe from.
    """

    probe: str
    when: When = When.ALWAYS
    optional: bool = False


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one choice of configuration needs of the network.

    `source` is the page, row or setting that says so. The needs of a mode with `any_need` are one requirement
    in several families: hosts that lack a family leave no gap. Any other mode can only be judged when all of
    its needs were probed.
    """

    name: str
    summary: str
    needs: tuple[Need, ...]
    source: str
    any_need: bool = False


_PAGE: Final = "Calico 3.28 system requirements, network requirements"
_POD_ROUTE_INSIDE: Final = Need("pod-route", When.SAME_SUBNET, optional=True)

MODES: Final[Mapping[str, Mode]] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode(
                name="none",
                summary="BGP between all nodes, no encapsulation",
                needs=(Need("bgp"), Need("pod-route", optional=True)),
                source=f"{_PAGE}: Calico networking (BGP)",
            ),
            Mode(
                name="ipip",
                summary="BGP and IP-in-IP between all nodes",
                needs=(Need("bgp"), Need("ipip")),
                source=f"{_PAGE}: IP-in-IP enabled (default); ipipMode: Always",
            ),
            Mode(
                name="ipip-crosssubnet",
                summary="BGP between all nodes, IP-in-IP between subnets",
                needs=(Need("bgp"), Need("ipip", When.DIFFERENT_SUBNETS), _POD_ROUTE_INSIDE),
                source=f"{_PAGE}: IP-in-IP enabled; ipipMode: CrossSubnet",
            ),
            # Felix programs the routes of its VXLAN pools itself, those inside a subnet too: no BGP.
            Mode(
                name="vxlan",
                summary="VXLAN between all nodes",
                needs=(Need("vxlan"),),
                source=f"{_PAGE}: VXLAN enabled; vxlanMode: Always",
            ),
            Mode(
                name="vxlan-crosssubnet",
                summary="VXLAN between subnets, no encapsulation inside one",
                needs=(Need("vxlan", When.DIFFERENT_SUBNETS), _POD_ROUTE_INSIDE),
                source=f"{_PAGE}: VXLAN enabled; vxlanMode: CrossSubnet",
            ),
            Mode(
                name="wireguard",
                summary="WireGuard between all nodes, on top of any other mode",
                needs=(Need("wireguard"), Need("wireguard-v6")),
                source=f"{_PAGE}: IPv4 and IPv6 WireGuard enabled; wireguardEnabled, wireguardEnabledV6",
                any_need=True,
            ),
            Mode(
                name="flannel",
                summary="flannel's VXLAN between all nodes",
                needs=(Need("flannel"),),
                source=f"{_PAGE}: flannel networking (VXLAN)",
            ),
            Mode(
                name="typha",
                summary="every node to the Typha hosts",
                needs=(Need("typha"),),
                source=f"{_PAGE}: Typha enabled",
            ),
            Mode(
                name="datastore-kubernetes",
                summary="every node to the kube-apiserver hosts",
                needs=(Need("apiserver"),),
                source=f"{_PAGE}: All, kube-apiserver host",
            ),
            Mode(
                name="datastore-etcd",
                summary="every node to the etcd hosts",
                needs=(Need("etcd"),),
                source=f"{_PAGE}: etcd datastore",
            ),
        )
    }
)
"""Every mode by its name, in the order of the reports."""


class RequiredFlow(msgspec.Struct, frozen=True):
    """What has to be open: one cell, or the cells of all ports where one open port is enough."""

    verdict: Verdict
    cells: tuple[Cell, ...]


class Square(msgspec.Struct, frozen=True):
    """One square of a matrix: the worst verdict of the required flows behind it."""

    verdict: Verdict
    flows: tuple[RequiredFlow, ...]


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """
    Sources x destinations of one mode.

    `sources` and `destinations` are the hosts between which the mode's probes ran or were needed, in the
    inventory's order. A pair without a square and without a gap is one between which the mode needs nothing,
    or a host with itself.
    """

    mode: Mode
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    squares: Mapping[tuple[str, str], Square]
    gaps: Gaps

    def verdict(self, src: str, dst: str) -> Verdict | None:
        """The verdict of a square, None where nothing that the mode needs was probed."""
        square = self.squares.get((src, dst))
        return None if square is None else square.verdict

    def gap(self, src: str, dst: str) -> Gap | None:
        """What the mode needs between two hosts and was not probed, None where all of it was."""
        return self.gaps.at(src, dst)


class ModeResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run means for a mode; `counts` has one entry for each verdict among its required flows.

    `missing` are the mode's probes of which no flow was probed at all: nothing can be said then but what is
    blocked already. `left_out` are its optional ones that the inventory has no addresses for.
    """

    matrix: Matrix
    counts: Mapping[Verdict, int]
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def mode(self) -> Mode:
        """The mode itself."""
        return self.matrix.mode

    @property
    def required(self) -> int:
        """How many flows the mode needs, of those that were probed."""
        return sum(self.counts.values())

    @property
    def not_probed(self) -> int:
        """How many flows it needs beyond these."""
        return self.matrix.gaps.not_probed

    @property
    def impossible(self) -> int:
        """How many flows it needs for which there are no addresses."""
        return self.matrix.gaps.impossible

    @property
    def needed(self) -> int:
        """How many flows it needs, probed or not."""
        return self.required + self.not_probed + self.impossible

    @property
    def untested(self) -> int:
        """How many of them could not be tested."""
        return self.counts.get(Verdict.UNTESTED, 0)

    @property
    def blocked(self) -> int:
        """How many of them were tested and are not open, whatever the verdict."""
        return self.required - self.untested - self.counts.get(Verdict.OPEN, 0)

    @property
    def usable(self) -> bool:
        """Whether every flow that the mode needs was probed and is open."""
        return not self.missing and self.needed == self.counts.get(Verdict.OPEN, 0)


class _Subnets:
    """Whether two hosts share a subnet, by the prefix lengths that the hosts themselves have configured."""

    def __init__(self, run: Run) -> None:
        self._networks: dict[str, list[IPv4Interface | IPv6Interface]] = {}
        for report in run.hosts:
            self._networks[report.name] = [
                interface for text in report.networks if (interface := _interface(text)) is not None
            ]
        # Each of a few addresses is asked for thousands of times.
        self._address = cache(ip_address)
        self._homes: dict[tuple[str, str], list[tuple[int, int, int]]] = {}

    def where(self, when: When) -> Where | None:
        """Between which hosts that is, each a name and an address; None for all."""
        return {When.DIFFERENT_SUBNETS: self._differ, When.SAME_SUBNET: self._share}.get(when)

    def _differ(self, src: str, here: str, dst: str, there: str) -> bool:
        """Whether two hosts need a route between them; an unknown network counts as another."""
        return not self._share(src, here, dst, there)

    def _share(self, src: str, here: str, dst: str, there: str) -> bool:
        return self._reaches(src, here, there) and self._reaches(dst, there, here)

    def _reaches(self, host: str, own: str, other: str) -> bool:
        there = self._address(other)
        for version, mask, network in self._home(host, own):
            if there.version == version and int(there) & mask == network:
                return True
        return False

    def _home(self, host: str, own: str) -> list[tuple[int, int, int]]:
        """The networks of a host's own address, each as version, mask and number."""
        if (host, own) not in self._homes:
            here = self._address(own)
            self._homes[host, own] = [
                (here.version, int(interface.netmask), int(interface.network.network_address))
                for interface in self._networks.get(host, ())
                if interface.ip == here
            ]
        return self._homes[host, own]


def _interface(text: str) -> IPv4Interface | IPv6Interface | None:
    try:
        return ip_interface(text)
    except ValueError:  # what an agent says is not trusted, and an unknown network is the stricter need
        return None


def needs(mode: Mode, inventory: Inventory) -> tuple[Need, ...]:
    """What a mode needs in an inventory: all but the optional ones that it has no addresses for."""
    known = mesh.probes(inventory)
    return tuple(need for need in mode.needs if need.probe in known or not need.optional)


def evaluate(run: Run, probes: Mapping[str, Probe] | None = None) -> list[ModeResult]:
    """
    The result of every mode in question, in the order of `MODES`.

    In question are the modes that the inventory names; where it names none, those of which every probe was
    run. `probes` are the known probes (default: all that are installed).
    """
    known = mesh.probes(run.inventory) if probes is None else probes
    required = _required_by_probe(run, known)
    judge = _Judge(run, known, required)
    asked = run.inventory.modes
    return [
        judge.result(mode)
        for mode in MODES.values()
        if (mode.name in asked if asked is not None else not judge.missing(mode))
    ]


def required_flows(
    run: Run, results: Iterable[ModeResult] | None = None, probes: Mapping[str, Probe] | None = None
) -> list[RequiredFlow]:
    """
    Every flow that has to be open for the exit status to be 0, each once, in flow order.

    These are the flows of all evaluated modes as far as they were probed, and those of the probes that the
    inventory names and no evaluated mode has among its needs. `results` saves evaluating the modes again.
    """
    if results is None:
        results = evaluate(run, probes)
    results = list(results)
    needed = {
        flow.cells[0].flow.number: flow
        for result in results
        for square in result.matrix.squares.values()
        for flow in square.flows
    }
    judged = {need.probe for result in results for need in result.mode.needs}
    explicit = set(run.inventory.probes or ()) - judged
    if explicit:
        by_probe = _required_by_probe(run, mesh.probes(run.inventory) if probes is None else probes)
        needed.update(
            {flow.cells[0].flow.number: flow for name in explicit for flow in by_probe.get(name, ())}
        )
    return [needed[number] for number in sorted(needed)]


def needed_cells(required: Iterable[RequiredFlow]) -> Iterator[Cell]:
    """
    The cells that make required flows not open.

    Of alternatives that are not known because one was not tested, only that one: the others decide nothing.
    """
    for flow in required:
        if flow.verdict is Verdict.OPEN:
            continue
        for cell in flow.cells:
            if flow.verdict is not Verdict.UNTESTED or cell.judgement.verdict is Verdict.UNTESTED:
                yield cell


def exit_status(
    run: Run, results: Iterable[ModeResult] | None = None, probes: Mapping[str, Probe] | None = None
) -> int:
    """
    What `netprobe run` ends with (design §1).

    1: some required flow was tested and is not open, be it `closed`, or cannot be for lack of addresses. 3:
    none of those, but some could not be tested, or nothing was probed of something that a mode needs. 0:
    every required flow is open; what the options left out of a mode's flows does not count.
    """
    if results is None:
        results = evaluate(run, probes)
    results = list(results)
    verdicts = {flow.verdict for flow in required_flows(run, results, probes)}
    if verdicts - {Verdict.OPEN, Verdict.UNTESTED} or any(result.impossible for result in results):
        return 1
    return 3 if Verdict.UNTESTED in verdicts or any(result.missing for result in results) else 0


def _required_by_probe(run: Run, probes: Mapping[str, Probe]) -> dict[str, list[RequiredFlow]]:
    """All cells as required flows, by probe: alternatives are put together here and nowhere else."""
    cells: dict[str, list[Cell]] = {}
    for cell in run.cells:
        cells.setdefault(cell.flow.probe, []).append(cell)
    required: dict[str, list[RequiredFlow]] = {}
    for name, found in cells.items():
        probe = probes.get(name)
        if probe is not None and probe.any_port and name not in run.inventory.ports:
            required[name] = _any_of(found)
        else:
            required[name] = [RequiredFlow(cell.judgement.verdict, (cell,)) for cell in found]
    return required


def _any_of(cells: Iterable[Cell]) -> list[RequiredFlow]:
    """One required flow for each pair and family."""
    alternatives: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        flow = cell.flow
        alternatives.setdefault((flow.family.value, flow.src, flow.dst), []).append(cell)
    return [
        RequiredFlow(_best([cell.judgement.verdict for cell in some]), tuple(some))
        for some in alternatives.values()
    ]


def _best(verdicts: list[Verdict]) -> Verdict:
    """
    What several alternatives come to when one open one is enough.

    As long as one is untested, and none is open, that one may be the open one: nothing is known.
    """
    for decisive in (Verdict.OPEN, Verdict.UNTESTED):
        if decisive in verdicts:
            return decisive
    return min(verdicts, key=severity)


class _Judge:
    """Makes the results of all modes of a run."""

    def __init__(
        self, run: Run, probes: Mapping[str, Probe], required: Mapping[str, list[RequiredFlow]]
    ) -> None:
        self._inventory = run.inventory
        self._probes = probes
        self._required = required
        self._subnets = _Subnets(run)

    def missing(self, mode: Mode) -> tuple[str, ...]:
        """The probes for lack of which a mode cannot be judged."""
        found = needs(mode, self._inventory)
        missing = tuple(need.probe for need in found if need.probe not in self._required)
        return () if mode.any_need and len(missing) < len(found) else missing

    def result(self, mode: Mode) -> ModeResult:
        """The result of one mode."""
        behind: dict[tuple[str, str], list[RequiredFlow]] = {}
        counts: Counter[Verdict] = Counter()
        needed: Counter[Need] = Counter()
        sources: set[str] = set()
        destinations: set[str] = set()
        for need in needs(mode, self._inventory):
            is_needed = _of_flows(self._subnets.where(need.when))
            for required_flow in self._required.get(need.probe, ()):
                flow = required_flow.cells[0].flow
                sources.add(flow.src)
                destinations.add(flow.dst)
                if is_needed(flow):
                    behind.setdefault((flow.src, flow.dst), []).append(required_flow)
                    counts[required_flow.verdict] += 1
                    needed[need] += 1
        gaps = Gaps(self._inventory.hosts, self._wants(mode, needed))
        if gaps:
            sources |= gaps.sources()
            destinations |= gaps.destinations()
        names = [host.name for host in self._inventory.hosts]
        matrix = Matrix(
            mode=mode,
            sources=tuple(name for name in names if name in sources),
            destinations=tuple(name for name in names if name in destinations),
            squares={
                pair: Square(max((flow.verdict for flow in flows), key=severity), tuple(flows))
                for pair, flows in behind.items()
            },
            gaps=gaps,
        )
        return ModeResult(
            matrix=matrix,
            counts={verdict: counts[verdict] for verdict in Verdict if counts[verdict]},
            missing=self.missing(mode),
            left_out=tuple(need.probe for need in mode.needs if need not in needs(mode, self._inventory)),
        )

    def _wants(self, mode: Mode, needed: Mapping[Need, int]) -> Iterator[Want]:
        """What the mode needs: of each probe something, or of all together."""
        every = needs(mode, self._inventory)
        for some in [every] if mode.any_need else [(need,) for need in every]:
            known = tuple(
                (probe, self._flows(probe)) for need in some if (probe := self._probes.get(need.probe))
            )
            yield Want(
                alike=known,
                where=self._subnets.where(some[0].when),
                probed=sum(len(self._required.get(need.probe, ())) for need in some),
                needed=sum(needed[need] for need in some),
                pairs=partial(self._pairs, some),
            )

    def _flows(self, probe: Probe) -> int:
        """How many flows of a probe are required of a pair and family."""
        is_alternative = probe.any_port and probe.name not in self._inventory.ports
        return 1 if is_alternative else len(mesh.ports(probe, self._inventory))

    def _pairs(self, needs: Iterable[Need]) -> set[tuple[str, str]]:
        """The pairs of which something was probed, be it needed or not."""
        return {
            (required.cells[0].flow.src, required.cells[0].flow.dst)
            for need in needs
            for required in self._required.get(need.probe, ())
        }


def _of_flows(where: Where | None) -> Callable[[Flow], bool]:
    """The same as a question about a flow."""
    if where is None:
        return lambda _flow: True
    return lambda flow: where(flow.src, flow.src_address, flow.dst, flow.dst_address)
