"""The YAML of what was imported: it says the same as the hosts do, whatever they and the remarks are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from netprobe.cli import app
from netprobe.importers import Found, Imported, ansible, kubectl, write
from netprobe.inventory import InventoryError, loads
from netprobe.model import Connection, Host, Role
from tests.importers.machines import NAMES

ARGUMENTS = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8), max_size=3).map(tuple)
COMMANDS = ARGUMENTS.filter(bool)
CONNECTIONS = st.one_of(
    st.just(Connection(type="local")),
    st.builds(Connection, type=st.just("command"), argv=COMMANDS),
    st.builds(
        Connection,
        type=st.just("ssh"),
        host=st.just("") | NAMES,
        user=st.sampled_from(["", "ops"]),
        port=st.sampled_from([0, 22]),
        options=ARGUMENTS,
    ),
)
REMARKS = st.lists(st.text(max_size=200), max_size=3).map(tuple)


@st.composite
def imported(draw: st.DrawFn) -> Imported:
    """Some hosts, many of them alike."""
    names = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    alike = draw(st.lists(CONNECTIONS, min_size=1, max_size=2))
    hosts = [
        Host(
            name=name,
            addresses=(f"10.0.0.{number}",),
            roles=draw(st.sampled_from([(Role.NODE,), (Role.NODE, Role.ETCD)])),
            connection=draw(st.sampled_from(alike)),
            sudo=draw(st.booleans()),
            python=draw(
                st.sampled_from([Host(name="", addresses=()).python, ("python3.11",), ("env", "python3")])
            ),
        )
        for number, name in enumerate(names, start=1)
    ]
    return Imported(hosts=tuple(Found(host, draw(REMARKS)) for host in hosts), remarks=draw(REMARKS))


@given(imported(), st.text(max_size=20), st.text(max_size=20))
def test_what_was_written_is_loaded_again(found: Imported, source: str, command: str) -> None:
    """
    What hosts have alike stands under the defaults, and remarks are comments, wherever they have line breaks.
    """
    text = write(found, source, command)

    assert [each.host for each in found.hosts] == list(loads(text).hosts)
    assert yaml.safe_load(text).keys() <= {"hosts", "defaults"}


def test_what_one_host_has_alone_is_its_own() -> None:
    """
    The defaults have what all have, and nothing else.
    """
    shared = Connection(type="ssh", user="ops", port=2022)
    hosts = (
        Host(name="a", addresses=("10.0.0.1",), connection=shared, sudo=True),
        Host(
            name="b", addresses=("10.0.0.2",), connection=msgspec.structs.replace(shared, port=22), sudo=True
        ),
    )

    assert {
        "hosts": [
            {"name": "a", "addresses": ["10.0.0.1"], "connection": {"port": 2022}},
            {"name": "b", "addresses": ["10.0.0.2"], "connection": {"port": 22}},
        ],
        "defaults": {"connection": {"type": "ssh", "user": "ops"}, "sudo": True},
    } == yaml.safe_load(write(Imported(hosts=tuple(map(Found, hosts))), "nowhere", "netprobe"))


WORDS = st.sampled_from(
    [
        *("_meta", "hostvars", "hosts", "children", "all", "a", "b", "ip", "ansible_host", "10.0.0.1", "ssh"),
        *("ansible_connection", "ansible_port", "ansible_become", "{{ x }}", "kind", "List", "Node", "items"),
        *("metadata", "name", "labels", "status", "addresses", "type", "InternalIP", "address", "spec"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | WORDS
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


def _read_or_refused(read: Callable[[], Imported]) -> None:
    lines: tuple[str, ...] = ()
    try:
        assert read().hosts
    except InventoryError as error:
        lines = error.lines

    assert all(line.startswith("source: ") and line.isprintable() for line in lines)


@given(DOCUMENTS)
def test_any_document_of_ansible_is_read_or_refused(document: object) -> None:
    """
    Whatever a dynamic inventory has in it.
    """
    _read_or_refused(lambda: ansible.read(document, "source"))
    _read_or_refused(lambda: ansible.read({"_meta": {"hostvars": {"a": document}}}, "source"))
    _read_or_refused(lambda: ansible.read({"_meta": {"hostvars": {"a": {"ip": document}}}}, "source"))
    _read_or_refused(lambda: ansible.read({"_meta": {}, "all": document}, "source"))


@given(DOCUMENTS)
def test_any_document_of_kubectl_is_read_or_refused(document: object) -> None:
    """
    Whatever calls itself a list of nodes.
    """
    _read_or_refused(lambda: kubectl.read(json.dumps(document), "source"))
    nodes = {"kind": "List", "items": [{"kind": "Node", "metadata": {"name": "a"}, "status": document}]}
    _read_or_refused(lambda: kubectl.read(json.dumps(nodes), "source"))


def test_groups_that_contain_each_other_end() -> None:
    """
    A host in a circle of groups has the roles of all of them.
    """
    groups = {
        "etcd": {"children": ["masters"]},
        "masters": {"children": ["etcd"], "hosts": ["a"]},
        "workers": {"hosts": ["b"]},
    }
    variables = {"a": {"ip": "10.0.0.1"}, "b": {"ip": "10.0.0.2"}}
    found = ansible.read({"_meta": {"hostvars": variables}, **groups}, "source")

    assert [(Role.NODE, Role.APISERVER, Role.ETCD), (Role.NODE,)] == [each.host.roles for each in found.hosts]


@pytest.mark.parametrize("source", ["ansible", "kubectl", "hosts"])
def test_a_document_comes_from_stdin_as_well(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    For `-`, and errors call it <stdin>.
    """
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))

    assert 2 == app.status_of(["inventory", "import", source, "-"])
    assert "netprobe: error: <stdin>:1: not UTF-8: byte 0xff\n" == capsys.readouterr().err
