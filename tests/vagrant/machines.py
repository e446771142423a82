"""
The machines of the Vagrantfile without any virtual machine: namespaces with its addresses, routes and rules.

Its own provisioners run in them, all but those that install packages. Each has a real SSH server and, as
behind VirtualBox's NAT, an interface with the address 10.0.2.15; a script stands where `vagrant` would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from netprobe.lab import Lab
from netprobe.lab.description import ROUTER
from tests.transports.accounts import USER
from tests.transports.sshd import PORT, Servers

ROOT: Final = Path(__file__).parents[2]
VAGRANTFILE: Final = ROOT / "Vagrantfile"
LAB: Final = Path(__file__).with_name("lab.yaml")
RECORDER: Final = Path(__file__).with_name("recorder.rb")
NAT: Final = "10.0.2.15"

_SECTION: Final = """\
Host {name}
  HostName {address}
  User {user}
  Port {port}
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile {key}
  IdentitiesOnly yes
  LogLevel FATAL

"""
"""As Vagrant's templates/commands/ssh_config/config.erb has it."""

_VAGRANT: Final = """\
#!/bin/sh
[ "$*" = ssh-config ] && exec cat {directory}/ssh-config
exit 64
"""


class Provisioner(msgspec.Struct, frozen=True):
    """What is run on a machine: a script in the text or in a file; `run` is when."""

    name: str
    run: str = "once"
    inline: str = ""
    path: str = ""

    @property
    def argv(self) -> list[str]:
        """The command that Vagrant would come to run: a file by the interpreter that its first line names."""
        if self.inline:
            return ["sh", "-ec", self.inline]
        path = ROOT / self.path
        return [*path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#!").split(), str(path)]


class Machine(msgspec.Struct, frozen=True):
    """What the Vagrantfile says of a machine."""

    networks: tuple[str, ...]
    provisioners: tuple[Provisioner, ...]


def recorded() -> dict[str, Machine]:
    """The machines of the Vagrantfile, by evaluating it."""
    done = subprocess.run(["ruby", str(RECORDER), str(VAGRANTFILE)], capture_output=True, check=True)
    return msgspec.convert(json.loads(done.stdout), dict[str, Machine])


class Machines:
    """The machines, running: what is done on them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._path = os.environ["PATH"]

    def connect(self, directory: Path) -> None:
        """Give them servers and the interface of a provider, and `vagrant` something to say; once."""
        servers = Servers(self.lab, directory)
        logins = {ROUTER: recorded()[ROUTER].networks[0]}
        servers.start(ROUTER)
        logins |= {name: next(iter(host.addresses.values())) for name, host in self.lab.hosts.items()}
        for name in logins:
            for command in ("link add nat0 type veth peer nat0-host", f"address add {NAT}/24 dev nat0"):
                self.lab.run(name, ["ip", *command.split()])
        key = directory / "key"
        sections = (
            _SECTION.format(name=name, address=address, user=USER, port=PORT, key=key)
            for name, address in logins.items()
        )
        (directory / "ssh-config").write_text("".join(sections))
        program = directory / "bin" / "vagrant"
        program.write_text(_VAGRANT.format(directory=directory))
        program.chmod(0o755)
        self._path = servers.path

    def provision(self, *names: str) -> None:
        """Run the provisioners of these names on every machine that has them."""
        for name, machine in recorded().items():
            for provisioner in machine.provisioners:
                if provisioner.name in names:
                    self.lab.run(name, provisioner.argv)

    def rulesets(self) -> dict[str, str]:
        """The rules of each machine, as nft lists them."""
        names = (ROUTER, *self.lab.hosts)
        return {name: self.lab.run(name, ["nft", "list", "ruleset"]).stdout for name in names}

    def netprobe(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """The command as a user of the machines would type it."""
        return subprocess.run(
            [sys.executable, "-m", "netprobe.cli", *arguments],
            cwd=cwd,
            env={**os.environ, "PATH": self._path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def machines() -> Iterator[Machines]:
    """The machines, as `vagrant up` leaves them."""
    with Lab.from_file(LAB) as lab:
        up = Machines(lab)
        up.provision("routes", "faults")
        yield up
