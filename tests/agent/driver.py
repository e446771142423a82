"""
Agents to talk to: the real program in a real interpreter, asked in plain JSON.

Nothing of the coordinator stands between a test and the agent. What a test changes of the agent (a constant
that would take two minutes to show) is changed in the program that is sent, by statements that run before it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from netprobe import bundle
from netprobe.lab import Lab

TIMEOUT_S: Final = 10.0
"""For what an agent does at once, on a machine that may be busy."""

VERSIONS: Final = tuple(f"3.{minor}" for minor in range(6, 14))
"""The Pythons that the agent runs on."""


class RefusedError(Exception):
    """An agent's error answer."""


def program(first: str = "", name: str = "main") -> bytes:
    """The agent as it is streamed; `first` are statements that run between its import and its start."""
    if not first:
        return bundle.stream(name)
    source = zlib.decompress(bundle.stream(name)[bundle.LENGTH_DIGITS :])
    main = f"package.{name}.main()\n".encode()
    assert source.endswith(main)
    changed = zlib.compress(source[: -len(main)] + first.encode() + b"\n" + main)
    return str(len(changed)).zfill(bundle.LENGTH_DIGITS).encode() + changed


def entering(lab: Lab, host: str) -> list[str]:
    """The words that run a command on a host of a lab."""
    return ["nsenter", f"--net=/run/netns/{lab.hosts[host].namespace}", "--"]


class Agent:
    """
    One agent process, for as long as a `with` block lasts.

    `ask` waits for the answer; `send` and `answer` do the two halves. At the end its stdin closes, and it has
    to end by itself, with nothing on its stderr but what `may_complain` allows.
    """

    def __init__(
        self,
        *,
        prefix: Sequence[str] = (),
        python: str = sys.executable,
        first: str = "",
        name: str = "main",
        may_complain: bool = False,
    ) -> None:
        self._argv = [*prefix, *bundle.command([python])]
        self._program = program(first, name)
        self._may_complain = may_complain
        self._pending = b""
        self._numbers = 0
        self._answers: dict[object, dict[str, Any]] = {}
        self.hello: dict[str, Any] = {}

    @classmethod
    def on(cls, lab: Lab, host: str, **options: Any) -> Agent:  # noqa: ANN401
        """An agent on a host of a lab."""
        return cls(prefix=entering(lab, host), **options)

    def __enter__(self) -> Agent:  # noqa: PYI034 (Self is Python 3.11's)
        self._stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        try:
            self.write(self._program)
            self.hello = self.line()
        except BaseException:
            self._end(is_failing=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(is_failing=kind is not None)

    def _end(self, *, is_failing: bool) -> None:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        try:
            self.process.wait(0.0 if is_failing else TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            if not is_failing:
                raise
        finally:
            stdout.close()
            complaints = self.complaints()
            self._stderr.close()
        assert is_failing or self._may_complain or not complaints, complaints

    def complaints(self) -> str:
        """What is on its stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    @property
    def pid(self) -> int:
        """The process's number, as it says itself."""
        return int(self.hello["pid"])

    def write(self, data: bytes) -> None:
        """Write as many bytes, whatever they are."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(data)
        stdin.flush()

    def line(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The next line that it writes; `EOFError` where it ended, `TimeoutError` where none comes."""
        deadline = time.monotonic() + timeout_s
        stdout = self.process.stdout
        assert stdout is not None
        while b"\n" not in self._pending:
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"nothing within {timeout_s:g} s; on stderr: {self.complaints()!r}")
            data = os.read(stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError(f"the agent ended; on stderr: {self.complaints()!r}")
            self._pending += data
        line, _newline, self._pending = self._pending.partition(b"\n")
        if not line or line == bundle.AT_INTERPRETER.encode():
            return self.line(timeout_s)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def send(self, verb: str, fields: msgspec.Struct | None = None, /, **more: object) -> int:
        """Ask, and do not wait; the number of the request."""
        self._numbers += 1
        request: dict[str, object] = {} if fields is None else msgspec.to_builtins(fields)
        request |= more
        self.write(json.dumps({**request, "id": self._numbers, "verb": verb}).encode() + b"\n")
        return self._numbers

    def answer(self, number: int, timeout_s: float = TIMEOUT_S) -> Any:  # noqa: ANN401
        """The result of a request that was sent; `RefusedError` where the answer is an error."""
        while number not in self._answers:
            found = self.line(timeout_s)
            assert found.get("id") is not None, found
            self._answers[found["id"]] = found
        found = self._answers.pop(number)
        if "ok" not in found:
            raise RefusedError(found["error"])
        return found["ok"]

    def ask(
        self,
        verb: str,
        fields: msgspec.Struct | None = None,
        /,
        *,
        timeout_s: float = TIMEOUT_S,
        **more: object,
    ) -> Any:  # noqa: ANN401
        """Ask, and wait for the result."""
        return self.answer(self.send(verb, fields, **more), timeout_s)


@cache
def interpreters() -> dict[str, str]:
    """The interpreters that there are of those that are promised, by version: pyenv's, and the PATH's."""
    roots = {Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser(), Path("~/.pyenv").expanduser()}
    # pyenv's own first: what it puts into the PATH is a shell script that asks which one is meant.
    directories = [path for root in sorted(roots) for path in sorted(root.glob("versions/3.*/bin"))]
    directories += [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    found: dict[str, str] = {}
    for version in VERSIONS:
        candidates = (directory / f"python{version}" for directory in directories)
        runs = next((str(path) for path in candidates if path.is_file() and _runs(path, version)), None)
        if runs is not None:
            found[version] = runs
    return found


def _runs(path: Path, version: str) -> bool:
    """Whether it is what it is called: a version manager's shim is there also for what is not installed."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run(
        [path, "-I", "-S", "-c", program], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    return ran.returncode == 0 and ran.stdout.strip() == version


def only(values: Iterable[Any]) -> Any:  # noqa: ANN401
    """The one value that there is."""
    (value,) = values
    return value
