"""The ranges of pods and services against what hosts in a lab have; and how many blocks there are."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import islice
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Check, Finding, Result
from netprobe.lab import Lab
from netprobe.model import Family
from netprobe.requirements.addresses import blocks
from tests.requirements.asking import checked, found, host, of

pytestmark = pytest.mark.lab

PODS: Final = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICES: Final = ("10.96.0.0/12",)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts, which are not changed but for routes and interfaces that a test takes away again."""
    with Lab.mesh(2) as lab:
        yield lab


def check(lab: Lab, pods: tuple[str, ...] = PODS, services: tuple[str, ...] = SERVICES) -> Check:
    """The check of a lab with these ranges."""
    return checked(inventory=msgspec.structs.replace(lab.inventory(), pod_cidr=pods, service_cidr=services))


def findings(check: Check, name: str) -> list[Finding]:
    """What came of it at both hosts."""
    return [of(check, host.name, name) for host in check.hosts]


def test_ranges_that_nobody_has_pass(lab: Lab) -> None:
    """Neither with the hosts' addresses nor with their default routes."""
    found = check(lab)

    for name in ("ip-pool-overlap", "service-cidr-overlap", "ip-pool-size"):
        assert [Result.PASS] * 2 == [each.result for each in findings(found, name)], name


def test_a_range_that_the_hosts_are_in_fails(lab: Lab) -> None:
    """At every host, whichever it is that has the address."""
    address = lab.hosts["n1"].address(Family.IPV4)
    wide = str(ip_network(f"{address}/16", strict=False))
    found = check(lab, pods=(wide,))

    assert [Result.FAIL] * 2 == [each.result for each in findings(found, "ip-pool-overlap")]
    assert all(f"n1 has {address}" in each.seen for each in findings(found, "ip-pool-overlap"))


def test_pods_and_services_must_not_share(lab: Lab) -> None:
    """The services' range is the first that the page names."""
    found = check(lab, pods=("10.100.0.0/16",))

    assert [Result.FAIL] * 2 == [each.result for each in findings(found, "ip-pool-overlap")]
    assert "service_cidr 10.96.0.0/12" in findings(found, "ip-pool-overlap")[0].seen


def seen(lab: Lab, *commands: str) -> Finding:
    """What comes of the pods' range at a host where some commands of ip(8) were given."""
    name = "n2"
    for command in commands:
        lab.run(name, ["ip", *command.split()])
    try:
        return of(check(lab), name, "ip-pool-overlap")
    finally:
        for command in commands:
            if command.startswith("link add"):
                lab.run(name, ["ip", "link", "del", command.split()[2]])
            elif command.startswith("route add"):
                lab.run(name, ["ip", *command.replace("add", "del", 1).split()])


def test_a_bridge_of_docker_that_is_in_the_way_fails(lab: Lab) -> None:
    """Its network is connected, and named."""
    finding = seen(
        lab, "link add docker0 type bridge", "addr add 10.244.7.1/24 dev docker0", "link set docker0 up"
    )

    assert Result.FAIL is finding.result
    assert "bridge docker0 has 10.244.7.1/24" in finding.seen


@pytest.mark.parametrize(
    ("route", "result"),
    [
        ("10.244.3.0/24 dev eth0 scope link", Result.FAIL),
        ("10.0.0.0/8 dev eth0 scope link", Result.WARN),
        ("10.244.3.0/24 dev eth0 scope link proto bird", Result.PASS),
        ("10.244.3.0/24 dev eth0 scope link proto 80", Result.PASS),
        ("blackhole 10.244.3.0/26", Result.PASS),
    ],
)
def test_routes_into_the_pods_range(lab: Lab, route: str, result: Result) -> None:
    """Another's fails, a wide one deserves a look, and those of a running cluster are as they should be."""
    finding = seen(lab, f"route add {route}")

    assert result is finding.result
    assert result is Result.PASS or route.split(maxsplit=1)[0] in finding.seen


def test_the_clouds_routes_to_the_nodes_pass(lab: Lab) -> None:
    """Who routes pods to the node that has them routes pods."""
    gateway = lab.hosts["n1"].address(Family.IPV4)
    finding = seen(lab, f"route add 10.244.3.0/24 via {gateway} dev eth0 onlink")

    assert Result.PASS is finding.result


def test_calicos_own_interfaces_are_no_overlap(lab: Lab) -> None:
    """On a node where Calico runs the pods' addresses are on them."""
    finding = seen(lab, "link add vxlan.calico type bridge", "addr add 10.244.9.0/32 dev vxlan.calico")

    assert Result.PASS is finding.result


def test_without_a_range_the_default_pool_is_looked_at(lab: Lab) -> None:
    """Many networks have 192.168.0.0/16 themselves."""
    lab.run("n2", ["ip", "addr", "add", "192.168.5.1/24", "dev", "eth0"])
    try:
        one, other = findings(check(lab, pods=(), services=()), "ip-pool-overlap")
    finally:
        lab.run("n2", ["ip", "addr", "del", "192.168.5.1/24", "dev", "eth0"])

    assert Result.NOT_APPLICABLE is one.result
    assert Result.WARN is other.result
    assert "192.168.5.1/24" in other.seen


@pytest.mark.parametrize(
    ("pods", "result"),
    [
        (("10.244.0.0/26",), Result.FAIL),
        (("10.244.0.0/27",), Result.FAIL),
        (("10.244.0.0/25",), Result.WARN),
        (("10.244.0.0/24",), Result.PASS),
        (("10.244.0.0/24", "fd00::/122"), Result.FAIL),
        (("10.244.0.0/24", "fd00::/112"), Result.PASS),
    ],
)
def test_blocks_for_two_nodes(lab: Lab, pods: tuple[str, ...], result: Result) -> None:
    """Each needs one, and two for all the pods that kubelet allows."""
    assert [result] * 2 == [each.result for each in findings(check(lab, pods=pods), "ip-pool-size")]


@given(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str), st.integers(0, 32))
def test_blocks_are_counted(address: str, length: int) -> None:
    """As many as fit, and none where one is larger than the pool."""
    network = ip_network(f"{address}/{length}", strict=False)
    block = 26 if network.version == 4 else 122

    several = 0 if length > block else len(list(islice(network.subnets(new_prefix=block), 9)))

    assert several == min(blocks(network), 9)


def test_nothing_is_compared_without_a_range() -> None:
    """One host, of which no inventory is known."""
    assert Result.NOT_APPLICABLE is found()["service-cidr-overlap"].result
    assert Result.NOT_APPLICABLE is of(checked(host("a")), "a", "ip-pool-size").result
