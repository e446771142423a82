"""
The report for people, on a terminal.

What is read first stands last, where the prompt comes back: one line for each mode. Above it, going up: how
many flows there were, which hosts had problems, caveats, what was not tested and why, the blocked flows by
cause, and the matrices they make up.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from netprobe import __version__, hops
from netprobe.diagnosis import Group, Route, Untested, What, diagnose
from netprobe.diagnosis.evidence import in_one_line
from netprobe.diagnosis.names import FEW, Names
from netprobe.model import Caveat, Cell, Family, Protocol, Run, Verdict
from netprobe.modes import Matrix, ModeResult, evaluate, needed_cells, required_flows
from netprobe.reports._pen import Pen
from netprobe.reports._squares import MEANINGS, Table, draw
from netprobe.reports.base import Options, Report, when

SMALL: Final = 10
"""Clusters of so many hosts get their matrix printed even where nothing is wrong."""

_MANY: Final = 12
"""So many groups, routes or hosts are listed; the rest is counted, unless everything was asked for."""

_FEW_ROUTES: Final = 4
_LIST_WIDTH: Final = 60
_INDENT: Final = "   "
_NOTHING_NEEDED: Final = "nothing probed, all hosts share a subnet"
_LEFT_OUT: Final = (
    "whether the network carries packets of pods, which go without encapsulation there; give the range of "
    "their addresses as pod_cidr"
)

_CAVEATS: Final[Mapping[Caveat, str]] = {
    Caveat.STATE_ASSISTED: "an earlier packet between the same two hosts may have opened the way through a "
    "stateful firewall, so a new connection may fare worse",
    Caveat.NAT: "an address was translated on the way",
    Caveat.RETRIED: "the first packets were lost, a repeat got through",
    Caveat.ECMP: "some source ports get through and others do not: one of several equal paths may be broken",
}
_TCP_IN_USE: Final = "a program holds the port there: only SYNs were sent, and it saw no connection"
_UDP_IN_USE: Final = (
    "a program or a device of the kernel holds the port there: it got datagrams that mean nothing to it"
)


def render(run: Run, options: Options) -> str:
    """The whole report; see the module for its order."""
    return "\n".join(_Text(run, options).lines()) + "\n"


class _Text:
    """One run as seen on one terminal."""

    def __init__(self, run: Run, options: Options) -> None:
        self._run = run
        self._verbose = options.verbose
        self._pen = Pen(options)
        self._names = Names(run)
        self._families: dict[str, set[Family]] = {}
        for cell in run.cells:
            self._families.setdefault(cell.flow.probe, set()).add(cell.flow.family)
        self._results = evaluate(run)
        self._required = required_flows(run, self._results)

    def lines(self) -> Iterator[str]:
        """Every line of the report: its paragraphs, with a blank line between two."""
        first = True
        for paragraph in self._paragraphs():
            if lines := list(paragraph):
                if not first:
                    yield ""
                yield from lines
                first = False

    def _paragraphs(self) -> Iterator[Iterable[str]]:
        if self._verbose:
            yield self._every_cell()
        if self._names.domain:
            yield self._pen.wrap(f"Host names are without {self._names.domain}")
        yield from self._matrices()
        yield from self._not_open()
        yield self._caveats()
        yield self._hosts()
        yield self._left_out()
        yield self._footer()
        yield self._modes()

    # The matrices.

    def _matrices(self) -> Iterator[Iterable[str]]:
        glyphs: set[str] = set()
        brief: list[str] = []
        for results in _alike(self._results):
            matrix = results[0].matrix
            names = [result.mode.name for result in results]
            if not matrix.squares and not matrix.gaps:
                continue
            if results[0].usable and len(self._names.hosts) > SMALL:
                brief += names
                continue
            table = draw(matrix, self._names, self._pen, every_fault=self._verbose)
            glyphs |= table.glyphs
            yield self._matrix(", ".join(names), results, table)
        if brief:
            yield self._pen.wrap(f"Every square is open: {', '.join(brief)}", hanging="  ")
        known = {glyph: meaning for glyph, meaning in MEANINGS.items() if glyph in glyphs}
        yield self._pen.wrap("   ".join(f"{glyph} {meaning}" for glyph, meaning in known.items()))

    def _matrix(self, names: str, results: Sequence[ModeResult], table: Table) -> Iterator[str]:
        title = names if len(results) > 1 else f"{names}: {results[0].mode.summary}"
        yield from map(self._pen.bold, self._pen.wrap(title))
        yield from table.lines
        for left_out in table.left_out:
            yield from self._pen.wrap(left_out)

    # What is not open.

    def _not_open(self) -> Iterator[Iterator[str]]:
        needed = list(needed_cells(self._required))
        diagnosis = diagnose(self._run, needed, self._names.short)
        yield self._groups("Blocked", diagnosis.blocked)
        yield self._groups("Closed", diagnosis.closed)
        yield self._untested(diagnosis.untested)
        yield self._not_needed({cell.flow.number for cell in needed})

    def _groups(self, title: str, groups: Sequence[Group]) -> Iterator[str]:
        if not groups:
            return
        flows = sum(len(group.cells) for group in groups)
        causes = f"{len(groups)} causes" if len(groups) > 1 else "one cause"
        yield self._pen.bold(f"{title}: {_count(flows)}, {causes}")
        shown = groups if self._verbose else groups[:_MANY]
        for number, group in enumerate(shown, 1):
            yield from self._group(number, group)
        if rest := groups[len(shown) :]:
            flows = sum(len(group.cells) for group in rest)
            yield from self._pen.wrap(
                f"… and {len(rest)} causes more, {_count(flows)} (-v shows them)", _INDENT
            )

    def _group(self, number: int, group: Group) -> Iterator[str]:
        pen = self._pen
        verdict = group.verdict.value
        at = f" @ {group.segment.value}" if group.segment is not None else ""
        routes = list(self._routes(group.routes))
        head = f"{number:>2} {verdict}{at}, {self._what(group.what)}"
        if len(routes) == 1:
            head += f": {routes.pop()}"
        flows = _count(len(group.cells) - len(group.silent))
        if group.silent:
            flows += f", and {len(group.silent):,} filtered"
        first, *others = pen.wrap(f"{head} ({flows})", "", _INDENT)
        # Coloured after wrapping, which would count the colours' characters.
        yield first.replace(verdict, pen.verdict(verdict, group.verdict), 1)
        yield from others
        for route in routes:
            yield from pen.wrap(route, _INDENT, "  ")
        for text in (group.where, group.hint):
            yield from pen.wrap(text, _INDENT)
        flow = group.example.flow
        short = self._names.short
        example = f"{short[flow.src]} → {short[flow.dst]} ({flow.bears} → {flow.dst_address})"
        lead = "" if len(group.cells) == 1 else "e.g. "
        yield from pen.wrap(f"{lead}{example}: {group.evidence}", _INDENT, "  ")
        yield from self._trace(group)
        if group.caveats:
            caveats = (f"{caveat.value} ({count})" for caveat, count in group.caveats.items())
            yield from pen.wrap(f"caveats: {', '.join(caveats)}", _INDENT)

    def _trace(self, group: Group) -> Iterator[str]:
        """At which hop the group's example was lost, where that was asked for."""
        for trace in self._run.traces:
            if trace.flow == group.example.flow:
                # What was lost before may come through later: a device between has been opened meanwhile.
                again = "this time it " if trace.arrived_ttl is not None else ""
                said = hops.in_one_line(trace, self._names.short)
                yield from self._pen.wrap(f"trace: {again}{said}", _INDENT, "  ")

    def _untested(self, groups: Sequence[Untested]) -> Iterator[str]:
        if not groups:
            return
        yield self._pen.bold(f"Not tested: {_count(sum(len(group.cells) for group in groups))}")
        shown = groups if self._verbose else groups[:_MANY]
        for group in shown:
            yield from self._pen.wrap(f"{group.reason} ({_count(len(group.cells))})", _INDENT, "  ")
            what = ", ".join(dict.fromkeys(what.probe for what in group.what))
            yield from self._pen.wrap(
                f"{'; '.join(self._routes(group.routes))}: {what}", _INDENT + "  ", "  "
            )
        if rest := groups[len(shown) :]:
            flows = sum(len(group.cells) for group in rest)
            yield from self._pen.wrap(
                f"… and {len(rest)} reasons more, {_count(flows)} (-v shows them)", _INDENT
            )

    def _not_needed(self, needed: set[int]) -> Iterator[str]:
        """Flows that are not open and that nothing depends on, which is said lest they are missed."""
        alternatives = {cell.flow.number for flow in self._required for cell in flow.cells}
        counts: dict[tuple[str, bool], Counter[Verdict]] = {}
        for cell in self._run.cells:
            verdict, flow = cell.judgement.verdict, cell.flow
            if verdict is not Verdict.OPEN and flow.number not in needed:
                port = f" {flow.protocol.label}/{flow.port}" if flow.port is not None else ""
                key = (f"{flow.probe}{port}", flow.number in alternatives)
                counts.setdefault(key, Counter())[verdict] += 1
        if not counts:
            return
        yield self._pen.bold("Not open, and not needed")
        for (what, is_alternative), verdicts in counts.items():
            why = "another port is enough" if is_alternative else "no mode in question needs it"
            yield from self._pen.wrap(f"{what}: {_verdicts(verdicts)}; {why}", _INDENT, "  ")

    # What else there is to know.

    def _caveats(self) -> Iterator[str]:
        counts: dict[tuple[Caveat, str], Counter[str]] = {}
        holders: dict[str, dict[str, list[str]]] = {}
        for cell in self._run.cells:
            flow = cell.flow
            for caveat in cell.judgement.caveats:
                meaning = _CAVEATS.get(caveat, "")
                if caveat is Caveat.PORT_IN_USE:
                    meaning = _TCP_IN_USE if flow.protocol is Protocol.TCP else _UDP_IN_USE
                    holder = cell.evidence.holder or ""
                    holders.setdefault(meaning, {}).setdefault(holder, []).append(flow.dst)
                counts.setdefault((caveat, meaning), Counter())[flow.probe] += 1
        if not counts:
            return
        yield self._pen.bold("Caveats")
        order = {caveat: place for place, caveat in enumerate(Caveat)}
        for (caveat, meaning), found in sorted(counts.items(), key=lambda item: order[item[0][0]]):
            probes = ", ".join(f"{probe} {count:,}" for probe, count in found.items())
            yield from self._pen.wrap(f"{caveat.value} ({probes} flows): {meaning}", _INDENT, "  ")
            for holder, hosts in holders.get(meaning, {}).items():
                names = self._list(list(dict.fromkeys(hosts)))
                yield from self._pen.wrap(
                    f"{holder or 'an unknown program'} on {names}", _INDENT + "  ", "  "
                )

    def _hosts(self) -> Iterator[str]:
        errors: dict[str, list[str]] = {}
        for report in self._run.hosts:
            if report.error:
                errors.setdefault(report.error, []).append(report.name)
        if not errors:
            return
        hosts = sum(map(len, errors.values()))
        yield self._pen.bold(f"Hosts with problems: {hosts} of {len(self._run.inventory.hosts)}")
        shown = list(errors) if self._verbose else list(errors)[:_MANY]
        for error in shown:
            yield from self._pen.wrap(f"{self._list(errors[error])}: {error}", _INDENT, "  ")
        if len(errors) > len(shown):
            yield from self._pen.wrap(
                f"… and {len(errors) - len(shown)} problems more (-v shows them)", _INDENT
            )

    def _left_out(self) -> Iterator[str]:
        """What would have to be known as well before these modes are usable as they are."""
        modes = [result for result in self._results if result.usable and result.left_out]
        if modes:
            yield self._pen.bold("Not probed")
            probes = ", ".join(dict.fromkeys(probe for result in modes for probe in result.left_out))
            names = ", ".join(result.mode.name for result in modes)
            yield from self._pen.wrap(f"{probes} ({names}): {_LEFT_OUT}", _INDENT, "  ")

    # The end, which is read first.

    def _footer(self) -> Iterator[str]:
        cells = self._run.cells
        verdicts = Counter(cell.judgement.verdict for cell in cells)
        yield from self._pen.wrap(f"{_count(len(cells))}: {_verdicts(verdicts) or 'none'}")
        seconds = (when(self._run.finished) - when(self._run.started)).total_seconds()
        started = when(self._run.started).strftime("%Y-%m-%d %H:%M UTC")
        version = self._run.versions.get("netprobe", __version__)
        packets = self._run.packets or sum(cell.sent for cell in cells)
        facts = (
            f"{len(self._names.hosts):,} hosts, {packets:,} packets in {seconds:.1f} s, {started}, "
            f"netprobe {version}"
        )
        yield from map(self._pen.faint, self._pen.wrap(facts))

    def _modes(self) -> Iterator[str]:
        width = max((len(result.mode.name) for result in self._results), default=0) + 2
        for result in sorted(self._results, key=lambda result: bool(result.missing)):
            yield from self._mode_line(result.mode.name, width, *_outcome(result))

    def _mode_line(self, name: str, width: int, text: str, verdict: Verdict) -> Iterator[str]:
        first, *others = self._pen.wrap(f"{name + ':':<{width}}{text}", hanging=" " * width)
        yield first[:width] + self._pen.verdict(first[width:], verdict)
        yield from others

    # The words of several sections.

    def _what(self, what: Iterable[What]) -> str:
        return ", ".join(
            f"{one.label} {'+'.join(family.value for family in one.families)}"
            if len(self._families[one.probe]) > 1
            else one.label
            for one in what
        )

    def _routes(self, routes: Sequence[Route]) -> Iterator[str]:
        shown = routes if self._verbose else routes[:_FEW_ROUTES]
        for route in shown:
            if route.is_mesh:
                yield f"{self._end(route.sources, (), 'nodes' if route.from_all else '')} among themselves"
                continue
            arrow = "↔" if route.both_ways else "→"
            every_source = "sources" if route.from_all else ""
            every_destination = "destinations" if route.to_all else ""
            sources = self._end(route.sources, route.destinations, every_source)
            destinations = self._end(route.destinations, route.sources, every_destination)
            yield f"{sources} {arrow} {destinations}"
        if rest := routes[len(shown) :]:
            yield f"… and {sum(route.pairs for route in rest):,} pairs more"

    def _end(self, hosts: Sequence[str], others: Sequence[str], every: str) -> str:
        """One end of a route: all hosts, all but a few, all that there are (called `every`), or these."""
        lacking = [host for host in self._names.hosts if host not in {*hosts, *others}]
        everybody = "every other host" if others else "all hosts"
        # Where the other end is a list itself, "every other" makes the reader work it out.
        is_rest = len(hosts) > max(len(others), 1) and len(others) <= FEW
        if is_rest and not lacking:
            return everybody
        if is_rest and every and len(hosts) > FEW:
            return f"all {len(hosts):,} {every}"
        text = self._list(hosts)
        if is_rest and len(text) > _LIST_WIDTH // 2 and len(lacking) < FEW:
            return f"{everybody} but {', '.join(self._names.short[host] for host in lacking)}"
        return text

    def _list(self, hosts: Sequence[str]) -> str:
        # Whoever asks for everything gets every name.
        return self._names.listed(
            hosts, sys.maxsize if self._verbose else min(_LIST_WIDTH, self._pen.width - 12)
        )

    def _every_cell(self) -> Iterator[str]:
        yield self._pen.bold("Every flow")
        for cell in sorted(self._run.cells, key=lambda cell: cell.flow.number):
            yield self._pen.text(self._cell(cell))

    def _cell(self, cell: Cell) -> str:
        flow, judgement = cell.flow, cell.judgement
        port = "" if flow.port is None else f"/{flow.port}"
        parts = [
            f"  {flow.probe} {flow.protocol.label}{port} {flow.family.value}",
            f"{self._names.short[flow.src]} → {self._names.short[flow.dst]}:",
            judgement.verdict.value,
        ]
        if judgement.segment is not None:
            parts.append(f"@ {judgement.segment.value}")
        if judgement.by:
            parts.append(f"by {judgement.by}")
        parts.append(f"{cell.arrived}/{cell.sent}")
        if cell.rtt_ms is not None:
            parts.append(f"{cell.rtt_ms:.2f} ms")
        if judgement.caveats:
            parts.append(f"[{', '.join(caveat.value for caveat in judgement.caveats)}]")
        if judgement.detail:
            parts.append(judgement.detail)
        if judgement.verdict not in (Verdict.OPEN, Verdict.UNTESTED):
            parts.append(f"({in_one_line(cell, self._names.short)})")
        return " ".join(parts)


def _alike(results: Iterable[ModeResult]) -> list[list[ModeResult]]:
    """Modes with the same matrix together."""
    groups: dict[object, list[ModeResult]] = {}
    for result in results:
        matrix: Matrix = result.matrix
        verdicts = frozenset((pair, square.verdict) for pair, square in matrix.squares.items())
        groups.setdefault((matrix.sources, matrix.destinations, verdicts, matrix.gaps.signature), []).append(
            result
        )
    return list(groups.values())


def _outcome(result: ModeResult) -> tuple[str, Verdict]:
    """What a mode comes to in one line, and the verdict whose colour it gets."""
    flows, gaps = _count(result.required), _gaps(result)
    closed = result.counts.get(Verdict.CLOSED, 0)
    blocked = result.blocked - closed
    if result.usable:
        usable = "usable as far as probed" if result.left_out else "usable as it is"
        return f"{usable}, {flows} open" if result.required else _NOTHING_NEEDED, Verdict.OPEN
    parts = [
        f"{count:,} {what}" for count, what in ((closed, "closed"), (result.untested, "untested")) if count
    ]
    outcomes = (
        (blocked, [f"blocked: {blocked:,} of {flows}", *parts, *gaps], Verdict.FILTERED),
        (result.impossible, [f"not usable: {', '.join(gaps)}", *parts], Verdict.UNREACHABLE),
        (closed, [f"nothing listens: {', '.join(parts)}", f"of {flows}", *gaps], Verdict.CLOSED),
        (
            result.untested,
            [f"not known: {result.untested:,} of {flows} untested", *gaps],
            Verdict.UNTESTED,
        ),
        (result.missing, [f"not known: {', '.join(gaps)}"], Verdict.UNTESTED),
        (
            True,
            [f"{result.required:,} of {result.needed:,} needed flows probed, all open"],
            Verdict.UNTESTED,
        ),
    )
    return next((", ".join(words), verdict) for applies, words, verdict in outcomes if applies)


def _gaps(result: ModeResult) -> list[str]:
    """What a mode needs and was not probed, in the words of its line."""
    gaps = []
    if result.impossible:
        why = "; ".join(result.matrix.gaps.obstacles)
        gaps.append(f"{result.impossible:,} of {result.needed:,} flows impossible ({why})")
    if result.missing:
        gaps.append(f"no flow of {', '.join(result.missing)} was probed")
    elif result.not_probed:
        gaps.append(f"{result.not_probed:,} needed ones not probed")
    return gaps


def _verdicts(counts: Mapping[Verdict, int]) -> str:
    return ", ".join(f"{counts[verdict]:,} {verdict.value}" for verdict in Verdict if counts.get(verdict))


def _count(flows: int) -> str:
    return f"{flows:,} {'flow' if flows == 1 else 'flows'}"


REPORT = Report(
    name="text",
    extension="txt",
    summary="Matrices, blocked flows by cause, and a line for each mode, for people.",
    render=render,
)
