"""The interfaces that carry the cluster: their MTUs, and which of them Calico would choose by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Final

from netprobe.model import Family
from netprobe.questions import NetworkFacts
from netprobe.requirements._hosts import NETWORK, is_global, neighbours, underlay
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    not_applicable,
    passed,
    unknown,
    warned,
)

# DEFAULT_INTERFACES_TO_EXCLUDE of calico/node/pkg/lifecycle/startup/autodetection/autodetection_linux.go.
_LEFT_OUT: Final = re.compile(
    r"docker|cbr|dummy|virbr|lxcbr|veth|lo|cali|tunl|flannel|kube-ipvs|cni|vxlan\.calico|vxlan-v6\.calico"
    r"|wireguard\.cali|wg-v6\.cali|nodelocaldns"
)


def first_found(facts: NetworkFacts, family: Family) -> tuple[str, str] | None:
    """
    The interface and the address that Calico's `first-found` chooses; None where it finds none.

    The interfaces go by their index, which is the order in which the kernel tells them.
    """
    for link in sorted(facts.links, key=lambda each: each.index):
        if not link.up or _LEFT_OUT.match(link.name):
            continue
        for held in facts.addresses:
            if held.index == link.index and Family.of(held.address) is family:
                address = ip_address(held.address)
                if is_global(address):
                    return link.name, held.address
    return None


def _autodetection(context: Context) -> Judgement:
    facts = context.need(NETWORK)
    host = context.own.host
    if not host.addresses:
        return not_applicable("the inventory has no addresses to compare with")
    wrong, right = [], []
    for family in Family:
        expected = host.address(family)
        if expected is None:
            continue
        found = first_found(facts, family)
        if found is None:
            wrong.append(f"{family.label}: first-found chooses no interface, instead of {expected}")
        elif ip_address(found[1]) == ip_address(expected):
            right.append(f"{found[0]} {found[1]}")
        else:
            wrong.append(f"{family.label}: first-found chooses {found[0]} {found[1]}, instead of {expected}")
    if not wrong:
        return passed(f"first-found chooses {', '.join(right)}")
    return warned("; ".join(wrong), _method(context, facts))


def _method(context: Context, facts: NetworkFacts) -> str:
    """A way by which Calico chooses what the inventory has, in words of its configuration."""
    names = sorted({link.name for link in underlay(context.own.host, facts).values()})
    networks = sorted(
        {
            str(ip_interface(held.text).network)
            for held in facts.addresses
            for address in context.own.host.addresses
            if ip_address(held.address) == ip_address(address)
        }
    )
    if not names:
        return (
            "The inventory's address is on none of the host's interfaces: write the one that is there, or "
            "set IP on calico-node."
        )
    return (
        "Set IP_AUTODETECTION_METHOD (the operator's nodeAddressAutodetection) to "
        f"interface={'|'.join(names)} or cidr={','.join(networks)}."
    )


def _mtu(context: Context) -> Judgement:
    own = context.need(NETWORK)
    if len(context.fleet) == 1 or not context.own.host.addresses:
        return not_applicable("there is no other host to compare with")
    mine = sorted({(link.mtu, link.name) for link in underlay(context.own.host, own).values()})
    if not mine:
        return unknown(
            "no interface has the inventory's addresses",
            "Write the addresses into the inventory that the host's own interfaces have.",
        )
    shown = ", ".join(f"{name} {mtu}" for mtu, name in mine)
    others = _mtus(context)
    usual = max(set(others), key=lambda mtu: (others.count(mtu), mtu))
    if len(mine) > 1 and len({mtu for mtu, _name in mine}) > 1:
        return warned(f"{shown}: the interfaces of one host differ")
    if mine[0][0] != usual:
        return warned(f"{shown}; of {len(others)} hosts {others.count(usual)} have {usual}")
    return passed(f"{shown}, as {others.count(usual)} of {len(others)} hosts")


def _mtus(context: Context) -> list[int]:
    """The least MTU of every host that is known."""
    found: Iterator[list[int]] = (
        [link.mtu for link in underlay(context.fleet[name].host, facts).values()]
        for name, facts in neighbours(context)
    )
    return [min(each) for each in found if each]


GROUP: Final = Group(
    name="Interfaces between the nodes",
    rank=22,
    requirements=(
        Requirement(
            id="interface-mtu",
            title="The same MTU on all nodes",
            level=Level.RECOMMENDED,
            source="Calico has one MTU for the whole cluster (Configure MTU to maximize network performance)",
            method="The MTUs of the interfaces that have the inventory's addresses, compared between hosts",
            fix="Give these interfaces the same MTU on all nodes, or set Calico's mtu to fit the least.",
            asks=(NETWORK,),
            judge=_mtu,
        ),
        Requirement(
            id="autodetection",
            title="Calico chooses the right address",
            level=Level.RECOMMENDED,
            source=(
                "calico-node takes the first address of the first interface that it finds, unless it is told "
                "otherwise (IP autodetection methods)"
            ),
            method="What first-found would choose, by its own rules, against the inventory's addresses",
            fix="Set IP_AUTODETECTION_METHOD to interface=… or cidr=….",
            asks=(NETWORK,),
            judge=_autodetection,
        ),
    ),
)
