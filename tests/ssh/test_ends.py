"""However a run over ssh ends, within five seconds nothing of it is left on any host."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from tests.agent.driver import Agent
from tests.lab.leavings import Command, Site, processes
from tests.lab.probing import PHASES
from tests.transports.conformance import TIMEOUT_S
from tests.transports.sshd import Servers, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

CUTS: Final = 30
WITHIN_S: Final = 5.0
LAB: Final = """
name: hosts that track connections, packets that are lost, and a service whose answers do not come
hosts: [n1, n2, n3]
faults:
  - {on: [n1, n2, n3], nft: ["ct state established,related accept"]}
  - {on: [n1, n2, n3], hook: output, nft: ["ct state established,related accept"]}
  - {on: router, nft: ["ip saddr $n1 ip daddr $n3 ip protocol 4 drop", "tcp dport 179 ip daddr $n1 drop"]}
"""


class Fleet:
    """The hosts, with what they were before the first run."""

    def __init__(self, servers: Servers, observers: dict[str, Agent]) -> None:
        self.servers = servers
        self.site = Site(servers.lab, observers)
        self._before = self._processes()

    def _processes(self) -> set[int]:
        lab = self.servers.lab
        return set().union(*(processes(lab, host) for host in lab.hosts))

    def strangers(self) -> set[int]:
        """Processes that were not there before."""
        return self._processes() - self._before

    def check(self, deadline: float) -> None:
        """All is as it was, at the deadline at the latest."""
        while pids := self.strangers():
            for pid in pids:
                with suppress(ProcessLookupError), _watched(pid) as process:
                    left = deadline - time.monotonic()
                    assert select.select([process], [], [], max(0.0, left))[0], _command(pid)
        self.site.check()


@contextmanager
def _watched(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three hosts by ssh."""
    with Lab(describe(LAB)) as lab, ExitStack() as stack:
        observers = {host: stack.enter_context(Agent.on(lab, host)) for host in lab.hosts}
        yield Fleet(Servers(lab, tmp_path_factory.mktemp("ssh")), observers)


@pytest.fixture
def by_ssh(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The hosts, with the client in the PATH."""
    monkeypatch.setenv("PATH", fleet.servers.path)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return fleet


@pytest.fixture(scope="module")
def lasts_s(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run lasts that nobody cuts off."""
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", fleet.servers.path)
        with Command(fleet.servers.inventory(), tmp_path_factory.mktemp("whole")) as command:
            status, _stdout, stderr = command.end()

    assert 1 == status, stderr
    fleet.check(time.monotonic() + WITHIN_S)
    return time.monotonic() - started


@pytest.mark.parametrize("cut", range(CUTS))
def test_nothing_is_left_by_a_run_that_is_cut_off_at_a_random_moment(
    by_ssh: Fleet, lasts_s: float, tmp_path: Path, cut: int
) -> None:
    """
    By Ctrl-C, SIGTERM, or a kill that leaves no time to tell anybody.
    """
    blow = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[cut % 3]
    moment_s = random.SystemRandom().uniform(0, lasts_s)
    with Command(by_ssh.servers.inventory(), tmp_path) as command:
        command.wait_for(PHASES[0])
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(moment_s)
        command.process.send_signal(blow)
        deadline = time.monotonic() + WITHIN_S
        status, stdout, stderr = command.end()

    # It may have ended before: a moment is as long as the machine is slow.
    # Python ends by SIGINT itself where Ctrl-C has come in the middle of what it evaluates from text, and by
    # any signal when it is about to end.
    assert status in (1, 130, -signal.SIGINT, -blow), f"{blow.name} at {moment_s:.2f} s: {stderr}"
    assert "" == stdout
    assert "Traceback" not in stderr
    by_ssh.check(deadline)


def test_the_second_ctrl_c_leaves_nothing_either(by_ssh: Fleet, tmp_path: Path) -> None:
    """
    Agents that do not end when the first one comes do so when their connection has gone.
    """
    with Command(by_ssh.servers.inventory(), tmp_path) as command:
        command.wait_for("sessions")
        stopped = [pid for pid in by_ssh.strangers() if "python" in _command(pid).split(" ", 1)[0]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        command.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            command.process.wait(0.2)
        command.process.send_signal(signal.SIGINT)
        command.process.wait(TIMEOUT_S)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        status, _stdout, stderr = command.end()

    assert stopped
    assert (130, False) == (status, "Traceback" in stderr)
    by_ssh.check(time.monotonic() + WITHIN_S)
