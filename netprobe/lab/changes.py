"""
From faults to what is done in one namespace: sysctls, routes, one ruleset, commands; in this order.

All rules of a namespace are loaded by one call of `nft`. Rules of the IP hooks share the table `inet lab`,
those of `ingress` and `egress` the table `netdev lab`, because no table can hold both. A base chain that is
there already is added to, so that faults planted later take the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface, ip_network
from typing import Final, NamedTuple

import msgspec

from netprobe.lab.description import ROUTER, ChainType, Fault, Hook, Policy
from netprobe.lab.errors import DescriptionError
from netprobe.lab.topology import INTERFACE, Topology, fill
from netprobe.model import Family

_LINK_HOOKS: Final = (Hook.INGRESS, Hook.EGRESS)
_ROUTE_TYPES: Final = ("unreachable", "prohibit", "blackhole", "throw")
_ROUTE: Final = re.compile(
    rf"(?:(?P<type>{'|'.join(_ROUTE_TYPES)})\s+)?(?P<prefix>\S+)(?:\s+via\s+(?P<via>\S+))?"
)
# NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC, NF_IP_PRI_MANGLE
_PRIORITIES: Final = {
    (ChainType.NAT, Hook.PREROUTING): -100,
    (ChainType.NAT, Hook.OUTPUT): -100,
    (ChainType.NAT, Hook.POSTROUTING): 100,
    (ChainType.NAT, Hook.INPUT): 100,
    (ChainType.ROUTE, Hook.OUTPUT): -150,
}


class Route(msgspec.Struct, frozen=True):
    """A route of a type (`unicast`, `unreachable`, …), by a gateway or, where that is empty, without one."""

    prefix: str
    type: str = "unicast"
    gateway: str = ""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What faults do to one namespace."""

    sysctls: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    ruleset: str = ""
    runs: tuple[tuple[str, ...], ...] = ()


class _Content(NamedTuple):
    rules: tuple[str, ...] = ()
    policy: Policy | None = None


class _Chain(NamedTuple):
    hook: Hook
    type: ChainType
    priority: str

    @property
    def name(self) -> str:
        if self.type is ChainType.FILTER and self.priority == "0":
            return self.hook.value
        return re.sub(r"[^a-z0-9-]+", "_", f"{self.type.value}_{self.hook.value}_{self.priority}")


def changes(faults: Iterable[Fault], on: str, topology: Topology) -> Changes:
    """What those of the faults that are on a host, or on the router, do there."""
    sysctls: list[tuple[str, str]] = []
    routes: list[Route] = []
    rulesets: list[str] = []
    runs: list[tuple[str, ...]] = []
    chains: dict[_Chain, _Content] = {}
    for index, fault in enumerate(faults):
        if on not in fault.targets:
            continue
        try:
            sysctls += [(key, str(value)) for key, value in fault.sysctl.items()]
            routes += [_route(fill(text, topology.values)) for text in fault.routes]
            if fault.run:
                runs.append(tuple(fill(word, topology.values) for word in fault.run))
            if fault.nft_ruleset:
                rulesets.append(fill(fault.nft_ruleset, topology.values).rstrip() + "\n")
            if fault.rules or fault.policy is not None:
                _add(chains, _chain(fault, on), fault, topology)
        except DescriptionError as error:
            raise DescriptionError(f"faults[{index}]: {error}") from None
    devices = [*topology.stations] if on == ROUTER else [INTERFACE]
    rulesets += [_table(chain, content, devices) for chain, content in chains.items()]
    return Changes(sysctls=tuple(sysctls), routes=tuple(routes), ruleset="".join(rulesets), runs=tuple(runs))


def _add(chains: dict[_Chain, _Content], chain: _Chain, fault: Fault, topology: Topology) -> None:
    content = chains.get(chain, _Content())
    if content.policy and fault.policy and content.policy is not fault.policy:
        has = f"{chain.hook.value} has the policy {content.policy.value} already"
        raise DescriptionError(f"policy {fault.policy.value}, but {has}")
    rules = tuple(fill(rule, topology.values) for rule in fault.rules)
    chains[chain] = _Content(content.rules + rules, content.policy or fault.policy)


def _chain(fault: Fault, on: str) -> _Chain:
    hook = fault.hook or (Hook.FORWARD if on == ROUTER else Hook.INPUT)
    if hook in _LINK_HOOKS and fault.type is not ChainType.FILTER:
        raise DescriptionError(f"no chain of type {fault.type.value} at {hook.value}; expected filter")
    if fault.type is not ChainType.FILTER and (fault.type, hook) not in _PRIORITIES:
        hooks = [each.value for type_, each in _PRIORITIES if type_ is fault.type]
        expected = ", ".join(hooks)
        raise DescriptionError(f"no chain of type {fault.type.value} at {hook.value}; expected {expected}")
    priority = fault.priority if fault.priority is not None else _PRIORITIES.get((fault.type, hook), 0)
    return _Chain(hook, fault.type, str(priority))


def _table(chain: _Chain, content: _Content, devices: Sequence[str]) -> str:
    is_link = chain.hook in _LINK_HOOKS
    names = ", ".join(f'"{device}"' for device in devices)
    where = f" devices = {{ {names} }}" if is_link else ""
    # Without a policy in the text nft leaves that of an existing chain alone.
    policy = f" policy {content.policy.value};" if content.policy else ""
    lines = [
        f"table {'netdev' if is_link else 'inet'} lab {{",
        f"  chain {chain.name} {{",
        f"    type {chain.type.value} hook {chain.hook.value}{where} priority {chain.priority};{policy}",
        *(f"    {rule}" for rule in content.rules),
        "  }",
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _route(text: str) -> Route:
    """The route in a text: `[TYPE] PREFIX [via ADDRESS]`; a prefix without a length is one address."""
    found = _ROUTE.fullmatch(text.strip())
    problem = f"route {text!r}; expected [{'|'.join(_ROUTE_TYPES)}] PREFIX, or PREFIX via ADDRESS"
    if found is None or (found["type"] is None) is (found["via"] is None):
        raise DescriptionError(problem)
    try:
        prefix = ip_network(found["prefix"])
        gateway = ip_interface(found["via"]).ip if found["via"] else None
    except ValueError as error:
        raise DescriptionError(f"{problem} ({error})") from None
    if gateway is not None and gateway.version != prefix.version:
        raise DescriptionError(f"route {text!r}: prefix and gateway are of different families")
    return Route(str(prefix), found["type"] or "unicast", str(gateway or ""))


def family(route: Route) -> Family:
    """The family of a route."""
    return Family.of(route.prefix.partition("/")[0])
