"""
Which host has which addresses: a pure function of the description.

Subnets are numbered from 1, those of the description's networks first, then the links of the hosts that are
in none; number 1 is 10.77.1.0/24 and fd77:6e70:6c61:1::/64. The router has the first address of each.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import msgspec

from netprobe.lab.description import Description
from netprobe.lab.errors import DescriptionError
from netprobe.model import Family

INTERFACE: Final = "eth0"
"""The one interface of every host."""

_IPV4: Final = int(IPv4Network("10.77.0.0/24").network_address)
_IPV6: Final = int(IPv6Network("fd77:6e70:6c61::/64").network_address)  # RFC 4193
_FIRST_HOST: Final = 11
_NEIGHBOURS: Final = 256
"""A quarter of what all namespaces of a machine may have by default (design trap 13)."""


class Subnet(msgspec.Struct, frozen=True):
    """A subnet and the hosts on it; `bridge` is the router's bridge, "" where it is one host's link."""

    number: int
    hosts: tuple[str, ...]
    bridge: str = ""

    def prefix(self, family: Family) -> str:
        """The subnet, as `address/length`."""
        if family is Family.IPV4:
            return str(IPv4Network((_IPV4 + (self.number << 8), 24)))
        return str(IPv6Network((_IPV6 + (self.number << 64), 64)))

    def address(self, family: Family, place: int) -> str:
        """The address at a place of the subnet."""
        network = IPv4Network if family is Family.IPV4 else IPv6Network
        # IPv6 addresses are written so that their last group looks like the last octet of the IPv4 one.
        offset = place if family is Family.IPV4 else int(str(place), 16)
        return str(network(self.prefix(family))[offset])

    def gateway(self, family: Family) -> str:
        """The router's address."""
        return self.address(family, 1)

    @property
    def interface(self) -> str:
        """The interface of the router that has the router's address."""
        return self.bridge or self.hosts[0]


class Station(msgspec.Struct, frozen=True, kw_only=True):
    """A host in its place: its addresses by family, and the MAC addresses of the two ends of its link."""

    name: str
    subnet: Subnet
    addresses: dict[Family, str]
    mac: str
    port_mac: str


class Topology(msgspec.Struct, frozen=True):
    """All hosts and subnets; `values` are what placeholders stand for."""

    families: tuple[Family, ...]
    subnets: tuple[Subnet, ...]
    stations: dict[str, Station]
    values: dict[str, str]

    def neighbours(self, subnet: Subnet, on: str) -> dict[str, str]:
        """The neighbours, address to MAC address, of a host or the router on a subnet."""
        found = {}
        for family in self.families:
            if on in subnet.hosts:
                found[subnet.gateway(family)] = gateway_mac(subnet, self.stations[on])
            for host in subnet.hosts:
                if host != on:
                    found[self.stations[host].addresses[family]] = self.stations[host].mac
        return found

    @property
    def is_crowded(self) -> bool:
        """Whether neighbours that are learned could fill the table that all namespaces share."""
        return sum(len(s.hosts) * (len(s.hosts) + 1) for s in self.subnets) > _NEIGHBOURS


def gateway_mac(subnet: Subnet, station: Station) -> str:
    """The MAC address at which a host finds the router."""
    return bridge_mac(subnet) if subnet.bridge else station.port_mac


def bridge_mac(subnet: Subnet) -> str:
    """The MAC address of a subnet's bridge."""
    return _mac(2, subnet.number)


def _mac(kind: int, number: int) -> str:
    """A locally administered unicast address: they are known beforehand, and nobody has to be asked."""
    return f"02:4c:00:{kind:02x}:{number >> 8:02x}:{number & 0xFF:02x}"


def topology(description: Description) -> Topology:
    """The topology of a description."""
    placed = {host for network in description.networks for host in network.hosts}
    groups = [(network.name, network.hosts) for network in description.networks]
    groups += [("", (host,)) for host in description.roles if host not in placed]
    subnets = tuple(Subnet(number, hosts, bridge) for number, (bridge, hosts) in enumerate(groups, start=1))
    stations: dict[str, Station] = {}
    for subnet in subnets:
        for place, host in enumerate(subnet.hosts, start=_FIRST_HOST):
            number = len(stations) + 1
            addresses = {family: subnet.address(family, place) for family in description.families}
            stations[host] = Station(
                name=host, subnet=subnet, addresses=addresses, mac=_mac(0, number), port_mac=_mac(1, number)
            )
    stations = {host: stations[host] for host in description.roles}
    values = _values(description.families, subnets, stations)
    return Topology(families=description.families, subnets=subnets, stations=stations, values=values)


def _values(
    families: Iterable[Family], subnets: Iterable[Subnet], stations: Mapping[str, Station]
) -> dict[str, str]:
    """What placeholders stand for; without a family they mean IPv4."""
    values = {}
    for family in families:
        by_name = {f"{name}.gateway": station.subnet.gateway(family) for name, station in stations.items()}
        by_name |= {name: station.addresses[family] for name, station in stations.items()}
        by_name |= {subnet.bridge: subnet.prefix(family) for subnet in subnets if subnet.bridge}
        values.update({f"{name}.{family.value}": value for name, value in by_name.items()})
        if family is Family.IPV4:
            values.update(by_name)
    return values


class _Template(string.Template):
    """`$name` and `${name}`, with the names of hosts and networks, and a dot before what is meant of them."""

    idpattern = r"(?a:[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z][a-z0-9]*)*)"
    flags = re.RegexFlag(0)


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders filled in; `DescriptionError` names one that stands for nothing."""
    try:
        return _Template(text).substitute(values)
    except KeyError as error:
        known = "a host or network, with .ipv4, .ipv6, .gateway or .gateway.ipv6, of a family of this lab"
        raise DescriptionError(f"${error.args[0]} stands for nothing; expected {known} ($$ is a $)") from None
    except ValueError:
        raise DescriptionError(f"a $ that begins no placeholder in {text!r} ($$ is a $)") from None
