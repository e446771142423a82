"""The line that a host's shell runs: every word arrives as it is, whichever shells it goes through."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netprobe import launch
from netprobe.access import Access, Secret
from netprobe.model import Connection, Host

TIMEOUT_S: Final = 10
PRINTS: Final = ("/bin/sh", "-c", 'printf "%s\\0" "$@"', "sh")
WORDS: Final = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
        st.text(" \t\n\r'\"`$!\\;&|<>(){}[]*?~#%^=-:é", max_size=12),
    ),
    max_size=4,
)
SHELLS: Final = ("sh", "dash", "bash", "busybox", "zsh", "fish", "tcsh", "csh")


def _host(python: tuple[str, ...], **fields: object) -> Host:
    connection = Connection(type="local")
    return Host(name="a", addresses=("10.0.0.1",), connection=connection, python=python, **fields)  # type: ignore[arg-type]


def _run(argv: list[str], line: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, input=line, capture_output=True, check=False, timeout=TIMEOUT_S)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=40)
@given(words=WORDS)
@example(words=["!!", "a\nb\n", "\n", "\\", "", "'", '"$HOME"', "~", "*"])
def test_words_reach_the_program_unchanged(shell: str, words: list[str]) -> None:
    """Through the login shell, and through the shell that reads the line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    login = [program, *(["sh"] if shell == "busybox" else []), "-c"]
    done = _run([*login, shlex.join(["exec", *launch.SHELL])], launch.line(_host((*PRINTS, *words))))

    assert [b"", launch.AT_SHELL.encode()] == done.stdout.split(b"\n", 2)[:2], done.stderr
    assert [word.encode() for word in words] == done.stdout.split(b"\n", 2)[2].split(b"\0")[: len(words)]


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "zsh"])
@settings(max_examples=40)
@given(words=WORDS)
def test_words_are_unchanged_by_any_sh(shell: str, words: list[str]) -> None:
    """`/bin/sh` is one of these."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    argv = [program, *(["sh"] if shell == "busybox" else []), *launch.SHELL[1:]]
    done = _run(argv, launch.line(_host((*PRINTS, *words))))

    assert [word.encode() for word in words] == done.stdout.split(b"\n", 2)[2].split(b"\0")[: len(words)]


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_nothing_of_the_line_runs_as_a_script(shell: str, tmp_path: Path) -> None:
    """A shell that takes it for one, because a profile has started it in the place of ours, runs nothing."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    path = tmp_path / "it-ran"
    done = _run([program], launch.line(_host(("sh", "-c", 'echo yes >"$0"', str(path)))))

    assert b"" == done.stdout
    assert not path.exists()


@given(st.binary(max_size=300).filter(lambda data: not data.startswith(launch.KEYWORD.encode())))
@settings(max_examples=40)
def test_what_is_not_our_line_is_not_run(data: bytes) -> None:
    """It is told that it did not come."""
    done = _run(list(launch.SHELL), data.replace(b"\0", b"") + b"\n")

    assert launch.UNREAD.encode() + b"\n" == done.stdout


def test_the_password_is_in_no_line() -> None:
    """Only the question that sudo is to ask; without a password it must not ask."""
    access = Access(sudo_password=Secret("open sesame"))
    host = _host(("python3",), sudo=True)

    assert b"exec sudo -S -p 'a question:' -- python3 " in launch.line(host, (), access, "a question:")
    assert b"sesame" not in launch.line(host, (), access, "a question:")
    assert b"exec sudo -n -- python3 " in launch.line(host)
