"""For people: hosts that are alike as one, what fails first, with what was seen and the fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from netprobe.diagnosis.names import fold
from netprobe.findings import Check, Criterion, Finding, HostFindings, Result
from netprobe.reports._pen import Pen
from netprobe.reports.base import Options
from netprobe.reports.checks.base import CheckReport

_COLORS: Final[Mapping[Result, str]] = {
    Result.FAIL: "red",
    Result.UNKNOWN: "yellow",
    Result.WARN: "yellow",
    Result.PASS: "green",
    Result.NOT_APPLICABLE: "white",
}
_ALWAYS: Final = (Result.FAIL, Result.UNKNOWN, Result.WARN)
"""Results that are listed also where only the others' number is."""


def render(check: Check, options: Options) -> str:
    """A section for each set of hosts with the same findings, and how many hosts there are of each kind."""
    pen = Pen(options)
    criteria = {each.id: each for each in check.requirements}
    lines: list[str] = []
    for hosts in _alike(check.hosts):
        lines += _section(pen, hosts, criteria, options)
        lines.append("")
    lines += _conclusion(pen, check)
    return "\n".join(lines) + "\n"


def _alike(hosts: Sequence[HostFindings]) -> list[list[HostFindings]]:
    """Hosts with the same findings, what is listed of them to the letter; the worst come first."""
    found: dict[object, list[HostFindings]] = {}
    for host in hosts:
        # What passes is only counted: 40 hosts with 40 hostnames are alike all the same.
        key = tuple(
            (each.id, each.result, each.seen if each.result in _ALWAYS else "", each.fix)
            for each in host.findings
        )
        found.setdefault(key, []).append(host)
    return sorted(found.values(), key=lambda some: [-count for count in _counts(some[0])])


def _counts(host: HostFindings) -> list[int]:
    counter = Counter(each.result for each in host.findings)
    return [counter[result] for result in Result]


def _section(
    pen: Pen, hosts: list[HostFindings], criteria: Mapping[str, Criterion], options: Options
) -> Iterator[str]:
    counter = Counter(each.result for each in hosts[0].findings)
    order = (Result.PASS, Result.FAIL, Result.UNKNOWN, Result.WARN, Result.NOT_APPLICABLE)
    counts = ", ".join(f"{counter[result]} {result.value}" for result in order if counter[result])
    names = ", ".join(fold(host.name for host in hosts))
    yield pen.bold(pen.text(f"{names}: {counts}"))
    if hosts[0].error:
        yield from pen.wrap(hosts[0].error, "  ", "  ")
        return
    shown = tuple(Result) if options.verbose else _ALWAYS
    for result in shown:
        alike: dict[tuple[str, str], list[Finding]] = {}
        for finding in hosts[0].findings:
            if finding.result is result:
                # One cause that keeps many things from being found out is told once.
                key = (finding.seen, finding.fix) if result is Result.UNKNOWN else (finding.id, "")
                alike.setdefault(key, []).append(finding)
        for findings in alike.values():
            yield from _findings(pen, findings, criteria, options)
    if options.verbose and len(hosts) > 1:
        yield from pen.wrap(f"What passes is told of {hosts[0].name}.", "  ", "  ")


def _findings(
    pen: Pen, findings: Sequence[Finding], criteria: Mapping[str, Criterion], options: Options
) -> Iterator[str]:
    """Findings with the same words: usually one."""
    first = findings[0]
    criterion = criteria[first.id]
    text = (
        f"{first.id}: {criterion.title} ({criterion.label})"
        if len(findings) == 1
        else ", ".join(each.id for each in findings)
    )
    heading, *rest = pen.wrap(f"{first.result.value} {text}", "  ", "    ")
    if options.color:
        word = click.style(first.result.value, fg=_COLORS[first.result])
        heading = heading.replace(first.result.value, word, 1)
    yield heading
    yield from rest
    yield from pen.wrap(f"seen: {first.seen}", "    ", "  ")
    if first.fix:
        yield from pen.wrap(f"fix: {first.fix}", "    ", "  ")
    if options.verbose and len(findings) == 1:
        yield from (pen.faint(line) for line in pen.wrap(f"source: {criterion.source}", "    ", "  "))


def _conclusion(pen: Pen, check: Check) -> list[str]:
    """In a sentence or two: how many hosts are fit, and for what."""
    fit = sum(not _is_any(host, check, Result.FAIL, Result.UNKNOWN) for host in check.hosts)
    unfit = sum(_is_any(host, check, Result.FAIL) for host in check.hosts)
    unclear = len(check.hosts) - fit - unfit
    parts = (
        (fit, "meet all that is required"),
        (unfit, "do not"),
        (unclear, "could not be asked everything"),
    )
    said = ", ".join(f"{count} {words}" for count, words in parts if count)
    modes = "all modes" if check.modes is None else f"the modes {', '.join(check.modes)}"
    total = f"{len(check.hosts):,} host{'s' * (len(check.hosts) != 1)}"
    return pen.wrap(f"Of {total} {said}; counted for {modes}.")


def _is_any(host: HostFindings, check: Check, *results: Result) -> bool:
    required = {each.id for each in check.requirements if each.level.value == "required"}
    return any(each.result in results and each.id in required for each in host.findings)


REPORT = CheckReport(
    name="text",
    extension="txt",
    summary="For people: hosts that are alike as one, what fails first, with the fix.",
    render=render,
)
