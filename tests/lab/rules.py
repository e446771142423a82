"""
The networks of the random test as values: hosts, firewalls of rules, routes that are wrong.

They become a description that `netprobe.lab` builds, and are what the model in `truth.py` walks through.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from netprobe.lab import ChainType, Description, Fault, Hook, HostEntry, Network, Policy
from netprobe.model import Family, Role

ROUTER: Final = "router"
ND: Final = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
"""Without it no neighbour is found, and every IPv6 flow fails for that reason alone."""


_LINK_HOOKS: Final = (Hook.INGRESS, Hook.EGRESS)
_ARP: Final = "meta protocol arp accept"
"""The same for the hooks below the IP layer, which see that as well."""
_BEFORE_CONNTRACK: Final = -300  # NF_IP_PRI_RAW; conntrack itself is at -200


class State(enum.Enum):
    """What conntrack calls a packet, as far as rules tell packets apart by it."""

    NEW = "new"
    KNOWN = "established,related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


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
    NOTRACK = "notrack"
    MASQUERADE = "masquerade"


Does = Action | Reject


class Packet(NamedTuple):
    """
    A packet, or an ICMP error (`icmp`), from host to host.

    Where the router is one end, `behind` is the host in whose place it stands; so it is, once the router has
    put that host in its place again.
    """

    family: Family
    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    behind: str = ""


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

    def nft(self, families: tuple[Family, ...], hook: Hook) -> Iterator[str]:
        """The rule in nft's words; one for each family where addresses are matched."""
        named = self.family is not None or self.src is not None or self.dst is not None
        for family in families if named else (None,):
            if family is not None and self.family in (None, family):
                yield " ".join([*self._addresses(family, hook), *self._rest()])
            elif family is None:
                yield " ".join(self._rest())

    def _addresses(self, family: Family, hook: Hook) -> Iterator[str]:
        ip = "ip" if family is Family.IPV4 else "ip6"
        if self.src is None and self.dst is None:
            yield f"meta protocol {ip}" if hook in _LINK_HOOKS else f"meta nfproto {family.value}"
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
    priority: int = 0

    def does(self, packet: Packet, state: State) -> Does:
        """What becomes of a packet."""
        return next((rule.does for rule in self.rules if rule.matches(packet, state)), self.policy)

    def nft(self, families: tuple[Family, ...], hook: Hook) -> tuple[str, ...]:
        """The chain in nft's words; neighbours are found in any case."""
        rules = (line for rule in self.rules for line in rule.nft(families, hook))
        return (*((_ARP,) if hook in _LINK_HOOKS else ()), ND, *rules)


class Untracked(NamedTuple):
    """What a host, or the router, keeps from its conntrack: both directions of the same flows."""

    protocol: str | None = None
    ports: frozenset[int] = frozenset()

    def matches(self, packet: Packet) -> bool:
        """Whether a packet is one of these."""
        ports = {packet.sport, packet.dport}
        return self.protocol in (None, packet.protocol) and (not self.ports or bool(self.ports & ports))

    def chain(self) -> Chain:
        """The chain for what arrives, and the same for what the host itself sends."""
        rule = Rule(Action.NOTRACK, self.protocol)
        rules = (
            (rule._replace(dports=self.ports), rule._replace(sports=self.ports)) if self.ports else (rule,)
        )
        return Chain(Action.ACCEPT, rules, _BEFORE_CONNTRACK)


class Handover(NamedTuple):
    """The router hands the TCP connections of a host to another destination."""

    src: str
    dst: str
    port: int
    to: str

    def nft(self, families: tuple[Family, ...]) -> Iterator[str]:
        """The rules in nft's words."""
        for family in families:
            ip = "ip" if family is Family.IPV4 else "ip6"
            src, dst, to = (f"${{{host}.{family.value}}}" for host in (self.src, self.dst, self.to))
            yield f"{ip} saddr {src} {ip} daddr {dst} tcp dport {self.port} dnat to {to}"


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
    untracked: Mapping[str, Untracked]
    masquerade: tuple[Rule, ...] = ()
    handovers: tuple[Handover, ...] = ()

    def chain(self, on: str, hook: Hook) -> Chain:
        """The chain at a hook; an empty one where there is none."""
        return self.chains.get((on, hook), Chain())

    def route(self, on: str, to: str, family: Family) -> str | None:
        """The type of the wrong route that a packet to a host meets, None where the way is right."""
        for route in self.routes:
            if (route.on, route.to, route.family) == (on, to, family):
                return route.type
        return None

    def is_tracked(self, on: str, packet: Packet) -> bool:
        """Whether the conntrack of a host, or of the router, sees a packet."""
        return on not in self.untracked or not self.untracked[on].matches(packet)

    def masqueraded(self, packet: Packet) -> Packet:
        """The first packet of a connection as it leaves the router."""
        hides = any(rule.matches(packet, State.NEW) for rule in self.masquerade)
        if hides and self.is_routed(packet.src, packet.dst) and self.is_tracked(ROUTER, packet):
            return packet._replace(src=ROUTER, behind=packet.src)
        return packet

    def handed_to(self, packet: Packet) -> str | None:
        """To whom the router hands the first packet of a connection, None where that goes its own way."""
        if packet.protocol == "tcp" and self.is_tracked(ROUTER, packet):
            for handover in self.handovers:
                if handover[:3] == (packet.src, packet.dst, packet.dport):
                    return handover.to
        return None

    def is_routed(self, one: str, other: str) -> bool:
        """Whether packets between two hosts pass the router, and not only a bridge."""
        return not any(one in hosts and other in hosts for hosts in self.racks.values())

    def description(self) -> Description:
        """The network as the lab builds it."""
        chains = [(on, hook, chain) for (on, hook), chain in self.chains.items()]
        for on, untracked in self.untracked.items():
            chains += [(on, hook, untracked.chain()) for hook in (Hook.PREROUTING, Hook.OUTPUT)]
        faults = [
            Fault(
                on=on,
                hook=hook,
                policy=Policy(chain.policy.value),
                priority=chain.priority,
                nft=chain.nft(self.families, hook),
            )
            for on, hook, chain in chains
        ]
        faults += [
            Fault(on=ROUTER, type=ChainType.NAT, hook=hook, nft=tuple(lines))
            for hook, lines in self._translations().items()
            if lines
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

    def _translations(self) -> dict[Hook, list[str]]:
        return {
            Hook.PREROUTING: [line for each in self.handovers for line in each.nft(self.families)],
            Hook.POSTROUTING: [
                line for rule in self.masquerade for line in rule.nft(self.families, Hook.POSTROUTING)
            ],
        }
