"""
From an Ansible inventory, as `ansible-inventory --list` writes it in JSON, to hosts.

Ansible renders templates when a play runs, so what still has one is told and not copied. Variables that hold
secrets are not copied, and no value that has one of theirs in it is.

Source: "Connection methods and details" and "Understanding privilege escalation" of Ansible's documentation;
the groups and variables of Kubespray, k3s-ansible, RKE and RKE2, as theirs has them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from netprobe.importers import programs
from netprobe.importers.found import Found, Imported, in_order, is_address, listed, refuse, without_sudo
from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.inventory.schema import check_text
from netprobe.model import Connection, Family, Host, Role

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

ADDRESS_VARS: Final = ("ip", "ip6", "ipv6", "access_ip", "access_ip6", "node_ip")
"""Where addresses stand, the first of each family; Kubespray's `access_ip` may be one that is translated."""

_FIX: Final = "run it by itself to see why; ANSIBLE_VAULT_PASSWORD_FILE is for what is encrypted"
_SECRET: Final = re.compile(r"pass|secret|token|vault|credential|api_?key", re.IGNORECASE)
_SECRET_CHARACTERS: Final = 4  # shorter ones are in every word
_TRUE: Final = ("1", "true", "yes", "on", "y", "t")
_SSH: Final = ("", "ssh", "smart", "paramiko", "paramiko_ssh", "libssh")
_CONTAINERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "docker": ("docker", "exec", "-i"),
        "docker_api": ("docker", "exec", "-i"),
        "podman": ("podman", "exec", "-i"),
    }
)


def ask(inventory: str) -> tuple[object, tuple[str, ...]]:
    """
    The document of an inventory, and the remarks of `ansible-inventory` on it.

    A file (or stdin, for `-`) that is such a document already is read as it is.
    """
    path = Path(inventory)
    if inventory == "-":
        return _parse(programs.read(path), "<stdin>"), ()
    if path.is_file():
        document = _listing(path)
        if document is not None:
            return document, ()
    elif "," not in inventory and not path.exists():
        raise InventoryError(f"{inventory}: cannot read it: No such file or directory")
    argv = ["ansible-inventory", "-i", inventory, "--list"]
    # Where no source can be parsed, it would call that an empty inventory.
    environment = {"ANSIBLE_INVENTORY_UNPARSED_FAILED": "true", "ANSIBLE_NOCOLOR": "true"}
    text, said = programs.run(argv, package="ansible-core", fix=_FIX, environment=environment)
    warnings = re.findall(r"\[WARNING\]: (.*?)(?=\n\[|\Z)", said, re.DOTALL)
    remarks = (f"ansible-inventory warns: {' '.join(warning.split())}" for warning in warnings)
    return _parse(text, f"`{shlex.join(argv)}`"), tuple(remarks)


def _listing(path: Path) -> object | None:
    """The document in a file, or None where it is an inventory of another kind."""
    with path.open("rb") as file:
        if file.read(1) != b"{":
            return None
    try:
        document = json.loads(programs.read(path))
    except ValueError:
        return None
    return document if isinstance(document, dict) and "_meta" in document else None


def _parse(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InventoryError(f"{name}: expected the JSON of `ansible-inventory --list`: {error}") from None


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
    groups = _Groups(document, source)
    if not groups.hosts:
        raise InventoryError(f"{source}: it has no hosts")
    for name in roles:
        if name not in groups.names:
            raise InventoryError(f"{source}: no group {shown(name)}; {suggestion(name, groups.names)}")
    given = {name: roles.get(name, GROUPS.get(_normal(name), ())) for name in groups.names}
    by_host = groups.roles(given)
    remarks = list(_on_roles(groups, given, by_host))
    problems: list[str] = []
    ours = [
        _Host(name, variables, problems)
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


def _normal(group: str) -> str:
    return group.lower().replace("-", "_")


class _Groups:
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
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _on_roles(
    groups: _Groups, given: Mapping[str, Sequence[Role]], by_host: Mapping[str, Sequence[Role]]
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


class _Host:
    """One host's variables; what is wrong with them goes to `problems`."""

    def __init__(self, name: str, variables: Mapping[str, object], problems: list[str]) -> None:
        self.name = name
        self._variables = variables
        self._problems = problems
        self._remarks: list[str] = []
        self.is_probed_where_it_logs_in = False

    def found(self, roles: tuple[Role, ...], address_vars: Sequence[str], *, sudo: bool) -> Found:
        """The host, as far as its variables make one; without problems, all of it."""
        if problem := check_text(self.name, "host name"):
            self._wrong("its name", problem)
        host = Host(
            name=self.name,
            addresses=self._addresses(address_vars),
            roles=roles,
            connection=self._connection(),
            sudo=self._sudo(otherwise=sudo),
            **self._python(),
        )
        self._check_secrets(host)
        return Found(host, tuple(self._remarks))

    def _wrong(self, where: str, what: str) -> None:
        self._problems.append(f"{self.name}: {where}: {what}")

    def _texts(self, variable: str) -> list[str]:
        """A variable's value, or its values: "" and what is no text or number is none."""
        value = self._variables.get(variable)
        if isinstance(value, dict) and "__ansible_vault" in value:
            self._wrong(
                variable, "it is encrypted by ansible-vault, and would be written in plain; set it in plain"
            )
            return []
        values = value if isinstance(value, list) else [value]
        texts = [str(each).strip() for each in values if isinstance(each, str | int | bool)]
        for text in texts:
            if "{{" in text or "{%" in text:
                fix = "Ansible renders it when a play runs, not here; write its value"
                self._wrong(variable, f"{shown(text)} is a template; {fix}")
                return []
        return [text for text in texts if text]

    def _text(self, *variables: str) -> tuple[str, str]:
        """The first of some variables that has a value, and the value; both "" where none has."""
        for variable in variables:
            if texts := self._texts(variable):
                return variable, texts[0]
        return "", ""

    def _addresses(self, variables: Sequence[str]) -> tuple[str, ...]:
        found: dict[Family, str] = {}
        before = len(self._problems)
        for variable in variables or ADDRESS_VARS:
            for text in self._texts(variable):
                for address in filter(None, re.split(r"[,\s]+", text)):
                    if problem := check_text(address, "address"):
                        self._wrong(variable, f"{problem}; --address-var NAME names the variable that has it")
                    else:
                        found.setdefault(Family.of(address), address)
        if found or len(self._problems) > before:
            return tuple(found.values())
        if not variables:
            for address in (self._text("ansible_host", "ansible_ssh_host")[1], self.name):
                if is_address(address):
                    self.is_probed_where_it_logs_in = True
                    return (address,)
        if len(self._problems) == before:
            where = f"set {' or '.join(variables)}" if variables else f"set one of {', '.join(ADDRESS_VARS)}"
            fix = f"{where}, or name the variable that has it by --address-var"
            self._problems.append(f"{self.name}: no address to probe, and names are not resolved here; {fix}")
        return ()

    def _connection(self) -> Connection:
        variable, kind = self._text("ansible_connection")
        short = kind.rpartition(".")[2]
        _, host = self._text("ansible_host", "ansible_ssh_host")
        _, user = self._text("ansible_user", "ansible_ssh_user")
        if short == "local":
            return Connection(type="local")
        if short in _CONTAINERS:
            _, container = self._text(f"ansible_{short.partition('_')[0]}_host")
            by = ("-u", user) if user else ()
            return Connection(type="command", argv=(*_CONTAINERS[short], *by, container or host or self.name))
        if short not in _SSH:
            known = ", ".join(["ssh", "local", *_CONTAINERS])
            self._wrong(variable, f"{shown(kind)} is none that netprobe knows; expected one of {known}")
        return Connection(
            type="ssh",
            host="" if host == self.name else host,
            user=user,
            port=self._port(),
            identity=self._text("ansible_ssh_private_key_file", "ansible_private_key_file")[1],
            options=tuple(self._options()),
        )

    def _port(self) -> int:
        variable, text = self._text("ansible_port", "ansible_ssh_port")
        if not text:
            return 0
        if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
            self._wrong(variable, f"expected a port from 1 to 65535, got {shown(text)}")
            return 0
        return int(text)

    def _options(self) -> Iterator[str]:
        for variable in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
            words = self._words(variable)
            if any("sshpass" in word for word in words):
                fix = "netprobe hands no password to ssh; use a key, or an agent"
                self._wrong(variable, f"it runs sshpass; {fix}")
            yield from words

    def _words(self, variable: str) -> list[str]:
        try:
            return shlex.split(self._text(variable)[1])
        except ValueError as error:
            self._wrong(variable, f"no words of a shell: {str(error).lower()}")
            return []

    def _python(self) -> dict[str, tuple[str, ...]]:
        words = self._words("ansible_python_interpreter")
        if not words or words[0].startswith("auto"):
            return {}
        if re.search(r"python2[0-9.]*$", words[0]):
            self._remarks.append(f"{words[0]} is too old for the agent; Python 3.6 or later is needed.")
            return {}
        return {"python": tuple(words)}

    def _sudo(self, *, otherwise: bool) -> bool:
        """Whether the agent is run by sudo; another way to become root is a remark."""
        _, become = self._text("ansible_become")
        if not become:
            return otherwise
        if become.lower() not in _TRUE:
            return False
        _, method = self._text("ansible_become_method", "ansible_sudo_method")
        _, user = self._text("ansible_become_user")
        if user not in ("", "root", "0"):
            self._remarks.append(f"Ansible becomes {user} here; the agent is run as root.")
        if method.rpartition(".")[2] in ("", "sudo"):
            return True
        self._remarks.append(f"Ansible becomes root by {method} here, and that is not in this entry.")
        return False

    def _check_secrets(self, host: Host) -> None:
        """Refuse values in which one of a secret variable stands, such as a ProxyCommand with a password."""
        connection = host.connection
        written = [connection.user, connection.identity, *connection.options, *connection.argv, *host.python]
        for variable, value in self._variables.items():
            is_secret = (
                _SECRET.search(variable) and isinstance(value, str) and len(value) >= _SECRET_CHARACTERS
            )
            if is_secret and any(str(value) in text for text in written):
                fix = "netprobe takes no passwords from inventories; use a key, or an agent"
                self._wrong(variable, f"its value is in another variable that would be written; {fix}")
