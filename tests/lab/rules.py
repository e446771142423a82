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
_ERRORS: Final = "{ icmp, ipv6-icmp }"
_BEFORE_CONNTRACK: Final = -300  # NF_IP_PRI_RAW; conntrack itself is at -200
DESTINATIONS: Final = -100  # NF_IP_PRI_NAT_DST: where the destination of a packet is translated
SOURCES: Final = 100  # NF_IP_PRI_NAT_SRC: the same for its source
_HASH_SEED: Final = 0x6E70


class State(enum.Enum):
    """What conntrack calls a packet, as far as rules tell packets apart by it."""

    NEW = "new"
    KNOWN = "established,related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


class Reject(enum.Enum):
    """The ways in which a rule can refuse, in nft's words over IPv4 and over IPv6."""

    PROHIBITED = "icmpx admin-prohibited", "icmpx admin-prohibited"
    PORT = "icmpx port-unreachable", "icmpx port-unreachable"
    HOST = "icmpx host-unreachable", "icmpx host-unreachable"
    NO_ROUTE = "icmpx no-route", "icmpx no-route"
    NET_PROHIBITED = "icmp net-prohibited", "icmpv6 policy-fail"
    HOST_PROHIBITED = "icmp host-prohibited", "icmpv6 reject-route"
    PROTOCOL = "icmp prot-unreachable", "icmpv6 policy-fail"
    NET = "icmp net-unreachable", "icmpv6 addr-unreachable"
    RESET = "tcp reset", "tcp reset"

    @property
    def differs(self) -> bool:
        """Whether the families have words of their own."""
        return self.value[0] != self.value[1]


class Loss(enum.Enum):
    """Which half of the packets that a rule is about it drops: any, or what a hash over ports says."""

    RANDOM = "random"
    PORTS = "ports"


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
    put that host in its place again. `is_reset` is a TCP RST, which nothing may reset.
    """

    family: Family
    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    behind: str = ""
    is_reset: bool = False


class Rule(NamedTuple):
    """A rule of a chain; None, or an empty set, matches everything. With a `loss` it drops half of that."""

    does: Does
    protocol: str | None = None
    dports: frozenset[int] = frozenset()
    sports: frozenset[int] = frozenset()
    src: str | None = None
    dst: str | None = None
    family: Family | None = None
    state: State | None = None
    loss: Loss | None = None

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
        """The rule in nft's words; one for each family where addresses, or words that differ, are in it."""
        named = self.family is not None or self.src is not None or self.dst is not None
        differs = isinstance(self.does, Reject) and self.does.differs
        for family in families if named or differs else (None,):
            if family is None:
                yield " ".join(self._rest(Family.IPV4))
            elif self.family in (None, family):
                yield " ".join([*self._addresses(family, hook), *self._rest(family)])

    def _addresses(self, family: Family, hook: Hook) -> Iterator[str]:
        ip = "ip" if family is Family.IPV4 else "ip6"
        if self.src is None and self.dst is None:
            yield f"meta protocol {ip}" if hook in _LINK_HOOKS else f"meta nfproto {family.value}"
        for word, host in (("saddr", self.src), ("daddr", self.dst)):
            if host is not None:
                yield f"{ip} {word} ${{{host}.{family.value}}}"

    def _rest(self, family: Family) -> Iterator[str]:
        if self.protocol is not None and not self.dports and not self.sports:
            yield f"meta l4proto {_ERRORS if self.protocol == 'icmp' else self.protocol}"
        for word, ports in (("sport", self.sports), ("dport", self.dports)):
            if ports:
                yield f"{self.protocol} {word} {{ {', '.join(map(str, sorted(ports)))} }}"
        if self.state is not None:
            yield f"ct state {self.state.value}"
        if self.loss is Loss.RANDOM:
            yield "numgen random mod 2 0"
        elif self.loss is Loss.PORTS:
            # Over the port that varies.
            word = "sport" if self.dports else "dport"
            yield f"jhash {self.protocol} {word} mod 2 seed {_HASH_SEED} 0"
        if isinstance(self.does, Reject):
            yield f"reject with {self.does.value[family is Family.IPV6]}"
        else:
            yield self.does.value


class Chain(NamedTuple):
    """
    The rules of a base chain, of which the first that matches decides, and the policy for the rest.

    Where it has a `table` of its own, the chains of others at the same hook are asked as well: what this one
    accepts they may drop.
    """

    policy: Action = Action.ACCEPT
    rules: tuple[Rule, ...] = ()
    priority: int = 0
    table: str = ""

    def does(self, packet: Packet, state: State) -> tuple[Does, tuple[Loss, ...]]:
        """What becomes of a packet that is not lost on the way, and by which rules it may be."""
        losses: list[Loss] = []
        for rule in self.rules:
            if not rule.matches(packet, state):
                continue
            if rule.loss is None:
                return rule.does, tuple(losses)
            losses.append(rule.loss)
        return self.policy, tuple(losses)

    def fault(self, on: str, hook: Hook, families: tuple[Family, ...]) -> Fault:
        """The chain as the lab builds it."""
        rules = self._nft(families, hook)
        if not self.table:
            policy = Policy(self.policy.value)
            return Fault(on=on, hook=hook, policy=policy, priority=self.priority, nft=rules)
        head = f"type filter hook {hook.value} priority {self.priority}; policy {self.policy.value};"
        chain = [f"  chain {hook.value} {{", *(f"    {line}" for line in (head, *rules)), "  }"]
        return Fault(on=on, nft_ruleset="\n".join([f"table inet {self.table} {{", *chain, "}"]))

    def _nft(self, families: tuple[Family, ...], hook: Hook) -> tuple[str, ...]:
        """The rules in nft's words; neighbours are found in any case."""
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


class Redirect(NamedTuple):
    """A host leads what comes to one of its ports to another one, where nothing listens."""

    on: str
    protocol: str
    port: int
    to: int

    def local(self, packet: Packet) -> Packet:
        """A packet of the host as its own programs and filters know it."""
        if packet.protocol != self.protocol:
            return packet
        if packet.dst == self.on and packet.dport == self.port:
            return packet._replace(dport=self.to)
        if packet.src == self.on and packet.sport == self.port:
            return packet._replace(sport=self.to)
        return packet

    def nft(self) -> str:
        """The rule in nft's words."""
        return f"{self.protocol} dport {self.port} redirect to :{self.to}"


class Service(NamedTuple):
    """A program that listens on a probed port: at every address of a family, or at the probed one."""

    on: str
    protocol: str
    port: int
    family: Family
    is_anywhere: bool


class WrongRoute(NamedTuple):
    """A route on a host, or on the router, that leads nowhere: its type says what the sender is told."""

    on: str
    type: str
    to: str
    family: Family


class Net(NamedTuple):
    """
    A whole network.

    `snat_to` is the host by whose gateway's address the router calls those that it masquerades; None where it
    takes that of the way out.
    """

    seed: int
    hosts: Mapping[str, tuple[Role, ...]]
    families: tuple[Family, ...]
    racks: Mapping[str, tuple[str, ...]]
    chains: Mapping[tuple[str, Hook], tuple[Chain, ...]]
    routes: tuple[WrongRoute, ...]
    untracked: Mapping[str, Untracked]
    masquerade: tuple[Rule, ...] = ()
    snat_to: str | None = None
    handovers: tuple[Handover, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    services: tuple[Service, ...] = ()

    @property
    def loses_some(self) -> bool:
        """Whether any rule drops half of what it is about."""
        return any(rule.loss for chains in self.chains.values() for chain in chains for rule in chain.rules)

    def at(self, on: str, hook: Hook) -> tuple[Chain, ...]:
        """The chains at a hook in the order in which they are asked."""
        return tuple(sorted(self.chains.get((on, hook), ()), key=lambda chain: chain.priority))

    def local(self, on: str, packet: Packet) -> Packet:
        """A packet as a host's own programs know it, behind the translation of addresses there."""
        for redirect in self.redirects:
            if redirect.on == on and self.is_tracked(on, packet):
                packet = redirect.local(packet)
        return packet

    def serves(self, on: str, protocol: str, port: int | None, family: Family) -> bool:
        """Whether a program holds a port of a host."""
        return any(each[:4] == (on, protocol, port, family) for each in self.services)

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
        chains = [(on, hook, chain) for (on, hook), theirs in self.chains.items() for chain in theirs]
        for on, untracked in self.untracked.items():
            chains += [(on, hook, untracked.chain()) for hook in (Hook.PREROUTING, Hook.OUTPUT)]
        faults = [chain.fault(on, hook, self.families) for on, hook, chain in chains]
        faults += [
            Fault(on=on, type=ChainType.NAT, hook=hook, nft=tuple(lines))
            for on, hook, lines in self._translations()
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

    def _translations(self) -> Iterator[tuple[str, Hook, list[str]]]:
        yield ROUTER, Hook.PREROUTING, [line for each in self.handovers for line in each.nft(self.families)]
        yield ROUTER, Hook.POSTROUTING, [line for rule in self.masquerade for line in self._hiding(rule)]
        for redirect in self.redirects:
            yield redirect.on, Hook.PREROUTING, [redirect.nft()]

    def _hiding(self, rule: Rule) -> Iterator[str]:
        for line in rule.nft(self.families, Hook.POSTROUTING):
            family = Family.IPV6 if line.startswith("ip6") else Family.IPV4
            ip = "ip6" if family is Family.IPV6 else "ip"
            name = f"snat {ip} to ${{{self.snat_to}.gateway.{family.value}}}"
            yield line if self.snat_to is None else line.replace(Action.MASQUERADE.value, name)
