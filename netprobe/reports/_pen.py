"""How text gets onto a terminal: characters that it has, lines that fit, colour where it is wanted."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Final

import click

from netprobe.model import Verdict
from netprobe.reports.base import Options, printable

_ASCII: Final = str.maketrans({"→": "->", "↔": "<->", "…": "...", "·": "."})

COLORS: Final[Mapping[Verdict, str]] = {
    Verdict.OPEN: "green",
    Verdict.CLOSED: "yellow",
    Verdict.UNTESTED: "yellow",
    Verdict.DEGRADED: "magenta",
    Verdict.INTERCEPTED: "magenta",
    Verdict.REJECTED: "red",
    Verdict.UNREACHABLE: "red",
    Verdict.FILTERED: "red",
}


class Pen:
    """Writes for one terminal."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.width = max(options.width, 40)

    def text(self, text: str) -> str:
        """A text in one line, of characters that the terminal has."""
        text = printable(text)
        if self._options.unicode or text.isascii():
            return text
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")

    def bold(self, text: str) -> str:
        """A heading."""
        return click.style(text, bold=True) if self._options.color else text

    def faint(self, text: str) -> str:
        """What is there to be looked up, not to be read."""
        return click.style(text, dim=True) if self._options.color else text

    def verdict(self, text: str, verdict: Verdict) -> str:
        """A text in a verdict's colour; good news are not printed bold."""
        if not self._options.color:
            return text
        return click.style(text, fg=COLORS[verdict], bold=verdict.is_blocked or None)

    def wrap(self, text: str, indent: str = "", hanging: str = "") -> list[str]:
        """Lines of at most the terminal's width; names are not torn apart, so that they can be copied."""
        return textwrap.wrap(
            self.text(text),
            self.width,
            initial_indent=indent,
            subsequent_indent=indent + hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
