"""
A plan carried out by the real Ansible, over real OpenSSH servers, and what is left then: nothing.

Six hosts do as they are told, one of them with a clock that is an hour ahead. A seventh cannot be reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest
import trio

from netprobe import coordinator
from netprobe.cli.app import status_of
from netprobe.lab import Lab, describe
from netprobe.model import Connection, Inventory, Run, Verdict
from netprobe.offline import collate
from netprobe.plan import Settings
from netprobe.reports import Options
from netprobe.reports.json import REPORT as JSON
from tests.lab.probing import held, wrong
from tests.offline.carried_out import plan
from tests.offline.made_up import inventory as made_up
from tests.transports.sshd import Servers, obstacle

_MISSING: Final = obstacle() or ("" if shutil.which("ansible-playbook") else "no ansible-playbook")

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_MISSING), reason=_MISSING)]

AHEAD_S: Final = 3600
AHEAD, OUT_OF_REACH = "n6", "n7"
FLEET: Final = """
name: a fleet with a fault of each kind
hosts: [{name: n1, roles: [node, apiserver, etcd]}, {name: n2, roles: [node, typha]}, n3, n4, n5, n6, n7]
faults:
  - {on: n3, nft: tcp dport 179 drop}
  - {on: n2, hook: output, nft: udp dport 4789 drop}
  - {on: n4, nft: [ct state established accept, meta l4proto 4 drop, 'udp dport { 51820, 51821 } drop']}
  - {on: n5, nft: udp dport 8472 reject}
  - {on: router, nft: 'iifname "n1" meta l4proto 4 drop'}
  - {on: router, nft: 'iifname "n6" tcp dport 2379 reject with icmpx admin-prohibited'}
  - {on: router, nft: 'iifname "n1" tcp sport 6443 ip daddr $n3 drop'}
expect:
  "* -> n3 bgp": filtered @ destination-ingress
  n2 -> * vxlan: filtered @ source-egress
  n2 -> * flannel:4789: filtered @ source-egress
  "* -> n4 ipip": filtered @ destination-ingress
  "* -> n4 wireguard": filtered @ destination-ingress
  "* -> n4 wireguard-v6": filtered @ destination-ingress
  "* -> n5 flannel:8472": rejected @ destination-ingress by n5
  n1 -> * ipip: filtered @ path
  n6 -> n1 etcd: rejected @ path by n6.gateway
  n3 -> n1 apiserver:6443/ipv4: filtered @ return-path
"""


_AHEAD: Final = f"""
import runpy, sys, time
real = time.time
time.time = lambda: real() + {AHEAD_S}
options, what, *arguments = sys.argv[1:3], *sys.argv[3:]
assert options == ["-I", "-S"]
if what == "-c":
    sys.argv = ["-c", *arguments[1:]]
    exec(arguments[0])
else:
    sys.argv = [what, *arguments]
    runpy.run_path(what, run_name="__main__")
"""


class Played(NamedTuple):
    """What came of it: the lab, the directory, what Ansible said, and the run that it makes."""

    lab: Lab
    directory: Path
    said: str
    status: int
    run: Run
    entries: dict[str, str]


def _entries(lab: Lab) -> dict[str, str]:
    """The conntrack entries of each host, of protocols that the run may not leave any of."""
    found = {}
    for name in lab.hosts:
        table = lab.run(name, ["conntrack", "-L", "-p", "4"], check=False).stdout
        found[name] = table + lab.run(name, ["conntrack", "-L", "-p", "udp", "--dport", "51820"]).stdout
    return found


def _interpreter(directory: Path) -> Path:
    """A Python whose wall clock is ahead, for the comparison of the clocks and for the programme."""
    found = directory / "python-ahead"
    found.write_text(f"#!{sys.executable}\n{_AHEAD}")
    found.chmod(0o755)
    return found


def _inventory(servers: Servers, directory: Path) -> Inventory:
    hosts = []
    for host in servers.inventory().hosts:
        if host.name == AHEAD:
            # Several words: Ansible's own modules have another interpreter.
            hosts.append(msgspec.structs.replace(host, python=("env", str(_interpreter(directory)))))
        elif host.name == OUT_OF_REACH:
            connection = servers.connection(host.name, port=9)
            hosts.append(msgspec.structs.replace(host, connection=connection))
        else:
            hosts.append(host)
    return Inventory(hosts=tuple(hosts))


def _play(path: str, directory: Path, scratch: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook; nothing of the user's own configuration counts."""
    environment = {
        "PATH": path,
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_LOCAL_TEMP": str(scratch / "local"),
        "ANSIBLE_REMOTE_TEMP": str(scratch / "remote"),
        "ANSIBLE_PIPELINING": "1",
        # A master connection would outlive the play.
        "ANSIBLE_SSH_ARGS": "-oControlMaster=no",
        "ANSIBLE_FORKS": "4",
        # These servers know no sftp, and Ansible would look for it each time.
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
    }
    argv = ["ansible-playbook", "-i", str(directory / "inventory.yaml"), str(directory / "playbook.yaml")]
    argv += options
    return subprocess.run(
        argv, env=environment, cwd=scratch, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """A play in which all that is to be tested happens."""
    base = tmp_path_factory.mktemp("fleet")
    scratch, directory = base / "scratch", base / "plan"
    scratch.mkdir()
    with Lab(describe(FLEET)) as lab:
        (base / "ssh").mkdir()
        servers = Servers(lab, base / "ssh")
        inventory = _inventory(servers, base)
        plan(directory, inventory, margin_s=4)
        before = set(Path(tempfile.gettempdir()).iterdir())
        ended = _play(servers.path, directory, scratch)
        assert set(Path(tempfile.gettempdir()).iterdir()) <= before
        yield Played(
            lab,
            directory,
            ended.stdout + ended.stderr,
            ended.returncode,
            collate([directory]).run,
            _entries(lab),
        )


def test_every_cell_is_that_of_a_run(played: Played) -> None:
    """Verdict, segment, refuser and caveats are those of `netprobe run --depth syn` on the same lab."""
    live = trio.run(coordinator.run, played.lab.inventory(), Settings(depth="syn"))
    expected = {name: each for name, each in held(live).items() if OUT_OF_REACH not in name}
    found = {name: each for name, each in held(played.run).items() if OUT_OF_REACH not in name}

    assert 6 * 5 * 10 < len(expected)
    assert expected == found, played.said
    assert [] == wrong(played.lab, live)


def test_a_host_that_cannot_be_reached_is_untested(played: Played) -> None:
    """Its flows, and no others, with the reason."""
    untested = [cell for cell in played.run.cells if cell.judgement.verdict is Verdict.UNTESTED]

    assert {True} == {OUT_OF_REACH in (cell.flow.src, cell.flow.dst) for cell in untested}
    assert {f"{OUT_OF_REACH}: no observations: there is no {played.directory}/observations/n7.jsonl"} == {
        cell.judgement.detail for cell in untested
    }
    assert played.status != 0
    assert "unreachable=1" in played.said
    assert "failed=0" in played.said


def test_a_clock_that_is_wrong_is_said_and_changes_nothing(played: Played) -> None:
    """By how much each clock is ahead stands beside its host."""
    offsets_ms = {report.name: report.clock_offset_ms for report in played.run.hosts}

    assert AHEAD_S == pytest.approx((offsets_ms[AHEAD] or 0) / 1000, abs=3)
    assert 0 == pytest.approx((offsets_ms["n1"] or 1e6) / 1000, abs=3)
    assert {AHEAD} == set(collate([played.directory]).clocks)


def test_nothing_is_left_on_the_hosts(played: Played) -> None:
    """No file, no process, and none of the conntrack entries that could open a way."""
    scratch = played.directory.parent / "scratch"

    assert [] == [path for path in (scratch / "remote").rglob("*") if path.is_file()]
    assert [] == list(scratch.glob("netprobe-*"))
    assert {""} == set(played.entries.values())
    for host in played.lab.hosts.values():
        pids = subprocess.run(
            ["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=True
        ).stdout.split()
        commands = [Path("/proc", pid, "cmdline").read_bytes() for pid in pids]
        assert not [each for each in commands if b"programme" in each]


def test_the_report_is_the_one_of_a_run(
    played: Played, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`netprobe collate` has the formats and the exit status of `netprobe run`."""
    assert 1 == status_of(["collate", str(played.directory), "-o", str(tmp_path / "result.json")])
    told = capfd.readouterr()
    assert f"the clock of {AHEAD} is 3,6" in told.err
    assert JSON.render(played.run, Options()) == (tmp_path / "result.json").read_text()


def test_a_play_that_only_checks_says_that_it_is_none(tmp_path: Path) -> None:
    """It would make no directory, and fail for the want of one."""
    here = Connection(type="local")
    hosts = [msgspec.structs.replace(host, connection=here) for host in made_up(2).hosts]
    plan(tmp_path / "plan", Inventory(hosts=tuple(hosts), probes=("bgp",)))
    ended = _play(os.environ["PATH"], tmp_path / "plan", tmp_path, "--check")

    assert 0 != ended.returncode
    assert "run the play without --check" in ended.stdout
    assert "undefined" not in ended.stdout
