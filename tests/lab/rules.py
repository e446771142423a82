"""
The networks of the random test as values: hosts, firewalls of rules, routes that are wrong.

They become a description that `netprobe.lab` builds, and are what the model in `truth.py` walks through.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from netprobe.lab import Description, Fault, Hook, HostEntry, Network, Policy
from netprobe.model import Family, Role

ROUTER: Final = "router"
ND: Final = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
"""Without it no neighbour is found, and every IPv6 flow fails for that reason alone."""


class State(enum.Enum):
    """What conntrack calls a packet, as far as rules tell packets apart by it."""

    NEW = "new"
    KNOWN = "established,related"


class Reject(enum.Enum):
    """The ways in which a rule can refuse, in nft's words."""

    PROHIBITED = "icmpx admin-prohibited"
    PORT = "icmpx port-unreachable"
    HOST = "icmpx host-unreachable"
    NO_ROUTE = "icmpx no-route"
    RESET = "tcp reset"


class Action(enum.Enum):
    """What a rule does where it refuses nothing."""

    ACCEPT = "accept"
    DROP = "drop"


Does = Action | Reject


class Packet(NamedTuple):
    """A packet, or an ICMP error (`icmp`), from host to host."""

    family: Family
    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0


class Rule(NamedTuple):
    """A rule of a chain; None, or an empty set, matches everything."""

    does: Does
    protocol: str | None = None
    dports: frozenset[int] = frozenset()
    sports: frozenset[int] = frozenset()
    src: str | None = None
    dst: str | None = None
    family: Family | None = None
    state: State | None = None

    def matches(self, packet: Packet, state: State) -> bool:
        """Whether the rule is about this packet."""
        return (
            self.protocol in (None, packet.protocol)
            and (not self.dports or packet.dport in self.dports)
            and (not self.sports or packet.sport in self.sports)
            and self.src in (None, packet.src)
            and self.dst in (None, packet.dst)
            and self.family in (None, packet.family)
            and self.state in (None, state)
        )

    def nft(self, families: tuple[Family, ...]) -> Iterator[str]:
        """The rule in nft's words; one for each family where addresses are matched."""
        named = self.family is not None or self.src is not None or self.dst is not None
        for family in families if named else (None,):
            if family is not None and self.family in (None, family):
                yield " ".join([*self._addresses(family), *self._rest()])
            elif family is None:
                yield " ".join(self._rest())

    def _addresses(self, family: Family) -> Iterator[str]:
        ip = "ip" if family is Family.IPV4 else "ip6"
        if self.src is None and self.dst is None:
            yield f"meta nfproto {family.value}"
        for word, host in (("saddr", self.src), ("daddr", self.dst)):
            if host is not None:
                yield f"{ip} {word} ${{{host}.{family.value}}}"

    def _rest(self) -> Iterator[str]:
        if self.protocol is not None and not self.dports and not self.sports:
            yield f"meta l4proto {self.protocol}"
        for word, ports in (("sport", self.sports), ("dport", self.dports)):
            if ports:
                yield f"{self.protocol} {word} {{ {', '.join(map(str, sorted(ports)))} }}"
        if self.state is not None:
            yield f"ct state {self.state.value}"
        yield f"reject with {self.does.value}" if isinstance(self.does, Reject) else self.does.value


class Chain(NamedTuple):
    """The rules of one hook, of which the first that matches decides, and the policy for the rest."""

    policy: Action = Action.ACCEPT
    rules: tuple[Rule, ...] = ()

    def does(self, packet: Packet, state: State) -> Does:
        """What becomes of a packet."""
        return next((rule.does for rule in self.rules if rule.matches(packet, state)), self.policy)


class WrongRoute(NamedTuple):
    """A route on a host, or on the router, that leads nowhere: its type says what the sender is told."""

    on: str
    type: str
    to: str
    family: Family


class Net(NamedTuple):
    """A whole network."""

    seed: int
    hosts: Mapping[str, tuple[Role, ...]]
    families: tuple[Family, ...]
    racks: Mapping[str, tuple[str, ...]]
    chains: Mapping[tuple[str, Hook], Chain]
    routes: tuple[WrongRoute, ...]

    def chain(self, on: str, hook: Hook) -> Chain:
        """The chain at a hook; an empty one where there is none."""
        return self.chains.get((on, hook), Chain())

    def route(self, on: str, to: str, family: Family) -> str | None:
        """The type of the wrong route that a packet to a host meets, None where the way is right."""
        for route in self.routes:
            if (route.on, route.to, route.family) == (on, to, family):
                return route.type
        return None

    def is_routed(self, one: str, other: str) -> bool:
        """Whether packets between two hosts pass the router, and not only a bridge."""
        return not any(one in hosts and other in hosts for hosts in self.racks.values())

    def description(self) -> Description:
        """The network as the lab builds it."""
        faults = [
            Fault(
                on=on,
                hook=hook,
                policy=Policy(chain.policy.value),
                nft=(ND, *(line for rule in chain.rules for line in rule.nft(self.families))),
            )
            for (on, hook), chain in self.chains.items()
        ]
        faults += [
            Fault(on=route.on, route=f"{route.type} ${{{route.to}.{route.family.value}}}")
            for route in self.routes
        ]
        return Description(
            name=f"random lab {self.seed}",
            hosts=tuple(HostEntry(name=name, roles=roles) for name, roles in self.hosts.items()),
            families=self.families,
            networks=tuple(Network(name=name, hosts=hosts) for name, hosts in self.racks.items()),
            faults=tuple(faults),
        )
