"""
Taps: sockets that see packets at points of the host, and count those that carry a tag of this run.

An AF_PACKET socket sees arriving packets before the host firewall and leaving ones after it; a raw
IP socket sees arriving packets after INPUT. Each tap has a filter in the kernel, so that only packets
of this run wake the agent up.
"""

import base64
import collections
import contextlib
import socket
import struct
import time

from netprobe.agent import filters, pathmtu, wire
from netprobe.agent.templates import ATTEMPT_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from netprobe.agent.loop import Loop

    Ends = tuple[bytes, bytes, int]
    """Source and destination address of a packet, packed, and its TTL or hop limit."""

_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55  # linux/include/uapi/asm-generic/socket.h
_MEMINFO_DROPS = 8  # linux/include/uapi/linux/sock_diag.h
# linux/include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_ETH_P_ALL = 3
_RECEIVE_BUFFER_BYTES = 16 << 20
_SNAP_BYTES = 2048
_BATCH = 512
_DRAIN_BATCHES = 64
_KEPT_PACKETS = 20000
_LOOK_S = 0.05
_ATTEMPT_MASK = (1 << ATTEMPT_BITS) - 1
_WORD = 0xFFFFFFFF

_CHECKSUM_AT = {6: 16, 17: 6}  # RFC 9293 §3.1, RFC 768
_MODULUS = 0xFFFF  # A one's complement sum of 16-bit words is a sum modulo this (RFC 1071).
_LONGEST_HEADER_BYTES = 60  # RFC 791 §3.1
_ANCILLARY_BYTES = 64  # struct in6_pktinfo and an int, each with its header
_KINDS = ("packet", "raw", "keep")
_BASES = ("transport", "payload")


class Sight:
    """How a packet is recognised: conditions on its bytes, and where its tag is."""

    def __init__(self, request: "dict[str, object]") -> None:
        self.kind = wire.text(request.get("kind"), "sight.kind")
        self.protocol = wire.integer(request.get("protocol"), "sight.protocol", 0, 255)
        self._payload = wire.one_of(request.get("base", "transport"), "sight.base", _BASES) == "payload"
        self._tag_at = wire.integer(request.get("tag"), "sight.tag", 0, _SNAP_BYTES)
        self._minus = wire.integer(request.get("minus", 0), "sight.minus")
        self.answers = wire.flag(request.get("answers", False), "sight.answers")
        self._matches = []
        for each in wire.items(request.get("matches", []), "sight.matches"):
            offset, width, mask, value = (
                wire.integer(part, "sight.matches") for part in wire.items(each, "sight.matches", 4)
            )
            self._matches.append((offset, offset + width, mask, value))
        self._end = max([self._tag_at + 4, *(end for _start, end, _mask, _value in self._matches)])

    def tag(self, buffer: bytearray, transport: int, size: int) -> "int | None":
        """The tag of the packet in `buffer`, its transport header at `transport`; None if not ours."""
        base = transport
        if self._payload:
            base += (buffer[transport + 12] >> 4) * 4  # TCP's data offset, RFC 9293 §3.1
        # Behind the end are the bytes of an earlier packet.
        if base + self._end > size:
            return None
        at = base + self._tag_at
        for start, end, mask, value in self._matches:
            if int.from_bytes(buffer[base + start : base + end], "big") & mask != value:
                return None
        return (int.from_bytes(buffer[at : at + 4], "big") - self._minus) & _WORD


class Sightings:
    """
    What the taps have seen since the last collection.

    `masks` has, by (point, kind) and flow, a bit for each attempt; `origins` the flows by kind, source
    address, TTL and destination port (0 where there is none, or another word than
    the probe's) of what arrived; `sent` and `back` when probes were sent and when something came back, by
    tag; `kept` whole packets by point, with the times of their coming in microseconds; `awaited` how many
    came to taps that are waited for.
    """

    def __init__(self) -> None:
        self.masks: dict[tuple[str, str], dict[int, int]] = collections.defaultdict(dict)
        self.origins: dict[tuple[str, bytes, int, int], set[int]] = collections.defaultdict(set)
        self.sent: dict[int, float] = {}
        self.back: dict[int, float] = {}
        self.kept: list[tuple[str, bytes, int]] = []
        self.awaited = 0

    def rtts(self) -> "list[list[int]]":
        """For each flow that was answered, the shortest time from sending to answer in microseconds."""
        best: dict[int, float] = {}
        for tag, back in self.back.items():
            sent = self.sent.get(tag)
            if sent is not None and back >= sent:
                flow = tag >> ATTEMPT_BITS
                best[flow] = min(back - sent, best.get(flow, back - sent))
        return [[flow, int(1e6 * rtt)] for flow, rtt in best.items()]


class Tap:
    """One tap: its socket, the point of the host that it stands at, and whether it is waited for."""

    def __init__(self, request: "dict[str, object]") -> None:
        self.kind = wire.one_of(request.get("kind"), "tap.kind", _KINDS)
        self.awaited = wire.flag(request.get("awaited", self.kind == "raw"), "tap.awaited")
        self.point = wire.text(request.get("point"), "tap.point")
        program = [_instruction(each) for each in wire.items(request.get("filter"), "tap.filter")]
        arriving = wire.flag(request.get("arriving", False), "tap.arriving")
        self.bare = None
        """The protocol of a socket that delivers packets without their IP header: an IPv6 raw socket."""
        if self.kind == "raw":
            protocol = wire.integer(request.get("protocol"), "tap.protocol", 0, 255)
            version = wire.integer(request.get("version"), "tap.version")
            if version == 4:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
            elif version != 6:
                raise wire.RequestError("tap.version: expected 4 or 6")
            else:
                self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol)
                self.bare = protocol
                for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVHOPLIMIT):
                    self.socket.setsockopt(socket.IPPROTO_IPV6, option, 1)
        else:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            if arriving:
                # Spares leaving packets a look at the filter; before Linux 4.20 they take it.
                with contextlib.suppress(OSError):
                    self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        try:
            self._prepare(program)
        except OSError:
            self.socket.close()
            raise
        self.read_until = 0.0
        """All that had come by this time has been read."""
        self._dropped = 0

    def _prepare(self, program: "list[tuple[int, int, int, int]]") -> None:
        self.socket.setblocking(False)
        if self.kind == "raw":
            pathmtu.of_interface(self.socket)
        filters.attach(self.socket, program)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except OSError:
            # Not our user namespace's to force: as much as net.core.rmem_max allows.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        # A socket receives from its creation on; what came before the filter is not evidence.
        try:
            while True:
                self.socket.recv(1)
        except BlockingIOError:
            return

    def drops(self) -> int:
        """How many packets were lost for want of room since the last time."""
        if self.kind != "raw":
            # Reading these statistics resets them.
            statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            return int(struct.unpack("II", statistics)[1])
        try:
            meminfo = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 9 * 4)
        except OSError:
            # Before Linux 4.12 a raw socket does not tell.
            return 0
        before, self._dropped = self._dropped, int(struct.unpack("9I", meminfo)[_MEMINFO_DROPS])
        return self._dropped - before


class Waiting:
    """Somebody who waits for a number of packets."""

    def __init__(self, expect: int, ready: "Callable[[], None]") -> None:
        self.expect = expect
        self.ready = ready


class Taps:
    """All taps of an agent; armed once or more, each time with more sockets."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self._taps: list[Tap] = []
        self._nonce = 0
        self._flows = 0
        self._sights: dict[int, list[Sight]] = {}
        self._buffer = bytearray(_SNAP_BYTES)
        self._late_s = 0.0
        self._came: dict[int, tuple[float, float]] = {}
        self._waiting: list[Waiting] = []
        self.answered: set[int] = set()
        """The tags of all packets that were answered, as far as that came to a socket here."""
        self._seen = Sightings()

    def arm(self, request: "dict[str, object]") -> "dict[str, object]":
        """
        Open the taps of a request; all of them, or none and an error.

        An answer that comes `late` (s) after its probe counts no more, from now on (0: whenever it comes).
        """
        nonce = wire.integer(request.get("nonce"), "nonce")
        flows = wire.integer(request.get("flows"), "flows")
        late_s = wire.number(request.get("late", 0), "late", 0, 3600)
        sights: dict[int, list[Sight]] = {}
        for each in wire.items(request.get("sights", []), "sights"):
            sight = Sight(wire.fields(each, "sights"))
            sights.setdefault(sight.protocol, []).append(sight)
        opened: list[Tap] = []
        try:
            for each in wire.items(request.get("taps", []), "taps"):
                opened.append(Tap(wire.fields(each, "taps")))  # noqa: PERF401 - what is open must be known
        except (OSError, wire.RequestError):
            for tap in opened:
                tap.socket.close()
            raise
        if late_s and not self._late_s:
            self._loop.later(_LOOK_S, self._look)
        self._nonce, self._flows, self._sights, self._late_s = nonce, flows, sights, late_s
        for tap in opened:
            # Read last what leaves: an answer is out when the packet that it answers has been read.
            self._taps.insert(len(self._taps) if tap.point == "left" else 0, tap)
            self._loop.watch(tap.socket.fileno(), self._reader(tap))
        return {"taps": len(opened)}

    def _reader(self, tap: Tap) -> "Callable[[int], None]":
        def read(_events: int) -> None:
            self._read(tap)
            if self._waiting:
                self._wake()

        return read

    def _read(self, tap: Tap) -> bool:
        """Read up to a batch of packets; whether there may be more."""
        return self._keep(tap) if tap.kind == "keep" else self._count(tap)

    def _keep(self, tap: Tap) -> bool:
        kept, now_us = self._seen.kept, int(1e6 * time.monotonic())
        for _ in range(_BATCH):
            try:
                data = tap.socket.recv(_SNAP_BYTES)
            except BlockingIOError:
                return False
            if len(kept) < _KEPT_PACKETS:
                kept.append((tap.point, data, now_us))
        return True

    def _count(self, tap: Tap) -> bool:
        buffer, bare = self._buffer, tap.bare
        receive, receive_message = tap.socket.recv_into, tap.socket.recvmsg_into
        now = time.monotonic()
        for _ in range(_BATCH):
            try:
                if bare is None:
                    size = receive(buffer)
                else:
                    size, ancillary, _flags, sender = receive_message([buffer], _ANCILLARY_BYTES)
            except BlockingIOError:
                tap.read_until = now
                return False
            if bare is not None:
                protocol, transport = bare, 0
            elif buffer[0] >> 4 == 4:
                protocol, transport = buffer[9], (buffer[0] & 0xF) * 4
            else:
                protocol, transport = buffer[6], 40
            for sight in self._sights.get(protocol, ()):
                word = sight.tag(buffer, transport, size)
                if word is None:
                    continue
                tag = word ^ self._nonce
                if tag >> ATTEMPT_BITS < self._flows and self._is_ours(tap, sight, tag, now):
                    ends = _ends(buffer) if bare is None else _ends_beside(sender, ancillary)
                    point = tap.point
                    if point == "socket" and not is_whole(protocol, ends, buffer[transport:size]):
                        point = "damaged"
                    port = (
                        _port(buffer, transport) if sight.kind == "probe" and protocol in _CHECKSUM_AT else 0
                    )
                    self._note(tap, point, sight.kind, tag, now, ends, port)
                    break
        return True

    def _is_ours(self, tap: Tap, sight: Sight, tag: int, now: float) -> bool:
        """
        Whether a packet with a tag of this run is one of this run, and in time.

        Of all numbers that a busy host's peers acknowledge, some are tags; not of packets that it has sent.
        """
        if sight.answers and tap.point != "left" and tag not in self._seen.sent:
            return False
        return not self._late_s or not self._is_late(tap, sight, tag, now)

    def _is_late(self, tap: Tap, sight: Sight, tag: int, now: float) -> bool:
        """
        Whether an answer comes so late that it may be a repeated one, whose first was lost.

        A busy host reads late: all that is known of a packet's coming is when its tap was last found empty.
        An answer counts unless it is late for certain. What is said about an answer counts only if it is in
        time for certain, lest one is counted and the other is not.
        """
        if sight.kind == "probe":
            self._came[tag] = tap.read_until, now
            return False
        if sight.kind == "reset" and tag not in self._came:
            # Its probe came before answers could be late, and the one that it resets may be a repeated one.
            return True
        earliest, latest = self._came.get(tag, (now, now))
        latest = self._seen.sent.get(tag, latest)
        return (tap.read_until - latest if sight.answers else now - earliest) >= self._late_s

    def _note(self, tap: Tap, point: str, kind: str, tag: int, now: float, ends: "Ends", port: int) -> None:
        """Note a packet that came to a tap, at its point or damaged."""
        seen, flow = self._seen, tag >> ATTEMPT_BITS
        masks = seen.masks[point, kind]
        masks[flow] = masks.get(flow, 0) | 1 << (tag & _ATTEMPT_MASK)
        if point == "left":
            return
        if tap.awaited:
            seen.awaited += 1
        if kind != "probe":
            seen.back.setdefault(tag, now)
            if tap.point == "socket":
                self.answered.add(tag)
        source, _destination, ttl = ends
        seen.origins[kind, source, ttl, port].add(flow)

    def _look(self) -> None:
        """Know of each tap, every now and then, that it is empty."""
        self._drain()
        self._loop.later(_LOOK_S, self._look)

    def _drain(self) -> None:
        """Read what has arrived by now; bounded, for a flood must not keep the agent from answering."""
        for tap in self._taps:
            for _ in range(_DRAIN_BATCHES):
                if not self._read(tap):
                    break

    def sent(self, tag: int) -> None:
        """Note that a probe is sent now; `tag` is that of the packet without the nonce."""
        self._seen.sent[tag] = time.monotonic()

    def when(self, expect: int, within_s: float, ready: "Callable[[], None]") -> None:
        """Call `ready` once `expect` packets that are waited for have come since `take`, or after a time."""
        self._drain()
        waiting = Waiting(expect, ready)
        self._waiting.append(waiting)
        self._loop.later(within_s, lambda: self._release(waiting))
        self._wake()

    def _release(self, waiting: Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.ready()

    def _wake(self) -> None:
        for waiting in [each for each in self._waiting if self._seen.awaited >= each.expect]:
            self._release(waiting)

    def take(self) -> "dict[str, object]":
        """What was seen since the last time, and how many packets each point lost for want of room."""
        self._drain()
        seen, self._seen = self._seen, Sightings()
        # A probe may be answered after this collection.
        self._seen.sent = seen.sent
        drops: dict[str, int] = collections.defaultdict(int)
        for tap in self._taps:
            drops[tap.point] += tap.drops()
        return {
            "sightings": [
                [point, kind, [[flow, mask] for flow, mask in masks.items()]]
                for (point, kind), masks in seen.masks.items()
            ],
            "origins": [
                [kind, wire.address_text(source), ttl, port, sorted(flows)]
                for (kind, source, ttl, port), flows in seen.origins.items()
            ],
            "rtts": seen.rtts(),
            "kept": [[point, base64.b64encode(data).decode(), at_us] for point, data, at_us in seen.kept],
            "drops": drops,
        }


def _port(packet: bytearray, transport: int) -> int:
    return packet[transport + 2] << 8 | packet[transport + 3]


def _ends(packet: bytearray) -> "Ends":
    """The addresses and the TTL in the IP header of a packet."""
    if packet[0] >> 4 == 4:
        return bytes(packet[12:16]), bytes(packet[16:20]), packet[8]
    return bytes(packet[8:24]), bytes(packet[24:40]), packet[7]


def _ends_beside(sender: "tuple[str, int, int, int]", ancillary: "list[tuple[int, int, bytes]]") -> "Ends":
    """The same of a packet that came without its IPv6 header (RFC 3542 §6)."""
    said = {kind: data for _level, kind, data in ancillary}
    destination = said[socket.IPV6_PKTINFO][:16]
    (ttl,) = struct.unpack("i", said[socket.IPV6_HOPLIMIT])
    return socket.inet_pton(socket.AF_INET6, sender[0].split("%")[0]), destination, ttl


def is_whole(protocol: int, ends: "Ends", segment: bytearray) -> bool:
    """
    Whether a TCP segment or UDP datagram has the checksum that the kernel will want of it.

    Raw sockets get packets before it is looked at. Where no cable has been crossed, a kernel leaves the sum
    of the pseudo header in its place, and trusts it (linux/include/linux/skbuff.h, CHECKSUM_PARTIAL). What is
    longer than the buffer cannot be told.
    """
    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(segment) >= _SNAP_BYTES - _LONGEST_HEADER_BYTES:
        return True
    source, destination, _ttl = ends
    check = segment[at] << 8 | segment[at + 1]
    if not check and protocol == socket.IPPROTO_UDP and len(source) == 4:
        return True  # none was made (RFC 768)
    pseudo = int.from_bytes(source + destination, "big") + protocol + len(segment)
    if check % _MODULUS == pseudo % _MODULUS:
        return True
    words = int.from_bytes(segment, "big") << 8 * (len(segment) % 2)
    return (pseudo + words) % _MODULUS == 0


def _instruction(value: object) -> "tuple[int, int, int, int]":
    parts = wire.items(value, "tap.filter", 4)
    code, true, false, k = (wire.integer(part, "tap.filter") for part in parts)
    if code > 0xFFFF or true > 0xFF or false > 0xFF:
        raise wire.RequestError("tap.filter: no instruction of classic BPF")
    return code, true, false, k
