"""What a source says of its hosts, and what it leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from netprobe.inventory.errors import MAX_ERRORS, InventoryError, shown, suggestion
from netprobe.inventory.schema import check_text
from netprobe.model import Host, Role

_LISTED: Final = 4
_NO_ROLE: Final = "none"


class Found(msgspec.Struct, frozen=True):
    """A host, and what a reader of its entry has to know."""

    host: Host
    remarks: tuple[str, ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a source, and what a reader has to know of all of them."""

    hosts: tuple[Found, ...]
    remarks: tuple[str, ...] = ()


def refuse(source: str, problems: Iterable[str]) -> None:
    """Raise `InventoryError` with a line for each problem, if there is one."""
    _raise(source, [f"{source}: {problem}" for problem in dict.fromkeys(problems)])


def refuse_lines(source: str, problems: Iterable[tuple[int, str]]) -> None:
    """The same for problems at lines, in the order of the file."""
    _raise(source, [f"{source}:{number}: {problem}" for number, problem in sorted(problems)])


def _raise(source: str, lines: list[str]) -> None:
    more = len(lines) - MAX_ERRORS
    if more > 0:
        lines[MAX_ERRORS:] = [f"{source}: and {more} more {'error' if more == 1 else 'errors'}"]
    if lines:
        raise InventoryError(*lines)


def listed(words: Sequence[str]) -> str:
    """The first few of some words, and how many more there are."""
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def is_address(text: str) -> bool:
    """Whether a text is an address that another host can send to."""
    return not check_text(text, "address")


def roles_of(text: str) -> tuple[Role, ...]:
    """The roles in a text like `node,etcd`, or none for `none`; `ValueError` says what is no role."""
    if text == _NO_ROLE:
        return ()
    known = [role.value for role in Role]
    words = text.split(",")
    for word in words:
        if word not in known:
            raise ValueError(f"no role {shown(word)}; {suggestion(word, known)}")
    return in_order(map(Role, words))


def in_order(roles: Iterable[Role]) -> tuple[Role, ...]:
    """Roles, each once, in the order in which they are always written."""
    wanted = set(roles)
    return tuple(role for role in Role if role in wanted)


def without_sudo(hosts: Iterable[Host]) -> tuple[str, ...]:
    """The remark on hosts of which it is not known how the agent becomes root, if there are any."""
    names = [
        host.name
        for host in hosts
        if host.connection.type == "ssh"
        and host.connection.user != "root"
        and not host.sudo
        and not host.become
    ]
    if not names:
        return ()
    needs = "the agent needs CAP_NET_RAW and CAP_NET_ADMIN"
    return (f"Nothing is known of sudo on {listed(names)}: {needs}; with --sudo it is run by `sudo -n`.",)
