"""What Ansible needs to carry out a plan: a playbook, its role, and an inventory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

import yaml

from netprobe.model import Host, Inventory

PLAYBOOK, INVENTORY, ROLE = "playbook.yaml", "inventory.yaml", "roles/netprobe"

_ROLE_FILES: Final = ("defaults/main.yaml", "tasks/main.yaml")
_OF_THE_COMMUNITY: Final = ("doas", "dzdo", "ksu", "pbrun", "pfexec", "pmrun", "sesu")
_METHODS: Final[Mapping[str, str]] = {
    **{name: name for name in ("sudo", "su")},
    **{name: f"community.general.{name}" for name in _OF_THE_COMMUNITY},
}
"""Ansible's names of the commands that make root; those of the community come with another package."""
_TEMPLATE: Final = re.compile(r"\{[{%#]")
GROUPS: Final = ("all", "ungrouped")
"""What Ansible has in each inventory: no host can be called so beside them."""

_FOUND: Final = ((), ("python3",))
"""What an inventory has where it names no interpreter: Ansible finds one."""


def texts(inventory: Inventory, names: Sequence[str], duration_s: float) -> dict[str, str]:
    """The files, by their paths in the directory of the plan."""
    role = files("netprobe.offline").joinpath("role")
    return {
        PLAYBOOK: _yaml([_play(names, duration_s)]),
        INVENTORY: _yaml(_hosts([host for host in inventory.hosts if host.name in names]), _Dumper),
        **{f"{ROLE}/{path}": role.joinpath(path).read_text(encoding="utf-8") for path in _ROLE_FILES},
    }


def command(directory: Path) -> str:
    """What to type to carry out the plan in a directory."""
    return shlex.join(["ansible-playbook", "-i", str(directory / INVENTORY), str(directory / PLAYBOOK)])


def unreachable(inventory: Inventory) -> list[str]:
    """The hosts whose connection Ansible does not have; who has one for them adds it to the inventory."""
    return [host.name for host in inventory.hosts if host.connection.type not in ("ssh", "local")]


def powerless(inventory: Inventory) -> list[str]:
    """The hosts that become root by a command which Ansible does not have."""
    return [host.name for host in inventory.hosts if host.become and not _method(host)]


def _method(host: Host) -> str:
    return _METHODS.get(PurePosixPath(next(iter(host.become), "")).name, "")


class _Dumper(yaml.SafeDumper):
    """Writes texts of the inventory so that Ansible takes none for a template."""


def _as_it_is(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    tag = "!unsafe" if _TEMPLATE.search(text) else "tag:yaml.org,2002:str"
    return dumper.represent_scalar(tag, text, style="'" if tag == "!unsafe" else None)


_Dumper.add_representer(str, _as_it_is)


def _yaml(document: object, dumper: type[yaml.SafeDumper] = yaml.SafeDumper) -> str:
    return "---\n" + yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)


def _play(names: Sequence[str], duration_s: float) -> dict[str, object]:
    return {
        "name": "Probe all hosts at the same time",
        "hosts": list(names),
        "gather_facts": False,
        # All are to agree on one start, whatever strategy the user has chosen for other plays.
        "strategy": "linear",
        "become": True,
        "vars": {"netprobe_plan": "{{ playbook_dir }}", "netprobe_duration_s": int(duration_s) + 1},
        "roles": ["netprobe"],
    }


def _hosts(hosts: Sequence[Host]) -> dict[str, object]:
    return {"all": {"hosts": {host.name: _variables(host) for host in hosts}}}


def _variables(host: Host) -> dict[str, object]:
    found: dict[str, object] = {}
    connection = host.connection
    if connection.type == "local":
        found["ansible_connection"] = "local"
    elif connection.type == "ssh":
        found = {
            "ansible_host": connection.host or host.name,
            "ansible_user": connection.user,
            "ansible_port": connection.port,
            "ansible_ssh_private_key_file": connection.identity,
            # Not those for ssh alone: a jump host is one for sftp as well.
            "ansible_ssh_common_args": shlex.join(connection.options),
        }
    if host.python not in _FOUND:
        found["netprobe_python"] = list(host.python)
        if len(host.python) == 1:
            found["ansible_python_interpreter"] = host.python[0]
    found["ansible_become_method"] = _method(host)
    variables = {key: value for key, value in found.items() if value}
    return {**variables, "ansible_become": host.sudo or bool(host.become)}
