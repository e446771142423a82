"""What a report of a check is: the one record that each file of this package ends in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from netprobe.findings import Check
from netprobe.reports.base import Options


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    An output format.

    `name` is what `--format` takes, `extension` what a file of it ends in. `render` writes a whole check; the
    text ends with a line end.
    """

    name: str
    extension: str
    summary: str
    render: Callable[[Check, Options], str]
