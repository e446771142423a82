#!/usr/bin/env python3
"""
How long the path MTUs of a full mesh take: `netprobe mtu`, as a user runs it.

    sudo .venv/bin/python benchmarks/mtu.py                  # 16 hosts
    sudo .venv/bin/python benchmarks/mtu.py --hosts 50 --repeat 3

Every host is a network namespace on a link of its own to one router. There are three networks: one in which
every path takes what its source's interface takes, one in which the router's ways to all hosts are narrower
and it says so, and one in which it keeps quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tabulate import tabulate

from netprobe.inventory import dump
from netprobe.lab import Lab
from netprobe.lab.description import Hook
from netprobe.model import Family

NARROW: Final = 1420
SETTING_UP: Final = ("starting agents", "preparing")
NETWORKS: Final = ("as wide as the interfaces", "narrower, and told", "narrower, and silent")


def main() -> int:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, action="append", help="how many hosts; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, help="measure so often, and report the best")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it builds network namespaces: run it as root")
    rows = []
    for hosts in arguments.hosts or [16]:
        for families in ((Family.IPV4,), tuple(Family)):
            for network in NETWORKS:
                with Lab.mesh(hosts, families=families) as lab:
                    prepare(lab, network)
                    results = [measure(lab) for _ in range(arguments.repeat)]
                rows.append((hosts, len(families), network, *min(results)))
    headers = ("hosts", "families", "network", "wall s", "measuring s", "CPU s", "packets", "path MTUs")
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".2f"))
    return 0


def prepare(lab: Lab, network: str) -> None:
    """Make the router's ways to all hosts narrower, and keep it from saying so."""
    if network == NETWORKS[0]:
        return
    for name, host in lab.hosts.items():
        for address in host.addresses.values():
            lab.run("router", ["ip", "route", "add", address, "dev", name, "mtu", "lock", str(NARROW)])
    if network == NETWORKS[2]:
        quiet = ["icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"]
        lab.nft("router", quiet, hook=Hook.OUTPUT)


def measure(lab: Lab) -> Sequence[object]:
    """`netprobe mtu`: seconds of wall clock, of measuring, of CPU; packets; how many paths are how wide."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "hosts.yaml"), Path(folder, "mtu.json")
        path.write_text(dump(lab.inventory()))
        argv = [sys.executable, "-m", "netprobe.cli", "mtu", str(path), "-v", "-o", str(out)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        phases = re.findall(r"netprobe: (.+): [\d,]+ in ([\d.]+) s", done.stderr)
        document = json.loads(out.read_bytes())
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measuring_s = sum(float(seconds) for name, seconds in phases if name not in SETTING_UP)
    found = Counter(f"{each.get('mtu', 'none')} {each.get('limit', '')}" for each in document["mtus"])
    said = ", ".join(f"{count} x {what}" for what, count in found.items())
    return wall_s, measuring_s, cpu_s, document["packets"], said


if __name__ == "__main__":
    sys.exit(main())
