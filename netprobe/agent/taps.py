"""
Taps: sockets that see packets at two points of the host, and count those that carry a tag of this run.

An AF_PACKET socket sees arriving packets before the host firewall and leaving ones after it; a raw IP socket
sees arriving packets after INPUT. Each tap has a filter in the kernel, so that only packets of this run wake
the agent up.
"""

import base64
import collections
import socket
import struct
import time

from netprobe.agent import filters, wire
from netprobe.agent.templates import ATTEMPT_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from netprobe.agent.loop import Loop

_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55  # linux/include/uapi/asm-generic/socket.h
_MEMINFO_DROPS = 8  # linux/include/uapi/linux/sock_diag.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/include/uapi/linux/if_packet.h
_ETH_P_ALL = 3
_RECEIVE_BUFFER_BYTES = 16 << 20
_SNAP_BYTES = 2048
_BATCH = 512
_DRAIN_BATCHES = 64
_KEPT_PACKETS = 20000

_KINDS = ("packet", "raw", "keep")
_BASES = ("transport", "payload")


class Sight:
    """How a packet is recognised: conditions on its bytes, and where its tag is."""

    def __init__(self, request: "dict[str, object]") -> None:
        self.kind = wire.text(request.get("kind"), "sight.kind")
        self.protocol = wire.integer(request.get("protocol"), "sight.protocol", 0, 255)
        self.payload = wire.one_of(request.get("base", "transport"), "sight.base", _BASES) == "payload"
        self.tag_at = wire.integer(request.get("tag"), "sight.tag", 0, _SNAP_BYTES)
        self.minus = wire.integer(request.get("minus", 0), "sight.minus")
        self.matches = []
        for each in wire.items(request.get("matches", []), "sight.matches"):
            offset, width, mask, value = (
                wire.integer(part, "sight.matches") for part in wire.items(each, "sight.matches", 4)
            )
            self.matches.append((offset, offset + width, mask, value))


class Sightings:
    """
    What the taps have seen since the last `take`.

    `masks` has, by (point, kind) and flow, one bit for each attempt; `origins` the source address and the TTL
    of what arrived at an interface; `times` when a tag was first seen at (point, kind).
    """

    def __init__(self) -> None:
        self.masks: "dict[tuple[str, str], dict[int, int]]" = collections.defaultdict(dict)
        self.origins: "dict[tuple[str, bytes, int], set[int]]" = collections.defaultdict(set)
        self.left: "dict[int, float]" = {}
        self.back: "dict[int, float]" = {}
        self.kept: "list[tuple[str, bytes]]" = []
        self.at_sockets = 0

    def rtts(self) -> "list[list[int]]":
        """For each flow with an answer, the microseconds between a probe's leaving and that answer's arrival."""
        best: "dict[int, float]" = {}
        for tag, back in self.back.items():
            left = self.left.get(tag)
            if left is not None and back >= left:
                flow = tag >> ATTEMPT_BITS
                best[flow] = min(back - left, best.get(flow, back - left))
        return [[flow, int(1e6 * rtt)] for flow, rtt in best.items()]


class Waiting:
    """Somebody who waits for a number of packets to come to sockets."""

    def __init__(self, expect: int, ready: "Callable[[], None]") -> None:
        self.expect = expect
        self.ready = ready


class Taps:
    """All taps of an agent; armed once or more, each time with more sockets."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self._sockets: "list[tuple[str, str, socket.socket]]" = []
        self._nonce = 0
        self._flows = 0
        self._sights: "dict[int, list[Sight]]" = {}
        self._buffer = bytearray(_SNAP_BYTES)
        self._raw_drops: "dict[socket.socket, int]" = {}
        self._waiting: "list[Waiting]" = []
        self.sightings = Sightings()

    def arm(self, request: "dict[str, object]") -> "dict[str, object]":
        """Open the taps of a request; all of them, or none and an error."""
        self._nonce = wire.integer(request.get("nonce"), "nonce")
        self._flows = wire.integer(request.get("flows"), "flows")
        sights: "dict[int, list[Sight]]" = {}
        for each in wire.items(request.get("sights", []), "sights"):
            sight = Sight(wire.fields(each, "sights"))
            sights.setdefault(sight.protocol, []).append(sight)
        self._sights = sights
        opened: "list[tuple[str, str, socket.socket]]" = []
        try:
            for each in wire.items(request.get("taps", []), "taps"):
                opened.append(self._open(wire.fields(each, "taps")))
        except BaseException:
            for _point, _kind, tap in opened:
                tap.close()
            raise
        for point, kind, tap in opened:
            self._sockets.append((point, kind, tap))
            self._loop.watch(tap.fileno(), self._reader(point, kind, tap))
        return {"taps": len(opened)}

    def _open(self, request: "dict[str, object]") -> "tuple[str, str, socket.socket]":
        kind = wire.one_of(request.get("kind"), "tap.kind", _KINDS)
        point = wire.text(request.get("point"), "tap.point")
        program = [_instruction(each) for each in wire.items(request.get("filter"), "tap.filter")]
        if kind == "raw":
            family = socket.AF_INET if request.get("version") == 4 else socket.AF_INET6
            protocol = wire.integer(request.get("protocol"), "tap.protocol", 0, 255)
            tap = socket.socket(family, socket.SOCK_RAW, protocol)
        else:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        tap.setblocking(False)
        filters.attach(tap, program)
        try:
            tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except OSError:
            # Not our user namespace's to force: as much as net.core.rmem_max allows.
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._discard(tap)
        return point, kind, tap

    @staticmethod
    def _discard(tap: socket.socket) -> None:
        # A socket receives from its creation on; what came before the filter is not evidence.
        try:
            while True:
                tap.recv(1)
        except BlockingIOError:
            return

    def _read(self, point: str, kind: str, tap: socket.socket) -> bool:
        """Read up to a batch of packets; whether there may be more."""
        if kind == "keep":
            return self._keep(point, tap)
        # An IPv6 raw socket delivers packets without their IP header.
        bare = tap.proto if kind == "raw" and tap.family == socket.AF_INET6 else None
        return self._count(point, tap, bare)

    def _reader(self, point: str, kind: str, tap: socket.socket) -> "Callable[[int], object]":
        def read(_events: int) -> None:
            self._read(point, kind, tap)
            if self._waiting:
                self._wake()

        return read

    def _keep(self, point: str, tap: socket.socket) -> bool:
        kept = self.sightings.kept
        for _ in range(_BATCH):
            try:
                data = tap.recv(_SNAP_BYTES)
            except BlockingIOError:
                return False
            if len(kept) < _KEPT_PACKETS:
                kept.append((point, data))
        return True

    def _count(self, point: str, tap: socket.socket, bare: "int | None") -> bool:
        buffer = self._buffer
        at_interface = point == "interface"
        now = time.monotonic()
        for _ in range(_BATCH):
            try:
                size = tap.recv_into(buffer)
            except BlockingIOError:
                return False
            if bare is not None:
                protocol, transport = bare, 0
            elif buffer[0] >> 4 == 4:
                protocol, transport = buffer[9], (buffer[0] & 0xF) * 4
            else:
                protocol, transport = buffer[6], 40
            for sight in self._sights.get(protocol, ()):
                tag = self._tag(sight, buffer, transport, size)
                if tag is None:
                    continue
                flow = tag >> ATTEMPT_BITS
                masks = self.sightings.masks[point, sight.kind]
                masks[flow] = masks.get(flow, 0) | 1 << (tag & (1 << ATTEMPT_BITS) - 1)
                if at_interface:
                    version = buffer[0] >> 4
                    source = bytes(buffer[12:16] if version == 4 else buffer[8:24])
                    ttl = buffer[8 if version == 4 else 7]
                    self.sightings.origins[sight.kind, source, ttl].add(flow)
                    if sight.kind != "probe":
                        self.sightings.back.setdefault(tag, now)
                elif point == "socket":
                    self.sightings.at_sockets += 1
                elif sight.kind == "probe":
                    self.sightings.left.setdefault(tag, now)
                break
        return True

    def _tag(self, sight: Sight, buffer: bytearray, transport: int, size: int) -> "int | None":
        base = transport
        if sight.payload:
            base += (buffer[transport + 12] >> 4) * 4
        at = base + sight.tag_at
        if at + 4 > size:
            return None
        for start, end, mask, value in sight.matches:
            if int.from_bytes(buffer[base + start : base + end], "big") & mask != value:
                return None
        tag = (int.from_bytes(buffer[at : at + 4], "big") - sight.minus & 0xFFFFFFFF) ^ self._nonce
        return tag if tag >> ATTEMPT_BITS < self._flows else None

    def drain(self) -> None:
        """Read what has arrived by now; bounded, for a flood must not keep the agent from answering."""
        for point, kind, tap in self._sockets:
            for _ in range(_DRAIN_BATCHES):
                if not self._read(point, kind, tap):
                    break

    def when(self, expect: int, within_s: float, ready: "Callable[[], None]") -> None:
        """Call `ready` once `expect` packets have come to sockets since the last `take`, or after `within_s`."""
        self.drain()
        waiting = Waiting(expect, ready)
        self._waiting.append(waiting)
        self._loop.later(within_s, lambda: self._release(waiting))
        self._wake()

    def _release(self, waiting: "Waiting") -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.ready()

    def _wake(self) -> None:
        for waiting in [each for each in self._waiting if self.sightings.at_sockets >= each.expect]:
            self._release(waiting)

    def take(self) -> "dict[str, object]":
        """What was seen since the last time, and how many packets each point lost for want of room."""
        self.drain()
        seen, self.sightings = self.sightings, Sightings()
        # Probes that left may be answered after this collection.
        self.sightings.left = seen.left
        return {
            "sightings": [
                [point, kind, [[flow, mask] for flow, mask in masks.items()]]
                for (point, kind), masks in seen.masks.items()
            ],
            "origins": [
                [kind, _address(source), ttl, sorted(flows)]
                for (kind, source, ttl), flows in seen.origins.items()
            ],
            "rtts": seen.rtts(),
            "kept": [[point, base64.b64encode(data).decode()] for point, data in seen.kept],
            "drops": self._drops(),
        }

    def _drops(self) -> "dict[str, int]":
        drops: "dict[str, int]" = {}
        for point, kind, tap in self._sockets:
            if kind == "raw":
                total = _raw_drops(tap)
                lost = total - self._raw_drops.get(tap, 0)
                self._raw_drops[tap] = total
            else:
                # Reading these statistics resets them.
                lost = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            drops[point] = drops.get(point, 0) + lost
        return drops


def _instruction(value: object) -> "tuple[int, int, int, int]":
    code, true, false, k = (wire.integer(part, "tap.filter") for part in wire.items(value, "tap.filter", 4))
    if code > 0xFFFF or true > 0xFF or false > 0xFF:
        raise wire.BadRequest("tap.filter: no instruction of classic BPF")
    return code, true, false, k


def _raw_drops(tap: socket.socket) -> int:
    """How many packets a raw socket has lost in all; 0 before Linux 4.12, which does not tell."""
    try:
        meminfo = tap.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 9 * 4)
    except OSError:
        return 0
    return int(struct.unpack("9I", meminfo)[_MEMINFO_DROPS])


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
