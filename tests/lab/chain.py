"""A lab with a chain of routers from a to b: the lab's own, r2, r3; back is only the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from netprobe.lab import Lab, describe
from netprobe.model import Family, Inventory

LAB: Final = """
name: two hosts, two more routers on the way from the first to the second, and another host beside the first
hosts:
  - {name: a, roles: [node]}
  - {name: b, roles: [node, typha, apiserver, etcd]}
  - r2
  - r3
  - c
faults:
  - {on: router, route: ["$b via $r2", "$b.ipv6 via $r2.ipv6"]}
  - {on: [r2, r3], sysctl: {net.ipv4.ip_forward: 1, net.ipv6.conf.all.forwarding: 1}}
"""

_LINKS: Final = (("r2", "r3", 2), ("r3", "b", 3))


@contextmanager
def chain() -> Iterator[Lab]:
    """The lab, with addresses .1 and .2 on each of the links r2-r3 (10.78.2.0/24) and r3-b (10.78.3.0/24)."""
    with Lab(describe(LAB)) as lab:
        for here, there, number in _LINKS:
            peer = ("peer", "name", f"to-{here}", "netns", lab.hosts[there].namespace)
            _ip(lab, here, "link", "add", "name", f"to-{there}", "type", "veth", *peer)
            for on, to, place in ((here, there, 1), (there, here, 2)):
                _ip(lab, on, "address", "add", f"10.78.{number}.{place}/24", "dev", f"to-{to}")
                _ip(lab, on, "address", "add", f"fd78:{number}::{place}/64", "dev", f"to-{to}", "nodad")
                _ip(lab, on, "link", "set", "dev", f"to-{to}", "up")
            for family, via in ((Family.IPV4, f"10.78.{number}.2"), (Family.IPV6, f"fd78:{number}::2")):
                _ip(lab, here, "route", "add", lab.hosts["b"].address(family), "via", via)
        yield lab


def _ip(lab: Lab, on: str, *words: str) -> None:
    lab.run(on, ["ip", *words])


def ends(lab: Lab, names: str = "ab") -> Inventory:
    """The inventory of the two ends, or of others."""
    inventory = lab.inventory()
    hosts = tuple(host for host in inventory.hosts if host.name in names)
    return msgspec.structs.replace(inventory, hosts=hosts)
