"""
Addresses and interfaces that are not what the inventory takes them for: absent, doubled, too near, too many.

Who has an address on a link is a race of those who claim it; what is tested holds however it ends.
"""

from __future__ import annotations

from typing import Final

import pytest

from netprobe.lab import ChainType, Hook, Lab, describe
from netprobe.model import Caveat, Cell, Family, Run, Segment, Verdict
from tests.lab.probing import Held, evidence, probe, wrong

pytestmark = pytest.mark.lab


def between(run: Run, src: str, dst: str) -> list[Cell]:
    """The cells of an ordered pair."""
    return [cell for cell in run.cells if (cell.flow.src, cell.flow.dst) == (src, dst)]


ABSENT: Final = """
name: a host that has lost its address
hosts: [a, b]
families: [ipv4]
faults: [{on: b, run: [ip, address, flush, dev, eth0]}]
"""


def test_a_host_that_does_not_have_its_address_is_untested() -> None:
    """
    Its agent says so, and nothing is sent to whoever may have it; it may as well be translated on the way.
    """
    with Lab(describe(ABSENT)) as lab:
        run = probe(lab)

    assert {(Verdict.UNTESTED, "b has no address 10.77.2.11")} == {
        (cell.judgement.verdict, cell.judgement.detail) for cell in run.cells
    }


DOUBLED: Final = """
name: two hosts of a link have one address
hosts: [a, b, c]
networks: [{name: rack, hosts: [b, c]}]
faults:
  - {on: c, run: [ip, address, add, $b/24, dev, eth0]}
  - {on: c, run: [ip, address, add, $b.ipv6/64, dev, eth0, nodad]}
"""


def test_an_address_that_two_hosts_have_is_told_in_every_cell_that_it_concerns() -> None:
    """
    Whatever the neighbours' tables make of it: what the other host gets has not come through.

    From the host that has the address as well, nothing ever leaves.
    """
    with Lab(describe(DOUBLED)) as lab:
        run = probe(lab, "bgp", "vxlan")

        for cell in run.cells:
            flow, judgement = cell.flow, cell.judgement
            both = lab.hosts["b"].address(flow.family)
            is_concerned = both in (flow.src_address, flow.dst_address)

            assert is_concerned == (f"c has the address {both} as well" in judgement.detail), evidence(cell)
            if cell.evidence.astray:
                assert judgement.verdict.is_blocked, evidence(cell)
    assert {Held(Verdict.OPEN)} == {Held.of(cell) for cell in between(run, "a", "c") + between(run, "c", "a")}
    for cell in between(run, "c", "b"):
        assert Verdict.REJECTED is cell.judgement.verdict, evidence(cell)
        assert Segment.SOURCE_EGRESS is cell.judgement.segment
        assert "the source's own firewall" not in cell.judgement.detail


IN_TURNS: Final = """
name: connections of which every second one goes to another host
hosts: [a, b, c]
families: [ipv4]
faults:
  - on: router
    type: nat
    hook: prerouting
    nft:
      - ip saddr $a ip daddr $b udp dport 8472 numgen inc mod 2 == 0 dnat ip to $c
      - ip saddr $a ip daddr $b tcp dport 179 numgen inc mod 2 == 0 dnat ip to $c
expect:
  a -> b bgp: degraded @ path (delivered to c instead)
  a -> b flannel:8472: degraded @ path (delivered to c instead)
"""


def test_packets_that_another_host_gets_are_not_simply_lost() -> None:
    """
    A burst that comes through does not excuse them, as it would excuse a loss.
    """
    with Lab(describe(IN_TURNS)) as lab:
        run = probe(lab, "bgp", "flannel")

        assert [] == wrong(lab, run)


TOO_WIDE: Final = """
name: a host that takes a routed peer for a neighbour
hosts: [a, b]
faults:
  - {on: a, run: [ip, address, add, $a/16, dev, eth0]}
  - {on: a, run: [ip, route, add, "fd77:6e70:6c61::/48", dev, eth0]}
"""


def test_a_prefix_that_is_too_wide_makes_peers_unreachable_at_home() -> None:
    """
    The host looks for a neighbour that is none, for its probes and for its answers; tunnels reach it.

    Where the word about it comes too late, the loss is one without a word, at the same place.
    """
    with Lab(describe(TOO_WIDE)) as lab:
        run = probe(lab, "bgp", "vxlan")

    for cell in run.cells:
        flow = cell.flow
        if flow.dst == "b":
            segment: Segment | None = Segment.SOURCE_EGRESS
        else:
            segment = Segment.DESTINATION_EGRESS if flow.probe == "bgp" else None
        found = cell.judgement
        lost = (Verdict.UNREACHABLE, Verdict.FILTERED)

        assert segment is found.segment, evidence(cell)
        assert found.verdict in (lost if segment else (Verdict.OPEN,)), evidence(cell)
        assert found.by in ("", lab.hosts["a"].address(flow.family))
    assert Verdict.UNREACHABLE in {cell.judgement.verdict for cell in between(run, "a", "b")}


TWO_WAYS: Final = "name: two hosts with a second link between them\nhosts: [a, b]\n"
_SECOND: Final = {"a": ("192.0.2.1", "2001:db8::1"), "b": ("192.0.2.2", "2001:db8::2")}


def second_link(lab: Lab) -> None:
    """Lay a link between a and b that does not pass the router."""
    there = lab.hosts["b"].namespace
    lab.run("a", ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", there])
    for host, addresses in _SECOND.items():
        for address, length in zip(addresses, (24, 64), strict=True):
            lab.run(host, ["ip", "address", "add", f"{address}/{length}", "dev", "eth1", *_nodad(address)])
        lab.run(host, ["ip", "link", "set", "eth1", "up"])


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def by_second_link(lab: Lab, host: str, peer: str) -> None:
    """Let what a host sends to a peer take the second link."""
    for family, gateway in zip(Family, _SECOND[peer], strict=True):
        lab.run(host, ["ip", "route", "add", lab.hosts[peer].address(family), "via", gateway])


@pytest.mark.parametrize("answering", [False, True], ids=["probes", "both"])
def test_a_host_with_two_interfaces_is_watched_at_both(*, answering: bool) -> None:
    """
    Packets take the second link there, or there and back; what the router drops does not concern them.
    """
    with Lab(describe(TWO_WAYS)) as lab:
        second_link(lab)
        by_second_link(lab, "a", "b")
        if answering:
            by_second_link(lab, "b", "a")
        lab.nft("router", 'iifname "a" drop')
        run = probe(lab, "bgp", "vxlan", "wireguard")

    for cell in between(run, "a", "b"):
        assert Held(Verdict.OPEN) == Held.of(cell), evidence(cell)
    for cell in between(run, "b", "a"):
        if answering or cell.flow.probe != "bgp":
            assert Held(Verdict.OPEN) == Held.of(cell), evidence(cell)


def test_a_reverse_path_filter_that_is_strict_drops_what_comes_by_another_way() -> None:
    """
    At its interface the packet has arrived; the kernel's counter is the only word about it.

    IPv6 has no such setting: firewalls have a rule for it, which counts nothing.
    """
    with Lab(describe(TWO_WAYS)) as lab:
        second_link(lab)
        by_second_link(lab, "b", "a")
        lab.run("b", ["sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1"])
        lab.nft(
            "b", "meta nfproto ipv6 fib saddr . iif oif missing drop", hook=Hook.PREROUTING, priority="raw"
        )
        run = probe(lab, "bgp", "vxlan")

    for cell in between(run, "a", "b"):
        counter = "TcpExt.IPReversePathFilter" if cell.flow.family is Family.IPV4 else ""

        assert Held(Verdict.FILTERED, Segment.DESTINATION_INGRESS) == Held.of(cell), evidence(cell)
        assert counter == cell.evidence.counter, evidence(cell)
    for cell in between(run, "b", "a"):
        # The answers come to b by the router, and meet the filter.
        lost = Held(Verdict.FILTERED, Segment.SOURCE_INGRESS)
        assert (lost if cell.flow.probe == "bgp" else Held(Verdict.OPEN)) == Held.of(cell), evidence(cell)


def test_a_caveat_tells_of_a_host_that_sends_from_its_other_address() -> None:
    """
    A rule of its own for the second link makes the probes of a come from there.
    """
    with Lab(describe(TWO_WAYS)) as lab:
        second_link(lab)
        by_second_link(lab, "a", "b")
        lab.nft("a", 'oifname "eth1" masquerade', hook=Hook.POSTROUTING, type=ChainType.NAT)
        run = probe(lab, "vxlan")

    for cell in between(run, "a", "b"):
        other = _SECOND["a"][list(Family).index(cell.flow.family)]

        assert Held(Verdict.OPEN, caveats=(Caveat.NAT,)) == Held.of(cell), evidence(cell)
        assert f"arrives from {other}, not from {cell.flow.src_address}" == cell.judgement.detail
