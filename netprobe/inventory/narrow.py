"""An inventory, narrowed to what the command line asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs

from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.model import Family, Host, Inventory
from netprobe.modes import MODES
from netprobe.probes import Probe, registry

_LABELS: Final = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


def family_obstacle(probe: Probe, hosts: Iterable[Host]) -> str:
    """Why a probe that was asked for by name cannot be run between hosts; "" where it can."""
    lacking = [
        host.name
        for host in hosts
        if set(host.roles) & set(probe.between) and not any(host.address(family) for family in probe.families)
    ]
    if not lacking:
        return ""
    label = _label(probe)
    who = f"{lacking[0]} and {len(lacking) - 1} more have" if len(lacking) > 1 else f"{lacking[0]} has"
    return f"{shown(probe.name)} is {label} only, and {who} no {label} address"


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
    is unknown or nothing can be left.
    """
    _check_words("--probe", "probe", probes, registry())
    _check_words("--mode", "mode", modes, MODES)
    _check_words("--only", "host", only, [host.name for host in inventory.hosts])
    if probes or modes:
        inventory = structs.replace(inventory, probes=_each_once(probes), modes=_each_once(modes))
    for name in probes:
        probe = registry()[name]
        if families and not set(families) & set(probe.families):
            raise InventoryError(f"--probe {name}: {shown(name)} is {_label(probe)} only")
        if obstacle := family_obstacle(probe, inventory.hosts):
            raise InventoryError(f"--probe {name}: {obstacle}")
    return inventory


def _check_words(option: str, kind: str, words: Iterable[str], known: Iterable[str]) -> None:
    names = tuple(known)
    lines = [
        f"{option}: unknown {kind} {shown(word)}; {suggestion(word, names)}"
        for word in words
        if word not in names
    ]
    if lines:
        raise InventoryError(*lines)


def _each_once(words: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(words)) or None


def _label(probe: Probe) -> str:
    return " and ".join(_LABELS[family] for family in probe.families)
