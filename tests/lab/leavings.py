"""What a run could leave on the hosts of a lab, and a run as a process that can be cut off."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Final

import msgspec

from netprobe.inventory import dump
from netprobe.lab import Lab, namespaces
from netprobe.model import Family, Inventory
from tests.agent.driver import Agent
from tests.lab.probing import PHASES

TIMEOUT_S: Final = 20.0
TUNNELS: Final = ((4, 0, Family.IPV4), (17, 51820, Family.IPV4), (17, 51821, Family.IPV6))
LOOK: Final = "ss -aHntuw0 | grep -v :2022 | sort; nft list ruleset; ip -o address; ip route show table all"
"""Sockets, but those of logins by ssh, which the kernel keeps for a minute; rules, addresses, routes."""


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


def processes(lab: Lab, host: str) -> set[int]:
    """The numbers of the processes in the namespace of a host."""
    there = Path(f"/run/netns/{lab.hosts[host].namespace}").stat().st_ino
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # An OSError means that it ended between two looks.
            with suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino == there:
                    found.add(int(entry.name))
    return found


class Command:
    """
    `netprobe run` as a process.

    It and the agents that it starts on this machine are known by a mark in their environment.
    """

    def __init__(self, inventory: Inventory, directory: Path, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self._mark = f"NETPROBE_LEFT={secrets.token_hex(8)}"
        fifo, hosts = directory / "started", directory / "hosts.yaml"
        os.mkfifo(fifo)
        self._started = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        tells = ("sh", "-c", f'echo >\'{fifo}\'; exec "$0" "$@"', sys.executable)
        first, *others = inventory.hosts
        hosts.write_text(dump(Inventory(hosts=(msgspec.structs.replace(first, python=tells), *others))))
        # Whoever runs the tests in the background has them ignore Ctrl-C.
        argv = ["env", "--default-signal=INT", self._mark, sys.executable, "-m", "netprobe.cli"]
        self.process = subprocess.Popen(
            [*argv, "run", str(hosts), "-v", "-o", str(directory / "run.json"), *options],
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
