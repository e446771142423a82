"""A trace for people: a line for each hop, the flow beside one that is open, and what the two say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tabulate import tabulate

from netprobe import hops
from netprobe.diagnosis.evidence import in_one_line
from netprobe.diagnosis.names import Names
from netprobe.model import Cell, Hop, Reply, Run, Trace, Verdict
from netprobe.reports._pen import Pen
from netprobe.reports.base import Options

_SILENT, _UNSURE = "*", "?"
_LEGEND = {
    _SILENT: "* no word, and whoever is there was asked again",
    _UNSURE: "? no word; whoever is there may have had none to spare",
}


def render(run: Run, options: Options) -> str:
    """The traces of a run, each with the cell of its flow."""
    cells = {cell.flow: cell for cell in run.cells}
    text = _Text(Pen(options), Names(run))
    return "\n".join("\n".join(text.lines(trace, cells[trace.flow])) + "\n" for trace in run.traces)


class _Text:
    def __init__(self, pen: Pen, names: Names) -> None:
        self._pen = pen
        self._names = names.short

    def lines(self, trace: Trace, cell: Cell) -> Iterator[str]:
        """The verdict, the hops, and how far the packets come."""
        yield from self._verdict(cell)
        if trace.hops:
            yield ""
            yield from self._table(trace)
        yield ""
        yield from map(self._pen.bold, self._pen.wrap(hops.in_one_line(trace, self._names)))

    def _verdict(self, cell: Cell) -> Iterator[str]:
        flow, judgement, pen = cell.flow, cell.judgement, self._pen
        verdict = judgement.verdict.value
        at = f" @ {judgement.segment.value}" if judgement.segment is not None else ""
        what = f"{hops.label(flow)} {flow.family.value}, {self._names[flow.src]} → {self._names[flow.dst]}"
        first, *others = pen.wrap(
            f"{what} ({flow.src_address} → {flow.dst_address}): {verdict}{at}", "", "  "
        )
        yield first
        yield from others
        said = judgement.detail
        if judgement.verdict is not Verdict.UNTESTED:
            said = in_one_line(cell, self._names)
        yield from pen.wrap(said, "  ", "  ")

    def _table(self, trace: Trace) -> Iterator[str]:
        traces = [trace] if trace.reference is None else [trace, trace.reference]
        headers = ["hop"]
        for each in traces:
            headers += [hops.label(each.flow), "ms"]
        shown = max(len(each.hops) for each in traces)
        if trace.reference is not None and trace.reference.error:
            shown = len(trace.hops)
        rows = [[str(ttl), *self._squares(traces, ttl)] for ttl in range(1, shown + 1)]
        yield from map(
            self._pen.text, tabulate(rows, headers, tablefmt="plain", disable_numparse=True).splitlines()
        )
        yield from _legend(each for one in traces for each in one.hops)

    def _squares(self, traces: Iterable[Trace], ttl: int) -> Iterator[str]:
        for trace in traces:
            hop = trace.hops[ttl - 1] if ttl <= len(trace.hops) else None
            yield "" if hop is None else self._square(hop, trace)
            yield "" if hop is None or hop.rtt_ms is None else f"{hop.rtt_ms:.2f}"

    def _square(self, hop: Hop, trace: Trace) -> str:
        match hop.reply:
            case Reply.NONE:
                return _UNSURE if hop.is_unsure else _SILENT
            case Reply.EXCEEDED:
                return hop.by
            case Reply.ARRIVED:
                return self._names[trace.flow.dst]
            case Reply.ANSWERED:
                return f"answered in {self._names[trace.flow.dst]}'s name"
            case Reply.REFUSED:
                return f"refused by {hop.by}" if hop.by else "refused"


def _legend(every: Iterable[Hop]) -> Iterator[str]:
    silent = {_UNSURE if hop.is_unsure else _SILENT for hop in every if hop.reply is Reply.NONE}
    yield from (meaning for glyph, meaning in _LEGEND.items() if glyph in silent)
