"""An inventory, narrowed to what the command line asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs

from netprobe import mesh
from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.model import Family, Host, Inventory
from netprobe.modes import MODES, Mode, needs
from netprobe.probes import Probe, registry

_NO_COMMON_FAMILY: Final = "SRC and DST have no addresses of one family"


def probe_obstacle(probe: Probe, inventory: Inventory) -> str:
    """Why a probe that was asked for by name cannot be run between the hosts; "" where it can."""
    known = mesh.probes(inventory)
    if probe.name not in known:
        return f"{shown(probe.name)} sends as if from pods, and needs the range of their addresses: pod_cidr"
    return _family_obstacle(known[probe.name], inventory.hosts)


def _family_obstacle(probe: Probe, hosts: Iterable[Host]) -> str:
    lacking = [
        host.name
        for host in hosts
        if set(host.roles) & set(probe.between) and not any(host.address(family) for family in probe.families)
    ]
    if not lacking:
        return ""
    label = _label(probe)
    who = f"{lacking[0]} and {len(lacking) - 1} more have" if len(lacking) > 1 else f"{lacking[0]} has"
    return f"{shown(_what(probe))} is {label} only, and {who} no {label} address"


def mode_obstacle(mode: Mode, inventory: Inventory) -> str:
    """Why a mode cannot be judged between the hosts, whatever gets through; "" where it can."""
    needed = _needed(mode, inventory)
    lacking = [probe for probe in needed if not mesh.count(probe, inventory.hosts)]
    if not lacking or (mode.any_need and len(lacking) < len(needed)):
        return ""
    probe = lacking[0]
    why = mesh.why_none(probe, inventory.hosts)
    if mode.any_need and "address" in why:
        why = "no two such hosts have addresses of one family"
    return f"{shown(mode.name)} needs {probe.name}, and {why}"


def narrow(
    inventory: Inventory,
    *,
    probes: Sequence[str] = (),
    modes: Sequence[str] = (),
    families: Sequence[Family] = (),
    only: Sequence[str] = (),
) -> Inventory:
    """
    The part of an inventory that some options of the command line ask for; an empty one asks for all.

    Probes and modes take the place of those that the inventory names. `families` and `only` are looked at for
    what cannot be: addresses and hosts stay. `InventoryError`, in the words of the command line, where a name
    is unknown, nothing can be left, or nothing is left of what a mode in question needs.
    """
    _check_words("--probe", "probe", probes, registry())
    _check_words("--mode", "mode", modes, MODES)
    _check_words("--only", "host", only, [host.name for host in inventory.hosts])
    if probes or modes:
        inventory = structs.replace(inventory, probes=_each_once(probes), modes=_each_once(modes))
    for name in probes:
        probe = mesh.probes(inventory).get(name, registry()[name])
        if families and not set(families) & set(probe.families):
            raise InventoryError(f"--probe {name}: {shown(_what(probe))} is {_label(probe)} only")
        if obstacle := probe_obstacle(probe, inventory):
            raise InventoryError(f"--probe {name}: {obstacle}")
    lines = [
        f"--mode {name}: {shown(name)} needs {lacking[0]}, which --probe leaves out"
        for name in (modes if probes else ())
        if (lacking := _not_among(probes, MODES[name], inventory))
    ]
    lines += [
        line
        for name in inventory.modes or ()
        if (line := _left_without(MODES[name], inventory, families, only, is_option=bool(modes)))
    ]
    if lines:
        raise InventoryError(*lines)
    return inventory


def _needed(mode: Mode, inventory: Inventory) -> list[Probe]:
    """The probes that a mode needs, as far as the inventory lets them be sent."""
    known = mesh.probes(inventory)
    return [known[need.probe] for need in needs(mode, inventory)]


def one_flow(
    inventory: Inventory, src: str, dst: str, probe: str, family: Family | None, port: int | None
) -> tuple[Family, int | None]:
    """
    The family and port of one flow of an inventory, the first ones where they are not given.

    `InventoryError`, in the words of the command line, where there is no such flow.
    """
    hosts = {host.name: host for host in inventory.hosts}
    lines = _unknown("SRC", "host", [src], hosts) + _unknown("DST", "host", [dst], hosts)
    if lines := lines + _unknown("PROBE", "probe", [probe], registry()):
        raise InventoryError(*lines)
    if src == dst:
        raise InventoryError(f"DST: {shown(dst)} is SRC as well, and a host never probes itself")
    known, ends = registry()[probe], (hosts[src], hosts[dst])
    if known.forwarded:
        raise InventoryError(
            f"PROBE: {shown(probe)} cannot be traced: what routers say of it they tell the pod"
        )
    for end, role in zip(ends, known.between, strict=True):
        if role not in end.roles:
            way = f"goes from {known.between[0].value} to {known.between[1].value}"
            raise InventoryError(f"PROBE: {shown(probe)} {way}, and {end.name} is no {role.value}")
    families = [each for each in known.families if all(end.address(each) for end in ends)]
    if family is not None and family not in families:
        raise InventoryError(f"--family {family.value}: {_why_no_family(known, ends, family)}")
    if not families:
        raise InventoryError(f"PROBE: {_family_obstacle(known, ends) or _NO_COMMON_FAMILY}")
    ports = mesh.ports(known, inventory)
    if port is not None and port not in ports:
        there = ", ".join(str(each) for each in ports if each is not None)
        goes = f"goes to {there}" if there else "has no ports"
        raise InventoryError(f"--port {port}: {shown(probe)} {goes}")
    return family or families[0], ports[0] if port is None else port


def _why_no_family(probe: Probe, ends: Iterable[Host], family: Family) -> str:
    if family not in probe.families:
        return f"{shown(probe.name)} is {_label(probe)} only"
    return f"{next(end.name for end in ends if not end.address(family))} has no {family.label} address"


def _not_among(probes: Sequence[str], mode: Mode, inventory: Inventory) -> list[str]:
    """The probes for lack of which a mode could not be judged."""
    needed = _needed(mode, inventory)
    lacking = [probe.name for probe in needed if probe.name not in probes]
    return [] if mode.any_need and len(lacking) < len(needed) else lacking


def _left_without(
    mode: Mode, inventory: Inventory, families: Sequence[Family], only: Sequence[str], *, is_option: bool
) -> str:
    """How options contradict a mode in question, so that it could not be judged; "" where they do not."""
    if is_option and (obstacle := mode_obstacle(mode, inventory)):
        return f"--mode {mode.name}: {obstacle}"
    lines = [
        _left_out(probe, mode, inventory, families or tuple(Family), only)
        for probe in _needed(mode, inventory)
    ]
    found = [line for line in lines if line]
    if not found or (mode.any_need and len(found) < len(lines)):
        return ""
    return f"--mode {found[0]}" if is_option else f"mode {found[0]}"


def _left_out(
    probe: Probe, mode: Mode, inventory: Inventory, families: Sequence[Family], only: Sequence[str]
) -> str:
    """Which option leaves nothing of a probe that a mode needs; what no option changed is not looked at."""
    lacks = f"{mode.name}: {shown(mode.name)} needs {probe.name}"
    if inventory.probes is not None and probe.name not in inventory.probes:
        # An inventory may name both: its probes are then those that are sent, and the mode is not known.
        return ""
    if not mesh.count(probe, inventory.hosts, families):
        asked = " and ".join(family.label for family in families)
        is_alone = set(probe.families) & set(families)
        why = (
            f"no two such hosts have {asked} addresses"
            if is_alone
            else f"{_what(probe)} is {_label(probe)} only"
        )
        return f"{lacks}, and --family leaves only {asked}: {why}"
    if not mesh.count(probe, inventory.hosts, families, only):
        return f"{lacks}, of which --only {' --only '.join(only)} leaves no flow"
    return ""


def _unknown(option: str, kind: str, words: Iterable[str], known: Iterable[str]) -> list[str]:
    names = tuple(known)
    return [
        f"{option}: unknown {kind} {shown(word)}; {suggestion(word, names)}"
        for word in words
        if word not in names
    ]


def _check_words(option: str, kind: str, words: Iterable[str], known: Iterable[str]) -> None:
    if lines := _unknown(option, kind, words, known):
        raise InventoryError(*lines)


def _each_once(words: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(words)) or None


def _what(probe: Probe) -> str:
    """What says which families a probe has."""
    return "pod_cidr" if probe.forwarded else probe.name


def _label(probe: Probe) -> str:
    return " and ".join(family.label for family in probe.families)
