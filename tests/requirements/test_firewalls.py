"""firewalld and other managers of iptables: services as packages install them, and rules of a real kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.questions import Failed, LegacyTable, LegacyTables, Outcome
from netprobe.requirements import _nftables
from tests.requirements.hosts import findings_after, found, process, tree

UNITS: Final = "/lib/systemd/system"
WANTS: Final = "/etc/systemd/system/multi-user.target.wants"
NO_CHAINS: Final = {_nftables.CHAINS: [Outcome("", [])]}
UFW_OFF: Final = "# /etc/ufw/ufw.conf\n#\n\nENABLED=no\n\nLOGLEVEL=low\n"
"""What Debian's package ufw installs."""
NFTABLES: Final = """#!/usr/sbin/nft -f

flush ruleset

table inet filter {
\tchain input {
\t\ttype filter hook input priority filter;
\t}
}
"""
"""What Debian's package nftables installs, shortened."""


def enabled(*services: str) -> dict[str, str]:
    """What `systemctl enable` makes of units."""
    units = {f"{UNITS}/{each}.service": "[Unit]\n" for each in services}
    return {**units, **{f"{WANTS}/{each}.service": f"->{UNITS}/{each}.service" for each in services}}


def judged(
    requirement: str,
    root: Path,
    files: Mapping[str, str],
    given_: Mapping[Any, Any] | None = None,
) -> Finding:
    """A host with these files, on which no daemon runs."""
    return found(requirement, tree(root, files), given={**NO_CHAINS, **(given_ or {})})


def test_firewalld_that_runs_fails(tmp_path: Path) -> None:
    """
    It is named with its process; one in a container's network namespace is not the host's.
    """
    here = found("firewalld", tmp_path, process("firewalld", "/usr/bin/python3"), given=NO_CHAINS)
    elsewhere = process("firewalld", "/usr/bin/python3", is_here=False)

    assert (Result.FAIL, "firewalld (pid 100) runs") == (here.result, here.seen)
    assert "systemctl disable --now firewalld" in here.fix
    assert Result.PASS is found("firewalld", tmp_path, elsewhere, given=NO_CHAINS).result


def test_firewalld_that_begins_at_boot_fails(tmp_path: Path) -> None:
    """
    It is not disabled, as the page wants it; installed without being enabled it is.
    """
    disabled = judged("firewalld", tmp_path / "a", {f"{UNITS}/firewalld.service": "[Unit]\n"})
    finding = judged("firewalld", tmp_path / "b", enabled("firewalld"))

    assert Result.PASS is disabled.result
    assert Result.FAIL is finding.result
    assert f"{WANTS}/firewalld.service" in finding.seen


def test_where_processes_are_hidden_nobody_knows_of_firewalld(tmp_path: Path) -> None:
    """
    That none is seen is no pass where none would be.
    """
    hidden = process("firewalld", is_here=None)

    assert Result.UNKNOWN is found("firewalld", tmp_path, hidden, given=NO_CHAINS).result


@pytest.mark.parametrize(
    ("files", "result", "seen"),
    [
        pytest.param({}, Result.PASS, "none of ufw", id="nothing"),
        pytest.param(
            {**enabled("ufw"), "/etc/ufw/ufw.conf": UFW_OFF}, Result.PASS, "none of ufw", id="ufw-off"
        ),
        pytest.param(
            {"/etc/ufw/ufw.conf": UFW_OFF.replace("no\n", "yes\n", 1)},
            Result.FAIL,
            "ufw (/etc/ufw/ufw.conf:4 ENABLED=yes)",
            id="ufw-on",
        ),
        pytest.param(enabled("shorewall"), Result.FAIL, f"shorewall ({WANTS}/", id="shorewall"),
        pytest.param({f"{UNITS}/shorewall.service": "[Unit]\n"}, Result.PASS, "none of", id="installed-only"),
        pytest.param(
            {"/etc/init.d/ferm": "#!/bin/sh\n", "/etc/rc2.d/S01ferm": "->/etc/init.d/ferm"},
            Result.FAIL,
            "ferm (/etc/rc2.d/S01ferm)",
            id="sysv",
        ),
        pytest.param(
            {"/etc/init.d/csf": "#!/sbin/openrc-run\n", "/etc/runlevels/default/csf": "->/etc/init.d/csf"},
            Result.FAIL,
            "csf (/etc/runlevels/default/csf)",
            id="openrc",
        ),
        pytest.param(enabled("netfilter-persistent"), Result.PASS, "none of", id="persistent-without-rules"),
        pytest.param(
            {**enabled("netfilter-persistent"), "/etc/iptables/rules.v4": "*filter\nCOMMIT\n"},
            Result.FAIL,
            "with /etc/iptables/rules.v4",
            id="persistent",
        ),
        pytest.param({"/etc/nftables.conf": NFTABLES}, Result.PASS, "none of", id="nftables-disabled"),
        pytest.param(
            {**enabled("nftables"), "/etc/nftables.conf": NFTABLES},
            Result.FAIL,
            "/etc/nftables.conf:3 flush ruleset",
            id="nftables-flushes",
        ),
        pytest.param(
            {**enabled("nftables"), "/etc/nftables.conf": NFTABLES.replace("flush ruleset", "# nothing")},
            Result.WARN,
            "loads /etc/nftables.conf",
            id="nftables-loads",
        ),
        pytest.param(
            {"/etc/ufw/ufw.conf": "->ufw.conf"}, Result.UNKNOWN, "/etc/ufw/ufw.conf: ELOOP", id="unreadable"
        ),
    ],
)
def test_managers_by_their_services(
    tmp_path: Path, files: Mapping[str, str], result: Result, seen: str
) -> None:
    """
    A manager that begins at boot fails, where its configuration lets it do something.
    """
    finding = judged("iptables-managers", tmp_path, files)

    assert result is finding.result, finding.seen
    assert seen in finding.seen


def test_a_kernel_without_nf_tables_has_no_chains(tmp_path: Path) -> None:
    """
    It says EINVAL; one that refuses to tell leaves it unknown.
    """
    without = {_nftables.CHAINS: [Outcome("EINVAL", [])]}
    refused = {_nftables.CHAINS: [Outcome("EPERM", [])]}

    assert Result.PASS is judged("nft-tables", tmp_path, {}, without).result
    assert Result.UNKNOWN is judged("nft-tables", tmp_path, {}, refused).result
    assert Result.UNKNOWN is judged("nft-tables", tmp_path, {}, {_nftables.CHAINS: Failed("EPERM")}).result


def test_without_its_size_nobody_knows_whether_a_legacy_table_has_rules(tmp_path: Path) -> None:
    """
    With rules of nft beside it that is unknown, without any it does not matter.
    """
    unsure = {LegacyTables(): [LegacyTable(4, "filter", None, 0)]}

    assert Result.PASS is judged("iptables-variants", tmp_path, {}, unsure).result


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.one_of(st.binary().map(bytes.hex), st.text()))))
def test_any_answer_has_chains(answers: list[tuple[int, str]]) -> None:
    """
    A host may say anything.
    """
    assert not isinstance(_nftables.decoded([Outcome("", answers)]), Failed)


RULES: Final = {
    "clean": (),
    "drops": (
        "nft add table inet guard",
        "nft add chain inet guard in { type filter hook forward priority 0; policy drop; }",
    ),
    "filters": (
        "nft add table inet guard",
        "nft add chain inet guard in { type filter hook input priority 0; }",
        "nft add rule inet guard in tcp dport 23 drop",
    ),
    "calico": (
        "nft add table ip calico",
        "nft add chain ip calico in { type filter hook forward priority 0; policy drop; }",
    ),
    "nft": ("iptables-nft -A INPUT -p tcp --dport 23 -j DROP",),
    "legacy": ("iptables-legacy -A INPUT -p tcp --dport 23 -j DROP",),
    "both": (
        "iptables-nft -A INPUT -p tcp --dport 23 -j DROP",
        "iptables-legacy -t nat -A POSTROUTING -j MASQUERADE",
    ),
    "empty": ("iptables-nft -A INPUT -j ACCEPT", "iptables-legacy -L -n"),
    "ufw": ("iptables-nft -N ufw-before-input", "iptables-nft -A INPUT -j ufw-before-input"),
    "input": ("iptables-nft -P INPUT DROP",),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Finding]]:
    """A host for each of these rule sets, and what an agent in its network namespace finds."""
    return findings_after(RULES, tmp_path_factory.mktemp("empty"))


@pytest.mark.lab
@pytest.mark.parametrize(
    ("host", "requirement", "result", "seen"),
    [
        ("clean", "nft-tables", Result.PASS, ""),
        ("clean", "iptables-variants", Result.PASS, "no rules of either"),
        ("clean", "iptables-managers", Result.PASS, ""),
        ("clean", "firewalld", Result.PASS, ""),
        ("drops", "nft-tables", Result.FAIL, "inet guard in (hook forward)"),
        ("filters", "nft-tables", Result.WARN, "inet guard in"),
        ("calico", "nft-tables", Result.PASS, ""),
        ("nft", "iptables-variants", Result.PASS, "rules of iptables-nft only: ip filter"),
        ("nft", "nft-tables", Result.PASS, ""),
        ("legacy", "iptables-variants", Result.PASS, "rules of iptables-legacy only: iptables-legacy filter"),
        ("both", "iptables-variants", Result.WARN, "iptables-legacy nat; of iptables-nft: ip filter"),
        ("empty", "iptables-variants", Result.PASS, "rules of iptables-nft only"),
        ("ufw", "iptables-managers", Result.FAIL, "ip filter ufw-before-input"),
        ("input", "nft-tables", Result.WARN, "policy drop: ip filter INPUT"),
    ],
)
def test_rules_of_the_kernel(
    checked: dict[str, dict[str, Finding]], host: str, requirement: str, result: Result, seen: str
) -> None:
    """
    What there is in the host's network namespace is told by the kernel, with no program there.
    """
    finding = checked[host][requirement]

    assert result is finding.result, finding.seen
    assert seen in finding.seen
