"""
Real OpenSSH servers on the hosts of a lab, and the real client in its router's namespace.

A server has its own keys, port and configuration, and knows a user who is not known outside. The client is
found in the PATH as a script that enters the router's namespace, from where all hosts can be reached, and
runs the real one.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from netprobe.lab import Lab
from netprobe.model import Connection, Family, Host, Inventory
from tests.transports import accounts
from tests.transports.conformance import TIMEOUT_S

PORT: Final = 2022

# The server takes the first value of a setting; what is for some users stands last.
_CONFIG: Final = """
{settings}
Port {port}
ListenAddress 0.0.0.0
HostKey {directory}/host_key
AuthorizedKeysFile /run/netprobe/keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups {startups}
AcceptEnv nothing
{matches}
"""

# Whose key it is, its user reads: it cannot lie in root's temporary directory.
_START: Final = 'set -e; install -D -m 644 "$1" /run/netprobe/keys; eval "$2"; shift 2; exec "$@"'


def obstacle() -> str:
    """Why there can be no server here; "" where there can."""
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    missing += ["sshd"] if server() is None else []
    return f"no {', '.join(missing)}" if missing else accounts.obstacle()


def server() -> str | None:
    """The server's program, by the absolute path that it insists on; it is seldom in a user's PATH."""
    return shutil.which(
        "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


class Servers:
    """
    A server on each host of a lab that is built, with some accounts more; they end with the lab.

    `matches` are the Match blocks of their configurations.
    """

    def __init__(
        self, lab: Lab, directory: Path, accounts_: Sequence[accounts.Account] = (), matches: str = ""
    ) -> None:
        self.lab = lab
        self.directory = directory
        for name in ("key", "other_key", "host_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)]
            subprocess.run(argv, check=True)
        accounts.write(directory, accounts_)
        self._write_client()
        waiting = [self._start(name, PORT, matches=matches) for name in lab.hosts]
        for process in waiting:
            _wait_until_listening(process)

    def start(self, name: str) -> None:
        """Another server, on the router."""
        _wait_until_listening(self._start(name, PORT))

    def _write_client(self) -> None:
        (self.directory / "bin").mkdir()
        client = self.directory / "bin" / "ssh"
        enter = f"nsenter --net=/run/netns/{self.lab.router.namespace} --"
        client.write_text(f'#!/bin/sh\nexec {enter} {shutil.which("ssh")} "$@"\n')
        client.chmod(0o755)
        public = (self.directory / "host_key.pub").read_text().split()[:2]
        hosts = [f"[{host.address(Family.IPV4)}]:*" for host in self.lab.hosts.values()]
        (self.directory / "known_hosts").write_text(" ".join([",".join(hosts), *public]) + "\n")
        (self.directory / "no_known_hosts").touch()

    @property
    def path(self) -> str:
        """A PATH in which `ssh` is the client."""
        return f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"

    @contextmanager
    def another(
        self, name: str, port: int, *, settings: str = "", prepare: str = "", startups: str = "200"
    ) -> Iterator[subprocess.Popen[str]]:
        """One more server on a host; `prepare` is what a shell does to its mount namespace before."""
        with self._start(name, port, settings, prepare, startups=startups) as process:
            try:
                _wait_until_listening(process)
                yield process
            finally:
                process.terminate()

    def _start(
        self,
        name: str,
        port: int,
        settings: str = "",
        prepare: str = "",
        matches: str = "",
        startups: str = "200",
    ) -> subprocess.Popen[str]:
        key, config = self.directory / "key.pub", self.directory / f"sshd_config.{name}.{port}"
        config.write_text(
            _CONFIG.format(
                settings=settings,
                port=port,
                directory=self.directory,
                matches=matches,
                startups=startups,
            )
        )
        program = server()
        assert program is not None
        start = ["sh", "-c", _START, "sh", str(key), prepare, program, "-D", "-e", "-f", str(config)]
        argv = accounts.covered(self.directory, start)
        return self.lab.popen(name, argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def connection(
        self,
        name: str,
        *,
        user: str = "root",
        key: str = "key",
        known_hosts: str = "known_hosts",
        port: int = PORT,
        options: Sequence[str] = (),
    ) -> Connection:
        """How to reach a host, as an inventory would have it."""
        return Connection(
            type="ssh",
            host=self.lab.hosts[name].address(Family.IPV4),
            user=user,
            port=port,
            identity=str(self.directory / key),
            options=(
                *("-F", "none", "-oIdentitiesOnly=yes", "-oIdentityAgent=none"),
                f"-oUserKnownHostsFile={self.directory / known_hosts}",
                "-oGlobalKnownHostsFile=none",
                *options,
            ),
        )

    def inventory(self) -> Inventory:
        """All hosts of the lab, by ssh."""
        hosts = (
            msgspec.structs.replace(host, connection=self.connection(host.name), python=(sys.executable,))
            for host in self.lab.inventory().hosts
        )
        return Inventory(hosts=tuple(hosts))

    def host(
        self, name: str, connection: Connection, python: Sequence[str] = (), *, sudo: bool = False
    ) -> Host:
        """A host of the lab by a connection."""
        (host,) = (host for host in self.lab.inventory().hosts if host.name == name)
        return msgspec.structs.replace(
            host, connection=connection, python=tuple(python) or (sys.executable,), sudo=sudo
        )


def _wait_until_listening(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    deadline, said = time.monotonic() + TIMEOUT_S, ""
    while "Server listening on" not in said:
        assert select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))[0], said
        data = os.read(process.stderr.fileno(), 4096).decode()
        assert data, said
        said += data
