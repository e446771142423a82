"""What the user decides about logging in to hosts, for all of them at once."""

from __future__ import annotations

from typing import Final

import msgspec

DEFAULT_FORKS: Final = 50
"""How many agents are started at a time: each start costs CPU on both sides, and sshd refuses floods."""


class Secret:
    """A text that no log, report or traceback shows: it prints as stars."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def out_of(self, text: str) -> str:
        """Another text, without the secret where somebody has repeated it."""
        return text.replace(self._text, repr(self)) if self._text else text

    def __repr__(self) -> str:
        return "***"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to log in; no part of a run's record.

    `forks` agents start at a time; `accept_new_host_keys` lets ssh add host keys that it has never seen;
    `sudo_password` is what sudo is told where it asks.
    """

    forks: int = DEFAULT_FORKS
    accept_new_host_keys: bool = False
    sudo_password: Secret | None = None
