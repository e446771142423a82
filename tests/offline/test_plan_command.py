"""`netprobe plan`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
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
    assert "linear" == play["strategy"]
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
        "ansible_ssh_common_args": "-o 'ProxyJump gate'",
        "ansible_python_interpreter": "/opt/python3",
        "netprobe_python": ["/opt/python3"],
        "ansible_become": True,
    } == written["a"]
    assert {"ansible_connection": "local", "ansible_become": False} == written["b"]
    assert {"netprobe_python": ["run", "python3"], "ansible_become": False} == written["c"]


ODD: Final = """
hosts:
  - {name: a, addresses: [10.0.0.1], become: [/usr/bin/doas, -n], connection: {user: "{{6*7}}"}}
  - {name: b, addresses: [10.0.0.2], become: [pkexec], python: [run, --as, "{% raw %}", python3]}
"""


@pytest.mark.skipif(not shutil.which("ansible-inventory"), reason="no ansible-inventory")
def test_what_looks_like_a_template_is_none_to_ansible(
    hosts: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Texts reach Ansible as they are; a command that makes root does so under Ansible's name for it."""
    hosts.write_text(ODD)
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])
    assert f"add the ansible_become_method of b to {directory}/inventory.yaml" in capfd.readouterr().err
    argv = ["ansible-inventory", "-i", str(directory / "inventory.yaml"), "--list"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    variables = json.loads(done.stdout)["_meta"]["hostvars"]

    assert {"__ansible_unsafe": "{{6*7}}"} == variables["a"]["ansible_user"]
    assert "community.general.doas" == variables["a"]["ansible_become_method"]
    assert ["run", "--as", {"__ansible_unsafe": "{% raw %}"}, "python3"] == variables["b"]["netprobe_python"]
    assert "ansible_become_method" not in variables["b"]


def test_a_plan_is_its_makers_alone(hosts: Path, directory: Path) -> None:
    """It has the key of its packets; of a directory that was there nothing but the plan is replaced."""
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])
    own = directory / "roles" / "own"
    own.mkdir()
    assert 0 == status_of(["plan", str(hosts), "-o", str(directory), "--probe", "bgp"])

    assert 0o700 == directory.stat().st_mode & 0o777
    assert own.is_dir()


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
