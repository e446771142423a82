"""The connecting end of TCP sessions: connect, say the request, accept nothing but the exact answer."""

import contextlib
import errno
import os
import select
import socket
import struct
import time

from netprobe.agent import wire
from netprobe.agent.listeners import reset_on_close, tcp_info
from netprobe.agent.templates import ATTEMPT_BITS, Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netprobe.agent.loop import Loop

_IP_BIND_ADDRESS_NO_PORT, _IP_LOCAL_PORT_RANGE = 24, 51  # linux/include/uapi/linux/in.h
_PORTS = struct.pack("=I", 60999 << 16 | 51822)
"""
Of those that clients have by default, the ones that no probe leaves from (netprobe/attempts.py).

Where a session's end gets lost, its destination holds the connection for some seconds more, and a SYN from
the same port would get no answer of its own. Before Linux 6.3 the kernel takes any.
"""
_READ_BYTES = 65536

NOTHING, CONNECTED, ANSWERED = 0, 1, 2
"""How far a session came."""


class Connect:
    """
    Many sessions, so many at a time and in a second; `done` is called with the answer when all have ended.

    Each of `sessions` is [source, port, request template, answer template, [[flow, destination], …]]. Each
    result is [flow, stage, errno's name or "", round-trip time in microseconds, retransmissions].
    """

    def __init__(
        self,
        loop: "Loop",
        templates: "list[Template]",
        nonce: int,
        request: "dict[str, object]",
        done: "Callable[[dict[str, object]], None]",
    ) -> None:
        self.loop = loop
        self._attempt = wire.integer(request.get("attempt"), "attempt", 0, (1 << ATTEMPT_BITS) - 1)
        self._nonce = nonce
        self.timeout_s = wire.number(request.get("timeout"), "timeout", 0.001, 60)
        self._parallel = wire.integer(request.get("parallel"), "parallel", 1, 10000)
        self._interval_s = 1 / wire.number(request.get("rate"), "rate", 0.001, 1e6)
        # Not at once: what was sent just before has had its share of the rate.
        self._due = time.monotonic() + self._interval_s
        self._done = done
        self._results: list[list[object]] = []
        sessions: list[_Wanted] = []
        for each in wire.items(request.get("sessions"), "sessions"):
            sessions.extend(self._wanted(wire.items(each, "sessions", 5), templates))
        self._total = len(sessions)
        self._waiting = iter(sessions)
        loop.later(0, self._start)

    def _wanted(self, values: "list[object]", templates: "list[Template]") -> "Iterator[_Wanted]":
        source = wire.address(values[0], "sessions.source")
        port = wire.integer(values[1], "sessions.port", 1, 65535)
        request = wire.member(values[2], "sessions.template", templates)
        answer = wire.member(values[3], "sessions.template", templates)
        for each in wire.items(values[4], "sessions.targets"):
            number, destination = wire.items(each, "sessions.targets", 2)
            flow = wire.integer(number, "sessions.flow", 0, (1 << 32 - ATTEMPT_BITS) - 1)
            if len(wire.address(destination, "sessions.destination")) != len(source):
                raise wire.RequestError("sessions: both addresses of one family")
            tag = self._nonce ^ (flow << ATTEMPT_BITS | self._attempt)
            yield _Wanted(flow, source, (str(destination), port), request.payload(tag), answer.payload(tag))

    def _start(self) -> None:
        if not self._total:
            self._done({"results": []})
        for _ in range(self._parallel):
            self._in_turn()

    def _in_turn(self) -> None:
        # By way of the loop: a chain of sessions that fail at once must not nest.
        now = time.monotonic()
        self._due = max(self._due, now)
        self.loop.later(self._due - now, self._next)
        self._due += self._interval_s

    def _next(self) -> None:
        wanted = next(self._waiting, None)
        if wanted is None:
            return
        try:
            handle = socket.socket(wanted.family, socket.SOCK_STREAM)
        except OSError as error:
            # No such family in this kernel, or no descriptor left.
            self.ended([wanted.flow, NOTHING, _name(error.errno or 0), 0, 0])
        else:
            _Session(self, wanted, handle)

    def ended(self, result: "list[object]") -> None:
        """Take the result of one session, and begin another."""
        self._results.append(result)
        if len(self._results) == self._total:
            self._done({"results": self._results})
        else:
            self._in_turn()


class _Wanted:
    """A session to be held: who with, and what both ends say."""

    def __init__(
        self, flow: int, source: bytes, destination: "tuple[str, int]", request: bytes, answer: bytes
    ) -> None:
        self.flow = flow
        self.family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
        self.source = (wire.address_text(source), 0)
        self.destination = destination
        self.request = request
        self.answer = answer


class _Session:
    """One session."""

    def __init__(self, run: Connect, wanted: _Wanted, handle: socket.socket) -> None:
        self._run = run
        self._wanted = wanted
        self._stage = NOTHING
        self._heard = b""
        self._handle = handle
        self._open = True
        try:
            self._handle.setblocking(False)
            reset_on_close(self._handle)
            # The port is chosen at connect, by the whole 4-tuple: ports are not the limit of a large run.
            # Before Linux 4.2 bind chooses it, which serves as well.
            with contextlib.suppress(OSError):
                self._handle.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                self._handle.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, _PORTS)
            # The request follows at once, and takes the handshake's last acknowledgement with it.
            self._handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            self._handle.bind(wanted.source)
            number = self._handle.connect_ex(wanted.destination)
        except OSError as error:
            self._end(error.errno or 0)
            return
        if number not in (0, errno.EINPROGRESS):
            self._end(number)
            return
        run.loop.later(run.timeout_s, lambda: self._end(errno.ETIMEDOUT))
        # On a short way the handshake is over already.
        if not self._say():
            run.loop.watch(self._handle.fileno(), self._writable, select.EPOLLOUT)

    def _say(self) -> bool:
        """Say the request, or end; False while the handshake lasts."""
        try:
            # A fresh connection takes a payload of this size whole.
            self._handle.send(self._wanted.request)
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(error.errno or 0)
            return True
        self._stage = CONNECTED
        self._run.loop.watch(self._handle.fileno(), self._readable, select.EPOLLIN)
        return True

    def _writable(self, _events: int) -> None:
        number = self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._end(number)
        else:
            self._say()

    def _readable(self, _events: int) -> None:
        try:
            data = self._handle.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.errno or 0)
            return
        self._heard += data
        if self._heard == self._wanted.answer:
            self._stage = ANSWERED
            self._end(0)
        elif not data or not self._wanted.answer.startswith(self._heard):
            self._end(errno.ECONNRESET if not data else errno.EBADMSG)

    def _end(self, number: int) -> None:
        if not self._open:
            return
        self._open = False
        rtt, resent = tcp_info(self._handle)
        self._run.loop.forget(self._handle.fileno())
        self._handle.close()
        result = [self._wanted.flow, self._stage, _name(number), rtt if self._stage else 0, resent]
        self._run.ended(result)


def _name(number: int) -> str:
    """An errno's name, "" for none."""
    return errno.errorcode.get(number, os.strerror(number)) if number else ""
