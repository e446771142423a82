"""
What holds for all tests: where labs run, and that nothing is left behind.

A test marked `lab` builds network namespaces. Where that is not possible it is skipped with the reason; when
`CI` is set or `--require-labs` is given, such a skip is a failure, so that a green run has run everything.

Every test must leave the machine as it found it. A namespace, a child process or a temporary file that a
test leaves is an error of that test; a process that outlives its parent is found at the end of the session by
a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

# Helpers that assert, and that tests of several directories import.
pytest.register_assert_rewrite("tests.transports.conformance", "tests.ssh.site")

# One machine runs many sessions at once: how long an example takes says nothing.
hypothesis.settings.register_profile("netprobe", deadline=None)
hypothesis.settings.load_profile("netprobe")

LAB_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}  # capability.h
LAB_TOOLS: Final = ("ip", "nft")

_NETNS: Final = Path("/run/netns")
_MARK: Final = f"NETPROBE_TEST_SESSION={secrets.token_hex(8)}"
_GRACE_S: Final = 2.0
"""How long a process that was told to end may take; one that ends by itself is no stray."""


def lab_obstacle() -> str:
    """Why no lab can be built here; "" where it can."""
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    effective = int(capabilities[1], 16) if capabilities else 0
    missing = [name for name, bit in LAB_CAPABILITIES.items() if not effective >> bit & 1]
    missing += [tool for tool in LAB_TOOLS if shutil.which(tool) is None]
    return f"a lab needs {', '.join(missing)}" if missing else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--require-labs`."""
    parser.addoption("--require-labs", action="store_true", help="a lab test that is skipped is a failure")


def _labs_are_required(config: pytest.Config) -> bool:
    return bool(config.getoption("--require-labs") or os.environ.get("CI"))


def pytest_report_header() -> str:
    """Say beforehand whether the labs run."""
    return f"labs: {lab_obstacle() or 'run'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the lab tests, with the reason, where no lab can be built."""
    if obstacle := lab_obstacle():
        for item in items:
            if item.get_closest_marker("lab"):
                item.add_marker(pytest.mark.skip(reason=obstacle))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a lab test into a failure where labs are required."""
    report = yield
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and item.get_closest_marker("lab") and _labs_are_required(item.config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (and labs are required here)"
    return report


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie, which holds nothing but its number."""
    with contextlib.suppress(OSError):
        # The command before the state, in parentheses, may itself have blanks and parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _children() -> set[int]:
    """The direct children of this process, of whichever thread, that still run."""
    while True:
        threads = os.listdir("/proc/self/task")  # noqa: PTH208 (which would leave out one that ends meanwhile)
        # A thread that was joined may be there still, and end now: another one has its children then.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lists = [Path(f"/proc/self/task/{thread}/children").read_text().split() for thread in threads]
            return {int(pid) for pids in lists for pid in pids if _runs(int(pid))}


def _is_marked(pid: int) -> bool:
    try:
        return _MARK.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _strays(pids: Iterable[int]) -> list[str]:
    """The command lines of those that do not end within the grace; they are then killed."""
    strays = []
    for pid in sorted(pids):
        # An OSError means that it ended between two looks.
        with contextlib.suppress(OSError), os.fdopen(os.pidfd_open(pid), "rb", buffering=0) as process:
            if not select.select([process], [], [], _GRACE_S)[0]:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                strays.append(f"process {pid}: {b' '.join(words).decode(errors='replace').strip()[:200]}")
                os.kill(pid, signal.SIGKILL)
    return strays


def _namespaces(*, of_the_dead: bool) -> set[str]:
    """
    The namespaces that a lab of this session made, by the number of its process in their names.

    Those of processes that ended may be another session's, which is about to take them away.
    """
    names = {entry.name for entry in _NETNS.iterdir()} if _NETNS.exists() else set()
    return {name for name in names if name.startswith("np-") and _is_ours(name, of_the_dead=of_the_dead)}


def _is_ours(name: str, *, of_the_dead: bool) -> bool:
    owner = re.match(r"np-(\d+)-", name)
    if owner is None or int(owner[1]) == os.getpid():
        return True
    return _is_marked(int(owner[1])) if _runs(int(owner[1])) else of_the_dead


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mark every process that the session starts, and keep temporary files where they can be watched."""
    with pytest.MonkeyPatch.context() as patch:
        name, value = _MARK.split("=")
        patch.setenv(name, value)
        temporary = tmp_path_factory.mktemp("temporary", numbered=False)
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_session: None) -> Iterator[None]:
    """Fail the test that leaves a namespace, a child process or a temporary file."""
    temporary = Path(tempfile.gettempdir())
    files, children = set(temporary.iterdir()), _children()
    namespaces = _namespaces(of_the_dead=False)
    yield
    left = _strays(_children() - children)
    left += [f"namespace {name}" for name in sorted(_namespaces(of_the_dead=False) - namespaces)]
    left += [f"file {path}" for path in sorted(set(temporary.iterdir()) - files)]
    if left:
        pytest.fail(f"left behind: {'; '.join(left)}", pytrace=False)


_AT_START: Final = _namespaces(of_the_dead=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session that leaves a process or a namespace, whichever test it was."""
    pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()} - {os.getpid()}
    left = _strays(pid for pid in pids if _is_marked(pid) and _runs(pid))
    # One of several processes that share the tests: those of the dead may be another's, which still works.
    output = getattr(session.config, "workeroutput", None)
    left += [f"namespace {name}" for name in sorted(_namespaces(of_the_dead=output is None) - _AT_START)]
    others: list[str] = session.config.stash.get(_LEFT, [])
    left += others
    if output is not None:
        output["left"] = left
    session.config.stash[_LEFT] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ANN401, ARG001 (pytest-xdist has no types)
    """Hear what one of several processes that share the tests has left behind."""
    node.config.stash.setdefault(_LEFT, []).extend(getattr(node, "workeroutput", {}).get("left", []))


_LEFT: Final = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what the session left behind."""
    for line in config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND by the session: {line}", red=True, bold=True)
