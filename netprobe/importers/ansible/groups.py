"""The groups of an Ansible inventory, and the roles that they give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from netprobe.importers.found import in_order
from netprobe.inventory.errors import InventoryError, shown
from netprobe.model import Role

_NODE: Final = (Role.NODE,)
_CONTROL: Final = (Role.NODE, Role.APISERVER)
_TYPHA: Final = (Role.NODE, Role.TYPHA)
_ETCD: Final = (Role.ETCD,)

GROUPS: Final[Mapping[str, tuple[Role, ...]]] = MappingProxyType(
    dict.fromkeys(
        (
            *("k8s_cluster", "kube_node", "kube_nodes", "kube_worker", "kube_workers", "kubernetes_node"),
            *("node", "nodes", "worker", "workers", "worker_node", "worker_nodes", "agent", "agents"),
            *("k3s_cluster", "k3s_agent", "k3s_agents", "rke2_cluster", "rke2_agent", "rke2_agents"),
        ),
        _NODE,
    )
    | dict.fromkeys(
        (
            *("kube_control_plane", "kube_master", "kube_masters", "kubernetes_master", "kube_apiserver"),
            *("control_plane", "control_planes", "controlplane", "controller", "controllers"),
            *("master", "masters", "server", "servers"),
            *("k3s_server", "k3s_servers", "rke2_server", "rke2_servers"),
        ),
        _CONTROL,
    )
    | dict.fromkeys(("etcd", "etcds", "kube_etcd"), _ETCD)
    | dict.fromkeys(("typha", "calico_typha"), _TYPHA)
)
"""The roles of groups that mean the same everywhere; in lower case, with `_` for `-`."""


def usual(group: str) -> tuple[Role, ...]:
    """The roles that a group's name says its hosts have."""
    return GROUPS.get(group.lower().replace("-", "_"), ())


class Groups:
    """The groups of a document and their hosts, with those of their children."""

    def __init__(self, document: object, source: str) -> None:
        if not isinstance(document, dict) or not isinstance(document.get("_meta"), dict):
            raise InventoryError(f'{source}: expected what `ansible-inventory --list` writes, with "_meta"')
        self._groups = {name: group for name, group in document.items() if name != "_meta"}
        for name, group in self._groups.items():
            parts = [group.get(key, []) for key in ("hosts", "children")] if isinstance(group, dict) else [0]
            if not all(isinstance(part, list) and all(isinstance(s, str) for s in part) for part in parts):
                raise InventoryError(f"{source}: group {shown(name)}: expected lists of hosts and children")
        self.names = list(self._groups)
        variables = document["_meta"].get("hostvars", {})
        if not isinstance(variables, dict) or not all(isinstance(own, dict) for own in variables.values()):
            raise InventoryError(f'{source}: "_meta": expected the variables of hosts in "hostvars"')
        names = (host for group in self._groups.values() for host in group.get("hosts", ()))
        self.hosts: dict[str, dict[str, object]] = {
            host: {} for host in sorted({*names, *variables}, key=_natural)
        }
        self.hosts.update(variables)

    def members(self, name: str) -> set[str]:
        """The hosts of a group and of all below it."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [name]
        while todo:
            group = todo.pop()
            if group not in seen:
                seen.add(group)
                found.update(self._groups.get(group, {}).get("hosts", ()))
                todo += self._groups.get(group, {}).get("children", ())
        return found

    def roles(self, given: Mapping[str, Sequence[Role]]) -> dict[str, tuple[Role, ...]]:
        """The roles of those hosts that have some, from all groups that they are in."""
        found: dict[str, set[Role]] = {}
        for name, roles in given.items():
            for host in self.members(name) if roles else ():
                found.setdefault(host, set()).update(roles)
        return {host: in_order(roles) for host, roles in found.items()}


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """What sorts node-10 behind node-9."""
    parts = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    # By how many digits it has, and then by these: a number may be too long for int().
    return [(len(digits), digits) if digits else (-1, other) for digits, other in parts], name
