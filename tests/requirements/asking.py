"""Hosts for the tests of requirements: this machine, behind whatever takes something away from it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from netprobe.coordinator.check import check
from netprobe.findings import Check, Finding, Result
from netprobe.model import Connection, Host, Inventory
from netprobe.requirements.given import Given

REFUSING: Final = str(Path(__file__).with_name("refusing.py"))


def host(name: str, *prefix: str, addresses: tuple[str, ...] = (), python: str = sys.executable) -> Host:
    """The machine here, reached by way of a command; without one, as it is."""
    connection = Connection(type="command", argv=prefix) if prefix else Connection(type="local")
    return Host(name=name, addresses=addresses, connection=connection, python=(python,))


def refusing(*rules: str) -> tuple[str, ...]:
    """The words that run a command under a kernel that refuses some calls; see refusing.py."""
    return (sys.executable, REFUSING, *rules, "--")


def checked(
    *hosts: Host,
    modes: tuple[str, ...] | None = None,
    root: str | Path = "/",
    inventory: Inventory | None = None,
    given: Given | None = None,
) -> Check:
    """The check of some hosts."""
    return trio.run(check, inventory or Inventory(hosts=hosts), modes, str(root), None, None, given)


def of(check: Check, host: str, requirement: str) -> Finding:
    """What came of a requirement at a host."""
    (findings,) = (each.findings for each in check.hosts if each.name == host)
    return next(each for each in findings if each.id == requirement)


def found(
    *prefix: str,
    modes: tuple[str, ...] | None = None,
    root: str | Path = "/",
    addresses: tuple[str, ...] = (),
    python: str = sys.executable,
) -> dict[str, Finding]:
    """The findings of one host by their ids."""
    (only,) = checked(host("here", *prefix, addresses=addresses, python=python), modes=modes, root=root).hosts
    return {each.id: each for each in only.findings}


def results(findings: dict[str, Finding]) -> dict[str, Result]:
    """The results alone."""
    return {name: finding.result for name, finding in findings.items()}


def differing(findings: dict[str, Finding], others: dict[str, Finding]) -> dict[str, Result]:
    """
    The results of some findings, where they are not those of the others.

    But for `seccomp`: it is by such a filter that the kernel refuses here.
    """
    return {
        name: finding.result
        for name, finding in findings.items()
        if finding.result is not others[name].result and name != "seccomp"
    }


def written(root: Path, files: dict[str, str]) -> Path:
    """A directory with these files in it, to be taken for /."""
    for path, text in files.items():
        there = root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
    return root


def words(values: Sequence[str]) -> str:
    """Bytes for a rule of refusing.py."""
    return "".join(values).encode().hex()
