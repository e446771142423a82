"""Whom a run tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Whom a run tells how far it is."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` steps begins."""

    def advance(self, n: int = 1) -> None:
        """Some steps of the phase are done."""

    def note(self, text: str) -> None:
        """Something happened that the user will want to know."""


class Silent:
    """Tells nobody."""

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""

    def advance(self, n: int = 1) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""
