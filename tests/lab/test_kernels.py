"""
What is lost inside a host, past its interface and by no rule, is told by the kernel's counters.

Each lab has hosts that drop by a rule as well: a counter must not be laid at their door.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Caveat, Cell, Family, Run, Segment, Verdict
from tests.lab.live.programs import Lines
from tests.lab.probing import evidence, only, probe

pytestmark = pytest.mark.lab


def counters(run: Run) -> Mapping[str, tuple[Verdict, Segment | None, str]]:
    """The cells of a run that are not open, with the counter of each."""
    return {
        f"{cell.flow.src} -> {cell.flow.dst} {cell.flow.probe}/{cell.flow.family.value}": _told(cell)
        for cell in run.cells
        if cell.judgement.verdict is not Verdict.OPEN
    }


def _told(cell: Cell) -> tuple[Verdict, Segment | None, str]:
    return cell.judgement.verdict, cell.judgement.segment, cell.evidence.counter


def at_ingress(counter: str) -> tuple[Verdict, Segment, str]:
    """What a cell holds whose probe was discarded on its way in, by a kernel or (with "") by a rule."""
    return Verdict.FILTERED, Segment.DESTINATION_INGRESS, counter


STRICT: Final = """
name: a host with strict reverse-path filtering, whose way back to one host is another
hosts: [a, b, c]
families: [ipv4]
faults:
  - {on: b, sysctl: {net.ipv4.conf.all.rp_filter: 1, net.ipv4.conf.eth0.rp_filter: 1}}
  - {on: b, run: [ip, link, add, other, type, veth, peer, name, nowhere]}
  - {on: b, run: [ip, link, set, other, up]}
  - {on: b, run: [ip, link, set, nowhere, up]}
  - {on: b, run: [ip, address, add, 192.0.2.1/24, dev, other]}
  - {on: b, run: [ip, route, add, $a, dev, other]}
  - {on: b, nft: "ip saddr $c tcp dport 179 drop"}
  - {on: b, nft: "ip saddr $c meta l4proto 4 drop"}
"""


def test_a_strict_reverse_path_filter_is_told_from_a_rule() -> None:
    """
    TCP, UDP and protocol 4, one by one where a rule drops others at the same host.
    """
    with Lab(describe(STRICT)) as lab:
        run = probe(lab, "bgp", "vxlan", "ipip")
    found = {name: told for name, told in counters(run).items() if name.partition(" -> ")[2].startswith("b")}
    cell = only(run.cells, "a -> b vxlan:4789/ipv4")

    assert {
        "a -> b bgp/ipv4": at_ingress("TcpExt.IPReversePathFilter"),
        "a -> b ipip/ipv4": at_ingress("TcpExt.IPReversePathFilter"),
        "a -> b vxlan/ipv4": at_ingress("TcpExt.IPReversePathFilter"),
        "c -> b bgp/ipv4": at_ingress(""),
        "c -> b ipip/ipv4": at_ingress(""),
    } == found
    assert "IPReversePathFilter of b grew with each packet: strict reverse-path" in cell.judgement.detail


MISCALCULATED: Final = """
name: a router that breaks the checksums of some packets
hosts: [a, b, c]
faults:
  - {on: router, nft: 'oifname "b" tcp dport 179 tcp checksum set 0x1234'}
  - {on: router, nft: 'oifname "b" udp dport 51820 udp checksum set 0x1234'}
  - {on: router, nft: 'oifname "b" ip6 saddr $a.ipv6 udp dport 51821 udp checksum set 0x1234'}
  - {on: c, hook: output, nft: "tcp sport 179 drop"}
"""


def test_a_wrong_checksum_keeps_out_what_a_raw_socket_has_seen() -> None:
    """
    Raw sockets get their copy first; no program ever gets the packet. Others at the same host are open.
    """
    with Lab(describe(MISCALCULATED)) as lab:
        run = probe(lab, "bgp", "wireguard", "wireguard-v6", "vxlan")

    assert {
        "a -> b bgp/ipv4": at_ingress("Tcp.InCsumErrors"),
        "a -> b bgp/ipv6": at_ingress("Tcp.InCsumErrors"),
        "c -> b bgp/ipv4": at_ingress("Tcp.InCsumErrors"),
        "c -> b bgp/ipv6": at_ingress("Tcp.InCsumErrors"),
        "a -> b wireguard/ipv4": at_ingress("Udp.InCsumErrors"),
        "c -> b wireguard/ipv4": at_ingress("Udp.InCsumErrors"),
        "a -> b wireguard-v6/ipv6": at_ingress("Udp6InCsumErrors"),
        **{
            f"{name} -> c bgp/{family.value}": (Verdict.FILTERED, Segment.DESTINATION_EGRESS, "")
            for name in "ab"
            for family in Family
        },
    } == counters(run)


_FULL: Final = """
import socket, sys
held = socket.create_server((sys.argv[1], 179), backlog=0)
waiting = []
for _ in range(4):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex((sys.argv[1], 179))
    waiting.append(client)
print("ready", flush=True)
sys.stdin.read()
"""
_FAR: Final = """
import socket, sys
held = socket.create_server((sys.argv[1], 179))
held.setsockopt(socket.IPPROTO_IP, 21, 255)  # IP_MINTTL, linux/include/uapi/linux/in.h
print("ready", flush=True)
sys.stdin.read()
"""
ONE_IS_DEAF: Final = """
name: a service that drops what comes, and a host that keeps its answers in
hosts: [a, b, c]
families: [ipv4]
faults: [{on: c, hook: output, nft: "tcp sport 179 drop"}]
"""


@pytest.mark.parametrize(
    ("program", "counter", "meaning"),
    [
        (_FULL, "TcpExt.ListenOverflows", "the program's accept queue is full"),
        (_FAR, "TcpExt.TCPMinTTLDrop", "the program wants TTL security (RFC 5082)"),
    ],
    ids=["accept-queue", "ttl-security"],
)
def test_a_syn_that_the_kernel_drops_for_a_program_has_not_been_let_in(
    program: str, counter: str, meaning: str
) -> None:
    """
    It passed the firewall, and came no further; an answer that a rule keeps in is lost elsewhere.
    """
    with Lab(describe(ONE_IS_DEAF)) as lab:
        there = lab.hosts["b"].address(Family.IPV4)
        argv = [sys.executable, "-c", program, there]
        service = lab.popen("b", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        Lines(service.stdout).find("^ready$")
        run = probe(lab, "bgp")
    cell = only(run.cells, "a -> b bgp:179/ipv4")

    kept_in = Verdict.FILTERED, Segment.DESTINATION_EGRESS, ""
    assert {
        "a -> b bgp/ipv4": at_ingress(counter),
        "c -> b bgp/ipv4": at_ingress(counter),
        "a -> c bgp/ipv4": kept_in,
        "b -> c bgp/ipv4": kept_in,
    } == counters(run), evidence(cell)
    assert (Caveat.PORT_IN_USE,) == cell.judgement.caveats
    assert meaning in cell.judgement.detail


NO_WAY_BACK: Final = """
name: a host without a route back to another, and one that drops
hosts: [a, b, c]
families: [ipv4]
faults:
  - {on: b, run: [ip, route, delete, default]}
  - {on: b, run: [ip, route, add, $c, via, $b.gateway]}
  - {on: c, nft: "tcp dport 179 drop"}
"""


def test_an_answer_for_which_there_is_no_route_is_told_from_one_that_a_rule_keeps_in() -> None:
    """
    It is made, and cannot be sent: the destination's own routing table is to be corrected.
    """
    with Lab(describe(NO_WAY_BACK)) as lab:
        run = probe(lab, "bgp")
    cell = only(run.cells, "a -> b bgp:179/ipv4")

    assert (Verdict.FILTERED, Segment.DESTINATION_EGRESS, "Ip.OutNoRoutes") == _told(cell), evidence(cell)
    assert at_ingress("") == counters(run)["a -> c bgp/ipv4"]


_NOISE: Final = """
import socket, sys, time
print("ready", flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    source, destination = map(socket.inet_aton, sys.argv[1:3])
    # A TCP acknowledgement with a wrong checksum: conntrack calls it invalid.
    packet = bytes.fromhex("45000028000000004006" + 20 * "00" + "9c40270f00000001000000015010ffffbeef0000")
    while True:
        for _ in range(int(sys.argv[3])):
            raw.sendto(packet[:12] + source + destination + packet[20:], (sys.argv[2], 0))
        time.sleep(float(sys.argv[4]))
"""
BESIDE_NOISE: Final = """
name: a host that drops by a rule, and gets broken packets from elsewhere
hosts: [a, b, c]
families: [ipv4]
faults: [{on: b, nft: [ct state invalid counter, ip saddr $a drop]}]
"""


@pytest.mark.parametrize(("packets", "every_s"), [(7, 0.003), (1, 0.02), (1, 0.06), (1, 0.1)])
def test_a_counter_that_grows_for_other_reasons_is_no_cause(packets: int, every_s: float) -> None:
    """
    Somebody sends the host broken packets, many or one now and then; its rule is what drops the probes.
    """
    with Lab(describe(BESIDE_NOISE)) as lab:
        ends = [lab.hosts[name].address(Family.IPV4) for name in ("c", "b")]
        noise = lab.popen(
            "c", [sys.executable, "-c", _NOISE, *ends, str(packets), str(every_s)], stdout=subprocess.PIPE
        )
        Lines(noise.stdout).find("^ready$")
        run = probe(lab, "bgp", "vxlan", "wireguard")
        grown = lab.run("b", ["cat", "/proc/net/stat/nf_conntrack"]).stdout.splitlines()
        invalid = grown[0].split().index("invalid")

    assert any(int(line.split()[invalid], 16) for line in grown[1:])
    found = counters(run)
    assert {at_ingress("")} == {told for name, told in found.items() if name.startswith("a -> b")}
    assert not [name for name in found if name.startswith("c -> ") or name.endswith("c")], found
