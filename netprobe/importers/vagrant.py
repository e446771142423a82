"""
From the machines of Vagrant, as `vagrant ssh-config` writes them, to hosts.

Vagrant tells where to log in: a forwarded port of 127.0.0.1, or an address of a network for management. The
addresses to probe are the machines' own to tell: they are asked, by `ip -json address` and `ip -json route`.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType
from typing import Final

from netprobe.importers import programs, ssh_config
from netprobe.importers.found import Found, Imported, is_address, listed, refuse
from netprobe.importers.machines import COMMAND, Machine, Route, machine_of
from netprobe.importers.ssh_config import Section
from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.model import Family, Host, Role

_NODE: Final = (Role.NODE,)
_FIX: Final = "`vagrant up` starts the machines; VAGRANT_CWD says where the Vagrantfile is, if not here"
_FIX_ADDRESS: Final = "--address NAME=ADDRESS gives it instead"
_CONNECT_TIMEOUT_S: Final = 10
_ANSWER_TIMEOUT_S: Final = 30.0


def argv(machines: Sequence[str]) -> list[str]:
    """The command that says how to log in to these machines, or to all."""
    return ["vagrant", "ssh-config", *machines]


def ask(machines: Sequence[str]) -> str:
    """What Vagrant says of these machines, or of all."""
    # A word on a new version of Vagrant would stand in between.
    return programs.run(
        argv(machines), package="vagrant", fix=_FIX, environment={"VAGRANT_CHECKPOINT_DISABLE": "1"}
    )[0]


def chosen(
    sections: Sequence[Section],
    source: str,
    machines: Collection[str],
    addresses: Mapping[str, object],
    roles: Mapping[str, Collection[Role]],
) -> list[Section]:
    """The sections of these machines (of all, without any) that have a role; all names must be there."""
    names = [section.name for section in sections]
    for name in (*machines, *addresses, *roles):
        if name not in names:
            raise InventoryError(f"{source}: no machine {shown(name)}; {suggestion(name, names)}")
    return [
        section
        for section in sections
        if (section.name in machines or not machines) and roles.get(section.name, _NODE)
    ]


def ask_machines(sections: Sequence[Section], source: str) -> dict[str, Machine]:
    """What the machines say of themselves over ssh, all at once; `InventoryError` names those that do not."""
    said: dict[str, Machine] = {}
    problems = []
    with contextlib.ExitStack() as running, tempfile.NamedTemporaryFile("w", suffix=".ssh-config") as file:
        file.write(ssh_config.render(sections))
        file.flush()
        processes = {each.name: running.enter_context(_started(each.name, file.name)) for each in sections}
        for name, process in processes.items():
            try:
                out, err = process.communicate(timeout=_ANSWER_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                problems.append(f"{name}: no answer by ssh within {_ANSWER_TIMEOUT_S:.0f} s; {_FIX_ADDRESS}")
                continue
            if process.returncode:
                why = programs.ending(process.returncode, err.decode(errors="replace"))
                problems.append(f"{name}: cannot ask it for its addresses by ssh: {why}; {_FIX_ADDRESS}")
                continue
            try:
                said[name] = machine_of(out.decode(errors="replace"))
            except ValueError as error:
                problems.append(f"{name}: cannot understand its `ip -json address`: {error}; {_FIX_ADDRESS}")
    refuse(source, problems)
    return said


def _started(name: str, config: str) -> subprocess.Popen[bytes]:
    options = ["-oBatchMode=yes", f"-oConnectTimeout={_CONNECT_TIMEOUT_S}", "-oLogLevel=ERROR", "-T"]
    command = ["ssh", "-F", config, *options, "--", name, COMMAND]
    try:
        return subprocess.Popen(  # noqa: S603 - ssh, as Vagrant set it up
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise InventoryError(f"cannot run ssh: {error.strerror}; {_FIX_ADDRESS}") from None


def read(
    sections: Sequence[Section],
    machines: Mapping[str, Machine],
    source: str,
    *,
    addresses: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    roles: Mapping[str, tuple[Role, ...]] = MappingProxyType({}),
    keeps_routers: bool = False,
) -> Imported:
    """
    The hosts of the sections of `source`, with what the machines said of themselves.

    `addresses` are for those that were not asked. A machine by way of which others reach others is a router,
    and left out unless it is named in `roles`, or `keeps_routers`. `InventoryError` has a line for each
    machine without an address.
    """
    names = [section.name for section in sections]
    shared = _shared(machines)
    own = {name: addresses[name] if name in addresses else _own(machines[name], shared) for name in names}
    routers = {} if keeps_routers else _routers(machines, own, shared, roles)
    problems = [
        f"{name}: it has no address of its own; a private_network in the Vagrantfile, or {_FIX_ADDRESS}"
        for name in names
        if not own[name] and name not in routers
    ]
    refuse(source, problems)
    found = []
    not_of_a_host: set[str] = set()
    for section in sections:
        if section.name not in routers:
            connection, left_out = ssh_config.connection(section)
            not_of_a_host |= set(left_out)
            host = Host(
                name=section.name,
                addresses=own[section.name],
                roles=roles.get(section.name, _NODE),
                connection=connection,
                sudo=connection.user != "root",
            )
            found.append(Found(host, tuple(_on_addresses(host))))
    remarks = [
        *routers.values(),
        *_on_all([each.host for each in found], roles, _not_probed(machines, own, shared)),
        *sorted(not_of_a_host),
    ]
    return Imported(hosts=tuple(found), remarks=tuple(remarks))


def _shared(machines: Mapping[str, Machine]) -> list[str]:
    """The addresses that more than one machine has, such as 10.0.2.15 behind VirtualBox's NAT."""
    owners = Counter(
        address
        for machine in machines.values()
        for address in {address for interface in machine.interfaces for address in interface.own}
    )
    return sorted(address for address, number in owners.items() if number > 1)


def _not_probed(
    machines: Mapping[str, Machine], own: Mapping[str, Sequence[str]], shared: Sequence[str]
) -> list[str]:
    """The addresses that serve only to log in, and those that are shared."""
    logins = {machine.login for name, machine in machines.items() if machine.login not in own[name]}
    return sorted({*shared, *logins} - {""})


def _own(machine: Machine, shared: Sequence[str]) -> tuple[str, ...]:
    """The addresses of a machine's interfaces, but for those by which Vagrant reaches it."""
    usable = [each for each in machine.interfaces if not set(each.own) & set(shared)]
    others = [each for each in usable if machine.login not in each.own]
    chosen = others if any(each.own for each in others) else usable
    return tuple(address for each in chosen for address in each.own if is_address(address))


def _routers(
    machines: Mapping[str, Machine],
    own: Mapping[str, Sequence[str]],
    shared: Sequence[str],
    kept: Collection[str],
) -> dict[str, str]:
    """The machines by way of which one reaches another, with the remark on each; those `kept` are none."""
    owners = {
        address: name
        for name, machine in machines.items()
        for interface in machine.interfaces
        for address in interface.own
        if address not in shared
    }
    found: dict[str, str] = {}
    for source, machine in machines.items():
        for route in machine.routes:
            router = owners.get(route.gateway)
            if router is None or router in (source, *found, *kept):
                continue
            for target in own:
                beyond = [address for address in own[target] if _is_beyond(address, route, machine)]
                if target not in (source, router) and beyond:
                    found[router] = (
                        f"{router} is left out: it is the router by way of which {source} reaches {target}. "
                        "Machines that are named on the command line are taken."
                    )
                    break
    return found


def _is_beyond(address: str, route: Route, machine: Machine) -> bool:
    """Whether a machine reaches an address by a route, and not on a link of its own."""
    target = ip_address(address)
    links = (ip_interface(own).network for interface in machine.interfaces for own in interface.addresses)
    return target in ip_network(route.prefix) and not any(target in link for link in links)


def _on_addresses(host: Host) -> Iterator[str]:
    for family in Family:
        several = [address for address in host.addresses if Family.of(address) is family]
        if len(several) > 1:
            yield f"It has {len(several)} {family.label} addresses; {several[0]}, the first, is probed."


def _on_all(hosts: Sequence[Host], roles: Mapping[str, object], not_probed: Sequence[str]) -> Iterator[str]:
    if not_probed:
        yield f"Not probed, because Vagrant logs in there or several machines have it: {listed(not_probed)}."
    guessed = [host.name for host in hosts if host.name not in roles]
    if guessed:
        yield f"Vagrant knows no roles; taken for nodes: {listed(guessed)}. --role NAME=ROLE says more."
    if any(host.sudo for host in hosts):
        yield "That sudo asks for no password is how Vagrant's boxes are made."
    if any("StrictHostKeyChecking" in option for host in hosts for option in host.connection.options):
        yield (
            "That the keys of hosts are not checked (StrictHostKeyChecking, UserKnownHostsFile) is Vagrant's "
            "choice: a machine that is made anew has a new one."
        )
