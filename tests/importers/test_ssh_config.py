"""What `vagrant ssh-config` writes: read, handed on to ssh, and refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.importers import ssh_config
from netprobe.importers.ssh_config import Section
from netprobe.inventory import InventoryError
from netprobe.model import Connection
from tests.importers.machines import NAMES

SSH_CONFIG = Path(__file__).parent / "sources" / "vagrant-ssh-config"
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"#='), min_size=1)
VALUES = WORDS | st.lists(WORDS, min_size=1, max_size=3).map(lambda words: f'"{" ".join(words)}"')
KEYS = st.sampled_from(["HostName", "IdentityFile", "ProxyCommand", "UserKnownHostsFile", "LogLevel"])
SECTIONS = st.builds(Section, NAMES, st.lists(st.tuples(KEYS, VALUES), max_size=6).map(tuple))


@given(st.lists(SECTIONS, min_size=1, max_size=4).map(tuple))
def test_what_is_written_is_read_again(sections: tuple[Section, ...]) -> None:
    """
    Keys and values come back as they stand there, quotes and all.
    """
    assert sections == ssh_config.parse(ssh_config.render(sections), "config")


@given(SECTIONS)
def test_every_key_is_used_or_said_to_be_left_out(section: Section) -> None:
    """
    All files with keys and the first value of each other key come to ssh; what does not is a remark.
    """
    connection, remarks = ssh_config.connection(section)
    files = [ssh_config.unquoted(value) for key, value in section.values if key == "IdentityFile"]
    handed = [connection.identity] if connection.identity else []
    handed += [
        file for word, file in zip(connection.options, connection.options[1:], strict=False) if word == "-i"
    ]

    assert files == handed
    first = dict(reversed(section.values))
    for key in first.keys() - {"HostName", "IdentityFile", "LogLevel"}:
        assert f"-o{key}={first[key]}" in connection.options
    assert ("LogLevel" in first) is any("LogLevel" in remark for remark in remarks)


@given(st.text(st.characters(max_codepoint=0x2FFF) | st.sampled_from(' \n"=#HostPort1'), max_size=80))
def test_no_configuration_brings_it_down(text: str) -> None:
    """
    Whatever stands there is read or told, a line for each.
    """
    lines: tuple[str, ...] = ()
    try:
        assert all(map(ssh_config.connection, ssh_config.parse(text, "config")))
    except InventoryError as error:
        lines = error.lines

    assert all(line.startswith("config:") and line.isprintable() for line in lines)


def test_a_section_becomes_a_connection() -> None:
    """
    Quotes around blanks are taken away where ssh gets the value as it is, and left where it reads a line.
    """
    text = """
Host default
  HostName 127.0.0.1
  User "vagrant"
  Port=2222
  UserKnownHostsFile "/tmp/known hosts"
  IdentityFile "/home/me/my keys/id"
  IdentityFile /etc/key
  ForwardAgent yes
"""
    (section,) = ssh_config.parse(text, "config")

    assert ssh_config.connection(section) == (
        Connection(
            type="ssh",
            host="127.0.0.1",
            user="vagrant",
            port=2222,
            identity="/home/me/my keys/id",
            options=('-oUserKnownHostsFile="/tmp/known hosts"', "-i", "/etc/key"),
        ),
        ("ForwardAgent is left out: nothing on the hosts needs it.",),
    )


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh")
def test_ssh_reads_the_same_from_the_arguments_as_from_the_file(tmp_path: Path) -> None:
    """
    `ssh -G` comes to one configuration by both ways, but for what was left out.
    """
    text = SSH_CONFIG.read_text(encoding="utf-8").replace("/src/netprobe", str(tmp_path))
    path = tmp_path / "config"
    path.write_text(text)
    for section in ssh_config.parse(text, "config"):
        connection, _ = ssh_config.connection(section)
        key = Path(connection.identity)  # ssh passes over one that is not there
        key.parent.mkdir(parents=True)
        key.touch()
        argv = ["-F", "none", "-l", connection.user, "-p", str(connection.port), "-i", connection.identity]
        by_arguments = _settings(*argv, *connection.options, connection.host)
        by_file = _settings("-F", str(path), section.name)

        differ = {
            key for key in by_file.keys() | by_arguments.keys() if by_file.get(key) != by_arguments.get(key)
        }
        assert {"loglevel"} == differ - {"host"}


def _settings(*arguments: str) -> dict[str, str]:
    done = subprocess.run(["ssh", "-G", *arguments], capture_output=True, text=True, check=True)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "config: expected what `vagrant ssh-config` writes; it has no Host"),
        ("Host a\n  Port 0\n", 'config:2: Port: expected a port from 1 to 65535, got "0"'),
        ("Host *\n  User a\n", 'config:1: expected the name of one host, got "*"'),
        ("Host a b\n", 'config:1: expected the name of one host, got "a b"'),
        ('Host a\n  IdentityFile "b\n', 'config:2: IdentityFile: expected one value in quotes, got "\\"b"'),
        ("User a\n", "config:1: expected a Host before User"),
        ("Host a\nMatch\n", 'config:2: expected a key and its value, got "Match"'),
    ],
)
def test_what_is_no_such_configuration_is_refused(text: str, expected: str) -> None:
    """
    With the line and what was expected.
    """
    with pytest.raises(InventoryError) as caught:
        ssh_config.parse(text, "config")

    assert expected == str(caught.value)
