"""What a transport is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from netprobe.access import Access
from netprobe.model import Host


def _nothing(_host: Host) -> tuple[str, ...]:
    return ()


class NoPlaceError(Exception):
    """No place to run an agent could be made, or taken away; `said` is what was said of that, in lines."""

    def __init__(self, reason: str, said: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.said = tuple(said)


class Transport(msgspec.Struct, frozen=True, kw_only=True):
    """
    A way to reach a host.

    `argv(host, remote, access)` is the command line that runs the argument vector `remote` on a host, with
    its stdin and stdout connected. `within(host)` is the command that an agent must be run by there, as root
    where the inventory asks for that. Where a place to run it must be made first, `arrange(host)` makes it
    and returns the host whose connection leads there, and `dismiss` takes that away; both raise
    `NoPlaceError` where they cannot.
    """

    name: str
    argv: Callable[[Host, Sequence[str], Access], list[str]]
    within: Callable[[Host], Sequence[str]] = _nothing
    arrange: Callable[[Host], Awaitable[Host]] | None = None
    dismiss: Callable[[Host], Awaitable[None]] | None = None
