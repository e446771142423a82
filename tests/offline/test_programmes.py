"""Programmes on the hosts of a lab, without Ansible: those that do as planned, and those that cannot."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Inventory, Run, Verdict
from netprobe.offline import collate
from tests.lab.probing import asked, held
from tests.offline.carried_out import LEAD_S, argv, plan

FLEET: Final = """
name: hosts of which some fail
hosts: [well, too, late, killed, stopped, twice, powerless]
families: [ipv4]
faults:
  - {on: [well, too, late, killed, stopped, twice, powerless], nft: ct state established accept}
  - {on: too, hook: output, nft: ip daddr $well tcp sport 179 drop}
"""
POWERLESS: Final = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--", sys.executable)
MIDDLE_S: Final = 12.0
"""After the start: when all are sending."""
TIMEOUT_S: Final = 120.0


class Carried(NamedTuple):
    """What came of a plan: the lab, what each programme said at its end, and the run."""

    lab: Lab
    said: dict[str, str]
    status: dict[str, int]
    run: Run


def _inventory(lab: Lab) -> Inventory:
    hosts = (
        msgspec.structs.replace(host, python=POWERLESS) if host.name == "powerless" else host
        for host in asked(lab, "bgp", "ipip").hosts
    )
    return msgspec.structs.replace(asked(lab, "bgp", "ipip"), hosts=tuple(hosts))


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    """One run in which everything goes wrong that can."""
    directory = tmp_path_factory.mktemp("fleet") / "plan"
    with Lab(describe(FLEET)) as lab:
        inventory = _inventory(lab)
        plan(directory, inventory, margin_s=2, patience_s=1)
        start = time.time() + LEAD_S
        commands = {
            host.name: argv(lab, directory, host.name, start, host.python) for host in inventory.hosts
        }
        late = commands.pop("late")
        running = {name: _start(command) for name, command in commands.items()}
        second = argv(lab, directory, "twice", start, (sys.executable,))
        running["second"] = _start([*second[:-1], str(directory / "second.jsonl")])
        _sleep_until(start + 0.5)
        running["late"] = _start(late)
        _sleep_until(start + MIDDLE_S)
        running["killed"].kill()
        running["stopped"].terminate()
        said = {name: process.communicate(timeout=TIMEOUT_S)[1] for name, process in running.items()}
        status = {name: process.returncode for name, process in running.items()}
        yield Carried(lab, said, status, collate([directory]).run)


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _sleep_until(at: float) -> None:
    # What is awaited is a time of the plan.
    time.sleep(max(0.0, at - time.time()))


def _reasons(run: Run) -> dict[str, set[str]]:
    """Why flows are untested, by the pair of their ends."""
    found: dict[str, set[str]] = {}
    for cell in run.cells:
        if cell.judgement.verdict is Verdict.UNTESTED:
            for name in (cell.flow.src, cell.flow.dst):
                found.setdefault(name, set()).add(cell.judgement.detail)
    return found


def test_hosts_that_do_as_planned_are_tested(carried: Carried) -> None:
    """Whatever happens to the others."""
    found = {
        name: str(each._replace(caveats=()))
        for name, each in held(carried.run).items()
        if set(name.split()[:3]) == {"well", "->", "too"}
    }

    assert {
        "well -> too bgp:179/ipv4": "filtered @ destination-egress",
        "too -> well bgp:179/ipv4": "open",
        "well -> too ipip/ipv4": "open",
        "too -> well ipip/ipv4": "open",
    } == found
    assert {"well": 0, "too": 0} == {name: carried.status[name] for name in ("well", "too")}


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("late", 3, r"late: it was started \d+\.\d s too late"),
        ("killed", -9, r"killed: .*killed\.jsonl is cut off: its programme was killed, or .*"),
        ("stopped", 3, r"stopped: its programme was stopped while it was to \w+"),
        ("powerless", 3, r"the agent on powerless runs as uid 0 without CAP_NET_RAW: .*"),
    ],
)
def test_a_host_that_does_not_is_untested(carried: Carried, name: str, status: int, reason: str) -> None:
    """All its flows, with the reason, which the programme has said as well, if it could."""
    theirs = [cell for cell in carried.run.cells if name in (cell.flow.src, cell.flow.dst)]

    assert {Verdict.UNTESTED} == {cell.judgement.verdict for cell in theirs}
    assert any(re.fullmatch(reason, detail) for detail in _reasons(carried.run)[name])
    assert status == carried.status[name]
    assert bool(carried.said[name]) == (status == 3)


def test_two_at_once_do_not_meet(carried: Carried) -> None:
    """One of two programmes on a host sends nothing, and says why."""
    said = sorted((carried.said["twice"], carried.said["second"]))

    assert ["", "netprobe: twice: another netprobe run is at work on it\n"] == said


def test_no_entry_of_conntrack_is_left(carried: Carried) -> None:
    """Nor of the flows with hosts that ended before."""
    for name in ("well", "too"):
        assert "" == carried.lab.run(name, ["conntrack", "-L", "-p", "4"]).stdout


def test_no_connection_is_left_half_open(carried: Carried) -> None:
    """SYNs whose answers got lost have been taken back."""
    for name in ("well", "too"):
        assert "" == carried.lab.run(name, ["ss", "-Htn", "state", "syn-recv"]).stdout


_SWEEP: Final = """
import sys, time
from netprobe.agent.offline import _sweep
_sweep(sys.argv[1], time.monotonic() + float(sys.argv[2]))
"""


@pytest.mark.parametrize("is_fetched", [False, True])
def test_a_directory_that_nobody_takes_away_goes_by_itself(tmp_path: Path, is_fetched: bool) -> None:
    """And who watches over it goes with it."""
    directory = tmp_path / "netprobe-x"
    directory.mkdir()
    (directory / "observations.jsonl").touch()
    reader, writer = os.pipe()
    command = [sys.executable, "-c", _SWEEP, str(directory), "60" if is_fetched else "0.2"]
    # The pipe is at its end when the last process that has it has ended.
    subprocess.run(command, check=True, pass_fds=(writer,), env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    os.close(writer)
    if is_fetched:
        (directory / "observations.jsonl").unlink()
        directory.rmdir()

    assert [reader] == select.select([reader], [], [], 10)[0]
    os.close(reader)
    assert not directory.exists()


def test_an_uncertain_clock_sends_nothing(tmp_path: Path) -> None:
    """The programme says so before it opens a socket."""
    with Lab.mesh(2) as lab:
        directory = tmp_path / "plan"
        plan(directory, asked(lab, "bgp"), margin_s=1)
        command = argv(lab, directory, "n1", time.time() + 60, (sys.executable,))
        command[command.index("--clock") + 1] = "1000 5 5,1010 6 6"
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    assert (3, "netprobe: n1: its clock is known to 5.0 s only, and 0.5 s are allowed\n") == (
        ended.returncode,
        ended.stderr,
    )
    assert 2 == len((directory / "observations" / "n1.jsonl").read_text().splitlines())
