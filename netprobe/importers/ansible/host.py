"""From the variables that Ansible has of a host to the host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from netprobe.importers.found import Found, is_address
from netprobe.inventory.errors import shown
from netprobe.inventory.schema import check_text
from netprobe.model import Connection, Family, Host, Role

ADDRESS_VARS: Final = ("ip", "ip6", "ipv6", "access_ip", "access_ip6", "node_ip")
"""Where addresses stand, the first of each family; Kubespray's `access_ip` may be one that is translated."""

_SECRET: Final = re.compile(r"pass|secret|token|vault|credential|api_?key", re.IGNORECASE)
_SECRET_CHARACTERS: Final = 4  # shorter ones are in every word
_BECOME: Final = {
    "doas": ("doas", "-n"),
    "su": ("su", "root", "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--"),
}
"""The commands for ways to become root other than sudo; they must do so without a question."""

_TRUE: Final = ("1", "true", "yes", "on", "y", "t")
_SSH: Final = ("", "ssh", "smart", "paramiko", "paramiko_ssh", "libssh")
_CONTAINERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "docker": ("docker", "exec", "-i"),
        "docker_api": ("docker", "exec", "-i"),
        "podman": ("podman", "exec", "-i"),
    }
)


class OneHost:
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
            **self._root(sudo=sudo),
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

    def _python(self) -> dict[str, Any]:
        words = self._words("ansible_python_interpreter")
        if not words or words[0].startswith("auto"):
            return {}
        if re.search(r"python2[0-9.]*$", words[0]):
            self._remarks.append(f"{words[0]} is too old for the agent; Python 3.6 or later is needed.")
            return {}
        return {"python": tuple(words)}

    def _root(self, *, sudo: bool) -> dict[str, Any]:
        """How the agent becomes root; `sudo` is what was asked for where the inventory says nothing."""
        _, become = self._text("ansible_become")
        if not become:
            return {"sudo": sudo}
        if become.lower() not in _TRUE:
            return {}
        _, method = self._text("ansible_become_method", "ansible_sudo_method")
        _, user = self._text("ansible_become_user")
        if user not in ("", "root", "0"):
            self._remarks.append(f"Ansible becomes {user} here; the agent is run as root.")
        name = method.rpartition(".")[2]
        if name in ("", "sudo"):
            return {"sudo": True}
        if name in _BECOME:
            return {"become": _BECOME[name]}
        self._remarks.append(f"Ansible becomes root by {method} here, and that is not in this entry.")
        return {}

    def _check_secrets(self, host: Host) -> None:
        """Refuse values in which one of a secret variable stands, such as a ProxyCommand with a password."""
        written = [*host.connection.options, *host.connection.argv]
        for variable, value in self._variables.items():
            # A password of digits without quotes is a number in YAML.
            secret = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
            is_secret = _SECRET.search(variable) and len(secret) >= _SECRET_CHARACTERS
            if is_secret and any(secret in text for text in written):
                fix = "netprobe takes no passwords from inventories; use a key, or an agent"
                self._wrong(variable, f"its value is in another variable that would be written; {fix}")
