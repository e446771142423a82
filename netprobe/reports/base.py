"""What a report is: the one record that each file of this package ends in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

import msgspec

from netprobe.model import Run


class ReportError(Exception):
    """A document that cannot be read; its text is one line for the user."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to write a report; each format takes what concerns it.

    `width` is that of the terminal in columns. Without `unicode` nothing but ASCII is written. `verbose` adds
    every cell with its detail, and lists that are otherwise cut short.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
    verbose: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """
    An output format.

    `name` is what `--format` takes, `extension` what a file of it ends in. `render` writes a whole run; the
    text ends with a line end.
    """

    name: str
    extension: str
    summary: str
    render: Callable[[Run, Options], str]


def printable(text: str) -> str:
    r"""
    A text on one line that no terminal takes for a command.

    What a host says ends up here: line breaks become spaces, other control and format characters escapes
    (`\x1b`), among them those that turn the direction of writing.
    """
    if text.isprintable():
        return text
    text = " ".join(text.split())
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def when(text: str) -> datetime:
    """Read an ISO 8601 time, UTC where it does not say otherwise; `ValueError` where it is none."""
    # Python 3.10 does not know the Z.
    time = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
