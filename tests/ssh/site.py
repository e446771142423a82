"""
Real servers with many users, each of whom has one thing that may keep an agent from starting.

The client sees a home directory of the site's own: its `~/.ssh/config` and `known_hosts`, and `/etc/hosts`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from netprobe import wire
from netprobe.access import Access
from netprobe.lab import Lab
from netprobe.model import Connection, Family, Host
from netprobe.session import HostLostError, Session
from tests.transports.accounts import Account
from tests.transports.conformance import TIMEOUT_S
from tests.transports.sshd import PORT, Servers

PASSWORD: Final = "correct  hörse'\"$\\taple"  # noqa: S105 - with all that a careless quotation would break
ROOT: Final = "uid 0"
"""What `outcome` says of an agent that runs as root."""


WITHOUT_PROGRAMS: Final = """
mkdir /run/real /run/bin
mount --bind /usr/bin /run/real
ln -s /run/real/* /run/bin
"""
"""Makes a copy of `/usr/bin` from which programs can be taken before it is mounted there."""

_SHELLS: Final = {
    "bash": "/bin/bash",
    "dash": "/bin/dash",
    "zsh": "/bin/zsh",
    "fish": "/usr/bin/fish",
    "tcsh": "/bin/tcsh",
    "rbash": "/bin/rbash",
    "nologin": "/usr/sbin/nologin",
    "false": "/bin/false",
}


def _with_profile(name: str, bashrc: str) -> Account:
    return Account(name=name, shell=_SHELLS["bash"], files={".bashrc": bashrc})


ACCOUNTS: Final = (
    *(Account(name=name, shell=shell) for name, shell in _SHELLS.items()),
    _with_profile("prints", "echo Welcome; printf 'no newline'"),
    _with_profile("floods", "yes"),
    _with_profile("reads", "read -r line"),
    _with_profile("reads-all", "cat >/dev/null"),
    _with_profile("echoes", "cat"),
    _with_profile("exits", "echo goodbye; exit 0"),
    _with_profile("hangs-up", "kill -KILL $PPID; cat >/dev/null"),
    _with_profile("execs-zsh", "exec zsh"),
    _with_profile("execs-tcsh", "exec tcsh"),
    *(Account(name=name) for name in ("sftp", "fixed", "original", "mute")),
    Account(name="key-command", files={"keys": 'command="echo forced" {key}'}),
    Account(name="key-restrict", files={"keys": "restrict {key}"}),
    *(Account(name=name) for name in ("no-tty", "no-session", "doas", "su")),
    Account(name="banner"),
    Account(name="asks", rule="ALL", password=PASSWORD),
    Account(name="asks-pty", rule="ALL", password=PASSWORD, defaults="use_pty"),
    Account(name="asks-once", rule="ALL", password=PASSWORD, defaults="timestamp_type=global"),
    Account(name="asks-lecture", rule="ALL", password=PASSWORD, defaults="lecture=always"),
    Account(name="no-rule", rule="", password=PASSWORD),
    Account(name="other-rule", rule="/usr/bin/id", password=PASSWORD),
    Account(name="python-rule", rule="NOPASSWD: /usr/bin/python3"),
    Account(name="requiretty", defaults="requiretty"),
    Account(name="expired", expires="1"),
    Account(name="aged", changed="0", password=PASSWORD),
)

_MATCHES: Final = """
Match User sftp
    ForceCommand internal-sftp
Match User fixed
    ForceCommand echo "no shell here"
Match User original
    ForceCommand sh -c "$SSH_ORIGINAL_COMMAND"
Match User mute
    ForceCommand cat >/dev/null
Match User key-*
    AuthorizedKeysFile /run/home/%u/keys
Match User no-tty
    PermitTTY no
Match User no-session
    MaxSessions 0
Match User banner
    Banner {directory}/banner
"""

# The user's own files are root's here: ssh looks for them where passwd says, not where HOME does.
_AT_HOME: Final = """#!/bin/sh
exec nsenter --net={netns} -- unshare --mount -- sh -c '
mount --bind {directory}/user ~root && mount --bind {directory}/hosts /etc/hosts && exec {ssh} "$@"
' sh "$@"
"""


class Site(Servers):
    """The servers of a lab, as its users have them."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        (directory / "banner").write_text("Authorized use only.\nAll is recorded.\n")
        super().__init__(lab, directory, ACCOUNTS, _MATCHES.format(directory=directory))
        self._user = directory / "user" / ".ssh"
        self._user.mkdir(mode=0o700, parents=True)
        names = [f"{self.address(name)} {name}\n" for name in lab.hosts]
        (directory / "hosts").write_text(f"127.0.0.1 localhost\n{''.join(names)}")
        (directory / "at-home").mkdir()
        client = directory / "at-home" / "ssh"
        netns = f"/run/netns/{lab.router.namespace}"
        client.write_text(_AT_HOME.format(netns=netns, directory=directory, ssh=shutil.which("ssh")))
        client.chmod(0o755)
        self.forget()

    def address(self, name: str) -> str:
        """Where a host is logged in to."""
        return self.lab.hosts[name].address(Family.IPV4)

    def at_home(self, config: str) -> str:
        """Write `~/.ssh/config`; returns the PATH whose `ssh` reads it."""
        (self._user / "config").write_text(config)
        return f"{self.directory / 'at-home'}{os.pathsep}{os.environ['PATH']}"

    @property
    def known_hosts(self) -> str:
        """What `~/.ssh/known_hosts` has in it."""
        path = self._user / "known_hosts"
        return path.read_text() if path.exists() else ""

    @known_hosts.setter
    def known_hosts(self, text: str) -> None:
        (self._user / "known_hosts").write_text(text)

    @property
    def config(self) -> str:
        """The path of `~/.ssh/config` outside."""
        return str(self._user / "config")

    @property
    def user_files(self) -> list[str]:
        """What there is in `~/.ssh`."""
        return sorted(path.name for path in self._user.iterdir())

    def forget(self) -> None:
        """Let `~/.ssh` have nothing but the keys of the hosts."""
        for path in self._user.iterdir():
            path.unlink()
        self.known_hosts = f"[n?]:*,{(self.directory / 'known_hosts').read_text()}"

    def by(self, connection: Connection, **fields: object) -> Host:
        """The first host by a connection; its interpreter is to be found, unless it is named."""
        host = Host(name="n1", addresses=(self.address("n1"),), connection=connection)
        return msgspec.structs.replace(host, **fields)

    def named(self, host: str, *options: str) -> Host:
        """A host that is reached as `~/.ssh/config` says."""
        return self.by(Connection(type="ssh", host=host, options=options))

    def user(
        self,
        user: str,
        *,
        port: int = PORT,
        key: str = "key",
        known_hosts: str = "known_hosts",
        options: Sequence[str] = (),
        **fields: object,
    ) -> Host:
        """A host for one of its users, who becomes root by sudo."""
        connection = self.connection(
            "n1", user=user, port=port, key=key, known_hosts=known_hosts, options=options
        )
        return self.by(connection, **{"sudo": user != "root", **fields})


async def outcome(host: Host, access: Access | None = None, within_s: float = TIMEOUT_S) -> str:
    """As who the agent runs, or in one line why there is none."""
    session = Session(host, access)
    async with trio.open_nursery() as nursery:
        try:
            await session.start(nursery, within_s)
            facts = await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)
            said = f"uid {facts.uid}"
        except HostLostError as error:
            said = str(error)
        finally:
            await session.end()
        nursery.cancel_scope.cancel()

    assert [said] == said.splitlines()
    return said


async def misfits(
    cases: Mapping[str, tuple[Host, str]], access: Access | None = None, within_s: float = TIMEOUT_S
) -> dict[str, str]:
    """Of hosts with patterns of their outcomes, those whose outcome is another one; all at a time."""
    found: dict[str, str] = {}

    async def look(name: str, host: Host, pattern: str) -> None:
        said = await outcome(host, access, within_s)
        if not re.fullmatch(pattern, said):
            found[name] = said

    with trio.fail_after(3 * TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for name, (host, pattern) in cases.items():
                nursery.start_soon(look, name, host, pattern)
    return found
