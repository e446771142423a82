"""
The verb `inspect`: many questions about the host, each answered by a result or by an errno's name.

They are carried out by a child process, in their order but for this: what is asked of the host itself comes
before the child leaves the host's network namespace for one of its own. A question that the child does not
survive, or at which it hangs, has that for its answer, and another child goes on with the next one.
"""

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time

from netprobe.agent import fetch, sights, throwaway, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from netprobe.agent.loop import Loop

_READ_BYTES = 1 << 20
_MAX_QUESTIONS = 2000
_ALONE_S = 4.0
"""For one question; a kernel that has to load a module for it takes up to a second."""
_REAP_S = 0.02


class Inspection:
    """One request: `done` is called with the answers, in the order of the questions."""

    def __init__(
        self,
        loop: "Loop",
        request: "dict[str, object]",
        done: "Callable[[dict[str, object]], None]",
    ) -> None:
        questions = [
            wire.fields(each, "questions") for each in wire.items(request.get("questions"), "questions")
        ]
        if len(questions) > _MAX_QUESTIONS:
            raise wire.RequestError(f"questions: {_MAX_QUESTIONS} at most")
        kinds = [wire.one_of(each.get("kind"), "questions.kind", tuple(_KINDS)) for each in questions]
        self._questions = questions
        self._root = sights.Root(wire.text(request.get("root"), "root"))
        # What is encoded elsewhere, for a machine of the other kind, the kernel would misunderstand.
        self._same_order = wire.text(request.get("order"), "order") == sys.byteorder
        self._within_s = wire.number(request.get("within"), "within", 0.1, 60)
        self._loop = loop
        self._done = done
        self._began = time.time()
        self._answers: dict[int, dict[str, object]] = {}
        numbers = range(len(questions))
        self._left = sorted(numbers, key=lambda number: (kinds[number] in _THERE, kinds[number] == "act"))
        self._pid = 0
        self._pipe = -1
        self._buffer = b""
        self._turn = 0
        self._is_late = False
        loop.later(self._within_s, self._expire)
        self._next_child()

    def end(self) -> None:
        """Kill the child that still works, if any."""
        if self._pid:
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _next_child(self) -> None:
        try:
            reading, writing = os.pipe()
            pid = os.fork()
        except OSError as error:
            # No room for another process.
            self._finish(throwaway.name(error.errno or 0))
            return
        if not pid:
            self._be_child(reading, writing)
        os.close(writing)
        os.set_blocking(reading, False)
        self._pid, self._pipe, self._buffer = pid, reading, b""
        self._loop.watch(reading, lambda _events: self._read(), select.EPOLLIN)
        self._wait_for_next()

    def _wait_for_next(self) -> None:
        self._turn += 1
        turn = self._turn
        self._loop.later(_ALONE_S, lambda: self._hangs(turn))

    def _hangs(self, turn: int) -> None:
        if turn == self._turn and self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def _expire(self) -> None:
        self._is_late = True
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            self._reap()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._answers[self._left.pop(0)] = json.loads(line.decode())
            self._wait_for_next()

    def _reap(self) -> None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            # It has closed the pipe, and is about to end; or it waits in the kernel, where nothing kills it.
            self._loop.later(_REAP_S, self._reap)
            return
        self._pid = 0
        self._turn += 1
        if self._left and not self._is_late:
            # The one that it was about is the one that it died of.
            self._answers[self._left.pop(0)] = {"error": _cause(status)}
        if self._left and not self._is_late:
            self._next_child()
            return
        self._finish("ETIME")

    def _finish(self, cause: str) -> None:
        """Give the answers; what is left gets this cause."""
        for number in self._left:
            self._answers[number] = {"error": cause}
        self._left = []
        answers = [self._answers[number] for number in range(len(self._questions))]
        self._done({"answers": answers, "began": self._began, "ended": time.time()})

    def _be_child(self, reading: int, writing: int) -> "NoReturn":
        """Answer what is left, and end; nothing of the agent goes on in this process."""
        try:
            os.close(reading)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # Where the agent is killed, nobody is left to kill this one.
            signal.alarm(int(self._within_s) + 1)
            child = _Child(self._root, self._same_order)
            for number in self._left:
                line = (
                    json.dumps(child.answer(self._questions[number]), separators=(",", ":")).encode() + b"\n"
                )
                while line:
                    line = line[os.write(writing, line) :]
        except BaseException:  # noqa: BLE001 - this process must not go on as a second agent
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)


class _Child:
    """Who answers: leaves the host's network namespace before the first question that is not about that."""

    def __init__(self, root: sights.Root, same_order: bool) -> None:  # noqa: FBT001 - as the request has it
        self._root = root
        self._same_order = same_order
        self._away = ""
        self._is_away = False

    def answer(self, question: "dict[str, object]") -> "dict[str, object]":
        """The answer as it goes to the coordinator: `ok`, or `error`; `namespace` where there is none."""
        kind = str(question["kind"])
        if kind in _THERE:
            self._leave()
            if self._away:
                return {"error": self._away, "namespace": True}
        if kind in _ENCODED and not self._same_order:
            return {"error": "ENOSYS: the other byte order"}
        try:
            return {"ok": _KINDS[kind](question, self._root)}
        except OSError as error:
            return {"error": throwaway.name(error.errno or 0)}
        except wire.RequestError as error:
            return {"error": f"EINVAL: {error}"}
        except (ValueError, OverflowError, AttributeError, ImportError) as error:
            # A number that this Python, or its C library, has no room for, or a function that it lacks.
            return {"error": f"ENOSYS: {error}"}

    def _leave(self) -> None:
        if self._is_away:
            return
        self._is_away = True
        try:
            throwaway.unshare(throwaway.CLONE_NEWNET)
        except OSError as error:
            self._away = throwaway.name(error.errno or 0)
        except (AttributeError, ImportError):
            self._away = "ENOSYS: this Python has no ctypes"


_HERE: "dict[str, Callable[[dict[str, object], sights.Root], object]]" = {
    "system": lambda _question, _root: sights.system(),
    "files": sights.files,
    "places": sights.places,
    "processes": lambda question, _root: sights.processes(question),
    "named": lambda question, _root: sights.named(question),
    "network": lambda _question, _root: sights.network(),
    "fetch": lambda question, _root: fetch.fetch(question),
    "holders": lambda question, _root: sights.holders(question),
    "legacy-tables": lambda _question, _root: sights.legacy_tables(),
    "look": lambda question, _root: throwaway.conversation(question, may_change=False),
    "act": lambda question, _root: throwaway.act(question),
}
"""How to answer what is asked of the host itself."""
_THERE: "dict[str, Callable[[dict[str, object], sights.Root], object]]" = {
    "netlink": lambda question, _root: throwaway.conversation(question, may_change=True),
    "getsockopt": lambda question, _root: throwaway.getsockopt(question),
    "socket": lambda question, _root: throwaway.socket_opens(question),
    "namespace": lambda _question, _root: "",
}
"""How to answer what is asked in the throwaway network namespace."""
_KINDS = dict(_HERE, **_THERE)
_ENCODED = ("look", "netlink")


def _cause(status: int) -> str:
    """What ended a child."""
    if os.WIFSIGNALED(status):
        with contextlib.suppress(ValueError):
            return signal.Signals(os.WTERMSIG(status)).name
    return errno.errorcode[errno.EPROTO]
