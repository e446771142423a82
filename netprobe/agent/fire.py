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
_NEIGHBOUR_WAIT_S = (
    3.5  # three requests, one a second (net.ipv4.neigh.default.mcast_solicit, retrans_time_ms)
)
_NEIGHBOUR_POLL_S = 0.02
_FULL_QUEUE = (errno.ENOBUFS, errno.EAGAIN)
_FULL_QUEUE_TRIES = 50
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}


class Shot:
    """What to send to whom: the packets of one flow in one volley."""

    def __init__(self, template: Template, flow: int, source: bytes, destination: bytes, text: str) -> None:
        self.template = template
        self.flow = flow
        self.source = source
        self.addresses = source + destination
        self.destination = destination
        self.text = text


class Fire:
    """
    One volley: every shot once for each attempt, attempt by attempt, so that the packets of a flow lie apart.

    `done` is called with the answer when the last packet has left, `note` with each tag (without nonce).
    A packet that a full queue refused is tried again; one that the kernel refused for good is reported
    with its errno by name.
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
        self._done = done
        self._note = note
        self._nonce = nonce
        self._way = wire.one_of(request.get("way"), "way", _WAYS)
        self._rate = wire.number(request.get("rate"), "rate", 0.01, 1e6)
        self._after = wire.number(request.get("after", 0), "after", 0, 60)
        first, count = (
            wire.integer(each, "attempts", 0, 1 << ATTEMPT_BITS)
            for each in wire.items(request.get("attempts"), "attempts", 2)
        )
        if first + count > 1 << ATTEMPT_BITS:
            raise wire.RequestError(f"attempts: at most {1 << ATTEMPT_BITS} in all")
        low, span, self._same_port = (
            wire.integer(each, "ports", 1, 65535) for each in wire.items(request.get("ports"), "ports", 3)
        )
        if low + span > 1 << 16:
            raise wire.RequestError("ports: they end at 65535")
        self._low, self._span = low, span
        shots: list[Shot] = []
        for each in wire.items(request.get("shots"), "shots"):
            shots.extend(self._shots(wire.items(each, "shots", 3), templates))
        self._queue = ((attempt, shot) for attempt in range(first, first + count) for shot in shots)
        self._errors: dict[str, dict[int, int]] = {}
        self._sent = 0
        self._full = 0
        self._started = time.monotonic()
        # Opened before the first packet: that we may not open a socket says nothing about any flow.
        self._sockets: dict[bytes, socket.socket] = {}
        for source in {shot.source for shot in shots} if self._way == "kernel" else ():
            self._sockets[source] = _raw_socket(source)
        if self._way == "link":
            # Protocol 0: it sends, and never receives.
            self._packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._packet_socket.setblocking(False)
            self._sockets[b""] = self._packet_socket
        self._links: dict[bytes, tuple[str, bytes]] = {}
        self._unreachable: dict[bytes, str] = {}
        if self._way == "link":
            Neighbours(loop, {shot.addresses: shot.destination for shot in shots}, self._begin)
        else:
            loop.later(0, lambda: self._begin({}, {}))

    @staticmethod
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
            number = wire.integer(flow, "shots.flow", 0, (1 << 32 - ATTEMPT_BITS) - 1)
            yield Shot(template, number, source, address, str(destination))

    def _begin(self, links: "dict[bytes, tuple[str, bytes]]", errors: "dict[bytes, str]") -> None:
        self._links = links
        self._unreachable = errors
        self._started = time.monotonic() + self._after
        self._loop.later(self._after, self._tick)

    def _tick(self) -> None:
        allowed = 1 + int((time.monotonic() - self._started) * self._rate) - self._sent
        for _ in range(min(allowed, _TICK_PACKETS)):
            following = next(self._queue, None)
            if following is None:
                self._finish()
                return
            if not self._send(following):
                self._again(following)
                return
        self._loop.later(0 if allowed > _TICK_PACKETS else _TICK_S, self._tick)

    def _again(self, refused: "tuple[int, Shot]") -> None:
        """Try a packet again that a full queue refused, a little later."""

        def again() -> None:
            if self._send(refused):
                self._tick()
            else:
                self._again(refused)

        self._loop.later(_TICK_S, again)

    def _send(self, packet: "tuple[int, Shot]") -> bool:
        """Send one packet; False where it must be tried again."""
        attempt, shot = packet
        try:
            self._emit(attempt, shot)
        except OSError as error:
            if error.errno in _FULL_QUEUE and self._full < _FULL_QUEUE_TRIES:
                self._full += 1
                return False
            self._fail(attempt, shot, errno.errorcode.get(error.errno or 0, str(error)))
        self._full = 0
        self._sent += 1
        return True

    def _fail(self, attempt: int, shot: Shot, name: str) -> None:
        flows = self._errors.setdefault(name, {})
        flows[shot.flow] = flows.get(shot.flow, 0) | 1 << attempt

    def _emit(self, attempt: int, shot: Shot) -> None:
        number = shot.flow << ATTEMPT_BITS | attempt
        self._note(number)
        tag = self._nonce ^ number
        port = self._low + (shot.flow * 31 + attempt // self._same_port * 7919) % self._span
        packet = shot.template.packet(shot.addresses, tag, port)
        if self._way == "kernel":
            self._sockets[shot.source].sendto(packet, (shot.text, 0))
            return
        name = self._unreachable.get(shot.addresses)
        if name is not None:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        interface, lladdr = self._links[shot.addresses]
        self._packet_socket.sendto(packet, (interface, _ETHERTYPE[shot.template.version], 0, 0, lladdr))

    def _finish(self) -> None:
        for handle in self._sockets.values():
            handle.close()
        self._done(
            {
                "sent": self._sent,
                "elapsed": time.monotonic() - self._started,
                "errors": [
                    [name, [[flow, mask] for flow, mask in flows.items()]]
                    for name, flows in self._errors.items()
                ],
            }
        )


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
        for interface, next_hop in self._waiting:
            _state, lladdr = netlink.neighbour(self._netlink, interface, next_hop)
            if lladdr is None:
                netlink.resolve(self._netlink, interface, next_hop)
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
