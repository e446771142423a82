"""
What a Linux machine says of its addresses and routes over ssh: `COMMAND`, and what it writes.

Source: ip-address(8), ip-route(8) and their `-json`; SSH_CONNECTION in ssh(1).
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_interface, ip_network
from typing import Final

import msgspec

COMMAND: Final = (
    """printf '"%s" ' "$SSH_CONNECTION"; """
    # iproute2 may not be where a user's PATH looks.
    "PATH=$PATH:/usr/sbin:/sbin; ip -json address && ip -json route && ip -json -6 route"
)
"""A script for a POSIX shell; it writes JSON documents, one behind the other."""

# The interfaces of containers and their networks; what is no Ethernet (tunnels, lo) is left out in any case.
_OF_CONTAINERS: Final = re.compile(
    r"(docker|br-|cni|cali|cilium|flannel|vxlan|veth|lxc|lxd|podman|virbr|kube-|nodelocaldns|weave).*"
)
_DOCUMENTS: Final = 4


class _Address(msgspec.Struct):
    """One of `addr_info` in `ip -json address`; scopes and flags as in ip-address(8)."""

    local: str = ""
    prefixlen: int = 0
    scope: str = ""
    temporary: bool = False
    deprecated: bool = False
    tentative: bool = False
    dadfailed: bool = False

    @property
    def is_usable(self) -> bool:
        return self.scope == "global" and not (
            self.temporary or self.deprecated or self.tentative or self.dadfailed
        )


class _Link(msgspec.Struct):
    """An interface in `ip -json address`; some versions write empty ones between them."""

    ifname: str = ""
    link_type: str = ""
    addr_info: list[_Address] = []

    @property
    def is_of_the_network(self) -> bool:
        return self.link_type == "ether" and not _OF_CONTAINERS.fullmatch(self.ifname)

    @property
    def usable(self) -> tuple[str, ...]:
        return tuple(
            str(ip_interface(f"{each.local}/{each.prefixlen}")) for each in self.addr_info if each.is_usable
        )


class _Route(msgspec.Struct):
    """A route in `ip -json route`."""

    dst: str = "default"
    gateway: str = ""

    @property
    def prefix(self) -> str:
        if self.dst == "default":
            return "::/0" if ":" in self.gateway else "0.0.0.0/0"
        return str(ip_network(self.dst, strict=False))


class Interface(msgspec.Struct, frozen=True):
    """An interface and its addresses, with the lengths of their prefixes."""

    name: str
    addresses: tuple[str, ...]

    @property
    def own(self) -> tuple[str, ...]:
        """The addresses alone."""
        return tuple(str(ip_interface(address).ip) for address in self.addresses)


class Route(msgspec.Struct, frozen=True):
    """A route by way of a gateway."""

    prefix: str
    gateway: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine says of itself; `login` is the address of its own to which ssh came, "" if unknown."""

    login: str = ""
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()


def machine_of(text: str) -> Machine:
    """What `COMMAND` wrote, or `ValueError` where it is something else."""
    decoder = json.JSONDecoder()
    documents = []
    rest = text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    if len(documents) < _DOCUMENTS:
        raise ValueError(f"it wrote {len(documents)} documents, expected {_DOCUMENTS}")
    # The client's address and port, then the server's.
    ends = msgspec.convert(documents[0], str).split()
    links = msgspec.convert(documents[1], list[_Link])
    tables = msgspec.convert(documents[2:], list[list[_Route]])
    routes = (Route(route.prefix, route.gateway) for table in tables for route in table if route.gateway)
    return Machine(
        login=ends[2] if len(ends) > 2 else "",
        interfaces=tuple(Interface(link.ifname, link.usable) for link in links if link.is_of_the_network),
        routes=tuple(routes),
    )
