"""The verbs of a run: facts, taps, listeners, packets, sessions, connection tracking."""

import contextlib
import socket
import time

from netprobe.agent import conntrack, counters, facts, wire
from netprobe.agent.connect import Connect
from netprobe.agent.conversation import Conversation, serve
from netprobe.agent.fire import Fire
from netprobe.agent.listeners import Listeners
from netprobe.agent.taps import Taps
from netprobe.agent.templates import Template
from netprobe.agent.unfinished import Unfinished
from netprobe.agent.ways import Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CLAIM = "\0netprobe"
_CLAIM_TRIES, _CLAIM_PAUSE_S = 10, 0.05
_IN_FLIGHT_S = 0.2
"""How long the packets of a run that was cut off may still arrive; its other agents end meanwhile."""


class Agent(Conversation):
    """The agent of a run."""

    def __init__(self) -> None:
        super().__init__()
        self._taps = Taps(self._loop)
        self._listeners = Listeners(self._loop)
        self._entries = conntrack.Entries()
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._is_claimed = False
        self._templates: list[Template] = []
        self._nonce = 0
        self._ways = Ways()
        self._unfinished = Unfinished()
        self._verbs = {
            "facts": lambda request, reply: reply(dict(facts.facts(request), alone=self._is_alone())),
            "arm": self._arm,
            "listen": lambda request, reply: reply(self._listeners.listen(request, self._templates)),
            "fire": self._fire,
            "connect": self._connect,
            "conntrack": lambda request, reply: reply(self._entries.conntrack(request)),
            "counters": lambda _request, reply: reply(counters.counters()),
            "collect": self._collect,
            "bye": self._bye,
        }

    def _leave(self) -> None:
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
    """Run an agent of a run on stdin and stdout."""
    serve(Agent)
