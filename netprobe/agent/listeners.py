"""
Sockets that hold the probed ports while a run lasts, and the listening end of its sessions.

The listening end says nothing before it has heard the exact request. It closes with a reset, so that nothing
lingers in TIME_WAIT.
"""

import contextlib
import errno
import socket
import struct
import time

from netprobe.agent import filters, pathmtu, wire
from netprobe.agent.templates import ATTEMPT_BITS, Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netprobe.agent.loop import Loop

    _Speech = tuple[Template, Template]

_BACKLOG = 4096
_HOLD_S = 5.0
_SWEEP_S = 0.1
_ACCEPT_BATCH = 64
_READ_BYTES = 65536
_TCP, _UDP = 6, 17
# struct tcp_info, linux/include/uapi/linux/tcp.h: tcpi_rtt at 68, tcpi_total_retrans at 100.
_INFO = struct.Struct("=68xI28xI")
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset_on_close(handle: socket.socket) -> None:
    """Let `close` send a RST and forget the connection at once (SO_LINGER with a time of zero)."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def tcp_info(handle: socket.socket) -> "tuple[int, int]":
    """A connection's smoothed round-trip time in microseconds, and how many segments it sent again."""
    info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    if len(info) < _INFO.size:
        return 0, 0
    rtt, resent = _INFO.unpack(info)
    return rtt, resent


class Listeners:
    """The ports that this agent holds."""

    def __init__(self, loop: "Loop") -> None:
        self.loop = loop
        self.nonce = 0
        self._held: list[socket.socket] = []
        self._served: dict[int, int] = {}
        self._resent: list[int] = []
        self.answered: list[_Served] = []
        """Connections whose other end is to close them: looked at together, for less than watching each."""
        self._sweep()

    def _sweep(self) -> None:
        self._close_ended()
        self.loop.later(_SWEEP_S, self._sweep)

    def _close_ended(self) -> None:
        self.answered = [each for each in self.answered if not each.has_ended()]

    def listen(self, request: "dict[str, object]", templates: "list[Template]") -> "dict[str, object]":
        """
        Hold each of `sockets` ([protocol, address, port, request template, answer template]).

        Without templates (None) a connection is closed as soon as it is accepted. TCP sockets announce `mss`
        bytes as their maximum segment size. `failed` in the answer says which sockets could not be held, by
        number and errno's name.
        """
        mss = wire.integer(request.get("mss"), "mss", 88, 32767)
        sockets = [
            _wanted(wire.items(each, "sockets", 5), templates)
            for each in wire.items(request.get("sockets"), "sockets")
        ]
        failed = []
        for number, wanted in enumerate(sockets):
            try:
                self._hold(mss, *wanted)
            except OSError as error:
                failed.append([number, errno.errorcode.get(error.errno or 0, str(error))])
        return {"failed": failed}

    def _hold(self, mss: int, protocol: int, address: bytes, port: int, speech: "_Speech | None") -> None:
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        handle = socket.socket(family, socket.SOCK_STREAM if protocol == _TCP else socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == _TCP:
                # A service that just ended may have left connections in TIME_WAIT; that is no reason to fail.
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                # Bound only to keep the kernel from answering "port unreachable"; nobody reads it.
                filters.attach(handle, filters.DROP_ALL)
                pathmtu.of_interface(handle)
            handle.setblocking(False)
            # What is accepted inherits it.
            reset_on_close(handle)
            handle.bind((wire.address_text(address), port))
            if protocol == _TCP:
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
                handle.listen(_BACKLOG)
                self._watch(handle, speech)
        except OSError:
            handle.close()
            raise
        self._held.append(handle)

    def _watch(self, listener: socket.socket, speech: "_Speech | None") -> None:
        self.loop.watch(listener.fileno(), lambda _events: self._accept(listener, speech))

    def _accept(self, listener: socket.socket, speech: "_Speech | None") -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                handle, _peer = listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:
                    # They wait in the queue until some connection has ended.
                    self.loop.forget(listener.fileno())
                    self.loop.later(_SWEEP_S, lambda: self._watch(listener, speech))
                # Nobody is left in the queue, or the peer has gone again.
                return
            if speech is None:
                handle.close()
            else:
                _Served(self, handle, speech)

    def heard(self, flow: int, attempt: int) -> None:
        """Note that the request of a session came through."""
        self._served[flow] = self._served.get(flow, 0) | 1 << attempt

    def resent(self, flow: int) -> None:
        """Note that the answer of a session had to be sent again."""
        self._resent.append(flow)

    def take(self) -> "dict[str, object]":
        """What `heard` and `resent` noted since the last time: flows with their attempt masks, and flows."""
        self._close_ended()
        served, self._served = self._served, {}
        resent, self._resent = self._resent, []
        return {"served": list(served.items()), "resent": resent}


def _wanted(values: "list[object]", templates: "list[Template]") -> "tuple[int, bytes, int, _Speech | None]":
    protocol = wire.integer(values[0], "sockets.protocol", 0, 255)
    if protocol not in (_TCP, _UDP):
        raise wire.RequestError(f"sockets.protocol: expected {_TCP} or {_UDP}")
    address = wire.address(values[1], "sockets.address")
    port = wire.integer(values[2], "sockets.port", 1, 65535)
    if values[3] is None and values[4] is None:
        return protocol, address, port, None
    request, answer = (wire.member(each, "sockets.template", templates) for each in values[3:])
    return protocol, address, port, (request, answer)


class _Served:
    """An accepted connection: wait for the request, answer it, and let the other end close."""

    def __init__(self, listeners: Listeners, handle: socket.socket, speech: "_Speech") -> None:
        self._listeners = listeners
        self._handle = handle
        self._request, self._answer = speech
        self._heard = b""
        self._flow: int | None = None
        self._until = time.monotonic() + _HOLD_S
        # With a short way the request is often there already.
        if not self._read():
            listeners.loop.watch(handle.fileno(), self._readable)
            listeners.loop.later(_HOLD_S, self._give_up)

    def _readable(self, _events: int) -> None:
        if self._read():
            self._listeners.loop.forget(self._handle.fileno())

    def _give_up(self) -> None:
        if self._flow is None and self._handle.fileno() >= 0:
            self._listeners.loop.forget(self._handle.fileno())
            self._handle.close()

    def _read(self) -> bool:
        """Read what there is; whether that was all there is to wait for."""
        try:
            data = self._handle.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._heard += data
        if data and len(self._heard) < self._request.size:
            return False
        tag = self._request.tag_of(self._heard)
        if tag is None:
            # It has gone, or it is somebody else's, or a payload that was changed on the way.
            self._handle.close()
            return True
        number = tag ^ self._listeners.nonce
        self._flow = number >> ATTEMPT_BITS
        self._listeners.heard(self._flow, number & (1 << ATTEMPT_BITS) - 1)
        # A peer that has gone meanwhile is found out by the next look at the connection.
        with contextlib.suppress(OSError):
            self._handle.send(self._answer.payload(tag), socket.MSG_DONTWAIT)
        self._listeners.answered.append(self)
        return True

    def has_ended(self) -> bool:
        """Close the connection if the other end has, or should have long since; whether it is closed."""
        try:
            waiting = self._handle.recv(1, socket.MSG_DONTWAIT) and time.monotonic() < self._until
        except BlockingIOError:
            waiting = time.monotonic() < self._until
        except OSError:
            waiting = False
        if waiting:
            return False
        if self._flow is not None and tcp_info(self._handle)[1]:
            self._listeners.resent(self._flow)
        self._handle.close()
        return True
