"""Where the documents come from: files, stdin, and programs that are run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from netprobe.inventory.errors import InventoryError

MAX_BYTES: Final = 1 << 28
"""The node list of a thousand nodes is some 20 MB, for the images that each has."""

LONGEST_S: Final = 120.0
"""Vagrant takes half a minute for a few machines, and dynamic inventories ask clouds."""

_MAX_CHARACTERS: Final = 600


def read(path: Path) -> str:
    """The text of a file, or of stdin for `-`; `InventoryError` where it cannot be read or is no UTF-8."""
    name = called(path)
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InventoryError(f"{name}: cannot read it: {reason}") from None
    if len(content) > MAX_BYTES:
        raise InventoryError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
    return decoded(content, name)


def called(path: Path) -> str:
    """How messages name a file."""
    return "<stdin>" if str(path) == "-" else str(path)


def decoded(content: bytes, name: str) -> str:
    """UTF-8 as text, without the mark that some editors put first."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InventoryError(f"{name}:{line}: not UTF-8: byte 0x{content[error.start]:02x}") from None


def run(
    argv: Sequence[str], *, package: str, fix: str, environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """
    What a program of a package writes to stdout and to stderr, with variables added to its environment.

    `InventoryError` where it cannot be started or fails: what was run, what it said, and the fix. It has no
    stdin, so that one that would ask a question fails instead.
    """
    called_as = f"`{shlex.join(argv)}`"
    try:
        done = subprocess.run(  # noqa: S603 - the programs that the importers name
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LONGEST_S,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError:
        raise InventoryError(
            f"{called_as}: {argv[0]} is not installed here; install {package}, or give its output in a file"
        ) from None
    except subprocess.TimeoutExpired:
        raise InventoryError(f"{called_as}: it did not end within {LONGEST_S:.0f} s; {fix}") from None
    except OSError as error:
        raise InventoryError(f"{called_as}: cannot run it: {error.strerror}") from None
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        raise InventoryError(f"{called_as}: {ending(done.returncode, said)}; {fix}")
    return decoded(done.stdout, f"the output of {called_as}"), said


def ending(status: int, said: str) -> str:
    """How a program ended, and why as it says: the last lines that it wrote, on one line."""
    how = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
    reason = ""
    for line in reversed(said.splitlines()):
        longer = " ".join([*line.split(), *reason.split()])
        if reason and len(longer) > _MAX_CHARACTERS:
            break
        reason = longer
    reason = "".join(character for character in reason[:_MAX_CHARACTERS] if character.isprintable()).rstrip(
        "."
    )
    return f"{how}: {reason}" if reason else how
