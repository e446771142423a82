"""Requests in, answers out; what an agent of any kind does with the verbs that it has."""

import contextlib
import errno
import gc
import os
import resource
import sys
import time

from netprobe.agent import wire
from netprobe.agent.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reply = Callable[[dict[str, object]], None]

PROTOCOL = 1
_READ_BYTES = 1 << 20
_IDLE_S = 60.0
"""Without a word from the coordinator for so long, the connection is dead: end, rather than stay for ever."""


class Conversation:
    """
    A conversation with the coordinator: reads requests, carries out verbs, writes answers.

    A kind of agent has its `_verbs`, each called with a request and with whom to give the answer, and does in
    `_leave` what is left to do when the conversation is over, however it ended.
    """

    def __init__(self) -> None:
        self._loop = Loop()
        self._lines = wire.Lines()
        self._heard = time.monotonic()
        self._verbs: dict[str, Callable[[dict[str, object], Reply], None]] = {}

    def run(self) -> None:
        """Serve until stdin closes or a verb stops the loop."""
        # On a line of its own, whatever a login shell's profile has printed.
        os.write(1, b"\n")
        wire.send({"hello": "netprobe", "protocol": PROTOCOL, "pid": os.getpid()})
        self._loop.watch(0, lambda _events: self._read())
        self._watchdog()
        try:
            self._loop.run()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Leave nothing behind."""

    def _watchdog(self) -> None:
        idle = time.monotonic() - self._heard
        if idle >= _IDLE_S:
            self._loop.stop()
        else:
            self._loop.later(_IDLE_S - idle, self._watchdog)

    def _read(self) -> None:
        data = os.read(0, _READ_BYTES)
        if not data:
            self._loop.stop()
            return
        self._heard = time.monotonic()
        try:
            lines = self._lines.feed(data)
        except wire.RequestError as error:
            wire.send({"id": None, "error": str(error)})
            return
        for line in lines:
            # An empty line is a sign of life.
            if line.strip():
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        number: object = None
        try:
            request = wire.parse(line)
            number = wire.integer(request.get("id"), "id")
            verb = wire.one_of(request.get("verb"), "verb", tuple(self._verbs))
            self._verbs[verb](request, lambda result: wire.send({"id": number, "ok": result}))
        except wire.RequestError as error:
            wire.send({"id": number, "error": str(error)})
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "OSError")
            wire.send({"id": number, "error": f"{name}: {error.strerror or error}"})
        except Exception as error:  # noqa: BLE001 - a bug here must reach the coordinator, not end the agent
            sys.excepthook(*sys.exc_info())
            wire.send({"id": number, "error": f"the agent failed: {error!r}"})


def serve(kind: "type[Conversation]") -> None:
    """Run an agent on stdin and stdout; a reader that has gone away ends it in silence."""
    # A short life with few cycles: collecting them would cost more than they do.
    gc.disable()
    # Each connection of a session takes a descriptor, and all hosts come at once.
    with contextlib.suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        kind().run()
    except BrokenPipeError:
        sys.exit(1)
