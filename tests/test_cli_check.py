"""`netprobe check` as a user and a script see it; the machine that it checks is this one."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from netprobe.cli import app
from netprobe.requirements import registry


def _results(text: str) -> dict[str, str]:
    return {row["id"]: row["result"] for row in csv.DictReader(io.StringIO(text))}


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory of this machine, and of one that cannot be reached."""
    path = tmp_path / "hosts.yaml"
    path.write_text(
        f"""\
hosts:
  - {{name: here, addresses: [192.0.2.1], connection: {{type: local}}, python: [{sys.executable}]}}
  - {{name: gone, addresses: [192.0.2.2], connection: {{type: command, argv: ["false"]}}}}
modes: [vxlan]
"""
    )
    return path


def test_local_checks_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an inventory: every requirement has a line, and the processor passes."""
    status = app.status_of(["check", "--local", "--format", "csv"])
    found = _results(capsys.readouterr().out)

    assert status in (0, 1, 3)
    assert list(registry()) == list(found)
    assert "pass" == found["arch"]


def test_an_inventory_is_checked_host_by_host(hosts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that is lost is unknown, which is neither a pass nor a failure; its reason is told."""
    status = app.status_of(["check", str(hosts), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    here, gone = document["hosts"]

    assert status in (1, 3)
    assert ["vxlan"] == document["modes"]
    assert ["here", "gone"] == [here["name"], gone["name"]]
    assert {"unknown"} == {each["result"] for each in gone["findings"]}
    assert "exit status 1" in gone["error"]
    assert "not-applicable" == {each["id"]: each["result"] for each in here["findings"]}["device-ipip"]


def test_a_mode_of_the_command_line_stands_for_those_of_the_inventory(
    hosts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Modes of the requirements alone can be chosen as well."""
    app.status_of(["check", str(hosts), "--mode", "ebpf", "--mode", "ipip", "--format", "json"])

    assert ["ebpf", "ipip"] == json.loads(capsys.readouterr().out)["modes"]


def test_a_files_name_decides_the_format(hosts: Path, tmp_path: Path) -> None:
    """Nothing is on stdout then."""
    app.status_of(["check", str(hosts), "-o", str(tmp_path / "check.csv")])

    assert (tmp_path / "check.csv").read_text().startswith("host,id,title")


def test_a_root_is_where_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the hosts."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=plan9\n")
    app.status_of(["check", "--local", "--root", str(tmp_path), "--format", "csv"])

    assert "warn" == _results(capsys.readouterr().out)["distribution"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no hosts to check: give INVENTORY, or --local for this machine"),
        (["--local", "hosts.yaml"], "--local checks this machine, INVENTORY others: give one of them"),
        (["absent.yaml"], "absent.yaml: cannot read it: No such file or directory"),
        (["--local", "--root", "etc"], "--root etc: expected an absolute path, of a directory on the hosts"),
        (["--local", "--mode", "ipx"], "Invalid value for '--mode': 'ipx' is not one of none, ipip, "),
        (["--local", "--format", "pdf"], "Invalid value for '--format': 'pdf' is not one of csv, json"),
        (["--local", "-o", "/absent/file"], "cannot write /absent/file: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names it, and status 2."""
    assert 2 == app.status_of(["check", *arguments])
    shown = capsys.readouterr()

    assert shown.err.startswith(f"netprobe: error: {said}")
    assert "" == shown.out


def test_the_help_of_all_commands_loads_no_requirements() -> None:
    """They and pyroute2 are for a check."""
    code = (
        "import sys; from netprobe.cli import app; app.status_of(['--help']); "
        "print([name for name in sys.modules if name.startswith('netprobe.requirements')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.splitlines()[-1]
