"""Configuration files of sections and settings, with where each setting is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from netprobe.questions import File, FileList

_YES: Final = frozenset({"1", "yes", "y", "true", "t", "on"})
_NO: Final = frozenset({"0", "no", "n", "false", "f", "off"})


class Setting(NamedTuple):
    """A line `key=value` of a section; `where` is its file and line."""

    section: str
    key: str
    value: str
    where: str


def settings(text: str, path: str, comments: str = "#;") -> Iterator[Setting]:
    """The settings of a file in their order; lines that are none are left out, and so are their comments."""
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in comments:
            continue
        if stripped[0] == "[" and stripped[-1] == "]":
            section = stripped[1:-1]
            continue
        key, equals, value = stripped.partition("=")
        if equals:
            yield Setting(section, key.rstrip(), value.lstrip(), f"{path}:{number}")


def boolean(value: str) -> bool | None:
    """A truth value as systemd and NetworkManager write it, None where it is none."""
    word = value.strip().lower()
    return True if word in _YES else False if word in _NO else None


def unreadable(found: FileList) -> str:
    """Why not all of the files are known, "" where they are. Directories and links to /dev/null are none."""
    if found.more:
        return "more files than are read"
    for file in found.files:
        if file.error not in ("", "EISDIR", "EINVAL"):
            return f"{file.path}: {file.error}"
        if file.cut:
            return f"{file.path}: longer than is read"
    return ""


def unshadowed(files: Iterable[File], directories: Sequence[str]) -> list[File]:
    """
    The files without those for which a later one of the directories has one of the same name.

    One that is a link to /dev/null shadows as well.
    """
    rank = {directory: number for number, directory in enumerate(directories)}
    best: dict[str, int] = {}
    placed = [(rank.get(file.path.rpartition("/")[0], -1), file) for file in files if file.error != "EISDIR"]
    for number, file in placed:
        best[name_of(file.path)] = max(number, best.get(name_of(file.path), -1))
    return [file for number, file in placed if number < 0 or number == best[name_of(file.path)]]


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]
