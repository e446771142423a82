"""
From a plain list to hosts: a line for each, in one of two orders.

`NAME ADDRESS... [roles=ROLE,...]`, or as hosts(5) has it, `ADDRESS... [NAME] [ALIAS...] [roles=ROLE,...]`.
Lines of one name are one host's. What follows a `#` is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final

import msgspec

from netprobe.importers.found import Found, Imported, listed, refuse_lines, roles_of, without_sudo
from netprobe.inventory.errors import InventoryError, shown
from netprobe.inventory.schema import check_text
from netprobe.model import Connection, Family, Host, Role

_ROLES: Final = "roles="


class _Line(msgspec.Struct, frozen=True):
    """What one line says; `names` has the aliases as well."""

    number: int
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    roles: tuple[Role, ...] = ()


def read(text: str, source: str, *, user: str = "", sudo: bool = False) -> Imported:
    """The hosts of a list, which errors call `source`; `InventoryError` has a line for each wrong one."""
    problems: list[tuple[int, str]] = []
    lines: dict[str, list[_Line]] = {}
    left_out: list[str] = []
    for number, written in enumerate(text.split("\n"), start=1):
        words = written.partition("#")[0].split()
        if not words:
            continue
        if _is_of_the_machine_itself(words):
            left_out.append(words[0])
            continue
        try:
            line = _line(number, words)
        except ValueError as error:
            problems.append((number, str(error)))
            continue
        lines.setdefault(line.names[0], []).append(line)
    hosts = []
    for those in lines.values():
        try:
            addresses = _addresses(those)
        except ValueError as error:
            problems.append((those[-1].number, str(error)))
            continue
        roles = next((line.roles for line in those if line.roles), (Role.NODE,))
        name = those[0].names[0]
        host = addresses[0] if name == _name_of(addresses[0]) != addresses[0] else ""
        connection = Connection(type="ssh", host=host, user=user)
        hosts.append(Host(name=name, addresses=addresses, roles=roles, connection=connection, sudo=sudo))
    refuse_lines(source, problems)
    if not hosts:
        raise InventoryError(f"{source}: it has no hosts")
    return Imported(hosts=tuple(map(Found, hosts)), remarks=tuple(_remarks(hosts, lines, left_out)))


def _is_of_the_machine_itself(words: Sequence[str]) -> bool:
    """Whether a line in the order of hosts(5) is of those that every machine has for itself."""
    if len(words) == 1 or not _reads_as_address(words[0]):
        return False
    address = ip_address(words[0])
    return address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local


def _line(number: int, words: Sequence[str]) -> _Line:
    """What the words of a line mean; `ValueError` says what is wrong with one of them."""
    given = [word for word in words if word.startswith(_ROLES)]
    if len(given) > 1:
        raise ValueError(f"{shown(given[1])}: the line has roles already")
    roles = roles_of(given[0].removeprefix(_ROLES)) if given else ()
    names, addresses = _parted([word for word in words if word not in given])
    for address in addresses:
        if problem := check_text(address, "address"):
            raise ValueError(problem)
    names = names or [_name_of(addresses[0])]
    if problem := check_text(names[0], "host name"):
        raise ValueError(problem)
    return _Line(number, tuple(names), tuple(addresses), roles)


def _name_of(address: str) -> str:
    """What a host is called of which only the address is known; a colon can be in no name."""
    return address.replace(":", "-")


def _parted(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The names and the addresses of a line, in whichever order they stand."""
    if not words:
        raise ValueError("expected a name and addresses, got only roles")
    is_address = [_reads_as_address(word) for word in words]
    if not is_address[0]:
        if len(words) == 1:
            raise ValueError(f"{shown(words[0])} has no address, and names are not resolved here")
        return words[:1], words[1:]
    number = is_address.index(False) if False in is_address else len(words)
    if True in is_address[number:]:
        late = words[is_address.index(True, number)]
        raise ValueError(f"{late} stands behind a name; expected the addresses first, or else the name")
    return words[number:], words[:number]


def _reads_as_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _addresses(lines: Sequence[_Line]) -> tuple[str, ...]:
    """The addresses of the lines of one name: hosts(5) has a line for each family."""
    first: dict[Family, _Line] = {}
    for line in lines:
        for address in line.addresses:
            other = first.setdefault(Family.of(address), line)
            if other is not line:
                has = f"has an {Family.of(address).label} address in line {other.number}"
                raise ValueError(f"{shown(line.names[0])} {has}; expected one line for each family")
        if line.roles and line.roles != (roles := next(each.roles for each in lines if each.roles)):
            told = ",".join(role.value for role in roles)
            raise ValueError(f"{shown(line.names[0])} has other roles in another line: {told}")
    return tuple(address for line in lines for address in line.addresses)


def _remarks(
    hosts: Sequence[Host], lines: Mapping[str, Sequence[_Line]], left_out: Sequence[str]
) -> Iterator[str]:
    if left_out:
        yield f"Left out, because every machine has them for itself: {listed(left_out)}."
    aliases = [alias for those in lines.values() for line in those for alias in line.names[1:]]
    if aliases:
        yield f"A host has the first name of its line; not used: {listed(aliases)}."
    guessed = [name for name, those in lines.items() if not any(line.roles for line in those)]
    if guessed:
        yield f"Without roles, and taken for nodes: {listed(guessed)}. roles=… in a line says more."
    if not any(host.connection.user for host in hosts):
        yield "Who logs in is not in the list: ssh decides, as set up, or --user."
    yield from without_sudo(hosts)
