"""The example that `netprobe inventory init` writes, against the schema: every key is there, and accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from netprobe.cli import app
from netprobe.cli.inventory import EXAMPLE
from netprobe.inventory import loads
from netprobe.inventory.schema import CONNECTIONS, ConnectionEntry, DefaultsEntry, Document, HostEntry
from netprobe.model import Role

TEXT = EXAMPLE.read_text(encoding="utf-8")
LEFT_OUT = re.compile(r"^( *)#(?=[^ ]|  )", re.MULTILINE)
"""A key that is commented out has no blank behind the `#`, and lines below it have two."""


def written_out(lines: list[str]) -> Iterator[str]:
    """The example with each of the keys written out that are left out, one after the other."""
    starts = [number for number, line in enumerate(lines) if re.match(r" *#[^ ]", line)]
    for start in starts:
        end = start + 1
        while end < len(lines) and re.match(r" *#  ", lines[end]):
            end += 1
        changed = [LEFT_OUT.sub(r"\1", line) for line in lines[start:end]]
        yield "\n".join([*lines[:start], *changed, *lines[end:]])


def test_the_example_is_accepted_as_it_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """
    `inventory check` has nothing to say against what `inventory init` writes.
    """
    path = tmp_path / "hosts.yaml"
    assert 0 == app.status_of(["inventory", "init", "-o", str(path)])
    assert TEXT == path.read_text(encoding="utf-8")
    assert 0 == app.status_of(["inventory", "check", str(path)])
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize("text", list(written_out(TEXT.splitlines())))
def test_every_key_that_is_left_out_can_be_written_out(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By taking the `#` away.
    """
    monkeypatch.setenv("HOME", "/home/ops")
    loads(text, "example")


def test_every_key_is_in_the_example() -> None:
    """
    Of hosts, connections, defaults and the whole; and every role and type of connection.
    """
    document = yaml.safe_load(LEFT_OUT.sub(r"\1", TEXT))
    hosts: list[dict[str, Any]] = document["hosts"]
    connections = [host["connection"] for host in hosts if "connection" in host]

    assert keys(Document) == document.keys()
    assert keys(HostEntry) == {key for host in hosts for key in host}
    # One way to become root is in the defaults, and another one with a host.
    assert keys(DefaultsEntry) - {"become"} == document["defaults"].keys()
    assert keys(ConnectionEntry) == {key for connection in connections for key in connection}
    assert CONNECTIONS.keys() == {connection["type"] for connection in connections}
    assert {role.value for role in Role} == {role for host in hosts for role in host.get("roles", ())}


def keys(kind: type[msgspec.Struct]) -> set[str]:
    """The keys that a mapping of the inventory may have."""
    return set(kind.__struct_fields__)


def test_a_file_that_is_there_is_not_replaced_by_an_example(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    It may be somebody's inventory; with --force it is replaced all the same.
    """
    path = tmp_path / "hosts.yaml"
    path.write_text("mine")

    assert 2 == app.status_of(["inventory", "init", "-o", str(path)])
    assert f"netprobe: error: {path}: it is there already; --force replaces it\n" == capsys.readouterr().err
    assert "mine" == path.read_text()
    assert 0 == app.status_of(["inventory", "init", "--force", "-o", str(path)])
    assert TEXT == path.read_text(encoding="utf-8")
