"""What a probe is: the one record that each file of this package ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from netprobe.model import Family, Protocol, Role
from netprobe.template import Template

BOTH: Final = (Family.IPV4, Family.IPV6)


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row of the network requirements.

    `source` is where the requirement and the packet's form come from. `between` are the roles of the two ends.
    `ports` are the default destination ports (none for IP protocol 4); with `any_port`, one open port of
    several is enough unless the inventory sets them. `packet` crafts the template of the probe packet for a
    family and a port. `request` and `answer` craft what the two ends say in a session (TCP only).
    `shares_conntrack`: both orientations of a pair are one conntrack entry, because the packet has no ports or
    the same one at both ends (`fixed_source_port`).
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
    packet: Callable[[Family, int | None], Template]
    request: Callable[[], Template] | None = None
    answer: Callable[[], Template] | None = None
    application: str = ""
    fixed_source_port: bool = False

    @property
    def shares_conntrack(self) -> bool:
        """Whether A's packet to B and B's packet to A belong to the same conntrack entry (design trap 2)."""
        return self.fixed_source_port or not self.ports
