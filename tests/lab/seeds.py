"""The generator of random networks; the same seed is the same network."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Final

from netprobe.lab import Hook
from netprobe.model import Family, Role
from tests.lab.rules import (
    ROUTER,
    Action,
    Chain,
    Does,
    Handover,
    Loss,
    Net,
    Redirect,
    Reject,
    Rule,
    Service,
    State,
    Untracked,
    WrongRoute,
)

_TCP: Final = (179, 2379, 443, 5473, 6443)
_UDP: Final = (4789, 8472, 51820, 51821)
_VXLAN: Final = (4789, 8472)
_ROUTES: Final = ("unreachable", "prohibit", "blackhole")
_EARLY: Final = (-300, -150, 0)
"""Priorities at prerouting: before conntrack, between that and the translation of addresses, after both."""
_BESIDE: Final = {"guard": -150, "site": -10, "zone": 10, "audit": 50}
"""Tables beside the one with most of the rules, by the priority of their chains."""
_NOBODYS: Final = 9
"""The port discard (RFC 863), where nothing listens."""
_SMALL, _MOST = 4, 6


def network(seed: int) -> Net:
    """The network of a seed."""
    return _Draw(seed).network()


class _Draw:
    """Everything that is drawn for one network, in a fixed order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 (a test's dice)
        hosts = self._random.choice([_SMALL, _SMALL, _SMALL, 5, 5, _MOST])
        self._names = [f"h{number}" for number in range(1, hosts + 1)]
        both = tuple(Family)
        self._families = self._random.choice([both, both, both, (Family.IPV4,), (Family.IPV6,)])

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _some(self, values: Iterable[int], most: int) -> frozenset[int]:
        values = sorted(values)
        return frozenset(self._random.sample(values, self._random.randint(1, most)))

    def network(self) -> Net:
        hosts = {
            name: (Role.NODE, *(role for role in list(Role)[1:] if self._chance(0.2))) for name in self._names
        }
        racks = self._racks()
        net = Net(
            seed=self._seed,
            hosts=hosts,
            families=self._families,
            racks=racks,
            chains=self._chains(),
            routes=self._routes(),
            untracked={name: self._untracked() for name in (*self._names, ROUTER) if self._chance(0.15)},
            services=self._services(hosts),
            redirects=self._redirects(),
        )
        if self._chance(0.2):
            snat_to = self._random.choice(self._names) if self._chance(0.5) else None
            return net._replace(masquerade=(self._masquerade(),), snat_to=snat_to)
        if self._chance(0.3):
            return net._replace(handovers=self._handovers(net))
        return net

    def _chains(self) -> dict[tuple[str, Hook], tuple[Chain, ...]]:
        """Of every host and of the router: the usual ones, some in other tables, and some elsewhere."""
        chains: dict[tuple[str, Hook], tuple[Chain, ...]] = {}
        places = [(name, hook) for name in self._names for hook in (Hook.INPUT, Hook.OUTPUT)]
        usual = {Hook.INPUT: 0.4, Hook.OUTPUT: 0.3, Hook.FORWARD: 0.65}
        beside = {Hook.INPUT: 0.15, Hook.OUTPUT: 0.1, Hook.FORWARD: 0.4}
        for on, hook in (*places, (ROUTER, Hook.FORWARD)):
            found = [self._chain(is_router=on == ROUTER)] if self._chance(usual[hook]) else []
            if self._chance(beside[hook]):
                found += self._tables(is_router=on == ROUTER)
            if found:
                chains[on, hook] = tuple(found)
        return chains | self._elsewhere()

    def _tables(self, *, is_router: bool) -> tuple[Chain, ...]:
        """Chains of other tables: what one accepts another may drop."""
        names = self._random.sample(list(_BESIDE), self._random.randint(1, 2 if is_router else 1))
        draw = [self._deny_list] * 5 + [self._stateless]
        return tuple(
            self._random.choice(draw)(is_router=is_router)._replace(table=name, priority=_BESIDE[name])
            for name in names
        )

    def _services(self, hosts: dict[str, tuple[Role, ...]]) -> tuple[Service, ...]:
        """Programs on probed ports, of which some listen for one family only."""
        found = []
        for name in hosts:
            for protocol, ports in (("tcp", _TCP), ("udp", _UDP)):
                if self._chance(0.2):
                    families = self._families if self._chance(0.6) else self._families[:1]
                    is_anywhere = self._chance(0.6)
                    for port in sorted(self._some(ports, 2)):
                        found += [Service(name, protocol, port, each, is_anywhere) for each in families]
        return tuple(found)

    def _redirects(self) -> tuple[Redirect, ...]:
        """Not of what shares an entry with its opposite: its ports are those of its own answers."""
        found = []
        for name in self._names:
            if self._chance(0.08):
                protocol = self._random.choice(["tcp", "udp"])
                # Between nodes all have the first one; the others need a role.
                port = self._random.choice((*_TCP, *_TCP[:1] * 4) if protocol == "tcp" else _VXLAN)
                found.append(Redirect(name, protocol, port, _NOBODYS))
        return tuple(found)

    def _racks(self) -> dict[str, tuple[str, ...]]:
        """One or two bridges, or none; who is on none has a link of its own."""
        names = list(self._names)
        racks = {}
        for number in range(1, self._random.randint(0, 2) + 1):
            size = min(len(names), self._random.randint(1, 3))
            racks[f"rack-{number}"] = tuple(names[:size])
            names = names[size:]
        return {name: found for name, found in racks.items() if found}

    def _elsewhere(self) -> dict[tuple[str, Hook], tuple[Chain, ...]]:
        """Drops at hooks where few expect them."""
        chains: dict[tuple[str, Hook], tuple[Chain, ...]] = {}
        for name in self._names:
            if self._chance(0.2):
                hook = self._random.choice([Hook.PREROUTING, Hook.POSTROUTING, Hook.INGRESS, Hook.EGRESS])
                chains[name, hook] = (self._drops(hook, is_router=False),)
        for hook in (Hook.INGRESS, Hook.PREROUTING, Hook.POSTROUTING):
            if self._chance(0.15):
                chains[ROUTER, hook] = (self._drops(hook, is_router=True),)
        return chains

    def _drops(self, hook: Hook, *, is_router: bool) -> Chain:
        rules = tuple(
            self._match(Action.DROP, is_router=is_router) for _ in range(self._random.randint(1, 2))
        )
        return Chain(Action.ACCEPT, rules, self._random.choice(_EARLY) if hook is Hook.PREROUTING else 0)

    def _untracked(self) -> Untracked:
        protocol = self._random.choice(["tcp", "udp", "4", None])
        if protocol in ("tcp", "udp") and self._chance(0.7):
            return Untracked(protocol, self._some(_TCP if protocol == "tcp" else _UDP, 3))
        return Untracked(protocol)

    def _chain(self, *, is_router: bool) -> Chain:
        lists = [self._deny_list] * 5 + [self._new_only] * 2 + [self._allow_list, self._stateless]
        chain = self._random.choice(lists)(is_router=is_router)
        if self._chance(0.15):
            chain = chain._replace(rules=(Rule(Action.DROP, state=State.INVALID), *chain.rules))
        if self._chance(0.35):
            rules = list(chain.rules)
            rules.insert(self._random.randint(0, len(rules)), self._loss(is_router=is_router))
            chain = chain._replace(rules=tuple(rules))
        return chain

    def _loss(self, *, is_router: bool) -> Rule:
        """
        Half is lost, of all packets, or of those that begin connections, or of the others.

        Of less nobody could say beforehand whether a run sees it. By ports only where these vary, which those
        of WireGuard do not.
        """
        rule = self._lossy(is_router=is_router)
        return rule._replace(state=self._random.choice([None, None, None, State.NEW, State.KNOWN]))

    def _lossy(self, *, is_router: bool) -> Rule:
        loss = self._random.choice(list(Loss))
        if self._chance(0.3):
            return Rule(Action.DROP, "tcp", sports=self._some(_TCP, 4), loss=loss)
        if loss is Loss.RANDOM:
            return self._match(Action.DROP, is_router=is_router)._replace(loss=loss)
        protocol, ports = self._random.choice([("tcp", self._some(_TCP, 4)), ("udp", self._some(_VXLAN, 2))])
        return Rule(Action.DROP, protocol, dports=ports, loss=loss)

    def _stateless(self, *, is_router: bool) -> Chain:
        """Some ports, and the answers from them; whoever forgot the state of connections, or has none."""
        rules = []
        for protocol, ports in (("tcp", self._some(_TCP, 4)), ("udp", self._some(_UDP, 4))):
            rule = Rule(Action.ACCEPT, protocol)
            src = self._random.choice(self._names) if is_router and self._chance(0.2) else None
            rules += [rule._replace(dports=ports, src=src), rule._replace(sports=ports)]
        rules += [Rule(Action.ACCEPT, "4")] * self._chance(0.5) + [
            Rule(Action.ACCEPT, "icmp")
        ] * self._chance(0.5)
        return Chain(Action.DROP, tuple(rules))

    def _deny_list(self, *, is_router: bool) -> Chain:
        """Everything passes but what a few rules stop; with or without a look at the state."""
        known = (Rule(Action.ACCEPT, state=State.KNOWN),) if self._chance(0.4) else ()
        rules = tuple(self._deny(is_router=is_router) for _ in range(self._random.randint(1, 3)))
        return Chain(Action.ACCEPT, known + rules)

    def _allow_list(self, *, is_router: bool) -> Chain:
        """Nothing passes but what a few rules allow, and mostly the answers to it."""
        known = (Rule(Action.ACCEPT, state=State.KNOWN),) if self._chance(0.8) else ()
        count = self._random.randint(2, 5)
        rules = tuple(self._match(Action.ACCEPT, is_router=is_router) for _ in range(count))
        last = (Rule(self._refusal(None)),) if known and self._chance(0.3) else ()
        return Chain(Action.DROP, known + rules + last)

    def _new_only(self, *, is_router: bool) -> Chain:
        """Rules that are asked for new packets only; the others pass, or (by a slip) do not."""
        rules = tuple(
            self._match(Action.ACCEPT, is_router=is_router)._replace(state=State.NEW)
            for _ in range(self._random.randint(1, 4))
        )
        if self._chance(0.7):
            rules = (Rule(Action.ACCEPT, state=State.KNOWN), *rules)
        return Chain(Action.DROP, rules)

    def _deny(self, *, is_router: bool) -> Rule:
        rule = self._match(Action.DROP, is_router=is_router)
        return rule._replace(does=self._refusal(rule.protocol)) if self._chance(0.5) else rule

    def _refusal(self, protocol: str | None) -> Does:
        ways = [way for way in Reject if way is not Reject.RESET or protocol == "tcp"]
        return self._random.choice(ways)

    def _match(self, does: Does, *, is_router: bool) -> Rule:
        protocol = self._random.choice(["tcp", "tcp", "udp", "udp", "4", None])
        rule = Rule(does, protocol)
        if protocol in ("tcp", "udp") and self._chance(0.8):
            ports = self._some(_TCP if protocol == "tcp" else _UDP, 3)
            # An answer has them as its source; so have WireGuard's packets, which a run tells from those that
            # a state on the way lets pass by their source port.
            is_answer = self._chance(0.25) and not (is_router and protocol == "udp")
            rule = rule._replace(sports=ports) if is_answer else rule._replace(dports=ports)
        if self._chance(0.35):
            rule = rule._replace(src=self._random.choice(self._names))
        if is_router and self._chance(0.35):
            rule = rule._replace(dst=self._random.choice(self._names))
        if self._chance(0.2):
            rule = rule._replace(family=self._random.choice(self._families))
        return rule

    def _masquerade(self) -> Rule:
        """Not of what shares an entry with its opposite: with translated addresses it does so no more."""
        rule = Rule(
            Action.MASQUERADE, self._random.choice(["tcp", "udp"]), dst=self._random.choice(self._names)
        )
        return rule._replace(dports=self._some(_TCP if rule.protocol == "tcp" else _VXLAN, 2))

    def _handovers(self, net: Net) -> tuple[Handover, ...]:
        # Neighbours answer each other without the router, and nobody takes the handover back.
        ways = [
            way
            for way in itertools.permutations(self._names, 3)
            if net.is_routed(way[0], way[1]) and net.is_routed(way[0], way[2])
        ]
        if not ways:
            return ()
        src, dst, to = self._random.choice(ways)
        return tuple(Handover(src, dst, port, to) for port in sorted({*self._some(_TCP, 3), _TCP[0]}))

    def _routes(self) -> tuple[WrongRoute, ...]:
        drawn = [self._route() for _ in range(self._random.choice([0, 0, 0, 1, 1, 2]))]
        # A second route to the same host would take the place of the first.
        return tuple({(route.on, route.to, route.family): route for route in drawn}.values())

    def _route(self) -> WrongRoute:
        to, on = self._random.sample(self._names, 2)
        return WrongRoute(
            on=ROUTER if self._chance(0.4) else on,
            type=self._random.choice(_ROUTES),
            to=to,
            family=self._random.choice(self._families),
        )
