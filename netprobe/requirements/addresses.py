"""The ranges of pods and services: against each other, and against what the hosts have and know ways to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from typing import Final, NamedTuple

from netprobe.model import Host, Role
from netprobe.questions import Failed, NetworkFacts
from netprobe.requirements._hosts import NETWORK, Range, is_calicos
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_DEFAULT_POOL: Final = "192.168.0.0/16"
_BLOCKS: Final = {4: 26, 6: 122}
"""The prefix of a block of addresses, which a node takes as one (IPPool's blockSize)."""
_PODS: Final = 110  # of kubelet's maxPods
_RTPROT_KERNEL, _RTPROT_BIRD, _RTPROT_CALICO = 2, 12, 80  # linux/rtnetlink.h; Felix' DeviceRouteProtocol
_BRIDGES: Final = ("docker", "br-", "virbr", "lxcbr", "lxdbr", "podman", "cni-podman")
_PROVIDERS: Final = ("cni", "flannel", "cilium", "weave", "kube-bridge", "antrea", "ovn")


class _Overlap(NamedTuple):
    """Something that has addresses of a range; `is_certain` where nothing else can be meant."""

    words: str
    is_certain: bool


def _overlaps(context: Context, facts: NetworkFacts, wanted: Range) -> list[_Overlap]:
    """What this host has of a range's addresses, and where it has a way to others that have."""
    found = list(_held(facts, wanted))
    nodes = {ip_address(each) for host in context.inventory.hosts for each in host.addresses}
    for route in facts.routes:
        network, name = ip_network(route.network, strict=False), facts.link(route.index)
        if not network.prefixlen or not _meet(network, wanted) or route.protocol == _RTPROT_KERNEL:
            continue
        if _is_own(name) or route.protocol in (_RTPROT_BIRD, _RTPROT_CALICO) or route.type != "unicast":
            continue
        # Who routes the pods by itself, as clouds do, sends them to the nodes.
        if route.gateway and ip_address(route.gateway) in nodes and _within(network, wanted):
            continue
        way = f" via {route.gateway}" if route.gateway else ""
        # A wide route is a way to much that is nobody's.
        found.append(_Overlap(f"route {network}{way} dev {name or '-'}", is_certain=_within(network, wanted)))
    return list(dict.fromkeys(found))


def _held(facts: NetworkFacts, wanted: Range) -> Iterator[_Overlap]:
    for held in facts.addresses:
        name, network = facts.link(held.index), ip_interface(held.text).network
        if _is_own(name) or ip_address(held.address).is_link_local or not _meet(network, wanted):
            continue
        kind = "bridge " if name.startswith(_BRIDGES) else ""
        # With flannel's network policy by Calico (Canal) that is as it should be.
        is_provider = name.startswith(_PROVIDERS)
        whose = " of another network provider" if is_provider else ""
        yield _Overlap(f"{kind}{name} has {held.text}{whose}", is_certain=not is_provider)


def _is_own(name: str) -> bool:
    """Whether an interface has such addresses because the cluster runs."""
    return is_calicos(name) or name in ("kube-ipvs0", "nodelocaldns", "lo")


def _meet(one: Range, other: Range) -> bool:
    return one.version == other.version and one.overlaps(other)


def _within(one: Range, other: Range) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def _inventory_overlaps(context: Context, wanted: Range) -> Iterator[_Overlap]:
    for host in context.inventory.hosts:
        for address in host.addresses:
            if ip_address(address) in wanted:
                yield _Overlap(f"{host.name} has {address}", is_certain=True)


def _ranges(texts: tuple[str, ...]) -> list[Range]:
    return [ip_network(text) for text in texts]


def _judge(key: str, context: Context) -> Judgement:
    pods, services = _ranges(context.inventory.pod_cidr), _ranges(context.inventory.service_cidr)
    ranges = pods if key == "pod_cidr" else services
    facts = context.of(NETWORK)
    if not ranges:
        return _without(key, context, facts)
    if isinstance(facts, Failed):
        return unknown(facts)
    found = [
        (wanted, overlap)
        for wanted in ranges
        for overlap in (
            *(
                _Overlap(f"service_cidr {each}", is_certain=True)
                for each in (services if key == "pod_cidr" else ())
                if _meet(each, wanted)
            ),
            *_inventory_overlaps(context, wanted),
            *_overlaps(context, facts, wanted),
        )
    ]
    shown = "; ".join(f"{wanted}: {overlap.words}" for wanted, overlap in found)
    if any(overlap.is_certain for _wanted, overlap in found):
        return failed(shown)
    if found:
        return warned(shown)
    more = " (of the routes only the first were looked at)" if facts.more else ""
    return passed(f"{', '.join(map(str, ranges))}: in no address, network or route of this host{more}")


def _without(key: str, context: Context, facts: NetworkFacts | Failed) -> Judgement:
    """Without a range the pods get Calico's default one, which many networks have."""
    words = f"the inventory has no {key}"
    if key != "pod_cidr" or isinstance(facts, Failed):
        return not_applicable(words)
    wanted = ip_network(_DEFAULT_POOL)
    found = [*_inventory_overlaps(context, wanted), *_overlaps(context, facts, wanted)]
    certain = [overlap.words for overlap in found if overlap.is_certain]
    if not certain:
        return not_applicable(words)
    return warned(
        f"{words}; with Calico's default pool: {_DEFAULT_POOL}: {'; '.join(certain)}",
        f"Choose another range than {_DEFAULT_POOL} for the pods, and give it as pod_cidr.",
    )


def _is_node(host: Host) -> bool:
    return Role.NODE in host.roles


def blocks(network: Range) -> int:
    """How many blocks of addresses a pool has; 0 where it is smaller than one."""
    free = _BLOCKS[network.version] - network.prefixlen
    return 1 << free if free >= 0 else 0


def _size(context: Context) -> Judgement:
    ranges = _ranges(context.inventory.pod_cidr)
    nodes = sum(map(_is_node, context.inventory.hosts))
    if not ranges:
        return not_applicable("the inventory has no pod_cidr")
    shown = ", ".join(
        f"{network} has {blocks(network):,} blocks (/{_BLOCKS[network.version]}) for {nodes} nodes"
        for network in ranges
    )
    least = min(map(blocks, ranges))
    if least < nodes:
        return failed(shown)
    if least * 64 < nodes * _PODS:
        return warned(f"{shown}: not enough for {_PODS} pods on each, as kubelet allows")
    return passed(shown)


_JUDGES: Final[dict[str, Callable[[Context], Judgement]]] = {
    key: partial(_judge, key) for key in ("pod_cidr", "service_cidr")
}

GROUP: Final = Group(
    name="IP pool",
    rank=90,
    requirements=(
        Requirement(
            id="ip-pool-overlap",
            title="The pods' range is nobody else's",
            source=(
                "The IP range selected for pod IP addresses cannot overlap with any other IP ranges in your "
                "network, including: The Kubernetes service cluster IP range; The range from which host IPs "
                "are allocated"
            ),
            method=(
                "pod_cidr against service_cidr, the inventory's addresses, and the host's addresses, "
                "networks, bridges and routes; what is Calico's own does not count"
            ),
            fix="Choose a range for the pods (pod_cidr, and the IPPool's cidr) that nothing else has.",
            asks=(NETWORK,),
            judge=_JUDGES["pod_cidr"],
        ),
        Requirement(
            id="service-cidr-overlap",
            title="The services' range is nobody else's",
            source="The Kubernetes service cluster IP range",
            method="service_cidr against the inventory's addresses, the host's networks, bridges and routes",
            fix="Choose a range for the services (--service-cluster-ip-range) that nothing else has.",
            asks=(NETWORK,),
            judge=_JUDGES["service_cidr"],
        ),
        Requirement(
            id="ip-pool-size",
            title="Enough addresses for the pods",
            source="Calico gives each node blocks of addresses: /26 and /122 (IPPool, blockSize)",
            method="The blocks in pod_cidr, counted, against the inventory's nodes",
            fix="Choose a wider range for the pods: each node needs at least one block, /26 of IPv4.",
            judge=_size,
        ),
    ),
)
