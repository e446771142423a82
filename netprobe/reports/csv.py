"""
One line a cell, for scripts and spreadsheets (design §5).

RFC 4180 quoting, and lines that end in a line feed alone: this goes through `cut`, `awk` and `grep`, which
would take a carriage return for the end of the last field.
"""

from __future__ import annotations

import csv
import io
from typing import Final

from netprobe.model import Cell, Run
from netprobe.reports.base import Options, Report, printable

HEADER: Final = (
    "probe",
    "family",
    "protocol",
    "port",
    "src",
    "src_address",
    "dst",
    "dst_address",
    "verdict",
    "segment",
    "by",
    "caveats",
    "sent",
    "arrived",
    "rtt_ms",
    "detail",
)
"""The columns, a contract: a new one goes to the end."""


def render(run: Run, _options: Options) -> str:
    """Every cell in flow order; what is not known or does not apply is empty."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(_fields, sorted(run.cells, key=lambda cell: cell.flow.number)))
    return lines.getvalue()


def _fields(cell: Cell) -> tuple[str | int, ...]:
    flow, judgement, rtt_ms = cell.flow, cell.judgement, cell.rtt_ms
    return (
        printable(flow.probe),
        flow.family.value,
        flow.protocol.label,
        "" if flow.port is None else flow.port,
        printable(flow.src),
        printable(flow.src_address),
        printable(flow.dst),
        printable(flow.dst_address),
        judgement.verdict.value,
        "" if judgement.segment is None else judgement.segment.value,
        printable(judgement.by),
        ";".join(caveat.value for caveat in judgement.caveats),
        cell.sent,
        cell.arrived,
        "" if rtt_ms is None else f"{rtt_ms:.3f}",
        printable(judgement.detail),
    )


REPORT = Report(
    name="csv", extension="csv", summary="One line a cell, for scripts and spreadsheets.", render=render
)
