"""What is told on stderr when a command cannot do what was asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import click

IO_STATUS: Final = 74  # EX_IOERR of sysexits.h: the run is done, and its result could not be written


class Refused(click.ClickException):
    """What was asked cannot be done; `lines` say why, each for itself, `status` is how the command ends."""

    def __init__(self, *lines: str, status: int = 2) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.status = status


def tell(*lines: str) -> None:
    """Write lines to stderr in the form that all errors have."""
    for line in lines:
        click.echo(f"netprobe: error: {line}", file=sys.stderr)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what the inventory says about mistakes into a `Refused`."""
    from netprobe.inventory import InventoryError

    try:
        yield
    except InventoryError as error:
        raise Refused(*error.lines) from None
