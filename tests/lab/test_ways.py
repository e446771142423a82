"""
Hosts that route by more than addresses: what real traffic would do is what the cells hold.

A raw packet is routed by its addresses alone; where rules look at ports, that is not the real way.
"""

from __future__ import annotations

from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Family, Segment, Verdict
from tests.lab.probing import Held, held, only, probe

pytestmark = pytest.mark.lab

OPEN: Final = Held(Verdict.OPEN)

SOME_PORTS_LEAD_NOWHERE: Final = """
name: a source whose rules send some ports nowhere
hosts: [a, {name: b, roles: [node, typha, etcd]}]
families: [ipv4]
faults:
  - {on: a, run: [ip, rule, add, ipproto, tcp, dport, "179", blackhole]}
  - {on: a, run: [ip, rule, add, ipproto, udp, dport, "4789", unreachable]}
  - {on: a, run: [ip, rule, add, ipproto, udp, sport, "51820", prohibit]}
"""


def test_what_a_rule_about_ports_refuses_is_refused() -> None:
    """
    Raw packets and injected ones, TCP and UDP, by destination and by source port; others pass.
    """
    with Lab(describe(SOME_PORTS_LEAD_NOWHERE)) as lab:
        found = held(probe(lab, "bgp", "typha", "etcd", "vxlan", "wireguard", "ipip"))
        here = lab.hosts["a"].address(Family.IPV4)

    refused = Held(Verdict.UNREACHABLE, Segment.SOURCE_EGRESS, here)
    assert refused == found["a -> b bgp:179/ipv4"]
    assert refused == found["a -> b vxlan:4789/ipv4"]
    assert Held(Verdict.REJECTED, Segment.SOURCE_EGRESS, here) == found["a -> b wireguard:51820/ipv4"]
    assert OPEN == found["a -> b typha:5473/ipv4"]
    assert OPEN == found["a -> b etcd:2379/ipv4"]
    assert Verdict.OPEN is found["a -> b ipip/ipv4"].verdict


ONLY_SOME_PORTS_LEAD_THERE: Final = """
name: a source that has a route for some ports only
hosts: [a, b]
families: [ipv4]
faults:
  - {on: a, run: [ip, route, add, default, via, $a.gateway, table, "100"]}
  - {on: a, run: [ip, rule, add, ipproto, tcp, table, "100"]}
  - {on: a, run: [ip, rule, add, dport, "51820", table, "100"]}
  - {on: a, route: unreachable $b}
"""


def test_what_only_a_rule_about_ports_lets_through_is_not_called_blocked() -> None:
    """
    By addresses alone there is no route: what raw packets cannot follow is not tested, and the rest is.
    """
    with Lab(describe(ONLY_SOME_PORTS_LEAD_THERE)) as lab:
        found = held(probe(lab, "bgp", "vxlan", "wireguard"))

    assert Held(Verdict.UNTESTED) == found["a -> b bgp:179/ipv4"]
    assert Held(Verdict.UNTESTED) == found["a -> b wireguard:51820/ipv4"]
    assert Verdict.UNREACHABLE is found["a -> b vxlan:4789/ipv4"].verdict


BY_ANOTHER_INTERFACE: Final = """
name: a source whose rules choose another interface for a port
hosts: [a, b]
families: [ipv4]
faults:
  - {on: a, run: [ip, link, add, other, type, veth, peer, name, nowhere]}
  - {on: a, run: [ip, link, set, nowhere, up]}
  - {on: a, run: [ip, link, set, other, up]}
  - {on: a, run: [ip, neighbour, add, 192.0.2.1, lladdr, "02:00:00:00:00:01", dev, other]}
  - {on: a, run: [ip, route, add, default, via, 192.0.2.1, dev, other, onlink, metric, "1000"]}
  - {on: a, run: [ip, route, add, default, via, 192.0.2.1, dev, other, onlink, table, "100"]}
  - {on: a, run: [ip, rule, add, dport, "179", table, "100"]}
  - {on: a, run: [ip, rule, add, dport, "51820", table, "100"]}
"""


def test_a_packet_leaves_by_the_interface_that_a_rule_about_ports_names() -> None:
    """
    It has left then, and never comes; the way by addresses alone would have been open.
    """
    with Lab(describe(BY_ANOTHER_INTERFACE)) as lab:
        found = held(probe(lab, "bgp", "vxlan", "wireguard"))

    assert Held(Verdict.FILTERED, Segment.PATH) == found["a -> b bgp:179/ipv4"]
    assert Held(Verdict.FILTERED, Segment.PATH) == found["a -> b wireguard:51820/ipv4"]
    assert OPEN == found["a -> b vxlan:4789/ipv4"]


BY_ANOTHER_ROUTER: Final = """
name: a source whose rules choose another router for a port
hosts: [a, b, c]
families: [ipv4]
networks: [{name: rack, hosts: [a, c]}]
faults:
  - {on: c, sysctl: {net.ipv4.ip_forward: 1}}
  - {on: a, run: [ip, route, add, default, via, $c, table, "100"]}
  - {on: a, run: [ip, rule, add, dport, "179", table, "100"]}
  - {on: a, run: [ip, rule, add, dport, "51820", table, "100"]}
  - {on: c, hook: forward, nft: "meta l4proto { tcp, udp } drop"}
"""


def test_what_cannot_be_sent_the_real_way_is_untested() -> None:
    """
    A raw socket can be told an interface, and not a router on it; what is injected can.
    """
    with Lab(describe(BY_ANOTHER_ROUTER)) as lab:
        run = probe(lab, "bgp", "vxlan")
        other = held(probe(lab, "wireguard"))["a -> b wireguard:51820/ipv4"]
    cell = only(run.cells, "a -> b bgp:179/ipv4")

    assert Verdict.UNTESTED is cell.judgement.verdict
    why = "a could not send: its routes depend on protocols or ports in a way that raw packets cannot follow"
    assert why == cell.judgement.detail
    assert OPEN == Held.of(only(run.cells, "a -> b vxlan:4789/ipv4"))
    assert Verdict.UNTESTED is other.verdict


BY_PROTOCOL: Final = """
name: a source whose rules are about protocol 4
hosts: [a, b]
families: [ipv4]
faults: [{on: a, run: [ip, rule, add, ipproto, "4", unreachable]}]
"""


def test_a_rule_about_protocol_4_cannot_be_followed() -> None:
    """
    The kernel is not to be asked for the route of such a packet.
    """
    with Lab(describe(BY_PROTOCOL)) as lab:
        found = held(probe(lab, "ipip", "vxlan"))

    assert Verdict.UNTESTED is found["a -> b ipip/ipv4"].verdict
    assert OPEN == found["a -> b vxlan:4789/ipv4"]
