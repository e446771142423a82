"""Packets as if from pods: what is on the wire, what they ask of hosts, and what becomes of them between."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Hook, Lab, describe
from netprobe.lab.description import ChainType
from netprobe.model import Caveat, Family, Run, Segment, Verdict
from netprobe.modes import evaluate, exit_status
from netprobe.plan import Settings
from tests.lab.probing import Held, held, only, probe

BESIDE_LOSSES: Final = """
name: a router that drops packets of pods, and half of the VXLAN, and a host that masquerades its pods
hosts: [a, b]
families: [ipv4]
pod_cidr: [10.244.0.0/16]
faults:
  - {on: router, hook: prerouting, nft: 'iifname "a" ip saddr 10.244.0.0/16 drop'}
  - {on: router, nft: 'iifname "a" udp dport 4789 numgen random mod 2 0 drop'}
  - {on: a, type: nat, hook: postrouting, nft: ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade}
"""

pytestmark = pytest.mark.lab

TWO: Final = """
name: two hosts, and addresses for pods
hosts: [a, b]
pod_cidr: [10.244.0.0/16, "fd00:10:244::/56"]
"""
PODS: Final = {Family.IPV4: "10.244.255.254", Family.IPV6: "fd00:10:244:ff:ffff:ffff:ffff:fffe"}
OPEN: Final = Held(Verdict.OPEN)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts with nothing in the way."""
    with Lab(describe(TWO)) as lab:
        yield lab


@contextmanager
def captured(lab: Lab, on: str, expression: str) -> Iterator[list[str]]:
    """The packets that pass a host's interface, as tcpdump tells them; they are there behind the block."""
    watch = ["tcpdump", "-i", "eth0", "-n", "-vv", "--immediate-mode", "-l", expression]
    tap = lab.popen(on, watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert tap.stderr is not None
    assert tap.stdout is not None
    while "listening on" not in tap.stderr.readline():
        assert tap.poll() is None
    packets: list[str] = []
    yield packets
    tap.terminate()
    # What belongs to a packet is indented.
    packets += re.sub(r"\n\s+", " ", tap.stdout.read()).splitlines()


def test_the_packets_on_the_wire_are_as_a_pod_would_send_them(lab: Lab) -> None:
    """
    Eight each way and family, from the last usable address of the range, with checksums that are right; and
    nobody answers them anything, nor tells the pod.
    """
    with captured(lab, "b", "udp port 9 or icmp or icmp6[0] < 128") as packets:
        run = probe(lab, "pod-route")

    assert {OPEN} == set(held(run).values())
    assert 32 == len(packets)
    for family, pod in PODS.items():
        for name in "ab":
            way = rf" {re.escape(pod)}\.\d+ > {re.escape(lab.hosts[name].address(family))}\.9: "
            assert 8 == sum(bool(re.search(way, packet)) for packet in packets)
    assert all("[udp sum ok]" in packet and "bad cksum" not in packet for packet in packets)


def test_the_same_network_is_judged_by_what_the_inventory_asks_of_it(lab: Lab) -> None:
    """
    With a range of pods the mode is blocked where packets of pods are; without one it is as it was before.
    """
    lab.nft("router", "ip saddr 10.244.0.0/16 drop")
    inventory = msgspec.structs.replace(lab.inventory(), modes=("none",))
    results: list[tuple[bool, int]] = []
    for asked in (inventory, msgspec.structs.replace(inventory, pod_cidr=())):
        run = trio.run(coordinator.run, asked, Settings())
        results.append((evaluate(run)[0].usable, exit_status(run)))

    assert [(False, 1), (True, 0)] == results


def test_a_pods_address_that_is_translated_on_the_way_is_told(lab: Lab) -> None:
    """
    The packet arrives, from an address that is not the pod's.
    """
    masquerade = "ip saddr 10.244.0.0/16 masquerade"
    lab.nft("router", masquerade, type=ChainType.NAT, hook=Hook.POSTROUTING)
    run = probe(lab, "pod-route")
    gateway = "10.77.2.1"

    assert Held(Verdict.OPEN, caveats=(Caveat.NAT,)) == held(run)["a -> b pod-route:9/ipv4"]
    assert OPEN == held(run)["a -> b pod-route:9/ipv6"]
    detail = only(run.cells, "a -> b pod-route:9/ipv4").judgement.detail
    assert f"arrives from {gateway}, not from {PODS[Family.IPV4]}" == detail


def test_a_bundle_that_loses_packets_of_pods_by_their_ports_is_degraded(lab: Lab) -> None:
    """
    Their source ports vary as those of pods do, and the ones that fail are named.
    """
    lab.nft("router", "ip saddr 10.244.0.0/16 udp sport & 2 == 2 drop")
    run = probe(lab, "pod-route")

    assert (
        Held(Verdict.DEGRADED, Segment.PATH, caveats=(Caveat.ECMP,)) == held(run)["a -> b pod-route:9/ipv4"]
    )
    evidence = only(run.cells, "a -> b pod-route:9/ipv4").evidence
    assert {2} == {port & 2 for port in evidence.failing_ports}
    assert {0} == {port & 2 for port in evidence.passing_ports}


def test_an_agent_that_may_not_resolve_neighbours_sends_no_packets_of_pods(lab: Lab) -> None:
    """
    They enter below the firewall, to a neighbour whom the agent must have the kernel find; others are sent.
    """
    inventory = lab.inventory()
    bound = ("setpriv", "--bounding-set", "-net_admin", "--", sys.executable)
    a, b = inventory.hosts
    weak = msgspec.structs.replace(
        inventory, hosts=(a, msgspec.structs.replace(b, python=bound)), probes=("pod-route", "vxlan")
    )
    run: Run = trio.run(coordinator.run, weak, Settings())
    reason = (
        "the agent on b runs as uid 0 without CAP_NET_ADMIN: what confines it (a container, a unit) takes "
        "that away; with --privileged a container has it"
    )

    assert {("pod-route", Verdict.UNTESTED, reason), ("vxlan", Verdict.OPEN, "")} == {
        (cell.flow.probe, cell.judgement.verdict, cell.judgement.detail) for cell in run.cells
    }


def test_a_doubt_does_not_send_a_pods_packet_through_the_hosts_own_firewall() -> None:
    """
    Its address would be translated there, as that of the host's own pods, and come through.
    """
    with Lab(describe(BESIDE_LOSSES)) as lab:
        found = held(probe(lab, "vxlan", "pod-route"))
        entries = lab.run("a", ["cat", "/proc/net/nf_conntrack"]).stdout

    assert Held(Verdict.DEGRADED, Segment.PATH) == found["a -> b vxlan:4789/ipv4"]
    assert Held(Verdict.FILTERED, Segment.PATH) == found["a -> b pod-route:9/ipv4"]
    assert f"src=10.244.255.254 dst={lab.hosts['b'].address(Family.IPV4)} " not in entries
