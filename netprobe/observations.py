"""
What the hosts of a run saw and did, by flow.

A run has tens of thousands of flows of which nearly all look alike: what was seen of them is kept as one bit
for each attempt, in lists that a flow's number indexes, and put together as evidence only at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from netprobe.attempts import OUTPUT_MASK
from netprobe.counters import BEHIND_SOCKETS
from netprobe.model import Flow, Protocol, Refusal
from netprobe.template import ATTEMPT_BITS, Kind

LEFT, INTERFACE, SOCKET = "left", "interface", "socket"
"""The points of a host at which its taps see packets."""

DAMAGED: Final = "damaged"
"""The place of what comes to a raw socket with a wrong checksum: the kernel will drop it (InCsumErrors)."""

_REPEATED_US: Final = 1_000_000
"""When Linux sends a SYN-ACK again (TCP_TIMEOUT_INIT, RFC 6298 §2)."""

NOTHING, CONNECTED, ANSWERED = 0, 1, 2
"""How far a session came at its connecting end."""

# At which end of its flow a packet is seen: probes leave the source, their answers leave the destination.
_FROM_SOURCE: Final = (Kind.PROBE, Kind.RESET, Kind.WITHDRAWAL, Kind.REQUEST)


class Refused(msgspec.Struct, frozen=True, gc=False):
    """
    A refusal, who heard it, and the attempts of a flow that it is about, as a mask.

    `rtt_us` is how long after its packet it came, in microseconds, 0 where that is not known.
    """

    attempts: int
    listener: str
    refusal: Refusal
    rtt_us: int = 0


class Discard(msgspec.Struct, frozen=True, gc=False):
    """A host whose kernel discarded the packets of a flow, or their answers, and its counter that says so."""

    host: str
    counter: str


class SessionResult(msgspec.Struct, frozen=True, gc=False):
    """How one session ended at its connecting end; `stage` is NOTHING, CONNECTED or ANSWERED."""

    attempt: int
    stage: int
    error: str
    rtt_us: int
    retransmissions: int
    tapped: bool


class Observations:
    """
    Everything that was seen of a run's flows.

    A host is heard about the flows that end at it, and there only about what its end can see; anything else
    that it says is no evidence. Packets have arrived at the destination's socket, behind its firewall, or
    where they are such as it forwards, at its interface.

    `sent` has the attempts handed to the kernel; `errors` those that it refused, by errno's name. `nat` is
    the source address that a flow arrived with where that is not its own, `redirected` the port that it
    arrived at where that is not its own, `rst_ttl` the TTL of the RST that came back, `elsewhere` the hosts
    that a flow was delivered to although it was meant for another, with the attempts. `served` are the
    attempts of sessions whose request came through, `resent` the flows whose answer was sent again, `words`
    how many refusals each host has heard, `discards` which kernel has counted what was lost of a flow,
    `damaged` the flows of which a packet is said to have come with a wrong checksum.
    `departed` is when the packet of a tag was sent, in microseconds by its source's clock, where that was
    asked for and no second one had its tag.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self._flows = flows
        self._masks: dict[tuple[str, Kind], list[int]] = {}
        self.sent = [0] * len(flows)
        self.served = [0] * len(flows)
        self.errors: dict[int, dict[str, int]] = {}
        self.refused: dict[int, list[Refused]] = {}
        self.sessions: dict[int, list[SessionResult]] = {}
        self.nat: dict[int, str] = {}
        self.rst_ttl: dict[int, int] = {}
        self.redirected: dict[int, int] = {}
        self.elsewhere: dict[int, dict[str, int]] = {}
        self.rtt_us: dict[int, int] = {}
        self.resent: set[int] = set()
        self.damaged: set[int] = set()
        self.words: Counter[str] = Counter()
        self.discards: dict[int, Discard] = {}
        self.departed: dict[int, int] = {}

    def at(self, point: str, kind: Kind) -> list[int]:
        """The attempts that were seen at a point, by flow number."""
        masks = self._masks.get((point, kind))
        if masks is None:
            masks = self._masks[point, kind] = [0] * len(self._flows)
        return masks

    def saw(self, host: str, point: str, kind: Kind, masks: Collection[tuple[int, int]]) -> None:
        """Note what a host saw at a point; what is OURS is an ACCEPT."""
        if kind is Kind.OURS:
            self.saw(host, point, Kind.ACCEPT, masks)
        known = self.at(point, kind)
        if point == DAMAGED:
            self.damaged.update(number for number, _mask in masks)
        leaves = point == LEFT
        if leaves == (kind in _FROM_SOURCE):
            for number, mask in masks:
                if self._begins(number, host):
                    known[number] |= mask
            return
        for number, mask in masks:
            if self._ends(number, host):
                known[number] |= mask
            elif point == SOCKET and kind is Kind.PROBE and number < len(self._flows):
                there = self.elsewhere.setdefault(number, {})
                there[host] = there.get(host, 0) | mask

    def _begins(self, number: int, host: str) -> bool:
        return number < len(self._flows) and self._flows[number].src == host

    def _ends(self, number: int, host: str) -> bool:
        return number < len(self._flows) and self._flows[number].dst == host

    def came_from(
        self, host: str, kind: Kind, address: str, ttl: int, port: int, numbers: Iterable[int]
    ) -> None:
        """Note the source address and the TTL of what arrived at a host, and the port that probes came to."""
        if kind is Kind.PROBE:
            for number in numbers:
                if self._ends(number, host):
                    flow = self._flows[number]
                    if flow.bears != address:
                        self.nat[number] = address
                    if flow.port not in (port, None):
                        self.redirected[number] = port
        elif kind is Kind.RST:
            self.rst_ttl.update((number, ttl) for number in numbers if self._begins(number, host))

    def took(self, host: str, rtts: Iterable[tuple[int, int]]) -> None:
        """
        Note the time, in microseconds, that flows from a host took to be answered; the shortest counts.

        An answer after a second may be a repeated one, whose first was lost: that tells nothing of the way.
        """
        for number, rtt_us in rtts:
            if rtt_us < _REPEATED_US and self._begins(number, host):
                self.rtt_us[number] = min(rtt_us, self.rtt_us.get(number, rtt_us))

    def failed(self, host: str, name: str, masks: Iterable[tuple[int, int]]) -> None:
        """Note attempts that a host's kernel refused to send, with the errno's name."""
        for number, mask in masks:
            if self._begins(number, host):
                errors = self.errors.setdefault(number, {})
                errors[name] = errors.get(name, 0) | mask

    def serve(self, host: str, served: Iterable[tuple[int, int]], resent: Iterable[int]) -> None:
        """Note the sessions whose request came to a host, and those that it had to answer again."""
        for number, mask in served:
            if self._ends(number, host):
                self.served[number] |= mask
        self.resent.update(number for number in resent if self._ends(number, host))

    def held(self, host: str, number: int, result: SessionResult) -> None:
        """Note how a session ended for the host that began it."""
        if self._begins(number, host):
            self.sessions.setdefault(number, []).append(result)

    def depart(self, host: str, times: Iterable[tuple[int, int]]) -> None:
        """Note when a host sent which tags; of two with the same one nobody knows which is answered."""
        for tag, at_us in times:
            if self._begins(tag >> ATTEMPT_BITS, host):
                self.departed[tag] = 0 if tag in self.departed else at_us

    def _rtt_us(self, listener: str, number: int, attempts: int, at_us: int) -> int:
        departed_us = self.departed.get(number << ATTEMPT_BITS | attempts.bit_length() - 1, 0)
        return max(0, at_us - departed_us) if departed_us and self._begins(number, listener) else 0

    def heard(self, listener: str, number: int, attempts: int, refusal: Refusal, at_us: int = 0) -> None:
        """
        Note a refusal of attempts of a flow, and when it came by its listener's clock (microseconds).

        Where only the low half of the tag was quoted, anybody may guess it: of packets that nobody sent, no
        refusal is believed.
        """
        is_theirs = self._begins(number, listener) or self._ends(number, listener)
        if is_theirs and attempts & self.sent[number]:
            rtt_us = self._rtt_us(listener, number, attempts, at_us)
            self.refused.setdefault(number, []).append(Refused(attempts, listener, refusal, rtt_us))
            self.words[listener] += 1

    def discarded(self, flow: Flow, discard: Discard) -> None:
        """
        Note that a host's kernel has discarded the packets of a flow, and counted them.

        Raw sockets get their copy before the transport has looked: what they have seen came no further than
        to the destination's interface.
        """
        number = flow.number
        self.discards[number] = discard
        if discard.host == flow.dst and discard.counter in BEHIND_SOCKETS:
            at_socket = self.at(SOCKET, Kind.PROBE)
            self.at(INTERFACE, Kind.PROBE)[number] |= at_socket[number]
            at_socket[number] = 0

    def unsent(self, number: int) -> int:
        """The attempts of a flow that the kernel refused to send."""
        mask = 0
        for refused in self.errors.get(number, {}).values():
            mask |= refused
        return mask

    def arrivals(self, flow: Flow) -> int:
        """The attempts of a flow that arrived."""
        return self.at(INTERFACE if flow.forwarded else SOCKET, Kind.PROBE)[flow.number]

    def passed(self, flow: Flow, attempts: int) -> int:
        """Those of the attempts that got through, and for TCP back."""
        through = attempts & self.arrivals(flow)
        if through and flow.protocol is Protocol.TCP:
            through &= self.at(SOCKET, Kind.ACCEPT)[flow.number]
        return through

    def answered_by_another(self, number: int) -> int:
        """
        The attempts that came to the destination, and whose SYN-ACK was none of our own listener's.

        Where those of our listener were seen to leave, what came back is theirs with a clamped segment size.
        """
        if self.at(LEFT, Kind.OURS)[number]:
            return 0
        accepted = self.at(SOCKET, Kind.ACCEPT)[number] & ~self.at(SOCKET, Kind.OURS)[number]
        return accepted & self.at(SOCKET, Kind.PROBE)[number]

    def astray(self, number: int) -> int:
        """
        The attempts that another host got, and the destination did not.

        A host that says it got what nobody has sent is not believed.
        """
        mask = 0
        for attempts in self.elsewhere.get(number, {}).values():
            mask |= attempts if not attempts & ~self.sent[number] else 0
        return mask & ~self.at(SOCKET, Kind.PROBE)[number]

    def missing(self, flows: Iterable[Flow], attempts: int) -> list[Flow]:
        """The flows of which some of these attempts that were made did not get through, or none was made."""
        sent, arrived, forwarded = self.sent, self.at(SOCKET, Kind.PROBE), self.at(INTERFACE, Kind.PROBE)
        accepted, tcp = self.at(SOCKET, Kind.ACCEPT), Protocol.TCP
        found = []
        for flow in flows:
            number = flow.number
            made = sent[number] & attempts
            through = made & (forwarded if flow.pod_address else arrived)[number]
            if flow.protocol is tcp:
                through &= accepted[number]
            if through != made or not made:
                found.append(flow)
        return found

    def pending(self, flow: Flow, attempts: int) -> int:
        """Those of the attempts of which something may still come: sent, and neither seen nor refused."""
        number = flow.number
        made = self.sent[number] & attempts
        made &= ~self.passed(flow, made)
        if not made:
            return 0
        made &= ~(self.unsent(number) | self.at(DAMAGED, Kind.PROBE)[number])
        if self.has_left(number, made & OUTPUT_MASK):
            made &= ~OUTPUT_MASK
        refused = any(refused.attempts & made for refused in self.refused.get(number, ()))
        return 0 if refused else made

    def has_left(self, number: int, attempts: int) -> bool:
        """Whether all of these attempts were seen outside their source: leaving it, or at the destination."""
        return not attempts & ~self.outside(number)

    def outside(self, number: int) -> int:
        """The attempts that were seen outside their source."""
        arrived = self.at(SOCKET, Kind.PROBE)[number] | self.at(INTERFACE, Kind.PROBE)[number]
        return arrived | self.at(LEFT, Kind.PROBE)[number]

    def is_half_open(self, flow: Flow) -> bool:
        """Whether the destination may have connections of a flow half open: SYNs came, no answer got back."""
        if flow.protocol is not Protocol.TCP:
            return False
        number = flow.number
        return bool(self.at(SOCKET, Kind.PROBE)[number] & ~self.at(SOCKET, Kind.ACCEPT)[number])

    def is_waiting(self, flow: Flow) -> bool:
        """Whether the destination may still have connections of a flow half open: nothing took them back."""
        if flow.protocol is not Protocol.TCP:
            return False
        number = flow.number
        ended = self.at(SOCKET, Kind.RESET)[number] | self.at(SOCKET, Kind.WITHDRAWAL)[number]
        return bool(self.at(SOCKET, Kind.PROBE)[number] & ~ended)

    def arrived(self) -> Iterable[Flow]:
        """The flows of which any probe came to its destination, past the firewall or not."""
        at_interface, at_socket = self.at(INTERFACE, Kind.PROBE), self.at(SOCKET, Kind.PROBE)
        return (flow for flow in self._flows if at_interface[flow.number] or at_socket[flow.number])
