#!/usr/bin/env python3
"""
How long a full mesh takes: `netprobe run`, and beside it nmap asking for the same flows, in the same run.

    sudo .venv/bin/python benchmarks/mesh.py                 # 16, 50 and 100 hosts
    sudo .venv/bin/python benchmarks/mesh.py --hosts 16 --repeat 3

Every host is a network namespace on a link of its own to one router, and has every role. nmap scans all
others from every source at the same time: TCP SYN, UDP, and the protocol scan for IP-in-IP. It does so in two
ways, because it learns from TCP how long to wait for UDP, but cannot scan protocols in the same run: `nmap`
does its three scans one after the other, `nmap, combined` TCP and UDP in one, and the protocol beside it. It
is asked for 16 hosts only, in two networks: one in which a program listens on every port, and one in which
the router drops the tunnels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from tabulate import tabulate

from netprobe.inventory import dump
from netprobe.lab import Lab
from netprobe.model import Family, Role
from netprobe.probes import registry

NMAP_HOSTS: Final = 16
SETTING_UP: Final = ("starting agents", "preparing", "judging")
TUNNELS: Final = ("meta l4proto 4 drop", "udp dport { 4789, 8472, 51820 } drop")

TCP: Final = "T:179,443,2379,5473,6443"
UDP: Final = "U:4789,8472,51820"
PROTOCOL: Final = ("-sO", "-p", "4")
NMAP: Final = {
    "nmap": ((("-sS", "-p", TCP),), (("-sU", "-p", UDP),), (PROTOCOL,)),
    "nmap, combined": ((("-sS", "-sU", "-p", f"{TCP},{UDP}"), PROTOCOL),),
}
"""The scans of each way to ask nmap, in stages that follow each other."""

# Holds every port that is probed and answers nothing, as a service with nobody to talk to.
LISTENER: Final = """
import socket, sys, threading
held = []
for word in sys.argv[1:]:
    kind, port = word.split("/")
    handle = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    handle.bind(("", int(port)))
    if kind == "tcp":
        handle.listen(4096)
    held.append(handle)
print("ready", flush=True)
sys.stdin.read()
"""


class Cost(NamedTuple):
    """What a command took: seconds of wall clock and of CPU (its own and its children's), peak RSS in MB."""

    wall_s: float
    cpu_s: float
    rss_mb: float


class Result(NamedTuple):
    """A run of netprobe: its cost, the seconds that it probed, its flows by verdict, and its packets."""

    cost: Cost
    probing_s: float
    flows: int
    verdicts: dict[str, int]
    packets: int


def main() -> int:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, action="append", help="how many hosts; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, help="measure so often, and report the best")
    parser.add_argument("--one-port", action="store_true", help="one port for each probe: eight flows a pair")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it builds network namespaces: run it as root")
    rows = []
    for hosts in arguments.hosts or [16, 50, 100]:
        rows += list(measure(hosts, arguments.repeat, one_port=arguments.one_port))
    headers = (
        "hosts",
        "network",
        "tool",
        "flows",
        "wall s",
        "probing s",
        "CPU s",
        "packets",
        "peak MB",
        "ratio",
    )
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".2f"))
    return 0


def measure(hosts: int, repeat: int, *, one_port: bool) -> Iterator[Sequence[object]]:
    """The rows of the table for so many hosts."""
    with Lab.mesh(hosts, roles=tuple(Role), families=(Family.IPV4,)) as lab:
        yield row(hosts, "open", best(repeat, lambda: run_netprobe(lab, one_port=one_port)))
    if hosts != NMAP_HOSTS:
        return
    if shutil.which("nmap") is None:
        print("nmap is not installed: nothing to compare with", file=sys.stderr)
        return
    for network, prepare in (("services listen", listen), ("tunnels dropped", drop_tunnels)):
        with Lab.mesh(hosts, roles=tuple(Role), families=(Family.IPV4,)) as lab, prepare(lab):
            ours = best(repeat, lambda lab=lab: run_netprobe(lab, one_port=one_port))  # type: ignore[misc]
            yield row(hosts, network, ours)
            for name, scans in NMAP.items():
                theirs = min(run_nmap(lab, scans) for _ in range(repeat))
                ratio = f"netprobe is {theirs.wall_s / ours.cost.wall_s:.1f} x faster"
                yield hosts, network, name, "", theirs.wall_s, "", theirs.cpu_s, "", theirs.rss_mb, ratio


def best(repeat: int, run: Callable[[], Result]) -> Result:
    """The quickest of several runs."""
    return min((run() for _ in range(repeat)), key=lambda result: result.cost.wall_s)


def row(hosts: int, network: str, result: Result) -> Sequence[object]:
    """A line of the table."""
    cost = result.cost
    said = ", ".join(f"{count} {verdict}" for verdict, count in result.verdicts.items())
    print(f"{hosts} hosts, {network}: {said}", file=sys.stderr)
    return (
        hosts,
        network,
        "netprobe",
        result.flows,
        cost.wall_s,
        result.probing_s,
        cost.cpu_s,
        result.packets,
        cost.rss_mb,
        "",
    )


@contextmanager
def listen(lab: Lab) -> Iterator[None]:
    """On every host a program holds every probed port."""
    ports = [f"{probe.protocol.label}/{port}" for probe in registry().values() for port in probe.ports]
    wanted = sorted(set(ports) - {"udp/51821"})
    argv = [sys.executable, "-I", "-S", "-c", LISTENER, *wanted]
    listeners = [lab.popen(name, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in lab.hosts]
    for listener in listeners:
        if listener.stdout is None or listener.stdout.readline() != "ready\n":
            message = "a listener did not start"
            raise RuntimeError(message)
    yield


@contextmanager
def drop_tunnels(lab: Lab) -> Iterator[None]:
    """The router drops IP-in-IP, VXLAN and WireGuard."""
    lab.nft("router", list(TUNNELS))
    yield


def run_netprobe(lab: Lab, *, one_port: bool) -> Result:
    """`netprobe run` as a user runs it, on an inventory file."""
    inventory = lab.inventory()
    if one_port:
        ports = {"apiserver": (6443,), "flannel": (8472,)}
        inventory = msgspec.structs.replace(inventory, ports=ports)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "hosts.yaml"), Path(folder, "run.json")
        path.write_text(dump(inventory))
        argv = [sys.executable, "-m", "netprobe.cli", "run", str(path), "-v", "-o", str(out)]
        with tempfile.TemporaryFile("w+") as story:
            cost = timed([subprocess.Popen(argv, stderr=story)])
            story.seek(0)
            phases = re.findall(r"netprobe: (.+): [\d,]+ in ([\d.]+) s", story.read())
        document = json.loads(out.read_bytes())
    verdicts: dict[str, int] = {}
    for cell in document["cells"]:
        verdict = cell["judgement"]["verdict"]
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    probing_s = sum(float(seconds) for name, seconds in phases if name not in SETTING_UP)
    return Result(cost, probing_s, len(document["cells"]), verdicts, document["packets"])


def run_nmap(lab: Lab, stages: Sequence[Sequence[Sequence[str]]]) -> Cost:
    """All sources scan all others with nmap; the scans of a stage run beside each other."""
    costs = []
    for scans in stages:
        running = []
        for name, host in lab.hosts.items():
            others = [str(other.address(Family.IPV4)) for other in lab.hosts.values() if other.name != name]
            nmap = ["nsenter", f"--net=/run/netns/{host.namespace}", "nmap", "-n", "-Pn"]
            running += [
                subprocess.Popen(
                    [*nmap, *scan, *others], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                for scan in scans
            ]
        costs.append(timed(running))
    return Cost(
        sum(cost.wall_s for cost in costs),
        sum(cost.cpu_s for cost in costs),
        max(cost.rss_mb for cost in costs),
    )


def timed(running: Sequence[subprocess.Popen[bytes]]) -> Cost:
    """Wait for processes that were just started, and add up what they took."""
    started = time.monotonic()
    cpu_s, rss_kb = 0.0, 0
    for process in running:
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s += usage.ru_utime + usage.ru_stime
        rss_kb = max(rss_kb, usage.ru_maxrss)
    return Cost(time.monotonic() - started, cpu_s, rss_kb / 1024)


if __name__ == "__main__":
    sys.exit(main())
