"""
Nothing of a run is left on a host, however it ends.

Its agents, their sockets, the conntrack entries of tunnels that it probed; nor are rules or files. An entry
that was there before is there afterwards.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from netprobe import coordinator
from netprobe.inventory import dump
from netprobe.lab import Lab, describe, namespaces
from netprobe.model import Family, Inventory
from netprobe.plan import Settings
from tests.agent.driver import Agent
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

TIMEOUT_S: Final = 20.0
TUNNELS: Final = ((4, 0, Family.IPV4), (17, 51820, Family.IPV4), (17, 51821, Family.IPV6))
LOOK: Final = "ss -aHntuw0 | sort; nft list ruleset; ip -o address; ip route show table all"


class Site:
    """A lab, and an agent on each of its hosts that looks at what there is."""

    def __init__(self, lab: Lab, observers: dict[str, Agent]) -> None:
        self.lab = lab
        self._observers = observers
        self._before = self._state()

    def tunnels(self, host: str) -> list[tuple[Any, ...]]:
        """The tunnels that a run may probe, of those that end at a host."""
        hosts = self.lab.hosts
        return [
            (protocol, hosts[src].address(family), hosts[dst].address(family), port, port)
            for protocol, port, family in TUNNELS
            for src, dst in permutations(hosts, 2)
            if host in (src, dst)
        ]

    def tracked(self, host: str) -> set[tuple[Any, ...]]:
        """Those that have a conntrack entry there."""
        tunnels = self.tunnels(host)
        answer = self._observers[host].ask("conntrack", tuples=tunnels)

        assert answer["tracking"]
        return {tunnels[number] for number in answer["found"]}

    def _state(self) -> dict[str, object]:
        """All that a run could leave behind."""
        found: dict[str, object] = {host: self.tracked(host) for host in self.lab.hosts}
        for on in (*self.lab.hosts, "router"):
            found[f"in {on}"] = self.lab.run(on, ["sh", "-c", LOOK]).stdout
        own = f"np-{os.getpid()}-"
        return found | {"namespaces": {name for name in namespaces.listed() if name.startswith(own)}}

    def check(self) -> None:
        """Everything is as it was before the first run."""
        assert self._before == self._state()


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


class Command:
    """`netprobe run` as a process; its agents are known by a mark in their environment."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.directory = directory
        self._mark = f"NETPROBE_LEFT={secrets.token_hex(8)}"
        fifo, hosts = directory / "started", directory / "hosts.yaml"
        os.mkfifo(fifo)
        self._started = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        tells = ("sh", "-c", f'echo >\'{fifo}\'; exec "$0" "$@"', sys.executable)
        first, *others = lab.inventory().hosts
        hosts.write_text(dump(Inventory(hosts=(msgspec.structs.replace(first, python=tells), *others))))
        # Whoever runs the tests in the background has them ignore Ctrl-C.
        argv = ["env", "--default-signal=INT", self._mark, sys.executable, "-m", "netprobe.cli"]
        self.process = subprocess.Popen(
            [*argv, "run", str(hosts), "-v", "-o", str(directory / "run.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Command:  # noqa: PYI034 (Self is Python 3.11's)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._started)

    def wait_for(self, phase: str) -> None:
        """Wait until a phase has begun: an agent is being started, or the phase before has been told."""
        if phase == PHASES[0]:
            assert select.select([self._started], [], [], TIMEOUT_S)[0]
            return
        previous = {after: each for each, after in pairwise(PHASES)}[phase]
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")

        assert any(line.startswith(f"netprobe: {previous}: ") for line in lines)

    def end(self) -> tuple[int, str, str]:
        """The status of the command, what it wrote since, and its agents have ended behind this."""
        stdout, stderr = self.process.communicate(timeout=TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        for process in self._agents():
            with os.fdopen(process, "rb", buffering=0):
                assert select.select([process], [], [], max(0.0, deadline - time.monotonic()))[0]
        return self.process.returncode, stdout, stderr

    def _agents(self) -> Iterator[int]:
        """Descriptors of those that have not ended yet."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                # An OSError means that it ended between two looks.
                with suppress(OSError):
                    if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        yield os.pidfd_open(int(entry.name))

    def files(self) -> set[str]:
        """What there is beside the inventory."""
        return {path.name for path in self.directory.iterdir()} - {"started", "hosts.yaml"}


def test_nothing_is_left_by_a_run(site: Site, tmp_path: Path) -> None:
    """But its result."""
    with Command(site.lab, tmp_path) as command:
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
    with Command(site.lab, tmp_path) as command:
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
        with Command(lab, tmp_path) as command:
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
