"""What a transport is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from netprobe.model import Host


class Transport(msgspec.Struct, frozen=True, kw_only=True):
    """`argv(host, remote)` is the command line that runs the argument vector `remote` on a host."""

    name: str
    argv: Callable[[Host, Sequence[str]], list[str]]


def as_root(host: Host, remote: Sequence[str]) -> list[str]:
    """`remote`, by sudo where the inventory asks for it; `-n` because nobody is there to type a password."""
    return ["sudo", "-n", *remote] if host.sudo else list(remote)
