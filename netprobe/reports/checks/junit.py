"""For continuous integration: JUnit XML, a suite for each host and a case for each requirement."""

from __future__ import annotations

from collections import Counter
from typing import Final
from xml.etree import ElementTree as ET

from netprobe.findings import Check, Criterion, Finding, HostFindings, Level, Result
from netprobe.reports.base import Options, printable
from netprobe.reports.checks.base import CheckReport


def render(check: Check, _options: Options) -> str:
    """
    Every finding, in the dialect that Jenkins and GitLab read.

    What fails is a failure, what is not known and required an error, what is not applicable skipped; a
    warning is a case that went well, with the warning as its output.
    """
    criteria = {each.id: each for each in check.requirements}
    suites = ET.Element("testsuites", name="netprobe check")
    for host in check.hosts:
        _suite(suites, host, criteria)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _suite(suites: ET.Element, host: HostFindings, criteria: dict[str, Criterion]) -> None:
    kinds = Counter(_kind(finding, criteria[finding.id]) for finding in host.findings)
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=printable(host.name),
        tests=str(len(host.findings)),
        failures=str(kinds["failure"]),
        errors=str(kinds["error"]),
        skipped=str(kinds["skipped"]),
    )
    for finding in host.findings:
        criterion = criteria[finding.id]
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"netprobe.{printable(host.name)}",
            name=f"{finding.id}: {criterion.title}",
        )
        said = printable(finding.seen)
        kind = _kind(finding, criterion)
        if kind:
            inner = ET.SubElement(case, kind, message=said)
            inner.text = _more(finding, criterion)
        elif finding.result is Result.WARN:
            ET.SubElement(case, "system-out").text = f"warning: {said}\n{_more(finding, criterion)}"


def _kind(finding: Finding, criterion: Criterion) -> str:
    if finding.result is Result.UNKNOWN and criterion.level is not Level.REQUIRED:
        return "skipped"
    return _KINDS.get(finding.result, "")


_KINDS: Final = {Result.FAIL: "failure", Result.UNKNOWN: "error", Result.NOT_APPLICABLE: "skipped"}


def _more(finding: Finding, criterion: Criterion) -> str:
    fix = f"fix: {printable(finding.fix)}\n" if finding.fix else ""
    return f"{fix}level: {criterion.label}\nsource: {printable(criterion.source)}"


REPORT = CheckReport(
    name="junit",
    extension="xml",
    summary="For continuous integration: a suite for each host, a case for each requirement.",
    render=render,
)
