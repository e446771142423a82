"""
From what each host saw to the evidence of each flow.

Observations are kept per host, as one bit for each attempt, because a run has tens of thousands of flows of
which nearly all look alike; the evidence of a flow is put together only when it is judged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Final

import msgspec

from netprobe.attempts import OUTPUT_MASK
from netprobe.icmp import Quote
from netprobe.model import Answer, Fate, Fates, Flow, Protocol, Refusal, Seen, Word
from netprobe.template import ATTEMPT_BITS, Base, Key, Kind, Sight

LEFT, INTERFACE, SOCKET = "left", "interface", "socket"
"""The points of a host at which its taps see packets."""

NOTHING, CONNECTED, ANSWERED = 0, 1, 2
"""How far a session came at its connecting end."""

# What the errno of a send call means (design trap 1). EPERM is a firewall's drop: it says nothing to anybody.
_ERRNO_WORDS: Final[Mapping[str, tuple[Word, str]]] = {
    "EPERM": (Word.SILENCE, "the source's own firewall dropped it (EPERM)"),
    "EACCES": (Word.PROHIBITED, "the source's own route is of type prohibit (EACCES)"),
    "EINVAL": (Word.UNREACHABLE, "the source's own route is of type blackhole (EINVAL)"),
    "EHOSTUNREACH": (Word.UNREACHABLE, "no neighbour, or a route of type unreachable (EHOSTUNREACH)"),
    "ENETUNREACH": (Word.UNREACHABLE, "the source has no route (ENETUNREACH)"),
    "EHOSTDOWN": (Word.UNREACHABLE, "the source's interface says the host is down (EHOSTDOWN)"),
    "ENETDOWN": (Word.UNREACHABLE, "the source's interface is down (ENETDOWN)"),
}


_RESETS: Final = ("ECONNRESET", "EPIPE", "ECONNREFUSED")


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A refusal, and the attempts of a flow that it is about, as a mask."""

    attempts: int
    refusal: Refusal


class SessionResult(msgspec.Struct, frozen=True, gc=False):
    """How one session ended at its connecting end; `stage` is NOTHING, CONNECTED or ANSWERED."""

    attempt: int
    stage: int
    error: str
    rtt_us: int
    retransmissions: int
    port: int
    tapped: bool


class Observations:
    """Everything that one host saw and did, by flow number."""

    def __init__(self) -> None:
        self._masks: dict[tuple[str, Kind], dict[int, int]] = defaultdict(dict)
        self.sent: dict[int, int] = {}
        self.errors: dict[int, dict[str, int]] = {}
        self.refused: dict[int, list[Refused]] = {}
        self.origins: dict[tuple[Kind, int], tuple[str, int]] = {}
        self.rtt_us: dict[int, int] = {}
        self.served: dict[int, int] = {}
        self.resent: set[int] = set()
        self.sessions: dict[int, list[SessionResult]] = {}

    def saw(self, point: str, kind: Kind, masks: Sequence[tuple[int, int]]) -> None:
        """Note sightings at a point."""
        known = self._masks[point, kind]
        for flow, mask in masks:
            known[flow] = known.get(flow, 0) | mask

    def at(self, point: str, kind: Kind, flow: int) -> int:
        """The attempts of a flow that were seen at a point."""
        return self._masks[point, kind].get(flow, 0)

    def fired(self, flow: int, attempts: int) -> None:
        """Note that attempts were handed to the kernel."""
        self.sent[flow] = self.sent.get(flow, 0) | attempts

    def failed(self, name: str, masks: Sequence[tuple[int, int]]) -> None:
        """Note attempts that the kernel refused to send, with the errno's name."""
        for flow, mask in masks:
            errors = self.errors.setdefault(flow, {})
            errors[name] = errors.get(name, 0) | mask

    def heard(self, flow: int, attempts: int, refusal: Refusal) -> None:
        """Note a refusal of attempts of a flow."""
        self.refused.setdefault(flow, []).append(Refused(attempts, refusal))

    def unsent(self, flow: int) -> int:
        """The attempts of a flow that the kernel refused to send."""
        mask = 0
        for refused in self.errors.get(flow, {}).values():
            mask |= refused
        return mask

    def was_refused(self, flow: int, attempts: int) -> bool:
        """Whether a refusal of any of these attempts of a flow was heard."""
        return any(refused.attempts & attempts for refused in self.refused.get(flow, ()))

    def refusals(self) -> set[Refusal]:
        """The ICMP errors that this host has heard."""
        return {refused.refusal for heard in self.refused.values() for refused in heard}

    def flows_at(self, point: str, kind: Kind) -> Iterable[int]:
        """The flows that were seen at a point, whoever they were meant for."""
        return self._masks[point, kind].keys()


class Sides(msgspec.Struct, frozen=True):
    """The observations of the two ends of a flow."""

    source: Observations
    destination: Observations


def complete(sides: Sides, flow: Flow, attempts: int) -> bool:
    """Whether all of these attempts that were made got through, and for TCP back."""
    made = sides.source.sent.get(flow.number, 0) & attempts
    return made != 0 and passed(sides, flow, made) == made


def pending(sides: Sides, flow: Flow, attempts: int) -> int:
    """Those of the attempts of which something may still come: sent, and neither seen nor refused."""
    source, number = sides.source, flow.number
    made = source.sent.get(number, 0) & attempts & ~source.unsent(number)
    made &= ~passed(sides, flow, made)
    if made & OUTPUT_MASK and has_left(sides, flow, made & OUTPUT_MASK):
        made &= ~OUTPUT_MASK
    return 0 if source.was_refused(number, made) else made


def passed(sides: Sides, flow: Flow, attempts: int) -> int:
    """Those of the attempts that got through, and for TCP back."""
    through = attempts & sides.destination.at(SOCKET, Kind.PROBE, flow.number)
    if through and flow.protocol is Protocol.TCP:
        through &= sides.source.at(SOCKET, Kind.ACCEPT, flow.number)
    return through


def is_half_open(sides: Sides, flow: Flow) -> bool:
    """Whether the destination may have connections of this flow half open: SYNs came, no answer got back."""
    if flow.protocol is not Protocol.TCP:
        return False
    answered = sides.source.at(SOCKET, Kind.ACCEPT, flow.number)
    return bool(sides.destination.at(SOCKET, Kind.PROBE, flow.number) & ~answered)


def has_left(sides: Sides, flow: Flow, attempts: int) -> bool:
    """Whether all of these attempts were seen outside their source: leaving it, or at the destination."""
    number = flow.number
    outside = sides.source.at(LEFT, Kind.PROBE, number) | sides.destination.at(INTERFACE, Kind.PROBE, number)
    return not attempts & ~(outside | sides.destination.at(SOCKET, Kind.PROBE, number))


def unsendable(sides: Sides, flow: Flow, attempts: int) -> str:
    """The errno's name where the source could not send for a reason that says nothing of the network."""
    for name, mask in sides.source.errors.get(flow.number, {}).items():
        if mask & attempts and name not in _ERRNO_WORDS:
            return name
    return ""


def first_look(sides: Sides, flow: Flow, attempts: int) -> tuple[Fates, int]:
    """
    The fates of those attempts that got through, and how many others there were.

    The first round is watched at sockets only. What did not come to them was lost somewhere; where, the
    confirmation will tell.
    """
    made = sides.source.sent.get(flow.number, 0) & attempts
    through = passed(sides, flow, made)
    missed = (made & ~through).bit_count()
    if not through:
        return (), missed
    answer = Answer.ACCEPT if flow.protocol is Protocol.TCP else Answer.NONE
    return _arrived(answer, through.bit_count()), missed


@cache
def _arrived(answer: Answer, count: int) -> Fates:
    return ((Fate(Seen.AT_SOCKET, answer), count),)


def fates(sides: Sides, flow: Flow, attempts: int, heard: int) -> Fates:
    """
    What became of each of these attempts that were made, as a histogram.

    A refusal of any attempt in `heard` is the word about all of them that were lost: errors are rationed
    (design trap 11), and a refusal that a flow got once is not unsaid by later silence.
    """
    source, destination, number = sides.source, sides.destination, flow.number
    made = source.sent.get(number, 0) & attempts
    if not made:
        return ()
    words = {refusal.word for refusal in refusals(sides, flow, heard)}
    masks = (
        source.at(LEFT, Kind.PROBE, number),
        destination.at(INTERFACE, Kind.PROBE, number),
        destination.at(SOCKET, Kind.PROBE, number),
    )
    answers: tuple[int, ...] = ()
    if flow.protocol is Protocol.TCP:
        answers = tuple(
            side.at(point, kind, number)
            for kind in (Kind.ACCEPT, Kind.RST)
            for side, point in ((destination, LEFT), (source, INTERFACE), (source, SOCKET))
        )
    return _histogram(made, source.unsent(number), masks, answers, _strongest(words))


def _strongest(words: set[Word]) -> Word:
    for word in (Word.PROHIBITED, Word.UNREACHABLE):
        if word in words:
            return word
    return Word.SILENCE


@lru_cache(maxsize=1 << 16)
def _histogram(
    made: int, errors: int, masks: tuple[int, int, int], answers: tuple[int, ...], word: Word
) -> Fates:
    counts: Counter[Fate] = Counter()
    bit = 1
    while bit <= made:
        if made & bit:
            answer = _answer(answers, bit) if answers else Answer.NONE
            counts[Fate(_seen(masks, bit, errors), answer, word)] += 1
        bit <<= 1
    return tuple(counts.items())


def _seen(masks: tuple[int, int, int], bit: int, errors: int) -> Seen:
    left, interface, socket = masks
    if socket & bit:
        return Seen.AT_SOCKET
    if interface & bit:
        return Seen.AT_INTERFACE
    if left & bit:
        return Seen.LEFT
    return Seen.UNSENT if errors & bit else Seen.SENT


def _answer(answers: tuple[int, ...], bit: int) -> Answer:
    accept_left, accept_back, accept, rst_left, rst_back, rst = (bool(mask & bit) for mask in answers)
    if accept:
        return Answer.ACCEPT
    if rst or rst_back:
        if accept_left and not rst_left:
            return Answer.RST_INSTEAD
        return Answer.RST if rst else Answer.RST_AT_INTERFACE
    if accept_back:
        return Answer.ACCEPT_AT_INTERFACE
    if accept_left:
        return Answer.ACCEPT_LEFT
    return Answer.RST_LEFT if rst_left else Answer.NONE


def refusals(sides: Sides, flow: Flow, heard: int) -> tuple[Refusal, ...]:
    """The refusals of these attempts of a flow that were heard, loudest first."""
    source, destination, number = sides.source, sides.destination, flow.number
    found: Counter[tuple[Word, str, str]] = Counter()
    for refused in (*source.refused.get(number, ()), *destination.refused.get(number, ())):
        if refused.attempts & heard:
            found[refused.refusal.word, refused.refusal.by, refused.refusal.reason] += refused.refusal.count
    for name, mask in source.errors.get(number, {}).items():
        if name in _ERRNO_WORDS and mask & heard:
            word, reason = _ERRNO_WORDS[name]
            found[word, flow.src_address, reason] += (mask & heard).bit_count()
    if flow.protocol is Protocol.TCP:
        found.update(_resets(sides, flow, heard))
    return tuple(Refusal(*key, count) for key, count in found.most_common())


def _resets(sides: Sides, flow: Flow, heard: int) -> dict[tuple[Word, str, str], int]:
    """
    TCP's own refusals, as far as they are a firewall's.

    A RST that ends a half-open connection comes from the source's kernel, which has seen the SYN-ACK. One
    that comes although the source's raw socket saw none is a firewall's refusal of the answer.
    """
    source, destination, number = sides.source, sides.destination, flow.number
    found: dict[tuple[Word, str, str], int] = {}
    rst = source.at(INTERFACE, Kind.RST, number) | source.at(SOCKET, Kind.RST, number)
    rst = heard & (rst | destination.at(LEFT, Kind.RST, number))
    if rst:
        _address, ttl = source.origins.get((Kind.RST, number), ("", 0))
        if not source.at(LEFT, Kind.PROBE, number):
            by, text = flow.src_address, "TCP reset by the source's own firewall"
        elif destination.at(INTERFACE, Kind.PROBE, number) and not destination.at(LEFT, Kind.ACCEPT, number):
            by, text = flow.dst_address, "TCP reset by the destination"
        else:
            # Whoever sent it used the destination's address: the packet does not say who it was.
            by, text = "", f"TCP reset in the destination's name (TTL {ttl} on arrival)"
        found[Word.PROHIBITED, by, text] = rst.bit_count()
    reset = destination.at(INTERFACE, Kind.RESET, number) & ~source.at(SOCKET, Kind.ACCEPT, number)
    reset &= heard & destination.at(LEFT, Kind.ACCEPT, number)
    if reset:
        key = Word.PROHIBITED, "", "TCP reset of the answer in the source's name"
        if source.at(INTERFACE, Kind.ACCEPT, number):
            key = Word.PROHIBITED, flow.src_address, "TCP reset of the answer by the source"
        found[key] = reset.bit_count()
    return found


def session_fates(sides: Sides, flow: Flow) -> Fates:
    """What became of the payloads of those sessions that ran while the taps for payloads were armed."""
    source, destination, number = sides.source, sides.destination, flow.number
    made, answered = 0, 0
    for result in source.sessions.get(number, ()):
        if result.tapped and result.stage != NOTHING:
            made |= 1 << result.attempt
            answered |= 1 << result.attempt if result.stage == ANSWERED else 0
    masks = (
        source.at(LEFT, Kind.REQUEST, number),
        destination.at(INTERFACE, Kind.REQUEST, number),
        destination.served.get(number, 0),
    )
    answers = (
        destination.at(LEFT, Kind.ANSWER, number),
        source.at(INTERFACE, Kind.ANSWER, number),
        answered,
        0,
        0,
        0,
    )
    reset = any(result.error in _RESETS for result in source.sessions.get(number, ()))
    return _histogram(made, 0, masks, answers, Word.PROHIBITED if reset else Word.SILENCE)


class Recogniser:
    """Ties quoted packets to flows and attempts."""

    def __init__(self, key: Key, sights: Sequence[Sight], flows: Sequence[Flow]) -> None:
        self._key = key
        self._sights = sights
        self._flows = flows
        self._by_addresses: dict[tuple[int, str, str, int | None], list[Flow]] = defaultdict(list)
        for flow in flows:
            self._by_addresses[flow.protocol, flow.src_address, flow.dst_address, flow.port].append(flow)

    def find(self, quote: Quote) -> tuple[Flow, int] | None:
        """The flow of a quoted packet and its attempts (as a mask), None where it is not ours."""
        for sight in self._sights:
            if sight.protocol == quote.protocol and sight.base is Base.TRANSPORT:
                found = self._tagged(quote, sight)
                if found is not None:
                    return found
        return self._identified(quote)

    def _tagged(self, quote: Quote, sight: Sight) -> tuple[Flow, int] | None:
        at = quote.transport[sight.tag : sight.tag + 4]
        if len(at) < 4:
            return None
        for match in sight.matches:
            there = quote.transport[match.offset : match.offset + match.width]
            # A short quote ends before some of the conditions; those are left out.
            if len(there) == match.width and int.from_bytes(there, "big") & match.mask != match.value:
                return None
        number = (int.from_bytes(at, "big") - sight.minus & 0xFFFFFFFF) ^ self._key.nonce
        if number >> ATTEMPT_BITS >= len(self._flows):
            return None
        flow = self._flows[number >> ATTEMPT_BITS]
        addresses = {flow.src_address, flow.dst_address}
        # With NAT on the way one of the two addresses may be another, not both.
        if not {quote.source, quote.destination} & addresses:
            return None
        return flow, 1 << (number & (1 << ATTEMPT_BITS) - 1)

    def _identified(self, quote: Quote) -> tuple[Flow, int] | None:
        """By addresses, port and IPv4 identification, where the quote ends before the tag."""
        if quote.identification is None:
            return None
        port = None if quote.protocol == Protocol.IPIP else quote.destination_port()
        for flow in self._by_addresses.get((quote.protocol, quote.source, quote.destination, port), ()):
            for attempt in range(1 << ATTEMPT_BITS):
                if self._key.tag(flow.number, attempt) & 0xFFFF == quote.identification:
                    return flow, 1 << attempt
        return None
