"""What a probe is: the one record that each file of this package ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from netprobe.model import Family, Protocol, Role
from netprobe.template import Key, Sight, Template

BOTH: Final = (Family.IPV4, Family.IPV6)


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the two ends of a TCP session say to each other: one payload each.

    `name` is how the report calls it. `sights` recognise both payloads on the wire, so that a lost one is
    lost at a place.
    """

    name: str
    request: Callable[[Key], Template]
    answer: Callable[[Key], Template]
    sights: Callable[[Key], tuple[Sight, ...]]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row of the network requirements.

    `source` is where the requirement and the packet's form come from, `rank` its place in reports. `between`
    are the roles of the two ends. `ports` are the default destination ports (none for IP protocol 4); with
    `any_port`, one open port of several is enough unless the inventory sets them. `packet` crafts the
    template of the probe packet, `sights` recognise it and its answers, `withdrawal` takes back what the
    packet left half done at the destination. With `fixed_source_port` the real traffic leaves from the port
    it goes to. With `forwarded` it is a pod's: its packets bear an address of the inventory's `pod_cidr`.
    Both hosts forward such packets, so they enter below the source's firewall and have arrived in front of
    the destination's. `hint` is what is worth knowing where packets are lost on the path without a word.
    """

    name: str
    rank: int
    summary: str
    source: str
    protocol: Protocol
    families: tuple[Family, ...] = BOTH
    between: tuple[Role, Role] = (Role.NODE, Role.NODE)
    ports: tuple[int, ...] = ()
    any_port: bool = False
    packet: Callable[[Family, int | None, Key], Template]
    sights: Callable[[Key], tuple[Sight, ...]]
    withdrawal: Callable[[Family, int | None, Key], Template] | None = None
    application: Application | None = None
    fixed_source_port: bool = False
    forwarded: bool = False
    hint: str = ""

    @property
    def shares_conntrack(self) -> bool:
        """Whether A's packet to B and B's packet to A belong to the same conntrack entry (design trap 2)."""
        return self.fixed_source_port or not self.ports
