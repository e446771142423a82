"""Addresses are a pure function of the description."""

from __future__ import annotations

import pytest

from netprobe import lab
from netprobe.lab.description import mesh
from netprobe.lab.topology import Topology, fill, topology
from netprobe.model import Family

RACKS = """
name: two racks and a host by itself
hosts: [a, lone, b, node-1]
networks:
  - {name: rack-1, hosts: [b, a]}
  - {name: rack-2, hosts: [node-1]}
"""


@pytest.fixture
def racks() -> Topology:
    """The topology of `RACKS`."""
    return topology(lab.describe(RACKS))


def test_hosts_of_a_network_share_a_subnet_and_others_have_one_each(racks: Topology) -> None:
    """Networks come first, in their order; hosts keep that of the description."""
    assert {
        "a": "10.77.1.12",
        "lone": "10.77.3.11",
        "b": "10.77.1.11",
        "node-1": "10.77.2.11",
    } == {name: station.addresses[Family.IPV4] for name, station in racks.stations.items()}
    assert "fd77:6e70:6c61:1::12" == racks.stations["a"].addresses[Family.IPV6]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("ip daddr $a drop", "ip daddr 10.77.1.12 drop"),
        ("ip6 daddr { $a.ipv6, $b.ipv6 }", "ip6 daddr { fd77:6e70:6c61:1::12, fd77:6e70:6c61:1::11 }"),
        ("$a-$b", "10.77.1.12-10.77.1.11"),
        ("${a}x", "10.77.1.12x"),
        ("$node-1.", "10.77.2.11."),
        ("$node-1.ipv4", "10.77.2.11"),
        ("$lone.gateway $lone.gateway.ipv6", "10.77.3.1 fd77:6e70:6c61:3::1"),
        ("$rack-1 $rack-2.ipv6", "10.77.1.0/24 fd77:6e70:6c61:2::/64"),
        ("define x = 1; tcp dport $$x", "define x = 1; tcp dport $x"),
        ("tcp dport { 1, 2 }", "tcp dport { 1, 2 }"),
    ],
)
def test_placeholders_begin_with_a_dollar(racks: Topology, text: str, filled: str) -> None:
    """Braces stay those of nft."""
    assert filled == fill(text, racks.values)


def test_a_placeholder_of_a_family_that_the_lab_has_not_is_a_mistake() -> None:
    """`$a` is an IPv4 address, and means nothing without IPv4."""
    values = topology(lab.describe("name: n\nhosts: [a]\nfamilies: [ipv6]")).values

    assert "fd77:6e70:6c61:1::11" == fill("$a.ipv6", values)
    with pytest.raises(lab.DescriptionError, match=r"\$a stands for nothing"):
        fill("$a", values)


def test_a_thousand_hosts_have_addresses_and_macs_of_their_own() -> None:
    """The third octet overflows into the second."""
    stations = topology(mesh(1000)).stations

    assert "10.80.232.11" == stations["n1000"].addresses[Family.IPV4]
    assert 2000 == len({a for station in stations.values() for a in station.addresses.values()})
    assert 2000 == len({mac for station in stations.values() for mac in (station.mac, station.port_mac)})


@pytest.mark.parametrize(("hosts", "is_crowded"), [(10, False), (20, True)])
def test_a_large_bridge_gets_permanent_neighbours(hosts: int, is_crowded: bool) -> None:
    """All namespaces share one neighbour table, which a flat mesh would fill (design trap 13)."""
    description = mesh(hosts)
    flat = lab.Description(
        name="flat",
        hosts=description.hosts,
        networks=(lab.Network(name="rack", hosts=tuple(description.roles)),),
    )

    assert is_crowded is topology(flat).is_crowded
    assert not topology(description).is_crowded
