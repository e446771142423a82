"""The whole check as one JSON document."""

from __future__ import annotations

from typing import Final

import msgspec

from netprobe.findings import Check
from netprobe.reports.base import Options
from netprobe.reports.checks.base import CheckReport

SCHEMA: Final = "netprobe.check/1"
"""The version changes when a reader of the old one would go wrong; a new field with a default does not."""


def render(check: Check, _options: Options) -> str:
    """One object; each requirement and each host is a line of its own, for `grep`, `diff` and pagers."""
    encode = msgspec.json.Encoder().encode
    fields = [b'"schema": ' + encode(SCHEMA)]
    for name in check.__struct_fields__:
        value = getattr(check, name)
        is_long = name in ("requirements", "hosts")
        text = b"[\n" + b",\n".join(map(encode, value)) + b"\n]" if is_long else encode(value)
        fields.append(encode(name) + b": " + text)
    return "{\n" + b",\n".join(fields).decode() + "\n}\n"


REPORT = CheckReport(
    name="json",
    extension="json",
    summary="The whole check as one document, with every requirement and every finding.",
    render=render,
)
