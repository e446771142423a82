"""
Flows that are not open, grouped by cause.

Flows are alike when they share verdict, segment, who refused, and *side*: the host whose own firewall lost
them, or the path. They are put together in steps, each of which only joins what is the same in all else:

1. all flows of a probe, family and port with one cause on one side;
2. families and ports of a probe, where exactly the same pairs are lost;
3. hosts, where each loses the same flows from (or to) the same others: ten closed hosts are one group;
4. probes, where exactly the same pairs are lost: a host that drops everything is one group;
5. on the path, what one probe lost with others and what it lost besides, where that makes both simpler to
   say: a dead host is a cause of its own, and not part of what is wrong with IP-in-IP between two subnets.

Who refused is an address, and a router has several: it speaks from the one towards whom it tells. So
addresses of which no network hears two for a probe are one refuser. And refusals are rationed: flows that
were lost without a word, and could not all be asked again, are put with the refusals of their probe at the
same place, if the same hosts have some. They stay `filtered`, in `Group.silent`.

Everything is ordered by the inventory and the flow numbers, so that two runs with the same cells read alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from ipaddress import ip_interface
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar

import msgspec

from netprobe import counters
from netprobe.diagnosis.evidence import in_one_line
from netprobe.diagnosis.routes import Pair, Route, products, routes
from netprobe.diagnosis.words import (
    CAUSES,
    COUNTED,
    HANDED_ON,
    RATIONED_ALONE,
    RATIONED_TOO,
    SEVERAL_ADDRESSES,
    STAGES,
)
from netprobe.model import RATIONED, Caveat, Cell, Family, Flow, Protocol, Run, Segment, Verdict
from netprobe.probes import registry

_AT_SOURCE: Final = (Segment.SOURCE_EGRESS, Segment.SOURCE_INGRESS)
_AT_DESTINATION: Final = (Segment.DESTINATION_INGRESS, Segment.DESTINATION_EGRESS)

_SOURCE, _DESTINATION = "source", "destination"
"""What stands for the address of a refuser that is one of the two ends."""

_ADDRESSES_SHOWN: Final = 3

_number: Final = attrgetter("flow.number")

_ByUnit: TypeAlias = "dict[tuple[_Cause, _Unit], list[Cell]]"

_Key = TypeVar("_Key", bound=Hashable)


class What(msgspec.Struct, frozen=True, kw_only=True):
    """A probe with those of its ports and families that a group has in common."""

    probe: str
    protocol: Protocol
    ports: tuple[int, ...]
    families: tuple[Family, ...]

    @property
    def label(self) -> str:
        """`bgp tcp/179`, `flannel udp/4789,8472`, `ipip (protocol 4)`."""
        if not self.ports:
            return f"{self.probe} (protocol {self.protocol.label})"
        return f"{self.probe} {self.protocol.label}/{','.join(str(port) for port in self.ports)}"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """
    Flows with one cause.

    `where` says where they were lost, `hint` what is worth knowing about that ("" for nothing), `evidence`
    what was counted for `example`, the first of the flows. `by` is who refused: the addresses of routers,
    none for nobody or one of the two ends. `silent` are those of the `cells` that are filtered although the
    group's verdict is another: probably refused, and not heard to be.
    """

    verdict: Verdict
    segment: Segment | None
    by: tuple[str, ...]
    what: tuple[What, ...]
    routes: tuple[Route, ...]
    where: str
    hint: str
    evidence: str
    example: Cell
    cells: tuple[Cell, ...]
    silent: tuple[Cell, ...]
    caveats: Mapping[Caveat, int]


class Untested(msgspec.Struct, frozen=True, kw_only=True):
    """Flows that could not be tested for one reason."""

    reason: str
    what: tuple[What, ...]
    routes: tuple[Route, ...]
    cells: tuple[Cell, ...]


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All flows that are not open, in groups: most flows first."""

    blocked: tuple[Group, ...]
    closed: tuple[Group, ...]
    untested: tuple[Untested, ...]


class _Unit(msgspec.Struct, frozen=True, order=True):
    """What step 1 keeps apart and step 2 joins; `place` is where the unit came up first in the run."""

    place: int
    probe: str
    protocol: Protocol
    port: int
    family: str


class _Cause(msgspec.Struct, frozen=True):
    verdict: Verdict
    segment: Segment | None
    by: str
    side: str
    stage: str
    counter: str = ""
    rationed: bool = False


class _Lost(msgspec.Struct):
    """Some units that are lost between the same pairs, from one cause on one side."""

    units: tuple[_Unit, ...]
    pairs: set[Pair]
    cells: list[Cell]


def diagnose(
    run: Run, cells: Iterable[Cell] | None = None, names: Mapping[str, str] | None = None
) -> Diagnosis:
    """
    Group the flows of a run that are not open.

    `cells` limits this to some of the run's cells. `names` are the hosts' names as the texts shall have them,
    where they are not those of the inventory.
    """
    grouper = _Grouper(run, names or {})
    not_open = [
        cell
        for cell in sorted(run.cells if cells is None else cells, key=_number)
        if cell.judgement.verdict is not Verdict.OPEN
    ]
    groups = grouper.groups([cell for cell in not_open if cell.judgement.verdict is not Verdict.UNTESTED])
    return Diagnosis(
        blocked=tuple(group for group in groups if group.verdict is not Verdict.CLOSED),
        closed=tuple(group for group in groups if group.verdict is Verdict.CLOSED),
        untested=grouper.untested([cell for cell in not_open if cell.judgement.verdict is Verdict.UNTESTED]),
    )


def reason(cell: Cell) -> str:
    """Why a flow was not tested."""
    return cell.evidence.untested or cell.judgement.detail or "no reason given"


class _Grouper:
    def __init__(self, run: Run, names: Mapping[str, str]) -> None:
        self._names = names
        self._order = {host.name: place for place, host in enumerate(run.inventory.hosts)}
        self._host_of = {address: host.name for host in run.inventory.hosts for address in host.addresses}
        self._networks = _networks(run)
        self._units: dict[tuple[str, int | None, Family], _Unit] = {}
        self._universe: dict[_Unit, set[Pair]] = {}
        for cell in sorted(run.cells, key=_number):
            flow = cell.flow
            key = (flow.probe, flow.port, flow.family)
            if (unit := self._units.get(key)) is None:
                unit = _Unit(len(self._units), flow.probe, flow.protocol, flow.port or 0, flow.family.value)
                self._units[key] = unit
                self._universe[unit] = set()
            self._universe[unit].add((flow.src, flow.dst))

    def groups(self, cells: Iterable[Cell]) -> list[Group]:
        """Every step of the module's description."""
        by_probe: dict[tuple[_Cause, str, frozenset[Pair]], _Lost] = {}
        for (cause, unit), found in self._by_unit(cells).items():
            pairs = {(cell.flow.src, cell.flow.dst) for cell in found}
            _join(by_probe, (cause, unit.probe, frozenset(pairs)), _Lost((unit,), pairs, found))

        by_side: dict[tuple[_Cause, tuple[_Unit, ...]], _Lost] = {}
        for (cause, _, _), lost in by_probe.items():
            _join(by_side, (msgspec.structs.replace(cause, side=""), lost.units), lost)

        by_pairs: dict[tuple[_Cause, frozenset[Pair]], _Lost] = {}
        for (cause, _), lost in by_side.items():
            for part in self._alike(cause, lost):
                _join(by_pairs, (cause, frozenset(part.pairs)), part)

        by_cause: dict[_Cause, list[_Lost]] = {}
        for (cause, _), lost in by_pairs.items():
            by_cause.setdefault(cause, []).append(lost)
        groups = [
            self._group(cause, lost)
            for cause, some in by_cause.items()
            for lost in (some if _has_side(cause) else self._shared(some))
        ]
        return sorted(groups, key=lambda group: (-len(group.cells), group.example.flow.number))

    def untested(self, cells: Iterable[Cell]) -> tuple[Untested, ...]:
        """By reason alone: it names the host where there is one to blame."""
        by_reason: dict[str, list[Cell]] = {}
        for cell in cells:
            by_reason.setdefault(reason(cell), []).append(cell)
        found = [
            Untested(
                reason=why,
                what=_what({self._unit(cell.flow) for cell in some}),
                routes=self._routes({(cell.flow.src, cell.flow.dst) for cell in some}, self._units.values()),
                cells=tuple(some),
            )
            for why, some in by_reason.items()
        ]
        return tuple(sorted(found, key=lambda group: (-len(group.cells), group.cells[0].flow.number)))

    def _unit(self, flow: Flow) -> _Unit:
        return self._units[flow.probe, flow.port, flow.family]

    def _by_unit(self, cells: Iterable[Cell]) -> _ByUnit:
        found: _ByUnit = {}
        for cell in cells:
            judgement, session = cell.judgement, cell.evidence.session
            cause = _Cause(
                verdict=judgement.verdict,
                segment=judgement.segment,
                by=self._by(cell),
                side=_side(cell),
                stage=session.stage if session is not None else "",
                counter=cell.evidence.counter,
                rationed=judgement.verdict is Verdict.FILTERED and RATIONED in cell.evidence.notes,
            )
            found.setdefault((cause, self._unit(cell.flow)), []).append(cell)
        return self._with_silent(self._with_routers(found))

    def _with_routers(self, found: _ByUnit) -> _ByUnit:
        """Addresses that may be those of one router as one refuser: no network hears two of them."""
        told: dict[tuple[_Cause, _Unit], dict[str, set[str]]] = {}
        for (cause, unit), cells in found.items():
            if self._is_router(cause.by):
                heard = told.setdefault((_by_anybody(cause), unit), {})
                for cell in cells:
                    heard.setdefault(self._told(cell), set()).add(cause.by)
        # Of each router its number, and the address that each network knows it by.
        routers: dict[_Cause, list[tuple[int, dict[str, str]]]] = {}
        of_unit: dict[tuple[_Cause, _Unit], tuple[int, dict[str, str]]] = {}
        for (cause, unit), heard in told.items():
            if any(len(addresses) > 1 for addresses in heard.values()):
                continue
            speaks = {network: address for network, (address,) in heard.items()}
            known = routers.setdefault(cause, [])
            like = (each for each in known if all(each[1].get(at, by) == by for at, by in speaks.items()))
            router = next(like, None)
            if router is None:
                router = len(known), {}
                known.append(router)
            router[1].update(speaks)
            of_unit[cause, unit] = router
        joined: _ByUnit = {}
        for (cause, unit), cells in found.items():
            number, addresses = of_unit.get((_by_anybody(cause), unit), (0, {}))
            is_joined = self._is_router(cause.by) and len({*addresses.values()}) > 1
            refused = msgspec.structs.replace(cause, by=f"router {number}") if is_joined else cause
            joined.setdefault((refused, unit), []).extend(cells)
        return joined

    def _is_router(self, by: str) -> bool:
        return by not in ("", _SOURCE, _DESTINATION) and by not in self._host_of

    def _told(self, cell: Cell) -> str:
        """The network that a refusal is told to: a router speaks from its address in it, or towards it."""
        flow = cell.flow
        name = flow.dst if cell.judgement.segment is Segment.RETURN_PATH else flow.src
        return self._networks.get((name, flow.family), name)

    @staticmethod
    def _with_silent(found: _ByUnit) -> _ByUnit:
        """Flows whose refusals were rationed with those of the same place, unit and hosts that were heard."""
        refusals: dict[tuple[object, ...], list[_Cause]] = {}
        ends: dict[_Cause, tuple[set[str], set[str]]] = {}
        for (cause, unit), cells in found.items():
            if cause.verdict in (Verdict.REJECTED, Verdict.UNREACHABLE):
                refusals.setdefault((cause.segment, cause.side, cause.stage, unit), []).append(cause)
                sources, destinations = ends.setdefault(cause, (set(), set()))
                sources.update(cell.flow.src for cell in cells)
                destinations.update(cell.flow.dst for cell in cells)
        joined: _ByUnit = {}
        for (cause, unit), cells in found.items():
            heard = refusals.get((cause.segment, cause.side, cause.stage, unit), []) if cause.rationed else []
            for cell in cells:
                like = [
                    each
                    for each in heard
                    if cell.flow.src in ends[each][0] and cell.flow.dst in ends[each][1]
                ]
                joined.setdefault((like[0] if len(like) == 1 else cause, unit), []).append(cell)
        return joined

    def _by(self, cell: Cell) -> str:
        """Who refused; an end of the flow by its part in it, since its address differs from flow to flow."""
        by = cell.judgement.by
        host = self._host_of.get(by, by)
        if not by:
            return ""
        if host == cell.flow.src or by == cell.flow.src_address:
            return _SOURCE
        if host == cell.flow.dst or by == cell.flow.dst_address:
            return _DESTINATION
        return by

    def _alike(self, cause: _Cause, lost: _Lost) -> list[_Lost]:
        """What the hosts on one side lost, those together that lost it from (or to) the same others."""
        if not _has_side(cause):
            return [lost]
        at = 0 if cause.segment in _AT_SOURCE else 1
        part_of: dict[str, _Lost] = {}
        parts: list[_Lost] = []
        for sides, _ in products([(pair[at], pair[1 - at]) for pair in lost.pairs], self._order):
            parts.append(_Lost(lost.units, set(), []))
            part_of.update(dict.fromkeys(sides, parts[-1]))
        for cell in lost.cells:
            pair = (cell.flow.src, cell.flow.dst)
            part_of[pair[at]].pairs.add(pair)
            part_of[pair[at]].cells.append(cell)
        return parts

    def _shared(self, losts: list[_Lost]) -> list[_Lost]:
        """Step 5; `losts` are those of one cause, each with other pairs."""
        ordered = sorted(losts, key=lambda lost: len(lost.pairs))
        for place, small in enumerate(ordered):
            for large in ordered[place + 1 :]:
                if not small.pairs < large.pairs:
                    continue
                rest = large.pairs - small.pairs
                if len(self._routes(rest, large.units)) >= len(self._routes(large.pairs, large.units)):
                    continue
                cells = large.cells
                small.units = tuple(sorted({*small.units, *large.units}))
                small.cells += [cell for cell in cells if (cell.flow.src, cell.flow.dst) in small.pairs]
                large.pairs = rest
                large.cells = [cell for cell in cells if (cell.flow.src, cell.flow.dst) in rest]
        return ordered

    def _routes(self, pairs: set[Pair], units: Iterable[_Unit]) -> tuple[Route, ...]:
        return routes(pairs, self._order, set().union(*(self._universe[unit] for unit in units)))

    def _group(self, cause: _Cause, lost: _Lost) -> Group:
        cells = sorted(lost.cells, key=_number)
        telling = [cell for cell in cells if cell.judgement.verdict is cause.verdict]
        if not telling:  # what was heard is in another group
            cause = msgspec.structs.replace(cause, verdict=Verdict.FILTERED, by="", rationed=True)
            telling = cells
        is_end = cause.by in ("", _SOURCE, _DESTINATION)
        by = () if is_end else tuple(dict.fromkeys(cell.judgement.by for cell in telling))
        silent = tuple(cell for cell in cells if cell.judgement.verdict is not cause.verdict)
        found = self._routes(lost.pairs, lost.units)
        caveats: dict[Caveat, int] = {}
        for cell in cells:
            for caveat in cell.judgement.caveats:
                caveats[caveat] = caveats.get(caveat, 0) + 1
        said = (
            _counted(cause.counter),
            STAGES.get(cause.stage, "") or _hint(cause, lost.units),
            SEVERAL_ADDRESSES if len(by) > len({":" in address for address in by}) else "",
            RATIONED_TOO if silent else "",
            RATIONED_ALONE if cause.rationed else "",
        )
        return Group(
            verdict=cause.verdict,
            segment=cause.segment,
            by=by,
            what=_what(set(lost.units)),
            routes=found,
            where=self._where(cause, by, lost.pairs, lost.units),
            hint=" ".join(filter(None, said)),
            evidence=in_one_line(telling[0], self._names),
            example=telling[0],
            cells=tuple(cells),
            silent=silent,
            caveats=caveats,
        )

    def _where(
        self, cause: _Cause, addresses: tuple[str, ...], pairs: set[Pair], units: Iterable[_Unit]
    ) -> str:
        src = self._one({pair[0] for pair in pairs}, "the source")
        dst = self._one({pair[1] for pair in pairs}, "the destination")
        shown = addresses if len(addresses) <= _ADDRESSES_SHOWN else addresses[: _ADDRESSES_SHOWN - 1]
        by = {
            "": "who, it does not say",
            _SOURCE: f"{src} itself",
            _DESTINATION: f"in {dst}'s name",
        }.get(cause.by, ", ".join(shown))
        if len(shown) < len(addresses):
            by += f" and {len(addresses) - len(shown)} more"
        if cause.by in self._host_of:
            host = self._host_of[cause.by]
            by = f"{self._names.get(host, host)}, {cause.by}"
        is_answered = any(unit.protocol is Protocol.TCP for unit in units)
        is_handed_on = cause.verdict is Verdict.INTERCEPTED and not is_answered
        words = HANDED_ON if is_handed_on else CAUSES[cause.verdict][cause.segment]
        text = words.format(src=src, dst=dst, by=by)
        # A sentence starts with a capital, a host's name as it is written.
        return f"The {text[4:]}" if text.startswith("the ") else text

    def _one(self, hosts: set[str], many: str) -> str:
        if len(hosts) > 1:
            return many
        host = next(iter(hosts))
        return self._names.get(host, host)


def _hint(cause: _Cause, units: Iterable[_Unit]) -> str:
    """What is worth knowing where nothing but one probe is lost on the path without a word."""
    if (cause.verdict, cause.segment) != (Verdict.FILTERED, Segment.PATH):
        return ""
    hints = {probe.hint if (probe := registry().get(unit.probe)) else "" for unit in units}
    return hints.pop() if len(hints) == 1 else ""


def _counted(counter: str) -> str:
    return (
        COUNTED.format(counter=counters.short(counter), meaning=counters.MEANINGS[counter]) if counter else ""
    )


def _by_anybody(cause: _Cause) -> _Cause:
    return msgspec.structs.replace(cause, by="")


def _networks(run: Run) -> dict[tuple[str, Family], str]:
    """The network of each host's first address of a family, as far as the hosts told."""
    found: dict[tuple[str, Family], str] = {}
    for report in run.hosts:
        for text in report.networks:
            try:
                interface = ip_interface(text)
            except ValueError:  # what an agent says is not trusted
                continue
            found.setdefault((report.name, Family.of(str(interface.ip))), str(interface.network))
    return found


def _side(cell: Cell) -> str:
    """The host that loses the flow, "" for the path: nothing listens at the destination, too."""
    if cell.judgement.segment in _AT_SOURCE:
        return cell.flow.src
    if cell.judgement.segment in _AT_DESTINATION or cell.judgement.verdict is Verdict.CLOSED:
        return cell.flow.dst
    return ""


def _has_side(cause: _Cause) -> bool:
    return cause.segment in (*_AT_SOURCE, *_AT_DESTINATION) or cause.verdict is Verdict.CLOSED


def _join(table: dict[_Key, _Lost], key: _Key, lost: _Lost) -> None:
    """Add to what is already there under a key, in place: `lost` is used up."""
    if (earlier := table.get(key)) is None:
        table[key] = lost
        return
    if earlier.units != lost.units:
        earlier.units = tuple(sorted({*earlier.units, *lost.units}))
    earlier.pairs |= lost.pairs
    earlier.cells += lost.cells


def _what(units: set[_Unit]) -> tuple[What, ...]:
    """Ports of a probe together where they have the same families."""
    ports: dict[tuple[str, Protocol], dict[int, list[Family]]] = {}
    for unit in sorted(units):
        ports.setdefault((unit.probe, unit.protocol), {}).setdefault(unit.port, []).append(
            Family(unit.family)
        )
    found: list[What] = []
    for (probe, protocol), families in ports.items():
        alike: dict[tuple[Family, ...], list[int]] = {}
        for port, some in families.items():
            alike.setdefault(tuple(some), []).append(port)
        found.extend(
            What(probe=probe, protocol=protocol, ports=tuple(port for port in some if port), families=both)
            for both, some in alike.items()
        )
    return tuple(found)
