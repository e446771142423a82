"""The command line as a user and a script see it: words, streams and exit statuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from netprobe import __version__, coordinator, plan, reports
from netprobe.access import Access
from netprobe.attempts import FIRST
from netprobe.cli import app
from netprobe.cli import run as run_command
from netprobe.cli.errors import Refused
from netprobe.cli.estimate import estimate
from netprobe.cli.output import Output
from netprobe.cli.progress import Progress
from netprobe.inventory import dump, loads
from netprobe.lab import Lab, describe
from netprobe.model import Cell, Evidence, HostReport, Inventory, Judgement, Run, Verdict
from netprobe.modes import MODES
from netprobe.probes import registry

HELP = Path(__file__).parent / "help"

TWO = """\
hosts:
  - {name: a, addresses: [10.0.0.1], connection: {type: local}}
  - {name: b, addresses: [10.0.0.2], connection: {type: ssh, user: ops, port: 2022}, sudo: true}
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory file of two hosts."""
    path = tmp_path / "hosts.yaml"
    path.write_text(TWO)
    return path


def a_run(inventory: Inventory, settings: plan.Settings, verdict: Verdict) -> Run:
    """A run in which every flow has the same verdict."""
    return Run(
        inventory=inventory,
        hosts=tuple(HostReport(name=host.name) for host in inventory.hosts),
        cells=tuple(
            Cell(
                flow=flow,
                judgement=Judgement(verdict=verdict),
                evidence=Evidence(protocol=flow.protocol),
                sent=settings.count or 1,
                arrived=0,
            )
            for flow in plan.flows(inventory, settings)
        ),
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:04:06+00:00",
        versions={"netprobe": __version__},
    )


class FakeCoordinator:
    """Stands where the coordinator stands: remembers what it was asked, and finds what it was told to."""

    def __init__(self) -> None:
        self.verdict = Verdict.OPEN
        self.failure: BaseException | None = None
        self.asked: list[tuple[Inventory, plan.Settings]] = []
        self.access: Access | None = None

    async def run(
        self,
        inventory: Inventory,
        settings: plan.Settings,
        progress: coordinator.Progress | None = None,
        access: Access | None = None,
    ) -> Run:
        """A run without a packet."""
        self.asked.append((inventory, settings))
        self.access = access
        if progress is not None:
            progress.phase("probing", 2)
            progress.advance()
            progress.note("b: \x1b[31mred")
        if self.failure is not None:
            raise self.failure
        return a_run(inventory, settings, self.verdict)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCoordinator:
    """The coordinator, replaced."""
    fake = FakeCoordinator()
    monkeypatch.setattr(coordinator, "run", fake.run)
    return fake


def netprobe(
    *arguments: str,
    input: str | None = None,  # noqa: A002 - as in subprocess
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "netprobe.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=input, env=env)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """
    `netprobe --version` says name and version.
    """
    assert 0 == app.status_of(["--version"])
    assert f"netprobe {__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        *("", "run", "check", "trace", "mtu", "demo", "completion"),
        *("inventory", "inventory check", "inventory init"),
        "inventory import",
        *(f"inventory import {source}" for source in ("ansible", "hosts", "kubectl", "vagrant")),
    ],
)
def test_the_help_is_as_it_was_read_and_approved(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Every help text is the one in tests/help.
    """
    monkeypatch.setenv("COLUMNS", "80")
    golden = HELP / f"{command.replace(' ', '-') or 'netprobe'}.txt"

    assert 0 == app.status_of([*command.split(), "--help"])
    assert golden.read_text() == capsys.readouterr().out


def test_how_to_log_in_reaches_the_coordinator_and_the_password_nobody_else(
    fake: FakeCoordinator,
    hosts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    It is asked for once, from stdin where there is no terminal; no output and no representation has it.
    """
    monkeypatch.setattr(sys, "stdin", io.StringIO("open sesame\n"))
    options = ["--forks", "7", "--accept-new-host-keys", "--ask-sudo-password"]

    assert 0 == app.status_of(["run", str(hosts), *options, "--format", "json", "-v"])
    assert fake.access is not None
    assert (7, True) == (fake.access.forks, fake.access.accept_new_host_keys)
    assert fake.access.sudo_password is not None
    assert "open sesame" == fake.access.sudo_password.reveal()
    captured = capsys.readouterr()
    assert "sesame" not in captured.out + captured.err + repr(fake.access)


def test_a_password_that_cannot_be_read_is_told_before_anything_is_sent(
    fake: FakeCoordinator,
    hosts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A stdin that ends, or that has the inventory.
    """
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    assert 2 == app.status_of(["run", str(hosts), "--ask-sudo-password"])
    assert "no sudo password on stdin: " in capsys.readouterr().err
    assert [] == fake.asked


def test_without_a_word_the_help_is_shown_and_nothing_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A bare `netprobe` shows the help, and ends like a command that is wrong.
    """
    assert 2 == app.status_of([])
    assert (HELP / "netprobe.txt").read_text() == capsys.readouterr().out


def test_the_help_loads_nothing_that_takes_time() -> None:
    """
    The libraries of a run are not imported before a run.
    """
    code = (
        "import sys; from netprobe.cli import app; app.status_of(['--help']); "
        "slow = {'msgspec', 'pyroute2', 'rich', 'scapy', 'tabulate', 'trio', 'yaml'}; "
        "print(sorted(slow & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["runn"], "Try 'netprobe --help'."),
        (["run"], "Try 'netprobe run --help'."),
        (["run", "x.yaml", "--fromat", "csv"], "Try 'netprobe run --help'."),
        (["run", "x.yaml", "--depth", "deep"], "Try 'netprobe run --help'."),
        (["run", "x.yaml", "--rate", "0"], "Try 'netprobe run --help'."),
        (["run", "x.yaml", "--timeout", "never"], "Try 'netprobe run --help'."),
        (["run", "x.yaml", "--family", "ipx"], "Try 'netprobe run --help'."),
        (["inventory", "chek", "x.yaml"], "Try 'netprobe inventory --help'."),
        (["completion", "tcsh"], "Try 'netprobe completion --help'."),
    ],
)
def test_a_wrong_command_is_a_line_and_a_hint(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What click refuses is told like every other error, and nothing is on stdout.
    """
    assert 2 == app.status_of(arguments)
    out, err = capsys.readouterr()
    assert "" == out
    assert "netprobe: error: " == err[:17]
    assert hint == err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--count", "9"], "Invalid value for '--count': 9 is not a number from 1 to 8."),
        (["--count", "0"], "Invalid value for '--count': 0 is not a number from 1 to 8."),
        (["--format", "xml"], "Invalid value for '--format': 'xml' is not one of csv, json, text."),
    ],
)
def test_a_wrong_value_is_told_with_what_is_right(
    options: list[str], expected: str, hosts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The words and bounds that other modules define are theirs in the error as well.
    """
    assert 2 == app.status_of(["run", str(hosts), *options])
    assert f"netprobe: error: {expected}\nTry 'netprobe run --help'.\n" == capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["mtu"], ["inventory", "check"]], ids=" ".join)
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--timeout", "nan is not a number from 0.05 to 60."),
        ("--rate", "nan is not a number from 1 to 1000000."),
        ("--timeout", "inf is not in the range 0.05<=x<=60."),
        ("--rate", "-inf is not in the range 1<=x<=1000000."),
    ],
)
def test_what_is_no_number_is_no_time_and_no_rate(
    command: list[str],
    option: str,
    expected: str,
    hosts: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Nothing is smaller or larger than `nan`, and so a comparison with bounds lets it through.
    """
    assert 2 == app.status_of([*command, str(hosts), f"{option}={expected.split(maxsplit=1)[0]}"])
    told = f"netprobe: error: Invalid value for '{option}': {expected}\n"
    assert ("", f"{told}Try 'netprobe {' '.join(command)} --help'.\n") == capsys.readouterr()
    assert [] == fake.asked


@pytest.mark.parametrize("command", [["run"], ["inventory", "check"]])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--probe", "bpg"], ['--probe: unknown probe "bpg"; did you mean "bgp"?']),
        (["--mode", "vxlna"], ['--mode: unknown mode "vxlna"; did you mean "vxlan"?']),
        (["--only", "a", "--only", "c"], ['--only: unknown host "c"; expected one of a, b']),
        (["--probe", "ipip", "--family", "ipv6"], ['--probe ipip: "ipip" is IPv4 only']),
        (
            ["--probe", "typha"],
            ["HOSTS: nothing to probe: no two hosts have the roles and addresses that a flow needs"],
        ),
        (
            ["--family", "ipv6"],
            ["HOSTS: nothing to probe: no two hosts have the roles and addresses that a flow needs"],
        ),
        (
            ["--mode", "ipip", "--family", "ipv6"],
            [
                (
                    '--mode ipip: "ipip" needs bgp, and --family leaves only IPv6: '
                    "no two such hosts have IPv6 addresses"
                )
            ],
        ),
        (["--mode", "typha"], ['--mode typha: "typha" needs typha, and no host has the role typha']),
        (
            ["--probe", "vxlan", "--mode", "none"],
            ['--mode none: "none" needs bgp, which --probe leaves out'],
        ),
        (
            ["--probe", "x", "--probe", "y"],
            [f'--probe: unknown probe "{probe}"; expected one of {", ".join(registry())}' for probe in "xy"],
        ),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused(
    command: list[str],
    options: list[str],
    expected: list[str],
    hosts: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    What cannot be probed is an error before anything is started, one line for each reason.
    """
    assert 2 == app.status_of([*command, str(hosts), *options])
    lines = [f"netprobe: error: {line}".replace("HOSTS", str(hosts)) for line in expected]
    assert ("", "\n".join(lines) + "\n") == capsys.readouterr()
    assert [] == fake.asked


@pytest.mark.parametrize("command", [["run"], ["inventory", "check"]])
def test_each_mistake_in_an_inventory_is_a_line_on_stderr(
    command: list[str], tmp_path: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A wrong inventory ends with 2, all of its mistakes on stderr, nothing on stdout and nothing sent.
    """
    path = tmp_path / "i.yaml"
    path.write_text("hosts:\n  - {name: a, adresses: []}\n")

    assert 2 == app.status_of([*command, str(path)])
    out, err = capsys.readouterr()
    assert "" == out
    assert [
        f"netprobe: error: {path}:1: hosts: expected at least two hosts, got 1",
        f"netprobe: error: {path}:2: hosts[0].addresses: missing",
        f'netprobe: error: {path}:2: hosts[0].adresses: unknown key; did you mean "addresses"?',
    ] == err.splitlines()
    assert [] == fake.asked


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The path and the operating system's reason make the line.
    """
    path = tmp_path / "no.yaml"

    assert 2 == app.status_of(["run", str(path)])
    assert f"netprobe: error: {path}: cannot read it: No such file or directory\n" == capsys.readouterr().err


def test_an_inventory_can_come_from_stdin() -> None:
    """
    `-` reads the inventory from stdin, and errors call it so.
    """
    right = netprobe("inventory", "check", "-", input=TWO)
    wrong = netprobe("inventory", "check", "-", input="hosts: []\n")

    assert 0 == right.returncode
    assert "netprobe: error: <stdin>:1: hosts: expected at least two hosts, got 0\n" == wrong.stderr


def test_more_flows_than_can_be_numbered_are_refused(
    hosts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An inventory that is too large for one run is an error of the inventory.
    """
    monkeypatch.setattr(plan, "MAX_FLOWS", 10)

    assert 2 == app.status_of(["run", str(hosts)])
    assert [f"netprobe: error: {hosts}: "] == [
        line[: len(f"netprobe: error: {hosts}: ")] for line in capsys.readouterr().err.splitlines()
    ]


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(Verdict.OPEN, 0), (Verdict.FILTERED, 1), (Verdict.REJECTED, 1), (Verdict.UNTESTED, 3)],
)
def test_the_exit_status_is_the_designs(
    verdict: Verdict, status: int, hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    0: all open; 1: some not; 3: some untested, none blocked.
    """
    fake.verdict = verdict

    assert status == app.status_of(["run", str(hosts), "--probe", "bgp"])
    assert "netprobe: error" not in capsys.readouterr().err


def test_every_option_reaches_the_coordinator(
    hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What is asked on the command line is what is run.
    """
    choices = ["--probe", "bgp", "--probe", "vxlan", "--only", "a", "--only", "b", "--family", "ipv4"]
    manner = ["--count", "3", "--rate", "100", "--timeout", "0.5", "--depth", "syn"]

    assert 0 == app.status_of(["run", str(hosts), *choices, *manner])
    [(inventory, settings)] = fake.asked
    assert ("bgp", "vxlan") == inventory.probes
    assert (
        plan.Settings(
            count=3, rate=100, timeout_s=0.5, depth="syn", families=(settings.families[0],), only=("a", "b")
        )
        == settings
    )
    assert ["ipv4"] == [family.value for family in settings.families]
    capsys.readouterr()


def test_the_defaults_are_those_of_the_plan(
    hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Without options the settings are the plan's own, and the help tells their true values.
    """
    assert 0 == app.status_of(["run", str(hosts)])
    assert [(loads(TWO), plan.Settings())] == fake.asked
    capsys.readouterr()

    words = " ".join((HELP / "run.txt").read_text().split())
    assert f"1 to {FIRST.total}. [default: {plan.usual_count(1, 2)}, fewer in large clusters]" in words
    assert f"[default: {plan.Settings().rate:.0f}]" in words
    assert f"[default: {plan.Settings().timeout_s:.0f}]" in words
    assert f"[default: {plan.Settings().depth}]" in words


@pytest.mark.parametrize("name", ["text", "csv", "json"])
def test_the_result_is_the_only_thing_on_stdout(
    name: str,
    hosts: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What is on stdout is the report in the format that was asked for; stderr is silent.
    """
    monkeypatch.setenv("COLUMNS", "100")

    assert 0 == app.status_of(["run", str(hosts), "--format", name])
    out, err = capsys.readouterr()
    [(inventory, settings)] = fake.asked
    options = reports.Options(width=100)
    assert reports.registry()[name].render(a_run(inventory, settings, Verdict.OPEN), options) == out
    assert "" == err


def test_verbose_tells_the_story_on_stderr(
    hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With `-v` phases and notes are lines, and what a host says does no harm to the terminal.
    """
    assert 0 == app.status_of(["run", str(hosts), "-v", "--format", "json"])
    out, err = capsys.readouterr()
    assert "netprobe.run/1" == json.loads(out)["schema"]
    first, second = err.splitlines()
    assert "netprobe: b: \\x1b[31mred" == first
    assert "netprobe: probing: 2 in " == second[:24]
    assert 1 == len(fake.asked)


@pytest.mark.parametrize(
    ("name", "options", "begins"),
    [
        ("r.json", [], "{"),
        ("r.csv", [], "probe,family,"),
        ("r.txt", [], "none"),
        ("r.unknown", [], "none"),
        ("r.json", ["--format", "csv"], "probe,family,"),
    ],
)
def test_a_result_goes_to_a_file_in_the_format_of_its_name(
    name: str,
    options: list[str],
    begins: str,
    hosts: Path,
    tmp_path: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    `-o` writes the file and nothing on stdout; `--format` wins over the file's name.
    """
    target = tmp_path / name

    assert 0 == app.status_of(["run", str(hosts), "-o", str(target), *options])
    assert ("", "") == capsys.readouterr()
    assert begins == target.read_text()[: len(begins)]
    assert 1 == len(fake.asked)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("no/such/directory/r.json", "No such file or directory"),
        (".", "Is a directory"),
        ("hosts.yaml/r.json", "Not a directory"),
    ],
)
def test_a_target_that_cannot_be_written_is_told_before_anything_is_sent(
    target: str,
    why: str,
    hosts: Path,
    tmp_path: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A run whose result would be lost is not made.
    """
    path = tmp_path / target

    assert 2 == app.status_of(["run", str(hosts), "-o", str(path)])
    assert f"netprobe: error: cannot write {path}: {why}\n" == capsys.readouterr().err
    assert [] == fake.asked


def test_an_old_result_stays_when_the_run_fails(
    hosts: Path, tmp_path: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What was in the file before is replaced by a whole result or not at all, and nothing lies beside it.
    """
    target = tmp_path / "r.json"
    target.write_text("old")
    fake.failure = KeyboardInterrupt()

    assert 130 == app.status_of(["run", str(hosts), "-o", str(target)])
    assert "netprobe: error: interrupted\n" == capsys.readouterr().err
    assert "old" == target.read_text()
    assert ["hosts.yaml", "r.json"] == sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file())


def test_a_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    """
    Replacing a file changes what is in it, and nothing else.
    """
    target, link = tmp_path / "r.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)

    Output(link).write("new…")

    assert "new…" == target.read_text(encoding="utf-8")
    assert link.is_symlink()
    assert 0o640 == stat.S_IMODE(target.stat().st_mode)


def test_a_new_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    """
    The user's umask decides, as it does for a file that the shell redirects to.
    """
    before = os.umask(0o027)
    try:
        Output(tmp_path / "r.json").write("new")
    finally:
        os.umask(before)

    assert 0o640 == stat.S_IMODE((tmp_path / "r.json").stat().st_mode)


def test_what_is_no_file_is_written_to_directly(tmp_path: Path) -> None:
    """
    A pipe (and so a device) is not replaced by a file.
    """
    # Never a real device: as root, code that gets this wrong would replace it for the whole machine.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        Output(pipe).write("x")

        assert b"x" == os.read(reader, 10)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_result_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    """
    What cannot be written after all is told, with a status that is none of a run's; the file stays as it was.
    """
    target = tmp_path / "r.json"
    target.write_text("old")
    output = Output(target)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(Refused) as caught:
            output.write("x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert (f"cannot write {target}: File too large",) == caught.value.lines
    assert 74 == caught.value.status
    assert "old" == target.read_text()
    assert [target] == list(tmp_path.iterdir())


def test_a_reader_that_leaves_is_no_error(hosts: Path) -> None:
    """
    `netprobe … | head` ends quietly, like any program that meets a closed pipe.
    """
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "netprobe.cli", "inventory", "check", str(hosts)],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (141, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--trace", "--mtu"], ["mtu"], ["inventory", "check"]], ids=" ".join
)
def test_a_result_that_nobody_can_get_is_told_before_anything_is_sent(
    arguments: list[str], hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    `netprobe … >&-` leaves no stdout: Python has None in its place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        status = app.status_of([*arguments, str(hosts)])

    assert 2 == status
    assert "netprobe: error: cannot write stdout: Bad file descriptor\n" == capsys.readouterr().err
    assert [] == fake.asked


def test_what_the_shell_closes_python_has_not(hosts: Path) -> None:
    """
    As it is in a process of its own.
    """
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "netprobe.cli", "mtu", str(hosts)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)

    assert (2, "netprobe: error: cannot write stdout: Bad file descriptor\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []], ids=" ".join)
def test_help_that_nobody_can_read_is_an_error(arguments: list[str]) -> None:
    """
    Of one line, as any other result.
    """
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "netprobe.cli", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)

    assert 2 == done.returncode
    assert "netprobe: error: cannot write stdout: Bad file descriptor\n" == done.stderr


def test_a_closed_stderr_hears_nothing(tmp_path: Path) -> None:
    """
    The result is on stdout all the same.
    """
    path = tmp_path / "hosts.yaml"
    connection = "connection: {type: command, argv: ['false']}"
    path.write_text(
        f"hosts:\n  - {{name: a, addresses: [192.0.2.1]}}\n  - {{name: b, addresses: [192.0.2.2]}}\n"
        f"defaults:\n  {connection}\n"
    )
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "netprobe.cli", "run", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)

    assert 3 == done.returncode
    assert "untested" in done.stdout


def test_a_full_disk_is_told(hosts: Path) -> None:
    """
    A result that stdout does not take is an error of its own.
    """
    _cannot_be_written("-m", "netprobe.cli", "inventory", "check", str(hosts))


def _cannot_be_written(*argv: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (74, "netprobe: error: cannot write stdout: No space left on device\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["completion", "bash"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_help_that_cannot_be_written_is_no_mistake_of_netprobe(
    arguments: list[str], *, buffered: bool
) -> None:
    """
    What click itself prints ends as a result does that stdout does not take.
    """
    _cannot_be_written(*([] if buffered else ["-u"]), "-m", "netprobe.cli", *arguments)


def test_a_terminal_without_unicode_gets_ascii(hosts: Path) -> None:
    """
    Where stdout is ASCII, what is written is ASCII, and no error.
    """
    done = netprobe("inventory", "check", str(hosts), env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert 0 == done.returncode
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    "make",
    [
        KeyboardInterrupt,
        lambda: _group([KeyboardInterrupt()]),
        lambda: _group([_group([KeyboardInterrupt(), KeyboardInterrupt()])]),
    ],
)
def test_ctrl_c_is_told_in_a_word(
    make: Callable[[], BaseException],
    hosts: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    An interrupted run ends with 130 and no traceback, however deep in nurseries it was.
    """
    fake.failure = make()

    assert 130 == app.status_of(["run", str(hosts)])
    assert ("", "netprobe: error: interrupted\n") == capsys.readouterr()


def _group(errors: list[BaseException]) -> BaseException:
    class Group(BaseException):
        exceptions = tuple(errors)

    return Group()


def test_only_a_mistake_of_netprobe_shows_a_traceback(
    hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A mistake of our own is told as such, and its status is none that means something about the network.
    """
    fake.failure = RuntimeError("ours")

    assert 70 == app.status_of(["run", str(hosts)])
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" == lines[0]
    assert "RuntimeError: ours" in lines
    assert (
        "netprobe: error: this is a mistake in netprobe itself, not in your network; "
        "please report it with the lines above"
    ) == lines[-1]


def test_a_mistake_beside_ctrl_c_is_still_a_mistake(
    hosts: Path, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What else went wrong while a run was interrupted is not hidden.
    """
    fake.failure = _group([KeyboardInterrupt(), RuntimeError("ours")])

    assert 70 == app.status_of(["run", str(hosts)])
    assert "this is a mistake in netprobe itself" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The script asks netprobe itself, by the variable that netprobe listens to.
    """
    assert 0 == app.status_of(["completion", shell])
    assert f"_NETPROBE_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("netprobe inv", ["plain,inventory"]),
        ("netprobe run x.yaml --depth s", ["plain,syn", "plain,session"]),
        ("netprobe run x.yaml --probe w", ["plain,wireguard", "plain,wireguard-v6"]),
        ("netprobe run x.yaml --mode vxlan-", ["plain,vxlan-crosssubnet"]),
        ("netprobe run x.yaml --format j", ["plain,json"]),
        ("netprobe run x.yaml --only n", []),
    ],
)
def test_words_are_completed(words: str, expected: list[str]) -> None:
    """
    Commands, options, probes and modes are completed from what there is.
    """
    done = subprocess.run(
        [sys.executable, "-m", "netprobe.cli"],
        env={
            **os.environ,
            "_NETPROBE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert (expected, "") == (done.stdout.split(), done.stderr)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO.replace("name: a", "name: node-a").replace("name: b", "name: node-b"), ["node-a", "node-b"]),
        ("hosts: [", []),
    ],
)
def test_hosts_are_completed_from_the_inventory_on_the_line(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    """
    Where it can be read; a shell that asks for words gets no errors.
    """
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    words = f"netprobe run {path} --only node"
    env = {"_NETPROBE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}

    done = netprobe(env={**os.environ, **env})

    assert ([f"plain,{name}" for name in expected], "") == (done.stdout.split(), done.stderr)


@pytest.mark.parametrize("command", ["run", "inventory check"])
def test_the_help_names_every_word_that_can_be_chosen(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nobody has to look elsewhere for the names of probes and modes.
    """
    assert 0 == app.status_of([*command.split(), "--help"])
    words = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines end behind a hyphen, too
    assert f"One of {', '.join(registry())}." in words
    assert f"One of {', '.join(MODES)}." in words


def test_check_says_what_would_be_probed(hosts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    `inventory check` shows the hosts, the flows of each probe, and what the run would cost.
    """
    text = hosts.read_text().replace("[10.0.0.2]", '[10.0.0.2, "fd00::2"]')
    hosts.write_text(text + "probes: [bgp, ipip, flannel, typha]\nports: {flannel: [8472, 8473]}\n")

    assert 0 == app.status_of(["inventory", "check", str(hosts)])
    assert (
        capsys.readouterr().out
        == """\
host    addresses          roles    reached by
a       10.0.0.1           node     local
b       10.0.0.2, fd00::2  node     ssh ops@b port 2022 (sudo)

probe    protocol    families    ports       flows
bgp      tcp         ipv4        179         2
ipip     4           ipv4                    2
typha    tcp                                 0: no host has the role typha
flannel  udp         ipv4        8472, 8473  4

2 hosts, 8 flows: 68 probe packets, 2 TCP sessions, about 1 s if all are open; more where packets are lost
"""
    )


def test_check_says_whose_address_packets_of_pods_bear(
    hosts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Whoever runs a cluster can look whether a pod has it.
    """
    hosts.write_text(f"{hosts.read_text()}modes: [none]\npod_cidr: 10.244.0.0/16\n")

    assert 0 == app.status_of(["inventory", "check", str(hosts)])
    _hosts, probes, said, cost = capsys.readouterr().out.split("\n\n")
    assert ["pod-route", "udp", "ipv4", "9", "2"] == probes.splitlines()[-1].split()
    assert "pod-route sends as if from 10.244.255.254" == said
    assert cost.startswith("2 hosts, 4 flows: 28 probe packets, ")


def test_the_estimate_follows_count_rate_and_depth() -> None:
    """
    Packets are those of all flows, two less for each that a session follows; seconds follow the busiest host.
    """
    shares = plan.shares(loads(TWO + "probes: [bgp, vxlan]\n"))
    slow = plan.Settings(count=5, rate=1, depth="syn")
    fast = plan.Settings(count=5, rate=1000)

    assert (20, 0) == (estimate(shares, slow, 2).packets, estimate(shares, slow, 2).sessions)
    assert (16, 2) == (estimate(shares, fast, 2).packets, estimate(shares, fast, 2).sessions)
    assert pytest.approx(1.0 + 0.1 + 10, abs=0.01) == estimate(shares, slow, 2).seconds
    assert pytest.approx(1.0 + 0.1, abs=0.02) == estimate(shares, fast, 2).seconds


@pytest.mark.lab
@pytest.mark.parametrize("options", [{}, {"depth": "syn"}, {"count": 3}, {"only": ("b",)}], ids=str)
def test_a_run_of_open_flows_sends_what_was_estimated(options: dict[str, Any]) -> None:
    """
    `inventory check` and the run count the same packets, whatever the probe, the family and the options.
    """
    settings = plan.Settings(**options)
    hosts = "[{name: a, roles: [node, typha, apiserver, etcd]}, b, c]"
    with Lab(describe(f"{{name: three hosts, hosts: {hosts}}}")) as lab:
        inventory = lab.inventory()
        result = trio.run(coordinator.run, inventory, settings)

    assert {Verdict.OPEN} == {cell.judgement.verdict for cell in result.cells}
    expected = estimate(plan.shares(inventory, settings), settings, len(inventory.hosts))
    assert settings == result.settings
    assert expected.packets == result.packets
    assert expected.sessions == sum(cell.evidence.session is not None for cell in result.cells)


def test_a_thousand_hosts_are_counted_and_not_listed(tmp_path: Path) -> None:
    """
    `inventory check` takes time for each host, and not for each of ten million flows.
    """
    path = tmp_path / "hosts.yaml"
    lines = [f"  - {{name: n{i}, addresses: [10.0.{i // 250}.{i % 250 + 1}]}}" for i in range(1000)]
    path.write_text("\n".join(["hosts:", *lines]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    done = netprobe("inventory", "check", str(path))

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "\n1,000 hosts, 5,994,000 flows: " in done.stdout
    assert after.ru_utime - before.ru_utime < 10  # listing them took thirty seconds, and 861 MB


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        return True


def test_a_terminal_shows_phases_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a terminal each phase has its count, notes stand above, and the cursor is given back.
    """
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    with Progress(stream=stream) as progress:
        progress.phase("starting agents", 4)
        progress.advance(3)
        progress.note("[bold]b[/bold] is \x07 slow")
        progress.phase("probing", 7)

    shown = stream.getvalue()
    assert "starting agents" in shown
    assert "4/4" in shown
    assert "7/7" in shown
    assert "[bold]b[/bold] is \\x07 slow" in shown
    assert "\x1b[?25h" == shown[shown.rindex("\x1b[?25") :][:6]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With NO_COLOR the bars have no colour.
    """
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()

    with Progress(stream=stream) as progress:
        progress.phase("probing", 7)

    assert "\x1b[3" not in stream.getvalue()


@pytest.mark.parametrize(
    ("variables", "is_colourful"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: when present and not an empty string
        ({"TERM": "dumb"}, False),
    ],
)
def test_the_report_has_colour_on_a_terminal_that_wants_it(
    variables: dict[str, str], is_colourful: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Colour is for terminals, never for files, and NO_COLOR is respected.
    """
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())

    assert is_colourful is run_command.options(Output(None), verbose=False).color
    assert not run_command.options(Output(tmp_path / "r.txt"), verbose=False).color


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_a_dumb_terminal_gets_no_bars(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A terminal that cannot move its cursor is treated as a log.
    """
    monkeypatch.setenv("TERM", terminal)
    stream = Terminal()

    with Progress(stream=stream) as progress:
        progress.phase("probing", 7)
        progress.note("b is slow")

    assert "" == stream.getvalue()


def test_a_log_gets_a_line_for_each_phase() -> None:
    """
    Where there is no terminal, `-v` gives a line when a phase is done, with its time.
    """
    stream = io.StringIO()
    ticks = iter([0.0, 1.5, 1.5, 4.0])

    with Progress(verbose=True, stream=stream, clock=lambda: next(ticks)) as progress:
        progress.phase("starting agents", 1000)
        progress.advance(4)
        progress.phase("probing", 7)

    assert "netprobe: starting agents: 1,000 in 1.5 s\nnetprobe: probing: 7 in 2.5 s\n" == stream.getvalue()


@pytest.mark.lab
def test_a_real_run_ends_as_its_cells_are(tmp_path: Path) -> None:
    """
    The command probes a lab, writes the result where it was told, and ends with 0 where all is open.
    """
    path, target = tmp_path / "hosts.yaml", tmp_path / "r.csv"
    with Lab.mesh(2) as lab:
        path.write_text(dump(lab.inventory()))
        done = netprobe("run", str(path), "--probe", "bgp", "-o", str(target))

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    verdicts = [line.split(",")[8] for line in target.read_text().splitlines()[1:]]
    assert ["open"] * 4 == verdicts


NARROW = """
name: two hosts, of which b is behind a narrower link that nobody tells of over IPv6
hosts: [a, b]
faults:
  - {on: router, run: [ip, route, add, $b, dev, b, mtu, lock, "1400"]}
  - {on: router, run: [ip, "-6", route, add, $b.ipv6, dev, b, mtu, lock, "1400"]}
  - {on: router, hook: output, nft: "icmpv6 type packet-too-big drop"}
"""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory file of a real lab."""
    path = tmp_path_factory.mktemp("narrow") / "hosts.yaml"
    with Lab(describe(NARROW)) as lab:
        path.write_text(dump(lab.inventory()))
        yield path


@pytest.mark.lab
def test_mtu_says_what_arrives_whole_and_what_to_give_calico(narrow: Path) -> None:
    """
    A router that tells is no fault, a black hole is; what is told stands on stdout, and nothing else.
    """
    both, told = netprobe("mtu", str(narrow)), netprobe("mtu", str(narrow), "--family", "ipv4")

    assert (1, "") == (both.returncode, both.stderr)
    assert "IPv4  1400  a → b (1 pair)" in both.stdout
    assert "IPv6  1400  a → b (1 pair)\n         a black hole" in both.stdout
    assert "vxlan              IPv4  1350  path MTU 1400 less 50: a → b sets it" in both.stdout
    assert (0, "") == (told.returncode, told.stderr)
    assert "IPv6" not in told.stdout


@pytest.mark.lab
def test_mtu_writes_a_document_like_that_of_a_run(narrow: Path, tmp_path: Path) -> None:
    """
    With path MTUs and no cells; a run with `--mtu` has both.
    """
    alone, beside = tmp_path / "mtu.json", tmp_path / "run.json"
    arguments = ("--family", "ipv4", "-o")
    first = netprobe("mtu", str(narrow), *arguments, str(alone))
    second = netprobe("run", str(narrow), "--probe", "vxlan", "--mtu", *arguments, str(beside))

    assert (0, "", 0, "") == (first.returncode, first.stderr, second.returncode, second.stderr)
    for path, cells in ((alone, 0), (beside, 2)):
        document = json.loads(path.read_text())
        assert cells == len(document["cells"])
        assert [1400, 1500] == [each["mtu"] for each in document["mtus"]]
        assert 1350 == next(each["mtu"] for each in document["calico_mtus"] if each["mode"] == "vxlan")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mtu"], "nothing to probe: no two hosts have the roles"),
        (["run", "--mtu"], "--mtu: nothing to measure: no two such hosts"),
    ],
)
def test_mtu_without_two_nodes_is_refused(
    arguments: list[str],
    expected: str,
    hosts: Path,
    fake: FakeCoordinator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Before anything is sent.
    """
    hosts.write_text(TWO.replace("{name: b,", "{name: b, roles: [typha],"))

    assert 2 == app.status_of([*arguments, str(hosts)])
    assert expected in capsys.readouterr().err
    assert [] == fake.asked


THREE_HOSTS = """
name: three hosts, of which c lets no BGP in
hosts: [{name: a, roles: [node, typha]}, b, c]
faults: [{on: c, nft: "tcp dport 179 drop"}]
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory file of a real lab."""
    path = tmp_path_factory.mktemp("three") / "hosts.yaml"
    with Lab(describe(THREE_HOSTS)) as lab:
        path.write_text(dump(lab.inventory()))
        yield path


def cells_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """The lines of a CSV on stdout."""
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.mark.lab
def test_only_leaves_the_flows_of_its_hosts_and_says_what_was_not_probed(three: Path) -> None:
    """
    What is left out is neither open nor "not needed", and the mode is not called usable.
    """
    cells = cells_of(netprobe("run", str(three), "--mode", "none", "--only", "a", "--format", "csv"))
    b_alone = netprobe("run", str(three), "--probe", "vxlan", "--only", "b")

    pairs = {(cell["src"], cell["dst"]) for cell in cells}
    assert {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")} == pairs
    assert 0 == b_alone.returncode
    assert "a          \\  o  -\n" in b_alone.stdout
    assert "- needed, not probed" in b_alone.stdout
    assert "vxlan:             8 of 12 needed flows probed, all open\n" in b_alone.stdout


@pytest.mark.lab
def test_family_leaves_the_flows_of_its_family_and_says_what_was_not_probed(three: Path) -> None:
    """
    The other family was not looked at; the document says what was asked for.
    """
    done = netprobe("run", str(three), "--mode", "vxlan", "--family", "ipv6", "--format", "json")

    document = json.loads(done.stdout)
    assert 0 == done.returncode
    assert ["ipv6"] == document["settings"]["families"]
    assert {"ipv6"} == {cell["flow"]["family"] for cell in document["cells"]}
    [mode] = document["modes"]
    assert (False, 6, 6, 6) == (mode["usable"], mode["required"], mode["open"], mode["not_probed"])


@pytest.mark.lab
def test_a_mode_that_cannot_be_is_refused_and_one_that_is_not_known_is_no_success(
    three: Path, tmp_path: Path
) -> None:
    """
    2 where nothing could be judged, before an agent starts; blocked flows of a mode that is not known are 1.
    """
    text = three.read_text()
    six = tmp_path / "six.yaml"
    six.write_text(re.sub(r"addresses: \[[0-9.]+, ", "addresses: [", text))
    known = tmp_path / "known.yaml"
    known.write_text(text + "probes: [bgp]\nmodes: [ipip]\n")

    refused = netprobe("run", str(six), "--mode", "ipip")
    blocked = netprobe("run", str(known))
    unknown = netprobe("run", str(known), "--only", "a", "--only", "b", "--format", "json")

    why = '--mode ipip: "ipip" needs ipip, and no two such hosts have IPv4 addresses'
    assert (2, "", f"netprobe: error: {why}\n") == (refused.returncode, refused.stdout, refused.stderr)
    assert 1 == blocked.returncode
    assert "ipip: blocked: 4 of 12 flows, no flow of ipip was probed\n" in blocked.stdout
    assert 1 == unknown.returncode
    [mode] = json.loads(unknown.stdout)["modes"]
    assert ("ipip", 4, 6) == (mode["mode"], mode["blocked"], mode["not_probed"])


@pytest.mark.lab
def test_a_mode_that_is_open_as_far_as_it_was_probed_is_not_known(three: Path) -> None:
    """
    3: nothing is blocked, and IP-in-IP was not looked at.
    """
    inventory = three.read_text() + "probes: [vxlan]\nmodes: [vxlan, ipip]\n"

    done = netprobe("run", "-", input=inventory)

    assert 3 == done.returncode
    assert "ipip:  not known: no flow of bgp, ipip was probed\n" in done.stdout


@pytest.mark.lab
def test_the_csv_counts_what_was_sent_and_what_arrived(three: Path) -> None:
    """
    Six SYNs where a session followed, eight packets of VXLAN, and of what is dropped none arrived.
    """
    done = netprobe("run", str(three), "--probe", "bgp", "--probe", "vxlan", "--format", "csv")

    assert 1 == done.returncode
    for cell in cells_of(done):
        sent, arrived = int(cell["sent"]), int(cell["arrived"])
        if cell["verdict"] == "filtered":
            assert ("bgp", "c", 0) == (cell["probe"], cell["dst"], arrived)
            assert sent > 8
        else:
            assert sent == arrived == (6 if cell["probe"] == "bgp" else 8)


@pytest.mark.lab
def test_ctrl_c_in_the_middle_of_a_run_leaves_nothing(tmp_path: Path) -> None:
    """
    An interrupt while agents are at work ends the command with 130, without a traceback and without agents.
    """
    path = tmp_path / "hosts.yaml"
    with Lab.mesh(2) as lab:
        path.write_text(dump(lab.inventory()))
        # A packet every four seconds and host: it would take minutes.
        command = [
            sys.executable,
            "-m",
            "netprobe.cli",
            "run",
            str(path),
            "-v",
            "--rate",
            "1",
            "--count",
            "4",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "preparing" in line:
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)

    assert (130, "") == (process.returncode, out)
    assert "netprobe: error: interrupted" == err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.lab
@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_a_demo_that_is_asked_to_end_takes_its_network_away(request_: signal.Signals) -> None:
    """
    As by Ctrl-C, also as a script's background job. That no namespace is left is looked after for every test.
    """
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "netprobe.cli", "demo", "-v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "first look" in line:
                break
        process.send_signal(request_)
        out, err = process.communicate(timeout=30)

    assert (130, "") == (process.returncode, out)
    assert "netprobe: error: interrupted" == err.splitlines()[-1]


@pytest.mark.lab
def test_the_demo_finds_what_it_planted() -> None:
    """
    `netprobe demo` ends with 0: every planted fault was found, and no other.
    """
    done = netprobe("demo")

    assert (0, "") == (done.returncode, done.stderr)
    assert (
        "The faults that were planted are the faults that were found, and no others."
        == done.stdout.splitlines()[-1]
    )
    assert 6 <= done.stdout.count("\n  found   ")


@pytest.mark.lab
def test_a_demo_that_finds_something_else_says_so(
    fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where what was planted is not what was found, the demo ends with 1 and names the cells.
    """
    assert 1 == app.status_of(["demo"])
    out = capsys.readouterr().out
    assert 1 == len(fake.asked)
    assert "\n  MISSED  the firewall of worker-2 drops BGP that comes in (worker-2)\n" in out
    assert (
        "\nnot as planted: control -> worker-2 bgp:179/ipv4: expected filtered @ destination-ingress" in out
    )
