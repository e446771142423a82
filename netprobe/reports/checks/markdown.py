"""For tickets and wikis: what does not pass, as a table, and how many hosts each line is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tabulate import tabulate

from netprobe.diagnosis.names import fold
from netprobe.findings import Check, Criterion, Finding, Result
from netprobe.reports.base import Options, printable
from netprobe.reports.checks.base import CheckReport

_LISTED: Final = (Result.FAIL, Result.UNKNOWN, Result.WARN)
_HEADERS: Final = ("result", "requirement", "hosts", "seen", "fix")


def render(check: Check, options: Options) -> str:
    """A table of what fails, is not known or deserves a look, worst first; of everything with `verbose`."""
    criteria = {each.id: each for each in check.requirements}
    results = tuple(Result) if options.verbose else _LISTED
    rows = [row for result in results for row in _rows(check, result, criteria)]
    counts = Counter(finding.result for host in check.hosts for finding in host.findings)
    summary = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
    lost = [f"- {_cell(host.name)}: {_cell(host.error)}" for host in check.hosts if host.error]
    parts = ["# Node requirements", f"Hosts: {len(check.hosts)}. Findings: {summary or 'none'}."]
    if rows:
        parts.append(tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True))
    if lost:
        parts.append("Hosts that could not be asked:\n\n" + "\n".join(lost))
    return "\n\n".join(parts) + "\n"


def _rows(check: Check, result: Result, criteria: dict[str, Criterion]) -> Iterator[tuple[str, ...]]:
    """One for each requirement and all that was seen alike."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for host in check.hosts:
        for finding in host.findings:
            if finding.result is result and not host.error:
                alike.setdefault(_key(finding), []).append(host.name)
    for (id_, seen, fix), hosts in alike.items():
        criterion = criteria[id_]
        yield (
            result.value,
            f"`{id_}` {_cell(criterion.title)} ({criterion.label})",
            _cell(", ".join(fold(hosts))),
            _cell(seen),
            _cell(fix),
        )


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.id, finding.seen, finding.fix


def _cell(text: str) -> str:
    """A text as part of a table: what a host says must not begin another cell, nor be markup."""
    escaped = "".join(f"\\{each}" if each in "\\`*_<>|[]" else each for each in printable(text))
    return " ".join(escaped.split())


REPORT = CheckReport(
    name="markdown",
    extension="md",
    summary="For tickets and wikis: a table of what does not pass, hosts that are alike as one.",
    render=render,
)
