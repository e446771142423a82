#!/usr/bin/env python3
"""
How long a full mesh takes: `netprobe run`, and beside it nmap asking for the same flows, in the same run.

    sudo .venv/bin/python benchmarks/mesh.py                 # 16, 50 and 100 hosts
    sudo .venv/bin/python benchmarks/mesh.py --hosts 16 --repeat 3

Every host is a network namespace on a link of its own to one router, and has every role. nmap runs once for each
source, all sources at the same time: a SYN and UDP scan of all others, and a protocol scan for IP-in-IP. It is
asked for 16 hosts only, in two networks: one in which a program listens on every port, and one in which the
router drops the tunnels.
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
            theirs = min(run_nmap(lab) for _ in range(repeat))
            ratio = theirs.wall_s / ours.cost.wall_s
            yield row(hosts, network, ours)
            yield (
                hosts,
                network,
                "nmap",
                "",
                theirs.wall_s,
                "",
                theirs.cpu_s,
                "",
                theirs.rss_mb,
                f"netprobe is {ratio:.1f} x faster",
            )


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


def run_nmap(lab: Lab) -> Cost:
    """One nmap for each source and kind of scan, all at the same time."""
    probes = registry().values()
    tcp = ",".join(str(port) for probe in probes if probe.protocol.label == "tcp" for port in probe.ports)
    udp = ",".join(
        str(port)
        for probe in probes
        if probe.protocol.label == "udp" and Family.IPV4 in probe.families
        for port in probe.ports
    )
    scans = [["-sS", "-sU", "-p", f"T:{tcp},U:{udp}"], ["-sO", "-p", "4"]]
    running = []
    for name, host in lab.hosts.items():
        others = [str(other.address(Family.IPV4)) for other in lab.hosts.values() if other.name != name]
        for scan in scans:
            argv = ["nsenter", f"--net=/run/netns/{host.namespace}", "nmap", "-n", "-Pn", *scan, *others]
            running.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return timed(running)


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
