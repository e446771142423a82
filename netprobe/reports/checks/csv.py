"""One line for each requirement of each host, for scripts and spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import Final

from netprobe.findings import Check
from netprobe.reports.base import Options, printable
from netprobe.reports.checks.base import CheckReport

HEADER: Final = ("host", "id", "title", "level", "result", "seen", "fix", "source")
"""The columns, a contract: a new one goes to the end."""


def render(check: Check, _options: Options) -> str:
    """Every finding, in the order of the hosts and of the requirements."""
    criteria = {each.id: each for each in check.requirements}
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(HEADER)
    for host in check.hosts:
        for finding in host.findings:
            criterion = criteria[finding.id]
            fields = (
                host.name,
                finding.id,
                criterion.title,
                criterion.label,
                finding.result.value,
                finding.seen,
                finding.fix,
                criterion.source,
            )
            writer.writerow(map(printable, fields))
    return lines.getvalue()


REPORT = CheckReport(
    name="csv",
    extension="csv",
    summary="One line for each requirement of each host, for scripts and spreadsheets.",
    render=render,
)
