"""
From an Ansible inventory, as `ansible-inventory --list` writes it in JSON, to hosts.

Ansible renders templates when a play runs, so what still has one is told and not copied. Variables that hold
secrets are not copied, and no value that has one of theirs in it is.

Source: "Connection methods and details" and "Understanding privilege escalation" of Ansible's documentation;
the groups and variables of Kubespray, k3s-ansible, RKE and RKE2, as theirs has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from netprobe.importers.ansible.groups import Groups, usual
from netprobe.importers.ansible.host import OneHost
from netprobe.importers.ansible.listing import ask
from netprobe.importers.found import Imported, listed, refuse, without_sudo
from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.model import Role

__all__ = ["ask", "read"]

_NODE: Final = (Role.NODE,)


def read(
    document: object,
    source: str,
    *,
    roles: Mapping[str, tuple[Role, ...]] = MappingProxyType({}),
    address_vars: Sequence[str] = (),
    sudo: bool = False,
) -> Imported:
    """
    The hosts of what `ansible-inventory --list` wrote, which errors call `source`.

    `roles` are those of groups, instead of what `GROUPS` has for them; `address_vars` stand instead of
    `ADDRESS_VARS`; `sudo` is for hosts of which the inventory does not say. `InventoryError` has a line for
    each host and variable.
    """
    groups = Groups(document, source)
    if not groups.hosts:
        raise InventoryError(f"{source}: it has no hosts")
    for name in roles:
        if name not in groups.names:
            raise InventoryError(f"{source}: no group {shown(name)}; {suggestion(name, groups.names)}")
    given = {name: roles.get(name, usual(name)) for name in groups.names}
    by_host = groups.roles(given)
    remarks = list(_on_roles(groups, given, by_host))
    problems: list[str] = []
    ours = [
        OneHost(name, variables, problems)
        for name, variables in groups.hosts.items()
        if not by_host or name in by_host
    ]
    found = [one.found(by_host.get(one.name, _NODE), address_vars, sudo=sudo) for one in ours]
    refuse(source, problems)
    if at_login := [one.name for one in ours if one.is_probed_where_it_logs_in]:
        remarks.append(
            f"No variable has the address of {listed(at_login)}: probed is where Ansible logs in. "
            "--address-var VARIABLE names another."
        )
    remarks += without_sudo(each.host for each in found)
    return Imported(hosts=tuple(found), remarks=tuple(remarks))


def _on_roles(
    groups: Groups, given: Mapping[str, Sequence[Role]], by_host: Mapping[str, Sequence[Role]]
) -> Iterator[str]:
    if not by_host:
        names = [name for name in groups.names if name not in ("all", "ungrouped")]
        are = f"groups are {listed(names)}" if names else "it has no groups"
        yield f"No group has a role that is known ({are}): every host is a node. --role GROUP=ROLE says more."
        return
    used = {name: roles for name, roles in given.items() if roles}
    told = "; ".join(f"{name} = {', '.join(role.value for role in roles)}" for name, roles in used.items())
    yield f"The roles are those of the groups: {told}. --role GROUP=ROLE replaces them."
    left_out = [host for host in groups.hosts if host not in by_host]
    if left_out:
        theirs = [name for name in groups.names if name != "all" and groups.members(name) & set(left_out)]
        why = f"because their groups have no role ({listed(theirs)})"
        yield f"Left out, {why}: {listed(left_out)}. --role GROUP=ROLE takes them in."
    has = {role for roles in by_host.values() for role in roles}
    lacking = [role.value for role in Role if role not in has]
    if lacking:
        yield f"No host has the role {' or '.join(lacking)}: what needs it is not probed."
