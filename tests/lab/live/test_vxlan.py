"""
The kernel's own VXLAN devices carry an overlay's traffic while netprobe runs.

A probe that has the overlay's VNI is unwrapped, as any packet is. Its inner frame is for nobody: the network
inside must have nothing of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Run
from tests.lab.live.programs import TRACKING, Program, Traffic, check_open, needs, three_runs, traces

pytestmark = needs("conntrack")

LAB: Final = f"{{name: two nodes of a VXLAN overlay, hosts: [a, b], faults: [{TRACKING % 'a, b'}]}}"
PORT: Final = 4789
INNER: Final = {"vxlan0": "198.18.0.", "vxlan6": "198.18.6."}  # RFC 2544
FOREIGN_MAC: Final = "026e70000002"
HOST, BROADCAST, OTHER_HOST, OUTGOING = 0, 1, 3, 4  # linux/if_packet.h

# Counts the frames that a device receives, by whom the kernel takes them to be for and by their MAC address.
# A number on its stdin says how many there are: when it has them all it says what they were.
_SNIFFER: Final = f"""
import collections, json, select, socket, sys
frames, number = collections.Counter(), None
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
    tap.bind((sys.argv[1], 3))
    print("ready", flush=True)
    while number is None or frames.total() < number:
        waiting = [tap, sys.stdin] if number is None else [tap]
        for each in select.select(waiting, [], [])[0]:
            if each is sys.stdin:
                number = int(sys.stdin.readline())
                continue
            data, (_name, _protocol, kind, *_) = tap.recvfrom(2000)
            if kind != {OUTGOING}:
                frames[kind, data[:6].hex()] += 1
print(json.dumps([[*which, count] for which, count in frames.items()]), flush=True)
"""


class Device:
    """A VXLAN device of a node, and a capture at it: inside the overlay."""

    def __init__(self, lab: Lab, on: str, name: str) -> None:
        self._lab = lab
        self._on = on
        self._name = name
        self._before = self.received()["packets"]
        self._sniffer = Program(lab, on, [sys.executable, "-c", _SNIFFER, name], ready="^ready$")

    def received(self) -> Mapping[str, int]:
        """What it has received, by the kernel's own count."""
        (link,) = json.loads(self._lab.run(self._on, ["ip", "-s", "-j", "link", "show", self._name]).stdout)
        received: dict[str, int] = link["stats64"]["rx"]
        return received

    def captured(self) -> dict[tuple[int, str], int]:
        """How many frames it has received, by whom the kernel takes them to be for and MAC address."""
        stdin = self._sniffer.process.stdin
        assert stdin is not None
        stdin.write(f"{self.received()['packets'] - self._before}\n")
        stdin.flush()
        return {(kind, mac): count for kind, mac, count in json.loads(self._sniffer.lines.find("."))}


class Overlay(msgspec.Struct, frozen=True):
    """What three runs and the traffic beside them have left."""

    devices: list[Device]
    runs: list[Run]
    datagrams: int
    traces: tuple[dict[str, set[str]], dict[str, set[str]]]


def _build(lab: Lab) -> None:
    """Give each node a device for each family, as Calico makes them, and its place in the inner networks."""
    for number, (name, peer) in enumerate((("a", "b"), ("b", "a")), start=1):
        ends = zip(lab.hosts[name].addresses.values(), lab.hosts[peer].addresses.values(), strict=True)
        for device, (local, remote) in zip(INNER, ends, strict=True):
            vxlan = ["type", "vxlan", "id", "4096", "dstport", str(PORT), "local", local, "nolearning"]
            lab.run(name, ["ip", "link", "add", device, *vxlan])
            lab.run(name, ["sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1"])
            lab.run(name, ["ip", "address", "add", f"{INNER[device]}{number}/24", "dev", device])
            lab.run(name, ["ip", "link", "set", device, "up"])
            everybody = ["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", device]
            lab.run(name, [*everybody, "dst", remote])


@pytest.fixture(scope="module")
def overlay() -> Iterator[Overlay]:
    """Both inner networks carry traffic, before the runs and during them."""
    with Lab(describe(LAB)) as lab:
        _build(lab)
        devices = [Device(lab, host, name) for host, name in product(lab.hosts, INNER)]
        traffic = Traffic(lab, "a", "b", [f"{network}2" for network in INNER.values()])
        left = traces(lab)
        runs = three_runs(lab)
        yield Overlay(devices, runs, traffic.stop(), (left, traces(lab)))


def test_the_inner_network_gets_its_own_traffic_and_nothing_else(overlay: Overlay) -> None:
    """
    What came in a probe is for another host, by the kernel's own judgement: the end of it.
    """
    for device in overlay.devices:
        frames = device.captured()
        probes = frames.pop((OTHER_HOST, FOREIGN_MAC))

        assert probes > 0
        assert {HOST, BROADCAST} >= {kind for kind, _mac in frames}
        assert FOREIGN_MAC not in {mac for _kind, mac in frames}
        assert overlay.datagrams / len(INNER) <= sum(frames.values())
        assert 0 == device.received()["errors"] == device.received()["dropped"]


def test_nothing_is_left_at_the_nodes(overlay: Overlay) -> None:
    """
    No connection, and no conntrack entry but those that run out.
    """
    before, after = overlay.traces

    assert before == after


def test_vxlan_is_open_and_the_kernel_is_named(overlay: Overlay) -> None:
    """
    No process has the port; the kernel has, for its devices.
    """
    held = "the kernel (vxlan0, vxlan6) holds the port"
    for run in overlay.runs:
        check_open(run, {("a", PORT): held, ("b", PORT): held})
