"""Which flows a run has: probes, families, ports and pairs, each flow once and with its number."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe import plan
from netprobe.attempts import FIRST
from netprobe.model import Family, Flow, Host, Inventory, Protocol, Role
from netprobe.modes import MODES
from netprobe.plan import Settings, usual_count
from netprobe.probes import registry

Named = tuple[str, Family, int | None, str, str]


def host(name: str, *roles: Role, families: tuple[Family, ...] = tuple(Family)) -> Host:
    """A host of these roles (none: a node) with an address of each of these families."""
    number = ord(name)
    addresses = {Family.IPV4: f"10.0.0.{number}", Family.IPV6: f"fd00::{number:x}"}
    return Host(
        name=name, addresses=tuple(addresses[family] for family in families), roles=roles or (Role.NODE,)
    )


def of(*hosts: Host, **more: object) -> Inventory:
    """An inventory."""
    return msgspec.structs.replace(Inventory(hosts=hosts), **more)


def named(flow: Flow) -> Named:
    """What a flow is, without its number and addresses."""
    return flow.probe, flow.family, flow.port, flow.src, flow.dst


def pairs(inventory: Inventory, probe: str, family: Family = Family.IPV4) -> set[tuple[str, str]]:
    """Between whom a probe is sent."""
    return {
        (flow.src, flow.dst) for flow in plan.flows(inventory) if (flow.probe, flow.family) == (probe, family)
    }


NODES: Final = (host("a"), host("b"), host("c"))
RANGES: Final = ("10.244.0.0/16", "fd00:10:244::/56")
EVERYTHING: Final = of(host("a", *Role), host("b", *Role), host("c"), pod_cidr=RANGES)
ORDERED_PAIRS: Final = set(itertools.permutations("abc", 2))

FAMILIES: Final = st.lists(st.sampled_from(Family), min_size=1, unique=True).map(tuple)
ROLES: Final = st.lists(st.sampled_from(Role), min_size=1, unique=True)
INVENTORIES: Final = st.builds(
    lambda hosts, probes, ports, pod_cidr: of(*hosts, probes=probes, ports=ports, pod_cidr=pod_cidr),
    st.lists(
        st.tuples(st.sampled_from("abcdef"), ROLES, FAMILIES),
        min_size=2,
        max_size=5,
        unique_by=lambda h: h[0],
    ).map(lambda drawn: [host(name, *roles, families=families) for name, roles, families in drawn]),
    st.none() | st.lists(st.sampled_from(sorted(registry())), unique=True).map(tuple),
    st.dictionaries(
        st.sampled_from(("apiserver", "etcd", "flannel")),
        st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True).map(tuple),
        max_size=2,
    ),
    st.sampled_from([(), RANGES[:1], RANGES[1:], RANGES]),
)


def test_nodes_probe_each_other_in_both_directions() -> None:
    """
    Every ordered pair, and no host itself.
    """
    for probe in ("bgp", "ipip", "vxlan", "wireguard", "flannel"):
        assert ORDERED_PAIRS == pairs(of(*NODES), probe)


@pytest.mark.parametrize(
    ("probe", "role"), [("typha", Role.TYPHA), ("apiserver", Role.APISERVER), ("etcd", Role.ETCD)]
)
def test_the_control_plane_is_probed_from_all_nodes(probe: str, role: Role) -> None:
    """
    One way only, by other hosts of the role too if they are nodes, and not at all where nobody has the role.
    """
    inventory = of(host("a"), host("b", Role.NODE, role), host("c", role))

    assert {("a", "b"), ("a", "c"), ("b", "c")} == pairs(inventory, probe)
    assert set() == pairs(of(*NODES), probe)


def test_a_host_that_is_no_node_is_not_part_of_the_mesh() -> None:
    """
    An etcd server needs no tunnels.
    """
    assert {("a", "b"), ("b", "a")} == pairs(of(host("a"), host("b"), host("c", Role.ETCD)), "bgp")


def test_flows_are_between_addresses_of_one_family() -> None:
    """
    Where one of two hosts has no address of a family there is no flow of it.
    """
    inventory = of(
        host("a"), host("b", families=(Family.IPV4,)), host("c", families=(Family.IPV6,)), probes=("vxlan",)
    )

    assert {("a", "b"), ("b", "a")} == pairs(inventory, "vxlan", Family.IPV4)
    assert {("a", "c"), ("c", "a")} == pairs(inventory, "vxlan", Family.IPV6)
    for flow in plan.flows(inventory):
        assert flow.family is Family.of(flow.src_address) is Family.of(flow.dst_address)


def test_the_first_address_of_a_family_is_probed() -> None:
    """
    Others are not: a node has one address in its cluster.
    """
    several = Host(name="a", addresses=("10.0.0.7", "fd00::7", "10.0.0.8", "fd00::8"))
    flows = [flow for flow in plan.flows(of(several, host("b"), probes=("vxlan",))) if flow.src == "a"]

    assert ["10.0.0.7", "fd00::7"] == [flow.src_address for flow in flows]


def test_a_probe_of_one_family_has_flows_of_that_one() -> None:
    """
    IP-in-IP and each WireGuard.
    """
    found = {(flow.probe, flow.family) for flow in plan.flows(EVERYTHING)}

    assert {("ipip", Family.IPV4), ("wireguard", Family.IPV4), ("wireguard-v6", Family.IPV6)} == {
        each for each in found if each[0] in ("ipip", "wireguard", "wireguard-v6")
    }


def test_packets_of_pods_are_sent_in_the_families_that_have_a_range() -> None:
    """
    From the last address but one of it, whoever sends them; without a range there is no such probe.
    """

    def addresses(*pod_cidr: str) -> set[tuple[Family, str]]:
        inventory = of(*NODES, pod_cidr=pod_cidr, probes=("pod-route", "bgp"))
        return {
            (flow.family, flow.pod_address) for flow in plan.flows(inventory) if flow.probe == "pod-route"
        }

    four, six = (Family.IPV4, "10.244.255.254"), (Family.IPV6, "fd00:10:244:ff:ffff:ffff:ffff:fffe")

    assert {four} == addresses("10.244.0.0/16")
    assert {six, four} == addresses("fd00:10:244::/56", "10.244.0.0/16")
    assert set() == addresses()
    assert ["bgp"] == [probe.name for probe in plan.probes(of(*NODES, modes=("none",)))]
    ranged = of(*NODES, pod_cidr=("10.244.0.0/16",), modes=("none",))
    assert ["bgp", "pod-route"] == [probe.name for probe in plan.probes(ranged)]
    assert ORDERED_PAIRS == pairs(ranged, "pod-route")
    assert {""} == {flow.pod_address for flow in plan.flows(ranged) if flow.probe == "bgp"}


def test_every_port_of_a_probe_is_a_flow_of_its_own() -> None:
    """
    The probe's own ports, or else those of the inventory; protocol 4 has none.
    """
    theirs = {"apiserver": (6443,), "flannel": (8472, 4789, 1234)}
    found: dict[str, set[int | None]] = {}
    for flow in plan.flows(msgspec.structs.replace(EVERYTHING, ports=theirs)):
        found.setdefault(flow.probe, set()).add(flow.port)

    assert {
        "bgp": {179},
        "ipip": {None},
        "vxlan": {4789},
        "pod-route": {9},
        "typha": {5473},
        "wireguard": {51820},
        "wireguard-v6": {51821},
        "flannel": {8472, 4789, 1234},
        "apiserver": {6443},
        "etcd": {2379},
    } == found


def test_a_flow_has_the_protocol_of_its_probe() -> None:
    """
    For the CSV, and for whoever opens a firewall.
    """
    assert {(name, probe.protocol) for name, probe in registry().items()} == {
        (flow.probe, flow.protocol) for flow in plan.flows(EVERYTHING)
    }
    assert all((flow.port is None) == (flow.protocol is Protocol.IPIP) for flow in plan.flows(EVERYTHING))


def test_the_inventory_says_which_probes() -> None:
    """
    Those it names; or those that its modes need; or all.
    """

    def asked(**more: object) -> list[str]:
        return [probe.name for probe in plan.probes(of(*NODES, **more))]

    assert ["bgp", "vxlan"] == asked(probes=("vxlan", "bgp"))
    assert ["bgp", "ipip"] == asked(modes=("ipip",))
    assert ["bgp", "ipip", "etcd"] == asked(modes=("datastore-etcd", "ipip"))
    assert ["vxlan"] == asked(probes=("vxlan",), modes=("ipip",))
    assert list(registry()) == asked(pod_cidr=RANGES)
    assert list(registry()) == asked(pod_cidr=RANGES, modes=tuple(MODES))
    assert [] == asked(probes=())


def test_families_that_were_not_asked_for_have_no_flows() -> None:
    """
    `--family` narrows a run.
    """
    only_6 = plan.flows(EVERYTHING, Settings(families=(Family.IPV6,)))

    assert {Family.IPV6} == {flow.family for flow in only_6}
    assert len(plan.flows(EVERYTHING)) == len(only_6) + len(
        plan.flows(EVERYTHING, Settings(families=(Family.IPV4,)))
    )


def test_only_keeps_the_flows_of_some_hosts() -> None:
    """
    `--only` has one of these hosts at one end of every flow, the other end is anybody.
    """
    inventory = of(*NODES, host("d"), probes=("bgp",))

    def kept(*names: str) -> set[tuple[str, str]]:
        return {(flow.src, flow.dst) for flow in plan.flows(inventory, Settings(only=names))}

    assert {pair for pair in itertools.permutations("abcd", 2) if "a" in pair} == kept("a")
    assert {
        pair for pair in itertools.permutations("abcd", 2) if pair not in (("c", "d"), ("d", "c"))
    } == kept("a", "b")
    assert set(itertools.permutations("abcd", 2)) == kept()


@settings(max_examples=60)
@given(INVENTORIES)
def test_every_flow_that_the_requirements_have_is_there_once_and_no_other(inventory: Inventory) -> None:
    """
    For any hosts, roles, families, probes and ports: as the rows of the page would have it.
    """
    expected = {
        (probe.name, family, port, source.name, destination.name)
        for probe in registry().values()
        if inventory.probes is None or probe.name in inventory.probes
        for family in probe.families
        if probe.name != "pod-route" or any(Family.of(each[:-3]) is family for each in inventory.pod_cidr)
        for port in inventory.ports.get(probe.name, probe.ports or (None,))
        for source, destination in itertools.permutations(inventory.hosts, 2)
        if probe.between[0] in source.roles and probe.between[1] in destination.roles
        if source.address(family) and destination.address(family)
    }
    flows = plan.flows(inventory)

    assert len(flows) == len(expected)
    assert expected == {named(flow) for flow in flows}
    assert list(range(len(flows))) == [flow.number for flow in flows]


@settings(max_examples=200)
@given(INVENTORIES, FAMILIES, st.lists(st.sampled_from("abcdef"), max_size=3, unique=True).map(tuple))
def test_the_flows_are_counted_as_they_are_listed(
    inventory: Inventory, families: tuple[Family, ...], only: tuple[str, ...]
) -> None:
    """
    For any inventory and options, by probe, family and source.
    """
    asked = Settings(families=families, only=only)
    listed = Counter((flow.probe, flow.family, flow.src) for flow in plan.flows(inventory, asked))

    assert listed == {
        (share.probe.name, share.family, share.source): share.flows for share in plan.shares(inventory, asked)
    }


@settings(max_examples=60)
@given(INVENTORIES, st.data())
def test_the_order_of_hosts_probes_and_ports_changes_no_flow(
    inventory: Inventory, data: st.DataObject
) -> None:
    """
    Only the numbers; and what is planned twice is numbered alike.
    """
    shuffled = of(
        *data.draw(st.permutations(inventory.hosts)),
        probes=None if inventory.probes is None else tuple(data.draw(st.permutations(inventory.probes))),
        ports={name: tuple(data.draw(st.permutations(ports))) for name, ports in inventory.ports.items()},
        pod_cidr=tuple(data.draw(st.permutations(inventory.pod_cidr))),
    )

    assert {named(flow) for flow in plan.flows(inventory)} == {named(flow) for flow in plan.flows(shuffled)}
    assert plan.flows(inventory) == plan.flows(inventory)


def test_more_flows_than_tags_can_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Before anything is started, with both numbers.
    """
    inventory = of(*NODES, probes=("bgp",))

    assert 12 == len(plan.flows(inventory))

    monkeypatch.setattr(plan, "MAX_FLOWS", 13)

    assert 12 == len(plan.flows(inventory))

    monkeypatch.setattr(plan, "MAX_FLOWS", 12)

    with pytest.raises(ValueError, match=r"12 flows .* \(12\)"):
        plan.flows(inventory)


@given(st.integers(0, 1 << 26), st.integers(2, 1000))
def test_a_flow_gets_a_few_packets_and_a_host_sends_no_more_than_it_must(flows: int, hosts: int) -> None:
    """
    From three to eight a flow; where it is more than three, no more than 2,000 a host on average.
    """
    count = usual_count(flows, hosts)

    assert 3 <= count <= FIRST.total == 8
    if count > 3:
        assert count * flows <= 2000 * hosts


@given(st.integers(0, 1 << 20), st.integers(2, 1000))
def test_more_flows_never_get_more_packets_each(flows: int, hosts: int) -> None:
    """
    And more hosts, which share the work, never fewer.
    """
    assert usual_count(flows, hosts) >= usual_count(flows + 1, hosts)
    assert usual_count(flows, hosts) <= usual_count(flows, hosts + 1)


def test_small_clusters_get_the_most_and_large_ones_the_fewest() -> None:
    """
    Two hosts, and the full mesh of a hundred.
    """
    assert 8 == usual_count(44, 2)
    assert 3 == usual_count(79200, 100)
    assert 8 == usual_count(0, 2)


@pytest.mark.parametrize(("flows", "hosts", "ahead"), [(44, 2, 6), (79200, 100, 1)])
def test_a_session_stands_for_two_of_the_packets_of_its_flow(flows: int, hosts: int, ahead: int) -> None:
    """
    The others come ahead of it, at least one.
    """
    look = plan.first_look(Settings(), flows, hosts)

    assert (0, ahead) == look.ahead
    assert ahead == max(1, look.several.total - 2)
