"""
Send probe packets: patched templates, at a bounded rate, by one of two ways out.

`kernel` is a raw socket: the packet passes the host's OUTPUT chain and routing like any other. `link` is an
AF_PACKET socket: it enters below netfilter, so that conntrack never hears of it, with the next hop that the
kernel's own route and neighbour tables name.
"""

import errno
import os
import socket
import time

from netprobe.agent import netlink, wire
from netprobe.agent.templates import ATTEMPT_BITS, Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netprobe.agent.loop import Loop

_WAYS = ("kernel", "link")
_TICK_S = 0.004
_TICK_PACKETS = 64
_DEPTH_S = 0.1
_NEIGHBOUR_WAIT_S = (
    3.5  # three requests, one a second (net.ipv4.neigh.default.mcast_solicit, retrans_time_ms)
)
_NEIGHBOUR_POLL_S = 0.02
_FULL_QUEUE = (errno.ENOBUFS, errno.EAGAIN)
_FULL_QUEUE_TRIES = 50
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_MAX_FLOW = (1 << 32 - ATTEMPT_BITS) - 1


class Shot:
    """What to send to whom: the packets of one flow in one volley."""

    def __init__(self, template: Template, flow: int, source: bytes, destination: bytes, text: str) -> None:
        self.template = template
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
            self.shots.extend(_shots(wire.items(each, "volley.shots", 3), templates))

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
    for each in wire.items(values[2], "shots.targets"):
        flow, destination = wire.items(each, "shots.targets", 2)
        address = wire.address(destination, "shots.destination")
        if len(address) != len(source):
            raise wire.RequestError("shots: both addresses of one family")
        number = wire.integer(flow, "shots.flow", 0, _MAX_FLOW)
        yield Shot(template, number, source, address, str(destination))


class Fire:
    """
    Volleys, one after the other, at one rate.

    `done` is called with the answer when the last packet has left, `note` with each tag (without nonce).
    A packet that a full queue refused is tried again for a while; one that the kernel refused for good is
    reported with its errno by name.
    """

    def __init__(
        self,
        loop: "Loop",
        templates: "list[Template]",
        nonce: int,
        request: "dict[str, object]",
        done: "Callable[[dict[str, object]], None]",
        note: "Callable[[int], None]",
    ) -> None:
        self._loop = loop
        self._nonce = nonce
        self._done = done
        self._note = note
        self._rate = wire.number(request.get("rate"), "rate", 0.01, 1e6)
        after_s = wire.number(request.get("after", 0), "after", 0, 60)
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
        self._links: dict[bytes, tuple[str, bytes]] = {}
        self._unreachable: dict[bytes, str] = {}
        self._errors: dict[str, dict[int, int]] = {}
        self._sent = 0
        self._full = 0
        # A filter at the interface drops with the word of a full queue: what is like this is not tried again.
        self._hopeless: set[Template] = set()
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
            # Who did not find a neighbour for an earlier volley does not wait for it again.
            known = self._links.keys() | self._unreachable.keys()
            destinations = {
                shot.addresses: shot.destination for shot in volley.shots if shot.addresses not in known
            }
            try:
                Neighbours(self._loop, destinations, self._resolved)
            except OSError as error:
                # The kernel did not tell: that is no word about any of them.
                self._resolved({}, dict.fromkeys(destinations, errno.errorcode.get(error.errno or 0, "EIO")))
        else:
            self._tick()

    def _resolved(self, links: "dict[bytes, tuple[str, bytes]]", errors: "dict[bytes, str]") -> None:
        self._links.update(links)
        self._unreachable.update(errors)
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
                if self._full < _FULL_QUEUE_TRIES and shot.template not in self._hopeless:
                    self._full += 1
                    return False
                self._hopeless.add(shot.template)
            flows = self._errors.setdefault(errno.errorcode.get(error.errno or 0, str(error)), {})
            flows[shot.flow] = flows.get(shot.flow, 0) | 1 << attempt
        else:
            self._hopeless.discard(shot.template)
            self._sent += 1
        self._full = 0
        self._allowed -= 1
        return True

    def _emit(self, volley: Volley, attempt: int, shot: Shot) -> None:
        number = shot.flow << ATTEMPT_BITS | attempt
        self._note(number)
        port = volley.source_port(attempt, shot, self._nonce)
        data = shot.template.packet(shot.addresses, self._nonce ^ number, port)
        if volley.way == "kernel":
            self._raw[shot.source].sendto(data, (shot.text, 0))
            return
        name = self._unreachable.get(shot.addresses)
        if name is not None:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        interface, lladdr = self._links[shot.addresses]
        if self._packet is not None:
            self._packet.sendto(data, (interface, _ETHERTYPE[shot.template.version], 0, 0, lladdr))

    def _finish(self) -> None:
        for handle in self._raw.values():
            handle.close()
        if self._packet is not None:
            self._packet.close()
        errors = [[name, list(flows.items())] for name, flows in self._errors.items()]
        self._done({"sent": self._sent, "errors": errors})


def _raw_socket(source: bytes) -> socket.socket:
    family = netlink.family_of(source)
    handle = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    handle.setblocking(False)
    # Bound, so that routing by source address (ip rule) does as for real traffic.
    handle.bind((wire.address_text(source), 0))
    return handle


class Neighbours:
    """
    The interface and link-layer address for each of many destinations, asked of the kernel.

    `ready` gets them by key, and the errno's name for each destination that has none. Unknown neighbours are
    resolved by the kernel itself, all at once.
    """

    def __init__(
        self,
        loop: "Loop",
        destinations: "dict[bytes, bytes]",
        ready: "Callable[[dict[bytes, tuple[str, bytes]], dict[bytes, str]], None]",
    ) -> None:
        self._loop = loop
        self._ready = ready
        self._netlink = netlink.Netlink(netlink.NETLINK_ROUTE)
        self._found: dict[bytes, tuple[str, bytes]] = {}
        self._errors: dict[bytes, str] = {}
        self._waiting: dict[tuple[int, bytes], list[bytes]] = {}
        self._names: dict[int, str] = {}
        self._deadline = time.monotonic() + _NEIGHBOUR_WAIT_S
        links = netlink.links(self._netlink)
        for key, destination in destinations.items():
            try:
                way = netlink.route(self._netlink, destination, key[: len(destination)])
            except OSError as error:
                self._errors[key] = errno.errorcode.get(error.errno or 0, "EIO")
                continue
            link = links.get(way.interface, {})
            self._names[way.interface] = str(link.get("name", ""))
            if link.get("noarp"):
                self._found[key] = (self._names[way.interface], b"")
            else:
                self._waiting.setdefault((way.interface, way.next_hop), []).append(key)
        for interface, next_hop in list(self._waiting):
            try:
                if netlink.neighbour(self._netlink, interface, next_hop)[1] is None:
                    netlink.resolve(self._netlink, interface, next_hop)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "EIO")
                self._errors.update((key, name) for key in self._waiting.pop((interface, next_hop)))
        loop.later(0, self._look)

    def _look(self) -> None:
        for (interface, next_hop), keys in list(self._waiting.items()):
            try:
                state, lladdr = netlink.neighbour(self._netlink, interface, next_hop)
            except OSError:
                # The interface has gone.
                state, lladdr = netlink.NUD_FAILED, None
            if lladdr is not None and not state & netlink.NUD_FAILED:
                self._found.update((key, (self._names[interface], lladdr)) for key in keys)
            elif state & netlink.NUD_FAILED or time.monotonic() > self._deadline:
                self._errors.update((key, "EHOSTUNREACH") for key in keys)
            else:
                continue
            del self._waiting[interface, next_hop]
        if self._waiting:
            self._loop.later(_NEIGHBOUR_POLL_S, self._look)
            return
        self._netlink.close()
        self._ready(self._found, self._errors)
