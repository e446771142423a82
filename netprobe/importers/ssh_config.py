"""
What `vagrant ssh-config` writes: sections of ssh_config(5), without patterns or conditions.

A line is a key and a value, by blanks or one `=` apart; a value that has blanks may be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from netprobe.importers.found import refuse_lines
from netprobe.inventory.errors import InventoryError, shown
from netprobe.model import Connection

_LINE: Final = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9]*)(?:[ \t]*=[ \t]*|[ \t]+)(?P<value>.*\S)")
_REPEATED: Final = ("identityfile", "certificatefile", "sendenv", "setenv")
_LEFT_OUT: Final[Mapping[str, str]] = {
    "loglevel": "so that ssh says why it fails",
    "forwardagent": "nothing on the hosts needs it",
    "forwardx11": "nothing on the hosts needs it",
    "include": "ssh takes it from files only",
    "sendenv": "nothing on the hosts needs it",
    "setenv": "nothing on the hosts needs it",
    "remotecommand": "the agent is the command",
    "requesttty": "the agent has none",
}


class Section(msgspec.Struct, frozen=True):
    """One `Host` of a configuration: its keys as written, with their values as written, quotes and all."""

    name: str
    values: tuple[tuple[str, str], ...] = ()

    def first(self, key: str) -> str:
        """The first value of a key, without quotes, or ""."""
        return next((unquoted(value) for own, value in self.values if own.lower() == key), "")


def parse(text: str, source: str) -> tuple[Section, ...]:
    """The sections of a configuration; `InventoryError` has a line for each that cannot be understood."""
    problems: list[tuple[int, str]] = []
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for number, written in enumerate(text.split("\n"), start=1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        key, value = (found["key"], found["value"]) if found else ("", "")
        if not found:
            problems.append((number, f"expected a key and its value, got {shown(line)}"))
        elif value.startswith('"') and not re.fullmatch(r'"[^"]*"', value):
            problems.append((number, f"{key}: expected one value in quotes, got {shown(value)}"))
        elif key.lower() == "host":
            if re.search(r"[\s*?!]", unquoted(value)):
                problems.append((number, f"expected the name of one host, got {shown(value)}"))
            sections.append((unquoted(value), []))
        elif key.lower() == "port" and not _is_port(unquoted(value)):
            problems.append((number, f"{key}: expected a port from 1 to 65535, got {shown(value)}"))
        elif not sections:
            problems.append((number, f"expected a Host before {key}"))
        else:
            sections[-1][1].append((key, value))
    refuse_lines(source, problems)
    if not sections:
        raise InventoryError(f"{source}: expected what `vagrant ssh-config` writes; it has no Host")
    return tuple(Section(name, tuple(values)) for name, values in sections)


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def unquoted(value: str) -> str:
    """A value without the quotes around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def connection(section: Section) -> tuple[Connection, tuple[str, ...]]:
    """
    How to reach the host of a section, and what was left out of it.

    The first file with a key is the `identity`; the rest becomes an argument for ssh.
    """
    options: list[str] = []
    left_out: dict[str, str] = {}
    seen: set[str] = set()
    identities = [unquoted(value) for key, value in section.values if key.lower() == "identityfile"]
    for key, value in section.values:
        word = key.lower()
        # ssh takes the first value of a key, but where it collects all of them.
        if word in seen and word not in _REPEATED:
            continue
        seen.add(word)
        if word in _LEFT_OUT:
            left_out[key] = _LEFT_OUT[word]
        elif word not in ("hostname", "user", "port", "identityfile"):
            options.append(f"-o{key}={value}")
    # Not by -o, whose value is read like a line, quotes and all.
    options += [word for identity in identities[1:] for word in ("-i", identity)]
    return Connection(
        type="ssh",
        host=section.first("hostname"),
        user=section.first("user"),
        port=int(section.first("port") or 0),
        identity=identities[0] if identities else "",
        options=tuple(options),
    ), tuple(f"{key} is left out: {why}." for key, why in left_out.items())


def render(sections: Sequence[Section]) -> str:
    """The configuration again, as `ssh -F` reads it."""
    lines = []
    for section in sections:
        lines += [f"Host {section.name}", *(f"  {key} {value}" for key, value in section.values)]
    return "\n".join(lines) + "\n"
