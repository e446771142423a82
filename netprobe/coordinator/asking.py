"""Whom a run asks: agents that answer at once, or a plan that is carried out later and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

_T = TypeVar("_T")


class Asked(Protocol):
    """
    The hosts of a run.

    `lost` says why a host takes no further part. `names` are those that can be asked.
    """

    lost: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The hosts that can be asked."""

    async def ask(
        self, verb: str, requests: Mapping[str, msgspec.Struct], kind: type[_T], timeout_s: float
    ) -> dict[str, _T]:
        """Ask several hosts at once. The answers of those that gave one; the others are lost."""
