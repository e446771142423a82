"""What the user decides about logging in to hosts, for all of them at once."""

from __future__ import annotations

from typing import Final

import msgspec

DEFAULT_FORKS: Final = 50
"""How many agents are started at a time: each start costs CPU on both sides, and sshd refuses floods."""


class Secret:
    """A text that no log, report or traceback shows: it prints as stars, and only `encode` reveals it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def encode(self) -> bytes:
        """The text as it was typed or read: it need not be the locale's."""
        return self._text.encode(errors="surrogateescape")

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

    def conceal(self, data: bytes) -> bytes:
        """What a host has said, without the password where it has repeated it."""
        secret = self.sudo_password.encode() if self.sudo_password else b""
        return data.replace(secret, b"***") if secret else bytes(data)
