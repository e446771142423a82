"""Checks that nobody made, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping

from netprobe.findings import Check, Criterion, Finding, HostFindings, Level, Result
from netprobe.model import Host, Inventory

CRITERIA = (
    Criterion(id="arch", title="Processor", source="x86-64", method="uname", fix="Buy one.", group="Node"),
    Criterion(
        id="device-ipip",
        title="Interfaces of kind ipip",
        source="When IPIP is enabled",
        method="made",
        fix="Install the module.",
        group="Interfaces",
        modes=("ipip",),
    ),
    Criterion(
        id="distribution",
        title="Distribution",
        source="Debian 8",
        method="os-release",
        fix="Use another.",
        group="Node",
        level=Level.RECOMMENDED,
    ),
)


def finding(name: str, result: Result, seen: str = "") -> Finding:
    """What came of a requirement; with its fix where it did not pass."""
    fixes = {each.id: each.fix for each in CRITERIA}
    is_wrong = result in (Result.FAIL, Result.WARN)
    return Finding(
        id=name, result=result, seen=seen or f"{name} was seen", fix=fixes[name] if is_wrong else ""
    )


def host(name: str, *results: Result, error: str = "", seen: Mapping[str, str] | None = None) -> HostFindings:
    """A host with these results, one for each criterion."""
    said = seen or {}
    findings = tuple(
        finding(each.id, result, error or said.get(each.id, ""))
        for each, result in zip(CRITERIA, results, strict=True)
    )
    return HostFindings(name=name, findings=findings, error=error)


def check(*hosts: HostFindings, modes: tuple[str, ...] | None = None) -> Check:
    """A check of these hosts."""
    return Check(
        inventory=Inventory(hosts=tuple(Host(name=each.name, addresses=()) for each in hosts)),
        modes=modes,
        root="/",
        requirements=CRITERIA,
        hosts=hosts,
        started="2026-01-02T03:04:05.000+00:00",
        finished="2026-01-02T03:04:06.000+00:00",
        versions={"netprobe": "1"},
    )
