"""What is wrong with an inventory, in the user's words: file, line, key, what was expected."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

MAX_ERRORS: Final = 20
"""More than these help nobody at once; the rest is counted."""

KeyPath = tuple[str | int, ...]
"""The way from the top of the document to a value: `("hosts", 2, "addresses")`."""

_SHOWN_CHARACTERS: Final = 60
_LISTED_WORDS: Final = 12


class InventoryError(Exception):
    """
    What the user asked for makes no sense; the message is one line for each problem.

    Nothing was started when it is raised. `lines` are the same lines, apart.
    """

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(map(_one_line, lines))
        super().__init__("\n".join(self.lines))


def _one_line(text: str) -> str:
    """A text with escapes for what does not print: the names in it come from elsewhere."""
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def shown(text: str) -> str:
    """A text in double quotes on one line: escaped where it does not print, cut where it is long."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def key_path(path: KeyPath) -> str:
    """A path as it is written: `hosts[2].addresses`; keys that would not read well are quoted."""
    parts = ""
    for key in path:
        if isinstance(key, int):
            parts += f"[{key}]"
        else:
            parts += ("." if parts else "") + (key if re.fullmatch(r"[\w-]{1,40}", key) else shown(key))
    return parts


def suggestion(word: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown word: the nearest one, or else what there is."""
    words = {each.lower(): each for each in known}
    if near := difflib.get_close_matches(word.lower(), words, n=1):
        return f'did you mean "{words[near[0]]}"?'
    listed = ", ".join(list(words.values())[:_LISTED_WORDS])
    more = len(words) - _LISTED_WORDS
    return f"expected one of {listed}" + (f" and {more} more" if more > 0 else "")


class Place(msgspec.Struct, frozen=True, order=True):
    """A line and a column of the document, both from 1; problems are told in this order."""

    line: int
    column: int = 1


class Problems:
    """The problems of one document, told in the order of the file."""

    def __init__(self, name: str) -> None:
        self._name = name if name.isprintable() else shown(name)
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, path: KeyPath, text: str) -> None:
        """Note that the value at a path is wrong."""
        where = f"{key_path(path)}: " if path else ""
        self._found.append((place, f"{self._name}:{place.line}: {where}{text}"))

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> InventoryError:
        """Everything that was found, as one error."""
        # An aliased value is read as often as it is used, and is wrong once.
        lines = list(dict.fromkeys(line for _, line in sorted(self._found, key=lambda problem: problem[0])))
        more = len(lines) - MAX_ERRORS
        if more > 0:
            lines[MAX_ERRORS:] = [f"{self._name}: and {more} more {'error' if more == 1 else 'errors'}"]
        return InventoryError(*lines)
