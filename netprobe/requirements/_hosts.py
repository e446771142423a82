"""What several requirements read in the answers: interfaces, their addresses, and which are Calico's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from netprobe.model import Family, Host
from netprobe.questions import Failed, Link, Network, NetworkFacts
from netprobe.requirements.base import Context

Address = IPv4Address | IPv6Address
Range = IPv4Network | IPv6Network

NETWORK: Final = Network()

CALICOS: Final = re.compile(
    r"cali|tunl\d|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali|bpf(in|out)\.cali"
)
"""The interfaces that Calico makes."""


def is_calicos(name: str) -> bool:
    """Whether Calico makes interfaces of this name."""
    return CALICOS.match(name) is not None


def neighbours(context: Context) -> Iterator[tuple[str, NetworkFacts]]:
    """Every host that has told its interfaces, this one as well."""
    for name, evidence in context.fleet.items():
        found = evidence.of(NETWORK)
        if not isinstance(found, Failed):
            yield name, found


def probed(host: Host) -> list[str]:
    """A host's probed addresses: the first of each family."""
    return [address for family in Family if (address := host.address(family)) is not None]


def underlay(host: Host, facts: NetworkFacts) -> dict[str, Link]:
    """The interfaces that have the host's probed addresses, by these; without those that none has."""
    found = {address: facts.holder(address) for address in probed(host)}
    return {address: link for address, link in found.items() if link is not None}


def is_global(address: Address) -> bool:
    """Whether an address may mean this host to others."""
    return not (address.is_loopback or address.is_link_local or address.is_multicast)


def parsed(text: str) -> Address:
    """An address without its zone."""
    return ip_address(text.partition("%")[0])
