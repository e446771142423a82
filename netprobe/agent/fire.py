"""
Send probe packets: patched templates, at a bounded rate, by one of two ways out.

`kernel` is a raw socket: the packet passes the host's OUTPUT chain and routing like any other. `link` is an
AF_PACKET socket: it enters below netfilter, so that conntrack never hears of it, with the next hop that the
kernel's own route and neighbour tables name.
"""

import contextlib
import errno
import os
import socket
import struct
import time

from netprobe.agent import netlink, pathmtu, wire
from netprobe.agent.templates import ATTEMPT_BITS, Template
from netprobe.agent.unfinished import Unfinished
from netprobe.agent.ways import Neighbours, Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netprobe.agent.loop import Loop
    from netprobe.agent.ways import Selector

_IP_PKTINFO = 8  # linux/include/uapi/linux/in.h
_WAYS = ("kernel", "link")
_TICK_S = 0.004
_TICK_PACKETS = 64
_DEPTH_S = 0.1
_FULL_QUEUE = (errno.ENOBUFS, errno.EAGAIN)
_FULL_QUEUE_TRIES, _FULL_QUEUE_TRIES_PADDED = 50, 5
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_MAX_FLOW = (1 << 32 - ATTEMPT_BITS) - 1


class Shot:
    """What to send to whom: the packets of one flow in one volley."""

    def __init__(
        self,
        template: Template,
        flow: int,
        source: bytes,
        destination: bytes,
        text: str,
        undo: "Template | None",
    ) -> None:
        self.template = template
        self.undo = undo
        self.flow = flow
        self.source = source
        self.addresses = source + destination
        self.destination = destination
        self.text = text


class Volley:
    """Shots by one way out, each once for each attempt, attempt by attempt: a flow's packets lie apart."""

    def __init__(self, request: "dict[str, object]", templates: "list[Template]") -> None:
        self.way = wire.one_of(request.get("way"), "volley.way", _WAYS)
        self.first, self.total = (
            wire.integer(each, "volley.attempts", 0, 1 << ATTEMPT_BITS)
            for each in wire.items(request.get("attempts"), "volley.attempts", 2)
        )
        if self.first + self.total > 1 << ATTEMPT_BITS:
            raise wire.RequestError(f"volley.attempts: at most {1 << ATTEMPT_BITS} in all")
        self._low, self._span, self._same_port = (
            wire.integer(each, "volley.ports", 1, 65535)
            for each in wire.items(request.get("ports"), "volley.ports", 3)
        )
        if self._low + self._span > 1 << 16:
            raise wire.RequestError("volley.ports: they end at 65535")
        self.shots: list[Shot] = []
        for each in wire.items(request.get("shots"), "volley.shots"):
            self.shots.extend(_shots(wire.items(each, "volley.shots", 4), templates))

    def packets(self) -> "Iterator[tuple[Volley, int, Shot]]":
        """Every packet of the volley in its turn."""
        for attempt in range(self.first, self.first + self.total):
            for shot in self.shots:
                yield self, attempt, shot

    def source_port(self, attempt: int, shot: Shot, nonce: int) -> int:
        """The source port of a packet, where its template leaves it open; the coordinator counts alike."""
        place = attempt // self._same_port + (self._same_port - 1 << ATTEMPT_BITS)
        return self._low + (shot.flow * 31 + place * 7919 + nonce) % self._span


def _shots(values: "list[object]", templates: "list[Template]") -> "Iterator[Shot]":
    template = wire.member(values[0], "shots.template", templates)
    source = wire.address(values[1], "shots.source")
    if not template.network or len(source) != (4 if template.version == 4 else 16):
        raise wire.RequestError("shots: a packet template, and a source address of its family")
    undo = None if values[3] is None else wire.member(values[3], "shots.undo", templates)
    if undo is not None and undo.version != template.version:
        raise wire.RequestError("shots.undo: a packet template of the same family")
    for each in wire.items(values[2], "shots.targets"):
        flow, destination = wire.items(each, "shots.targets", 2)
        address = wire.address(destination, "shots.destination")
        if len(address) != len(source):
            raise wire.RequestError("shots: both addresses of one family")
        number = wire.integer(flow, "shots.flow", 0, _MAX_FLOW)
        yield Shot(template, number, source, address, str(destination), undo)


class Fire:
    """
    Volleys, one after the other, at one rate.

    `done` is called with the answer when the last packet has left, `note` with each tag (without nonce);
    `ways` tells the way out of the host; `unfinished` is told what is to be taken back.
    A packet that a full queue refused is tried again for a while; one that the kernel refused for good is
    reported with its errno by name. If the request is `timed`, each tag is reported with the time of its
    sending, in microseconds of the clock that packets are kept by.
    """

    def __init__(
        self,
        loop: "Loop",
        templates: "list[Template]",
        nonce: int,
        request: "dict[str, object]",
        done: "Callable[[dict[str, object]], None]",
        note: "Callable[[int], None]",
        ways: Ways,
        unfinished: Unfinished,
    ) -> None:
        self._loop = loop
        self._nonce = nonce
        self._done = done
        self._note = note
        self._rate = wire.number(request.get("rate"), "rate", 0.01, 1e6)
        after_s = wire.number(request.get("after", 0), "after", 0, 60)
        self._timed = wire.flag(request.get("timed", False), "timed")
        volleys = [
            Volley(wire.fields(each, "volleys"), templates)
            for each in wire.items(request.get("volleys"), "volleys")
        ]
        # Opened before the first packet: that we may not open a socket says nothing about any flow.
        self._raw = {
            source: _raw_socket(source)
            for source in {
                shot.source for volley in volleys if volley.way == "kernel" for shot in volley.shots
            }
        }
        self._packet: socket.socket | None = None
        if any(volley.way == "link" for volley in volleys):
            # Protocol 0: it sends, and never receives.
            self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._packet.setblocking(False)
        self._volleys = iter(volleys)
        self._packets: Iterator[tuple[Volley, int, Shot]] = iter(())
        self._ways = ways
        self._unfinished = unfinished
        self._links: dict[Selector, tuple[str, bytes]] = {}
        self._unreachable: dict[Selector, str] = {}
        self._errors: dict[str, dict[int, int]] = {}
        self._times: list[tuple[int, int]] = []
        self._sent = 0
        self._full = 0
        # A filter at the interface drops with the word of a full queue: what is like this is not tried again.
        self._hopeless: set[Template] = set()
        # So does a virtual link whose other end takes no packet of this size; smaller ones get through.
        self._too_large: dict[bytes, int] = {}
        self._allowed = 1.0
        self._ticked = time.monotonic() + after_s
        loop.later(after_s, self._next_volley)

    def _next_volley(self) -> None:
        volley = next(self._volleys, None)
        if volley is None:
            self._finish()
            return
        self._packets = volley.packets()
        if volley.way == "link":
            selectors = self._selectors(volley)
            try:
                Neighbours(self._loop, self._ways, selectors, self._resolved)
            except OSError as error:
                # The kernel did not tell: that is no word about any of them.
                self._resolved({}, dict.fromkeys(selectors, errno.errorcode.get(error.errno or 0, "EIO")))
        else:
            self._tick()

    def _selectors(self, volley: Volley) -> "set[Selector]":
        """All that the routing tables see in the packets of a volley; without ports, in one of each shot."""
        found = set()
        for _volley, attempt, shot in volley.packets():
            if attempt > volley.first and not self._ways.look_at_ports(shot.template.version):
                break
            # What cannot be looked up is told when it is to be sent.
            with contextlib.suppress(OSError):
                port = volley.source_port(attempt, shot, self._nonce)
                found.add(self._ways.selector(shot.addresses, self._patched(shot, attempt, port)))
        return found

    def _resolved(self, links: "dict[Selector, tuple[str, bytes]]", errors: "dict[Selector, str]") -> None:
        self._links, self._unreachable = links, errors
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        # A token bucket: what a busy host was late by is made up for, what a long wait saved is not.
        depth = max(1.0, self._rate * _DEPTH_S)
        self._allowed = min(depth, self._allowed + (now - self._ticked) * self._rate)
        self._ticked = now
        for _ in range(min(int(self._allowed), _TICK_PACKETS)):
            packet = next(self._packets, None)
            if packet is None:
                # By way of the loop: a chain of empty volleys must not nest.
                self._loop.later(0, self._next_volley)
                return
            if not self._send(packet):
                self._again(packet)
                return
        self._loop.later(0 if self._allowed >= 1 else _TICK_S, self._tick)

    def _again(self, packet: "tuple[Volley, int, Shot]") -> None:
        """Try a packet again that a full queue refused, a little later."""

        def again() -> None:
            if self._send(packet):
                self._tick()
            else:
                self._again(packet)

        self._loop.later(_TICK_S, again)

    def _send(self, packet: "tuple[Volley, int, Shot]") -> bool:
        """Send one packet; False where it must be tried again."""
        volley, attempt, shot = packet
        try:
            self._emit(volley, attempt, shot)
        except OSError as error:
            if error.errno in _FULL_QUEUE:
                if self._full < self._tries(shot):
                    self._full += 1
                    return False
                self._give_up(shot)
            flows = self._errors.setdefault(errno.errorcode.get(error.errno or 0, str(error)), {})
            flows[shot.flow] = flows.get(shot.flow, 0) | 1 << attempt
        else:
            self._hopeless.discard(shot.template)
            self._sent += 1
        self._full = 0
        self._allowed -= 1
        return True

    def _tries(self, shot: Shot) -> int:
        """How often a full queue may refuse this packet."""
        template = shot.template
        if template.is_padded:
            is_too_large = template.size >= self._too_large.get(shot.addresses, template.size + 1)
            return 0 if is_too_large else _FULL_QUEUE_TRIES_PADDED
        return 0 if template in self._hopeless else _FULL_QUEUE_TRIES

    def _give_up(self, shot: Shot) -> None:
        template = shot.template
        if template.is_padded:
            least = self._too_large.get(shot.addresses, template.size)
            self._too_large[shot.addresses] = min(least, template.size)
        else:
            self._hopeless.add(template)

    def _emit(self, volley: Volley, attempt: int, shot: Shot) -> None:
        number = shot.flow << ATTEMPT_BITS | attempt
        self._note(number)
        if self._timed:
            self._times.append((number, int(1e6 * time.monotonic())))
        port = volley.source_port(attempt, shot, self._nonce)
        data = self._patched(shot, attempt, port)
        selector = self._ways.selector(shot.addresses, data)
        if volley.way == "kernel":
            pin = self._ways.pin(selector) if selector[1] else 0
            if pin:
                self._raw[shot.source].sendmsg([data], [_pktinfo(pin, data[0] >> 4)], 0, (shot.text, 0))
            else:
                self._raw[shot.source].sendto(data, (shot.text, 0))
            if shot.undo is not None:
                self._unfinished.begin(number, shot.undo, shot.addresses, shot.text, port)
            return
        name = self._unreachable.get(selector)
        if name is not None:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        interface, lladdr = self._links[selector]
        if self._packet is not None:
            self._packet.sendto(data, (interface, _ETHERTYPE[shot.template.version], 0, 0, lladdr))

    def _patched(self, shot: Shot, attempt: int, port: int) -> memoryview:
        return shot.template.packet(shot.addresses, self._nonce ^ (shot.flow << ATTEMPT_BITS | attempt), port)

    def _finish(self) -> None:
        for handle in self._raw.values():
            handle.close()
        if self._packet is not None:
            self._packet.close()
        errors = [[name, list(flows.items())] for name, flows in self._errors.items()]
        self._done({"sent": self._sent, "errors": errors, "times": self._times})


def _pktinfo(interface: int, version: int) -> "tuple[int, int, bytes]":
    """The message beside a packet that names the interface by which it is to leave (ip(7), RFC 3542 §6.1)."""
    if version == 4:
        return socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", interface, b"", b"")
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", b"", interface)


def _raw_socket(source: bytes) -> socket.socket:
    family = netlink.family_of(source)
    handle = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    handle.setblocking(False)
    pathmtu.of_interface(handle)
    # Bound, so that routing by source address (ip rule) does as for real traffic.
    handle.bind((wire.address_text(source), 0))
    return handle
