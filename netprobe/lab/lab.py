"""The lab: builds what a description says, hands out its hosts, and takes everything away again."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Final

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from netprobe.lab import build, namespaces
from netprobe.lab.blueprint import blueprint, describe_file
from netprobe.lab.changes import Changes, changes
from netprobe.lab.description import ROUTER, ChainType, Description, Fault, Hook, Policy, mesh, unknown
from netprobe.lab.errors import LabError
from netprobe.lab.expectations import Expectations, Planted
from netprobe.lab.topology import INTERFACE
from netprobe.model import Connection, Family, Host, Inventory, Role

_ENDING_TIMEOUT_S: Final = 1.0
"""How long a process may take to end by itself when it is told to."""

_LETTERS: Final = "bcdfghjklmnpqrstvwxz"  # no vowels: a name shall be no word
_NAMESPACE: Final = re.compile(r"np-(?P<pid>[0-9]+)-[a-z]{6}-.+")

_Stream = int | IO[str] | None


class LabHost(msgspec.Struct, frozen=True, kw_only=True):
    """A host of a lab: its namespace as `ip netns` knows it, and what it has there."""

    name: str
    namespace: str
    roles: tuple[Role, ...]
    addresses: dict[Family, str]
    interface: str = INTERFACE

    def address(self, family: Family) -> str:
        """The address of a family; `KeyError` where the lab does not have that family."""
        return self.addresses[family]


class LabRouter(msgspec.Struct, frozen=True, kw_only=True):
    """The router of a lab; `ports` are its interfaces by the host that each leads to."""

    namespace: str
    ports: dict[str, str]


class Lab:
    """
    A small network of namespaces, for as long as the `with` block lasts.

    What was built is taken away however the block ends, and if building fails half-way; should the block
    never be left properly, then at the latest when the interpreter exits. A Ctrl-C waits for the step that is
    under way. A lab is built once. `LabError` says what could not be built, on which host.
    """

    def __init__(self, description: Description) -> None:
        self.description: Final = description
        self._blueprint: Final = blueprint(description)
        # The number of the process tells strays from the labs of others, see `leftovers`.
        prefix = f"np-{os.getpid()}-{''.join(secrets.choice(_LETTERS) for _ in range(6))}"
        self._namespaces: Final = {name: f"{prefix}-{name}" for name in (*description.roles, ROUTER)}
        self._processes: Final[list[subprocess.Popen[str]]] = []
        self._take_away: Callable[[], object] | None = None
        stations = self._blueprint.topology.stations
        self.hosts: Final[Mapping[str, LabHost]] = MappingProxyType(
            {
                name: LabHost(
                    name=name,
                    namespace=self._namespaces[name],
                    roles=roles,
                    addresses=dict(stations[name].addresses),
                )
                for name, roles in description.roles.items()
            }
        )
        self.router: Final = LabRouter(
            namespace=self._namespaces[ROUTER], ports={name: name for name in stations}
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Lab:
        """The lab that a file describes; `DescriptionError` names the file."""
        return cls(describe_file(Path(path)))

    @classmethod
    def mesh(
        cls, hosts: int, *, roles: Sequence[Role] = (Role.NODE,), families: Sequence[Family] = tuple(Family)
    ) -> Lab:
        """A lab of `hosts` hosts without a fault, each with these roles, around one router."""
        return cls(mesh(hosts, roles=roles, families=families))

    @property
    def expectations(self) -> Expectations:
        """What netprobe must find."""
        return self._blueprint.expectations

    @property
    def planted(self) -> tuple[Planted, ...]:
        """The faults that say what they are."""
        return self._blueprint.planted

    def inventory(self) -> Inventory:
        """The hosts as an inventory: reached by their namespaces, with the interpreter that runs this."""
        return Inventory(
            hosts=tuple(
                Host(
                    name=host.name,
                    addresses=tuple(host.addresses.values()),
                    roles=host.roles,
                    connection=Connection(type="netns", name=host.namespace),
                    python=(sys.executable,),
                )
                for host in self.hosts.values()
            ),
            pod_cidr=self.description.pod_ranges,
        )

    def __enter__(self) -> Lab:  # noqa: PYI034 (Self is Python 3.11's)
        if self._take_away is not None:
            raise LabError("a lab is built once")
        names = tuple(self._namespaces.values())
        self._take_away = weakref.finalize(self, _take_away, names, self._processes, os.getpid())
        try:
            self._build()
        except BaseException:
            self._take_away()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._take_away is not None:
            self._take_away()

    def _build(self) -> None:
        topology = self._blueprint.topology
        namespaces.create(tuple(self._namespaces.values()))
        self._inside(ROUTER, partial(build.router, topology))
        for name, station in topology.stations.items():
            self._inside(name, partial(build.host, station, topology, self.router.namespace))
        self._inside(ROUTER, partial(build.ports, topology))
        for name, station in topology.stations.items():
            self._inside(name, partial(build.finish, station, topology))
        for name, todo in self._blueprint.changes.items():
            if todo != Changes():
                self._inside(name, partial(build.apply, todo))

    def _inside(self, on: str, step: Callable[[], None]) -> None:
        try:
            namespaces.inside(self._namespaces[on], step)
        except LabError as error:
            raise LabError(f"{on}: {error}") from error
        except (NetlinkError, OSError) as error:
            raise LabError(f"{on}: the kernel refused: {error}") from error

    def plant(self, fault: Fault) -> None:
        """Add a fault to a lab that is built; later ones in the same base chain come behind earlier ones."""
        for target in fault.targets:
            self._namespace(target)
            todo = changes([fault], target, self._blueprint.topology)
            self._inside(target, partial(build.apply, todo))

    def nft(
        self,
        on: str,
        rules: str | Sequence[str] = (),
        *,
        hook: Hook | None = None,
        policy: Policy | None = None,
        type: ChainType = ChainType.FILTER,  # noqa: A002 (the description's word)
        priority: int | str | None = None,
    ) -> None:
        """Add rules to a host, or to the router, as a fault with these keys does."""
        nft = rules if isinstance(rules, str) else tuple(rules)
        self.plant(Fault(on=on, nft=nft, hook=hook, policy=policy, type=type, priority=priority))

    def run(
        self,
        on: str,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 (as in subprocess)
        check: bool = True,
        timeout_s: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on a host, or on the router, to its end; errors are those of `subprocess.run`."""
        return subprocess.run(  # noqa: S603
            self._entering(on, argv),
            input=input,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout_s,
            env=build.environment(),
        )

    def popen(
        self,
        on: str,
        argv: Sequence[str],
        *,
        stdin: _Stream = None,
        stdout: _Stream = None,
        stderr: _Stream = None,
    ) -> subprocess.Popen[str]:
        """
        Start a program on a host, or on the router, that ends with the lab at the latest.

        It leads a process group, which gets a SIGTERM and after a second a SIGKILL; its pipes are closed.
        """
        with namespaces.interrupts_deferred():
            process = subprocess.Popen(  # noqa: S603
                self._entering(on, argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=True,
                env=build.environment(),
                start_new_session=True,
            )
            self._processes.append(process)
        return process

    def _entering(self, on: str, argv: Sequence[str]) -> list[str]:
        # nsenter executes the program in its own place: its process is the program's.
        return ["nsenter", f"--net={namespaces.DIRECTORY / self._namespace(on)}", "--", *argv]

    def _namespace(self, on: str) -> str:
        if on not in self._namespaces:
            raise LabError(unknown("host", on, list(self._namespaces)))
        return self._namespaces[on]


def _take_away(names: Sequence[str], processes: Sequence[subprocess.Popen[str]], owner_pid: int) -> None:
    if os.getpid() != owner_pid:
        # A fork of the process that built the lab must not take it away when it exits.
        return
    with namespaces.interrupts_deferred():
        try:
            _end(processes)
        finally:
            namespaces.remove(names)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + _ENDING_TIMEOUT_S
    running = [process for process in processes if process.poll() is None]
    for process in running:
        # Its number is its own until it has been waited for.
        os.killpg(process.pid, signal.SIGTERM)
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for process in processes:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # What the program did not read any more cannot be flushed.
                with contextlib.suppress(OSError):
                    stream.close()


def leftovers() -> list[str]:
    """The namespaces of labs whose process is no more: it was killed, and could not take them away."""
    names = ((name, _NAMESPACE.fullmatch(name)) for name in namespaces.listed())
    return sorted(name for name, found in names if found and not Path("/proc", found["pid"]).exists())
