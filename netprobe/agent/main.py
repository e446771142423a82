"""Requests in, answers out: the agent's verbs."""

import contextlib
import errno
import gc
import os
import resource
import socket
import sys
import time

from netprobe.agent import conntrack, counters, facts, wire
from netprobe.agent.connect import Connect
from netprobe.agent.fire import Fire
from netprobe.agent.inspection import Inspection
from netprobe.agent.listeners import Listeners
from netprobe.agent.loop import Loop
from netprobe.agent.taps import Taps
from netprobe.agent.templates import Template
from netprobe.agent.unfinished import Unfinished
from netprobe.agent.ways import Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL = 1
_READ_BYTES = 1 << 20
_IDLE_S = 60.0
"""Without a word from the coordinator for so long, the connection is dead: end, rather than stay for ever."""
_CLAIM = "\0netprobe"
_CLAIM_TRIES, _CLAIM_PAUSE_S = 10, 0.05
_IN_FLIGHT_S = 0.2
"""How long the packets of a run that was cut off may still arrive; its other agents end meanwhile."""


class Agent:
    """A conversation with the coordinator: reads requests, carries out verbs, writes answers."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._lines = wire.Lines()
        self._taps = Taps(self._loop)
        self._listeners = Listeners(self._loop)
        self._entries = conntrack.Entries()
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._is_claimed = False
        self._templates: list[Template] = []
        self._nonce = 0
        self._ways = Ways()
        self._unfinished = Unfinished()
        self._inspections: list[Inspection] = []
        self._heard = time.monotonic()
        self._verbs: dict[str, Callable[[dict[str, object], Callable[[dict[str, object]], None]], None]] = {
            "facts": lambda request, reply: reply(dict(facts.facts(request), alone=self._is_alone())),
            "arm": self._arm,
            "listen": lambda request, reply: reply(self._listeners.listen(request, self._templates)),
            "fire": self._fire,
            "connect": self._connect,
            "conntrack": lambda request, reply: reply(self._entries.conntrack(request)),
            "counters": lambda _request, reply: reply(counters.counters()),
            "inspect": self._inspect,
            "collect": self._collect,
            "bye": self._bye,
        }

    def run(self) -> None:
        """Serve until stdin closes or `bye`."""
        # On a line of its own, whatever a login shell's profile has printed.
        os.write(1, b"\n")
        wire.send({"hello": "netprobe", "protocol": PROTOCOL, "pid": os.getpid()})
        self._loop.watch(0, lambda _events: self._read())
        self._watchdog()
        try:
            self._loop.run()
        finally:
            for inspection in self._inspections:
                inspection.end()
            # After a `bye` there is nothing of either.
            self._unfinished.take_back(self._nonce, self._taps.answered)
            self._entries.forget(_IN_FLIGHT_S)

    def _is_alone(self) -> bool:
        """
        Whether no other agent works in this network namespace.

        Two runs at once would take each other's listeners for services and each other's conntrack entries for
        tunnels. An abstract name belongs to the namespace, and goes with the process that holds it.
        """
        for _ in range(_CLAIM_TRIES):
            with contextlib.suppress(OSError):
                if not self._is_claimed:
                    self._claim.bind(_CLAIM)
                self._is_claimed = True
                return True
            # The agent of a run that has just ended may still be about to.
            time.sleep(_CLAIM_PAUSE_S)
        return False

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

    def _fire(self, request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        Fire(
            self._loop,
            self._templates,
            self._nonce,
            request,
            reply,
            self._taps.sent,
            self._ways,
            self._unfinished,
        )

    def _connect(self, request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        Connect(self._loop, self._templates, self._nonce, request, reply)

    def _inspect(self, request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        self._inspections.append(Inspection(self._loop, request, reply))

    def _arm(self, request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        templates = [
            Template(wire.fields(each, "templates"))
            for each in wire.items(request.get("templates"), "templates")
        ]
        result = self._taps.arm(request)
        self._templates = templates
        self._nonce = self._listeners.nonce = wire.integer(request.get("nonce"), "nonce")
        reply(result)

    def _collect(self, request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        def ready() -> None:
            result = self._taps.take()
            result.update(self._listeners.take())
            reply(result)

        expect = wire.integer(request.get("expect", 0), "expect")
        within_s = wire.number(request.get("within", 0), "within", 0, 60)
        self._taps.when(expect, within_s, ready)

    def _bye(self, _request: "dict[str, object]", reply: "Callable[[dict[str, object]], None]") -> None:
        self._entries.forget()
        self._unfinished.forget()
        reply({})
        self._loop.stop()


def main() -> None:
    """Run an agent on stdin and stdout; a reader that has gone away ends it in silence."""
    # A short life with few cycles: collecting them would cost more than they do.
    gc.disable()
    # Each connection of a session takes a descriptor, and all hosts come at once.
    with contextlib.suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        Agent().run()
    except BrokenPipeError:
        sys.exit(1)
