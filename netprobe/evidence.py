"""From what was seen of a flow to its evidence: the fate of each packet, and the refusals that were heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Final

from netprobe.attempts import CONFIRM_MASK, PATTERN
from netprobe.model import Answer, Fate, Fates, Flow, Protocol, Refusal, Seen, Word
from netprobe.observations import ANSWERED, INTERFACE, LEFT, NOTHING, SOCKET, Observations
from netprobe.template import Kind

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


def unsendable(seen: Observations, flow: Flow, attempts: int) -> str:
    """The errno's name where the source could not send for a reason that says nothing of the network."""
    for name, mask in seen.errors.get(flow.number, {}).items():
        if mask & attempts and name not in _ERRNO_WORDS:
            return name
    return ""


def first_look(seen: Observations, flow: Flow, attempts: int) -> tuple[Fates, int]:
    """
    The fates of those attempts that got through, and how many others there were.

    The first round is watched only where packets arrive. What did not come there was lost somewhere; where,
    the confirmation will tell.
    """
    made = seen.sent[flow.number] & attempts
    through = seen.passed(flow, made)
    missed = (made & ~through).bit_count()
    if not through:
        return (), missed
    answer = Answer.ACCEPT if flow.protocol is Protocol.TCP else Answer.NONE
    where = Seen.AT_INTERFACE if flow.forwarded else Seen.AT_SOCKET
    return _arrived(where, answer, through.bit_count()), missed


@cache
def _arrived(where: Seen, answer: Answer, count: int) -> Fates:
    return ((Fate(where, answer), count),)


def fates(seen: Observations, flow: Flow, attempts: int, heard: int) -> Fates:
    """
    What became of each of these attempts that were made, as a histogram.

    A refusal of any attempt in `heard` is the word about all of them that were lost: errors are rationed
    (design trap 11), and a refusal that a flow got once is not unsaid by later silence.
    """
    number = flow.number
    made = seen.sent[number] & attempts
    if not made:
        return ()
    words = {refusal.word for refusal in refusals(seen, flow, heard)}
    way = tuple(seen.at(point, Kind.PROBE)[number] for point in (LEFT, INTERFACE, SOCKET))
    answers: tuple[int, ...] = ()
    if flow.protocol is Protocol.TCP:
        answers = tuple(
            seen.at(point, kind)[number]
            for kind in (Kind.ACCEPT, Kind.RST)
            for point in (LEFT, INTERFACE, SOCKET)
        )
    return _histogram(made, seen.unsent(number), way, answers, _strongest(words))


def _strongest(words: set[Word]) -> Word:
    for word in (Word.PROHIBITED, Word.UNREACHABLE):
        if word in words:
            return word
    return Word.SILENCE


@lru_cache(maxsize=1 << 16)
def _histogram(made: int, unsent: int, way: tuple[int, ...], answers: tuple[int, ...], word: Word) -> Fates:
    counts: Counter[Fate] = Counter()
    bit = 1
    while bit <= made:
        if made & bit:
            answer = _answer(answers, bit) if answers else Answer.NONE
            counts[Fate(_seen(way, bit, unsent), answer, word)] += 1
        bit <<= 1
    return tuple(counts.items())


def _seen(way: tuple[int, ...], bit: int, unsent: int) -> Seen:
    left, interface, socket = way
    if socket & bit:
        return Seen.AT_SOCKET
    if interface & bit:
        return Seen.AT_INTERFACE
    if left & bit:
        return Seen.LEFT
    return Seen.UNSENT if unsent & bit else Seen.SENT


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


def refusals(seen: Observations, flow: Flow, heard: int) -> tuple[Refusal, ...]:
    """The refusals of these attempts of a flow that were heard, loudest first."""
    number = flow.number
    found: Counter[tuple[Word, str, str]] = Counter()
    passed = seen.at(SOCKET, Kind.PROBE)[number]
    came = seen.at(INTERFACE, Kind.PROBE)[number] | passed
    # Who sent a datagram that passed the destination's firewall hears of a port that nobody holds.
    lost = ~0 if flow.protocol is Protocol.TCP else ~passed
    for refused in seen.refused.get(number, ()):
        # A destination that hears of an answer which it cannot have sent hears of a firewall's reset in its
        # name, which another rule has refused in turn.
        spoken = refused.attempts & heard & (came if refused.listener == flow.dst else lost)
        if spoken:
            found[refused.refusal.word, refused.refusal.by, refused.refusal.reason] += refused.refusal.count
    for name, mask in seen.errors.get(number, {}).items():
        if name in _ERRNO_WORDS and mask & heard:
            word, reason = _ERRNO_WORDS[name]
            found[word, flow.src_address, reason] += (mask & heard).bit_count()
    if flow.protocol is Protocol.TCP:
        found.update(_resets(seen, flow, heard))
    return tuple(Refusal(*key, count) for key, count in found.most_common())


def _resets(seen: Observations, flow: Flow, heard: int) -> dict[tuple[Word, str, str], int]:
    """
    TCP's own refusals, as far as they are a firewall's.

    A RST for a SYN that passed the destination's firewall is its kernel's: nothing listens. A RST that ends a
    half-open connection comes from the source's kernel, which has seen the SYN-ACK. One that comes although
    the source's raw socket saw none is a firewall's refusal of the answer.
    """
    number = flow.number
    passed, accepted = seen.at(SOCKET, Kind.PROBE)[number], seen.at(LEFT, Kind.ACCEPT)[number]
    found: dict[tuple[Word, str, str], int] = {}
    rst = seen.at(INTERFACE, Kind.RST)[number] | seen.at(SOCKET, Kind.RST)[number]
    rst = heard & (rst | seen.at(LEFT, Kind.RST)[number]) & ~(passed & ~accepted)
    if rst:
        # Which way a packet took is known of those that were sent while the points between were watched.
        closer = rst & CONFIRM_MASK or rst
        came = seen.at(INTERFACE, Kind.PROBE)[number]
        if not closer & (seen.at(LEFT, Kind.PROBE)[number] | came):
            by, text = flow.src_address, "TCP reset by the source itself"
        elif closer & came & ~accepted:
            by, text = flow.dst_address, "TCP reset by the destination"
        else:
            # Whoever sent it used the destination's address: the packet does not say who it was.
            ttl = seen.rst_ttl.get(number, 0)
            by, text = "", f"TCP reset in the destination's name (TTL {ttl} on arrival)"
        found[Word.PROHIBITED, by, text] = rst.bit_count()
    # Where the SYNs share a port, a later one makes the kernels speak of an earlier one that is half open.
    reset = heard & ~PATTERN.mask & seen.at(INTERFACE, Kind.RESET)[number]
    reset &= ~seen.at(SOCKET, Kind.ACCEPT)[number]
    if kept_in := reset & passed & ~accepted:
        key = Word.PROHIBITED, flow.dst_address, "TCP reset of the answer by the destination itself"
        found[key] = kept_in.bit_count()
    if reset := reset & accepted:
        key = Word.PROHIBITED, "", "TCP reset of the answer in the source's name"
        if seen.at(INTERFACE, Kind.ACCEPT)[number]:
            key = Word.PROHIBITED, flow.src_address, "TCP reset of the answer by the source"
        found[key] = reset.bit_count()
    return found


def session_fates(seen: Observations, flow: Flow) -> Fates:
    """What became of the payloads of those sessions that ran while the taps for payloads were armed."""
    number = flow.number
    made, answered = 0, 0
    results = seen.sessions.get(number, ())
    for result in results:
        if result.tapped and result.stage != NOTHING:
            made |= 1 << result.attempt
            answered |= 1 << result.attempt if result.stage == ANSWERED else 0
    way = seen.at(LEFT, Kind.REQUEST)[number], seen.at(INTERFACE, Kind.REQUEST)[number], seen.served[number]
    answers = seen.at(LEFT, Kind.ANSWER)[number], seen.at(INTERFACE, Kind.ANSWER)[number], answered, 0, 0, 0
    reset = any(result.error in _RESETS for result in results)
    return _histogram(made, 0, way, answers, Word.PROHIBITED if reset else Word.SILENCE)
