#!/usr/bin/env python3
"""
How long it takes to start agents on many hosts by ssh, and beside it plain logins, in the same run.

    sudo .venv/bin/python benchmarks/ssh.py                  # 50 hosts
    sudo .venv/bin/python benchmarks/ssh.py --hosts 20 --repeat 3

Every host is a network namespace with a real sshd; clients and servers share this machine. `ssh … true` logs
in to all of them at once and does nothing there: what that costs is ssh's and sshd's own. The agents without
ssh show what is Python's. CPU is what the whole machine was busy with meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import trio
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' servers

from netprobe import transports
from netprobe.access import Access
from netprobe.coordinator.deployment import deployed
from netprobe.coordinator.progress import Silent
from netprobe.lab import Lab
from netprobe.model import Family, Inventory, Settings
from tests.transports.sshd import Servers


class Cost(NamedTuple):
    """Seconds by the clock, and of all CPUs together."""

    wall_s: float
    cpu_s: float


class Stopwatch(Silent):
    """A progress that notes when all agents have been started."""

    def __init__(self) -> None:
        self.started = 0.0

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""
        del total
        if name == "preparing":
            self.started = time.monotonic()


def busy_s() -> float:
    """What all CPUs have worked since the machine began (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def plain(inventory: Inventory) -> float:
    """Log in to all hosts at once, and do nothing."""
    ssh = transports.registry()["ssh"]
    logins = [
        subprocess.Popen(
            ssh.argv(host, ["true"], Access()), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for host in inventory.hosts
    ]
    for login in logins:
        if login.wait():
            sys.exit(f"a login failed with status {login.returncode}")
    return time.monotonic()


def agents(inventory: Inventory) -> float:
    """Start all agents; they end at once."""
    watch = Stopwatch()

    async def start() -> None:
        async with deployed(inventory, Settings(), watch) as there:
            if there.crew.lost:
                sys.exit(f"lost: {there.crew.lost}")

    trio.run(start)
    return watch.started


def measured(way: Callable[[Inventory], float], inventory: Inventory) -> Cost:
    """What one of these costs."""
    began, busy = time.monotonic(), busy_s()
    ended = way(inventory)
    return Cost(ended - began, busy_s() - busy)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Lab.mesh(options.hosts, families=(Family.IPV4,)) as lab,
    ):
        servers = Servers(lab, Path(directory))
        os.environ["PATH"] = servers.path
        ways = {
            "ssh HOST true": (plain, servers.inventory()),
            "agents by ssh": (agents, servers.inventory()),
            "agents without ssh": (agents, lab.inventory()),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(options.repeat):
            for name, (way, inventory) in ways.items():
                costs[name].append(measured(way, inventory))
    peer = median(cost.wall_s for cost in costs["ssh HOST true"])
    rows = [
        (
            name,
            median(cost.wall_s for cost in theirs),
            median(cost.cpu_s for cost in theirs),
            median(cost.cpu_s for cost in theirs) / options.hosts,
            median(cost.wall_s for cost in theirs) / peer,
        )
        for name, theirs in costs.items()
    ]
    headers = (f"{options.hosts} hosts", "wall s", "CPU s", "CPU s a host", "ratio to plain ssh")
    print(tabulate(rows, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
