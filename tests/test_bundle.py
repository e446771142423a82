"""The agent as it travels: small, quoted once, and nothing before it has arrived whole."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zlib
from typing import Final

import pytest

from netprobe import bundle

TIMEOUT_S: Final = 10.0
MOST_BYTES: Final = 32 << 10
"""What a start costs on the wire, for each host. It is some 21 KiB as this is written."""


def _run(data: bytes, *argv: str) -> subprocess.CompletedProcess[bytes]:
    command = argv or bundle.command([sys.executable])
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=TIMEOUT_S)


@pytest.mark.parametrize("program", bundle._PROGRAMS)
def test_it_is_small(program: str) -> None:
    """A thousand hosts are some 30 MiB, in a run that takes longer than that."""
    assert len(bundle.stream(program)) <= MOST_BYTES


def test_its_length_comes_first() -> None:
    """In digits, as many as the first stage reads; what follows are the requests."""
    data = bundle.stream()

    assert len(data) == bundle.LENGTH_DIGITS + int(data[: bundle.LENGTH_DIGITS])
    assert b"netprobe.agent" in zlib.decompress(data[bundle.LENGTH_DIGITS :])


def test_the_command_is_one_line_without_the_hosts_own_settings() -> None:
    """No newline for a shell to stumble over; -I and -S keep the environment and the site modules out."""
    argv = bundle.command(["nice", "python3"])

    assert ["nice", "python3", "-I", "-S", "-c"] == argv[:-1]
    assert "\n" not in argv[-1]


def test_it_goes_through_a_shell() -> None:
    """As ssh hands it over: quoted once, and put together again by the login shell."""
    ran = _run(bundle.stream(), "sh", "-c", shlex.join(bundle.command([sys.executable])))

    assert (0, b"") == (ran.returncode, ran.stderr)
    assert 1 == ran.stdout.count(b'"hello"')


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 1000, -1])
def test_one_that_arrives_in_part_never_starts(kept: int) -> None:
    """A connection that breaks on the way leaves a status, and nothing that ran."""
    ran = _run(bundle.stream()[:kept])

    assert (3, b"") == (ran.returncode, ran.stderr)
    assert bundle.AT_INTERPRETER == ran.stdout.decode().strip()


def test_one_that_was_changed_on_the_way_never_starts() -> None:
    """The checksum of what was compressed does not fit."""
    data = bytearray(bundle.stream())
    data[len(data) // 2] ^= 0xFF
    ran = _run(bytes(data))

    assert 1 == ran.returncode
    assert bundle.AT_INTERPRETER == ran.stdout.decode().strip()
    assert b"zlib.error" in ran.stderr
