"""What a check of the hosts finds, as plain frozen values: requirements, and what came of them at each."""

from __future__ import annotations

from typing import Final

import msgspec

from netprobe.model import Inventory, Symbol


class Result(Symbol):
    """
    What came of a requirement at a host; declared in the order of a report.

    UNKNOWN: it could not be found out, which is neither a pass nor a failure. NOT_APPLICABLE: the host, or
    the modes that were chosen, do not need it.
    """

    FAIL = "fail"
    UNKNOWN = "unknown"
    WARN = "warn"
    PASS = "pass"  # noqa: S105 - no password
    NOT_APPLICABLE = "not-applicable"


class Level(Symbol):
    """How much a requirement weighs; one that is only RECOMMENDED never fails, it warns."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """
    A requirement, as it is told.

    `id` is a contract. `source` are the requirements page's own words, or where else it is written; `method`
    is how it is found out, `fix` what to do where it fails. With `modes` it is required for these only.
    """

    id: str
    title: str
    source: str
    method: str
    fix: str
    group: str = ""
    level: Level = Level.REQUIRED
    modes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its level in words: `required`, `required for ipip, …`, `recommended`."""
        if not self.modes:
            return self.level.value
        return f"{self.level.value} for {', '.join(self.modes)}"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of the requirement `id` at a host; `seen` is the evidence, `fix` empty where all is well."""

    id: str
    result: Result
    seen: str
    fix: str = ""


class HostFindings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All findings of a host, in the order of the requirements; `error` is why it said nothing, or ""."""

    name: str
    findings: tuple[Finding, ...]
    error: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """
    A whole check: what was asked for, the requirements, and what was found at each host.

    `modes` are those that were chosen, None for all that there are. `root` is the directory that was taken
    for / on the hosts. Times are ISO 8601.
    """

    inventory: Inventory
    modes: tuple[str, ...] | None
    root: str
    requirements: tuple[Criterion, ...]
    hosts: tuple[HostFindings, ...]
    started: str
    finished: str
    versions: dict[str, str]

    def criterion(self, finding: Finding) -> Criterion:
        """The requirement that a finding is about."""
        return next(each for each in self.requirements if each.id == finding.id)

    @property
    def exit_status(self) -> int:
        """0: all that is required passes; 1: some of it fails; 3: some is unknown, and none fails."""
        required = {each.id for each in self.requirements if each.level is Level.REQUIRED}
        results = {each.result for host in self.hosts for each in host.findings if each.id in required}
        return next((status for result, status in _STATUSES if result in results), 0)


_STATUSES: Final = ((Result.FAIL, 1), (Result.UNKNOWN, 3))
