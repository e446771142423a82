"""
Nothing of a run is left on a host, however it ends.

Its agents, their sockets, the conntrack entries of tunnels that it probed; nor are rules or files. An entry
that was there before is there afterwards.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab, describe, namespaces
from netprobe.model import Family
from netprobe.plan import Settings
from tests.agent.driver import Agent
from tests.lab.leavings import Command, Site
from tests.lab.probing import PHASES

pytestmark = pytest.mark.lab

LAB: Final = """
name: hosts that track connections, and packets that are lost without a word
hosts: [n1, n2, n3]
faults:
  - {on: [n1, n2, n3], nft: ["ct state established,related accept"]}
  - {on: [n1, n2, n3], hook: output, nft: ["ct state established,related accept"]}
  - {on: router, nft: ["ip saddr $n1 ip daddr $n3 ip protocol 4 drop", "tcp dport 179 ip daddr $n1 drop"]}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A network with a tunnel between two of its hosts."""
    with Lab(describe(LAB)) as lab, ExitStack() as stack:
        make = partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        with namespaces.inside(lab.hosts["n2"].namespace, make) as tunnel:
            tunnel.sendto(bytes(20), (lab.hosts["n3"].address(Family.IPV4), 0))
        yield Site(lab, {host: stack.enter_context(Agent.on(lab, host)) for host in lab.hosts})


def test_a_tunnel_is_there_before(site: Site) -> None:
    """Its entry is, at both of its ends; a run that finds it is watched for what it does to it."""
    one, other = (site.lab.hosts[name].address(Family.IPV4) for name in ("n2", "n3"))
    tunnel = {(4, one, other, 0, 0), (4, other, one, 0, 0)}

    assert [set(), tunnel, tunnel] == [site.tracked(host) for host in site.lab.hosts]


def test_nothing_is_left_by_a_run(site: Site, tmp_path: Path) -> None:
    """But its result."""
    with Command(site.lab.inventory(), tmp_path) as command:
        status, stdout, _stderr = command.end()

    assert (1, "", {"run.json"}) == (status, stdout, command.files())
    site.check()


ENDS: Final = [
    *((signal.SIGINT, phase) for phase in PHASES),
    *((signal.SIGKILL, phase) for phase in PHASES),
    (signal.SIGTERM, "first look"),
    (signal.SIGHUP, "sessions"),
]


@pytest.mark.parametrize(("blow", "phase"), ENDS, ids=lambda each: getattr(each, "name", each))
def test_nothing_is_left_by_a_run_that_is_cut_off(
    site: Site, tmp_path: Path, blow: signal.Signals, phase: str
) -> None:
    """Nor a result: by Ctrl-C and its like, which clean up, and by what leaves no time for that."""
    with Command(site.lab.inventory(), tmp_path) as command:
        command.wait_for(phase)
        command.process.send_signal(blow)
        status, stdout, stderr = command.end()

    assert (-blow if blow == signal.SIGKILL else 130, "") == (status, stdout)
    assert (blow != signal.SIGKILL) == ("netprobe: error: interrupted" in stderr)
    assert "Traceback" not in stderr
    assert set() == command.files()
    site.check()


UNANSWERED: Final = """
name: a live service whose answers are lost on their way
hosts: [n1, n2]
families: [ipv4]
faults: [{on: router, nft: ip saddr $n2 tcp sport 179 drop}]
"""
_SERVICE: Final = """
import socket, sys
held = socket.create_server((sys.argv[1], 179))
print("ready", flush=True)
held.accept()
"""


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_no_connection_is_left_half_open_at_a_live_service(tmp_path: Path, blow: signal.Signals) -> None:
    """By a run that is cut off when its SYNs are out, and no answer has come: its agents take them back."""
    with Lab(describe(UNANSWERED)) as lab:
        there = lab.hosts["n2"].address(Family.IPV4)
        service = lab.popen("n2", [sys.executable, "-c", _SERVICE, there], stdout=subprocess.PIPE)
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        look = ["ss", "-Htn", "state", "syn-recv", "sport", "=", ":179"]
        with Command(lab.inventory(), tmp_path) as command:
            # The interfaces are watched by then, and the burst goes out.
            command.wait_for("confirming")
            while not lab.run("n2", look).stdout:
                assert command.process.poll() is None
            command.process.send_signal(blow)
            command.end()

        assert "" == lab.run("n2", look).stdout


class Canceller:
    """A progress that cancels its run when a phase begins."""

    def __init__(self, phase: str) -> None:
        self.scope = trio.CancelScope()
        self._phase = phase

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""
        assert total >= 0
        if name == self._phase:
            self.scope.cancel()

    def advance(self, n: int = 1) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""
        pytest.fail(text)


@pytest.mark.parametrize("phase", PHASES)
async def test_nothing_is_left_by_a_run_that_is_cancelled(site: Site, phase: str) -> None:
    """By who called it; at the next thing that it waits for."""
    canceller = Canceller(phase)
    with canceller.scope:
        await coordinator.run(site.lab.inventory(), Settings(), canceller)

    assert canceller.scope.cancelled_caught
    site.check()
