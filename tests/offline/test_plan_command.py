"""`netprobe plan`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import yaml

from netprobe.cli.app import status_of

HOSTS: Final = """
hosts:
  - name: a
    addresses: [10.0.0.1]
    connection: {host: a.example, user: ops, port: 2222, identity: /keys/a, options: [-o, "ProxyJump gate"]}
    sudo: true
    python: [/opt/python3]
  - {name: b, addresses: [10.0.0.2], connection: {type: local}}
  - name: c
    addresses: [10.0.0.3]
    connection: {type: command, argv: [enter, --token, secret, c]}
    python: [run, python3]
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory of three hosts."""
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a plan may go."""
    return tmp_path / "plan"


def test_a_plan_is_all_that_ansible_needs(
    hosts: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A programme for each host, the play, and the inventory; the next commands are on stdout."""
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])
    out, err = capfd.readouterr()

    assert [
        f"ansible-playbook -i {directory}/inventory.yaml {directory}/playbook.yaml",
        f"netprobe collate {directory}",
    ] == out.splitlines()
    assert f"netprobe: add the connection of c to {directory}/inventory.yaml" in err
    assert {"a.py", "b.py", "c.py"} == {path.name for path in (directory / "programmes").iterdir()}
    (play,) = yaml.safe_load((directory / "playbook.yaml").read_text())
    assert ["a", "b", "c"] == play["hosts"]
    assert {"netprobe"} == set(play["roles"])
    for part in ("tasks", "defaults"):
        assert yaml.safe_load((directory / "roles" / "netprobe" / part / "main.yaml").read_text())


def test_the_inventory_is_that_of_the_hosts(hosts: Path, directory: Path) -> None:
    """As far as Ansible has such connections."""
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])
    written = yaml.safe_load((directory / "inventory.yaml").read_text())["all"]["hosts"]

    assert {
        "ansible_host": "a.example",
        "ansible_user": "ops",
        "ansible_port": 2222,
        "ansible_ssh_private_key_file": "/keys/a",
        "ansible_ssh_extra_args": "-o 'ProxyJump gate'",
        "ansible_python_interpreter": "/opt/python3",
        "netprobe_python": ["/opt/python3"],
        "ansible_become": True,
    } == written["a"]
    assert {"ansible_connection": "local", "ansible_become": False} == written["b"]
    assert {"netprobe_python": ["run", "python3"], "ansible_become": False} == written["c"]


def test_a_plan_has_no_secrets(hosts: Path, directory: Path) -> None:
    """What a connection is told to run is nobody's business but the inventory's."""
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])

    for path in directory.rglob("*"):
        assert path.is_dir() or "secret" not in path.read_text()


def test_an_earlier_plan_is_replaced(hosts: Path, directory: Path) -> None:
    """With its programmes and observations, which belong to it."""
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])
    (directory / "observations").mkdir()
    (directory / "observations" / "a.jsonl").touch()
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp", "--only", "a"])

    assert not (directory / "observations").exists()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("a file", "{directory} is not a directory: name one that is new, or empty"),
        (
            "something else",
            "{directory} is not empty, and has no earlier plan: name a directory that is new, or empty",
        ),
        ("a file above", "cannot write {directory}: Not a directory"),
    ],
)
def test_what_is_there_is_not_overwritten(
    hosts: Path, directory: Path, capfd: pytest.CaptureFixture[str], what: str, error: str
) -> None:
    """Unless it is a plan."""
    if what == "a file":
        directory.touch()
    elif what == "something else":
        directory.mkdir()
        (directory / "plan.json").write_text("{}")
    else:
        (directory.parent / "file").touch()
        directory = directory.parent / "file" / "plan"
    assert 2 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])

    assert f"netprobe: error: {error.format(directory=directory)}\n" == capfd.readouterr().err


def test_a_host_cannot_be_called_as_a_group_of_ansible(
    hosts: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ansible would not read the inventory."""
    hosts.write_text(HOSTS.replace("name: a\n", "name: all\n"))
    assert 2 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])

    told = "netprobe: error: Ansible has a group that is called all: give the host another name\n"
    assert told == capfd.readouterr().err
    assert not directory.exists()


def test_an_inventory_that_is_wrong_is_told_as_always(
    tmp_path: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing is written."""
    (tmp_path / "hosts.yaml").write_text("hosts: []")
    assert 2 == status_of(["plan", str(tmp_path / "hosts.yaml"), "-o", str(directory)])

    assert "expected at least two hosts" in capfd.readouterr().err
    assert not directory.exists()
