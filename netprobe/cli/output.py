"""Where a result goes: stdout, or a file that is either complete or as it was before."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from netprobe.cli.errors import IO_STATUS, Refused

TO_FILE = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result to FILE, at its end and as a whole, instead of stdout.",
)

TEXT_OR_JSON = ("text", "json")
AS_TEXT_OR_JSON = click.option(
    "--format",
    "format_",
    type=click.Choice(TEXT_OR_JSON),
    help="The output format. [default: what FILE's name ends in, or else text]",
)


class Output:
    """
    The target of a result: a path, or stdout for none.

    Made before a run, so that a target that cannot be written is an error before anything is sent.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with _told(path or Path("stdout"), status=2):
            if path is not None:
                self._try(path)
            elif sys.stdout is None:  # what Python makes of a descriptor that is closed
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it while it is written."""
        return self._path is None and sys.stdout.isatty()

    @property
    def encoding(self) -> str:
        """What its text is encoded in."""
        return "utf-8" if self._path is not None else sys.stdout.encoding or "ascii"

    def write(self, text: str) -> None:
        """Write the whole result. `Refused` when the target fails after all; stdout's reader may be gone."""
        if self._path is None:
            with _told(Path("stdout"), status=IO_STATUS):
                self._print(text)
            return
        with _told(self._path, status=IO_STATUS):
            self._replace(self._path, text.encode())

    @staticmethod
    def _print(text: str) -> None:
        try:
            click.echo(text, nl=False)
            sys.stdout.flush()
        except OSError:
            abandon_stdout()
            raise

    def _try(self, path: Path) -> None:
        existing = _mode_of(path)
        if existing is not None and stat.S_ISDIR(existing):
            raise IsADirectoryError(None, "Is a directory")
        if existing is not None and not os.access(path, os.W_OK):
            raise PermissionError(None, "Permission denied")
        if existing is None or stat.S_ISREG(existing):
            descriptor, beside = _create_beside(path)
            os.close(descriptor)
            beside.unlink()

    def _replace(self, path: Path, content: bytes) -> None:
        existing = _mode_of(path)
        if existing is not None and not stat.S_ISREG(existing):
            path.write_bytes(content)  # a pipe, /dev/null: there is nothing that could be half written
            return
        descriptor, beside = _create_beside(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if existing is not None:
                    os.fchmod(descriptor, stat.S_IMODE(existing))
                    owner = path.stat()
                    with contextlib.suppress(PermissionError):
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
                file.write(content)
            # What a symbolic link points to is replaced, not the link.
            beside.replace(path.resolve())
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def abandon_stdout() -> None:
    """Let go of a stdout that takes no more: the interpreter would flush it once again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _create_beside(path: Path) -> tuple[int, Path]:
    """A new file in the directory of a path, with the permissions that any new file gets."""
    target = path.resolve()
    beside = target.with_name(f".netprobe-{secrets.token_hex(8)}")
    return os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), beside


@contextlib.contextmanager
def _told(path: Path, *, status: int) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Refused(f"cannot write {path}: {reason}", status=status) from None
