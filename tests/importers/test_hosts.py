"""Plain lists: whatever is written in one of the two orders is what is read."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.importers import hosts, write
from netprobe.importers.found import in_order
from netprobe.inventory import InventoryError, loads
from netprobe.model import Host, Role
from tests.importers.machines import NAMES

IPV4 = st.integers(1, 250).map(lambda last: IPv4Address((10 << 24) + last))
IPV6 = st.integers(1, 250).map(lambda last: IPv6Address((0xFD << 120) + last))
BLANKS = st.text(" \t", min_size=1, max_size=3)


@st.composite
def lists(draw: st.DrawFn) -> tuple[str, list[Host]]:
    """A list, and the hosts in it."""
    found = draw(st.lists(st.tuples(NAMES, IPV4, st.none() | IPV6), min_size=2, max_size=6))
    lines, expected = ["# a comment"], []
    taken: set[str] = set()
    for name, ipv4, ipv6 in found:
        addresses = [str(each) for each in (ipv4, ipv6) if each is not None]
        if name in taken or taken & set(addresses):
            continue
        taken |= {name, *addresses}
        roles = draw(st.lists(st.sampled_from(Role), unique=True))
        words = [name, *addresses] if draw(st.booleans()) else [*addresses, name]
        if roles:
            words.insert(draw(st.integers(0, len(words))), "roles=" + ",".join(r.value for r in roles))
        line = draw(BLANKS).join(words) + draw(st.sampled_from(["", " ", "\r", " # note"]))
        lines += [line, *draw(st.sampled_from([[], [""], ["  # 10.0.0.1"]]))]
        expected.append(Host(name=name, addresses=tuple(addresses), roles=in_order(roles) or (Role.NODE,)))
    return "\n".join(lines), expected


def _seen(host: Host) -> tuple[str, tuple[str, ...], tuple[Role, ...]]:
    return host.name, host.addresses, host.roles


@given(lists())
def test_a_list_means_what_it_says(drawn: tuple[str, list[Host]]) -> None:
    """
    In whichever order and layout: names, addresses and roles come out as they stand there, and the YAML that
    is written of them has the same.
    """
    text, expected = drawn
    imported = hosts.read(text, "list")
    found = [each.host for each in imported.hosts]

    assert list(map(_seen, expected)) == list(map(_seen, found))
    if len(found) > 1:
        assert found == list(loads(write(imported, "list", "netprobe")).hosts)


@given(st.text(st.characters(max_codepoint=0x2FFF) | st.sampled_from(" \n#=.:10ab"), max_size=80))
def test_no_list_brings_it_down(text: str) -> None:
    """
    Whatever stands there is read or told, a line for each, with the name of the file and no line break in it.
    """
    lines: tuple[str, ...] = ()
    try:
        assert hosts.read(text, "list").hosts
    except InventoryError as error:
        lines = error.lines

    assert all(line.startswith("list:") and line.isprintable() for line in lines)


def test_an_address_alone_is_where_ssh_goes() -> None:
    """
    A name with a colon is none; the host is reached at the address, and called like it.
    """
    (first, second) = (found.host for found in hosts.read("fd00::1\n10.0.0.1\n", "list").hosts)

    assert ("fd00--1", "fd00::1") == (first.name, first.connection.host)
    assert ("10.0.0.1", "") == (second.name, second.connection.host)


def test_lines_of_one_name_with_other_roles_contradict_each_other() -> None:
    """
    The later line is the one that is told.
    """
    with pytest.raises(InventoryError, match=r'^list:2: "a" has other roles in another line: node$'):
        hosts.read("a 10.0.0.1 roles=node\na fd00::1 roles=etcd\n", "list")
