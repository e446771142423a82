"""
Evidence to verdict: pure tables, no I/O, no clock.

Every probe packet has a fate: how far it was seen, and what came back how far. Tables give each fate an
outcome: one for datagrams (which nobody answers), one for those that both hosts would forward (which have
arrived in front of the destination's firewall), and one for TCP. The outcomes of all packets of a flow make
its verdict: one that passed is proof that the network can; some passed and some lost is `degraded`; none
passed is blocked where the furthest of them was lost, because all that comes before let at least one through.

A word that was heard about a lost packet (an ICMP error, an errno) turns `filtered` into `rejected` or
`unreachable`; it never makes a packet lost that was seen to arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from netprobe.model import (
    Answer,
    Caveat,
    Evidence,
    Fate,
    Fates,
    Judgement,
    Protocol,
    Refusal,
    Seen,
    Segment,
    Session,
    Verdict,
    Word,
)


class Outcome(NamedTuple):
    """What one fate means for its packet."""

    verdict: Verdict
    segment: Segment | None = None


_OPEN: Final = Outcome(Verdict.OPEN)
_CLOSED: Final = Outcome(Verdict.CLOSED)


def _filtered(segment: Segment) -> Outcome:
    return Outcome(Verdict.FILTERED, segment)


def _intercepted(segment: Segment) -> Outcome:
    return Outcome(Verdict.INTERCEPTED, segment)


def _rejected(segment: Segment) -> Outcome:
    return Outcome(Verdict.REJECTED, segment)


_LOST_ON_THE_PATH: Final = _filtered(Segment.PATH)

DATAGRAM: Final[Mapping[Seen, Outcome]] = MappingProxyType(
    {
        Seen.UNSENT: _filtered(Segment.SOURCE_EGRESS),
        Seen.SENT: _filtered(Segment.SOURCE_EGRESS),
        Seen.LEFT: _filtered(Segment.PATH),
        Seen.AT_INTERFACE: _filtered(Segment.DESTINATION_INGRESS),
        Seen.AT_SOCKET: _OPEN,
    }
)
"""Probes that nobody answers: UDP and IP protocol 4."""

FORWARDED: Final[Mapping[Seen, Outcome]] = MappingProxyType({**DATAGRAM, Seen.AT_INTERFACE: _OPEN})
"""The same, where both hosts forward such packets: what they do with their own traffic does not count."""


def _tcp_table() -> dict[tuple[Seen, Answer], Outcome]:
    egress, path, ingress = Segment.SOURCE_EGRESS, Segment.PATH, Segment.DESTINATION_INGRESS
    table = {
        # The probe passed the destination's firewall: its kernel's own answer, and how far that came.
        (Seen.AT_SOCKET, Answer.NONE): _filtered(Segment.DESTINATION_EGRESS),
        (Seen.AT_SOCKET, Answer.ACCEPT_LEFT): _filtered(Segment.RETURN_PATH),
        (Seen.AT_SOCKET, Answer.ACCEPT_AT_INTERFACE): _filtered(Segment.SOURCE_INGRESS),
        (Seen.AT_SOCKET, Answer.ACCEPT): _OPEN,
        (Seen.AT_SOCKET, Answer.RST_LEFT): _filtered(Segment.RETURN_PATH),
        (Seen.AT_SOCKET, Answer.RST_AT_INTERFACE): _filtered(Segment.SOURCE_INGRESS),
        (Seen.AT_SOCKET, Answer.RST): _CLOSED,
        (Seen.AT_SOCKET, Answer.RST_INSTEAD): _rejected(Segment.RETURN_PATH),
    }
    for seen, lost in (
        (Seen.UNSENT, egress),
        (Seen.SENT, egress),
        (Seen.LEFT, path),
        (Seen.AT_INTERFACE, ingress),
    ):
        table[seen, Answer.NONE] = _filtered(lost)
        # An answer to a probe that the destination never saw is somebody else's. One that was seen leaving
        # the destination was made there, in front of its kernel, whatever became of it.
        table[seen, Answer.ACCEPT_LEFT] = _intercepted(ingress)
        table[seen, Answer.ACCEPT_AT_INTERFACE] = _intercepted(lost)
        table[seen, Answer.ACCEPT] = _intercepted(lost)
        table[seen, Answer.RST_LEFT] = _rejected(ingress)
        table[seen, Answer.RST_AT_INTERFACE] = _rejected(lost)
        table[seen, Answer.RST] = _rejected(lost)
        table[seen, Answer.RST_INSTEAD] = _rejected(lost)
    return table


TCP: Final[Mapping[tuple[Seen, Answer], Outcome]] = MappingProxyType(_tcp_table())
"""TCP: the probe is a SYN (or a session's request), the answer the destination's."""

RARE: Final = 17
"""Of so many packets of a confirmation one may be lost, two of the usual 34: of a hundredth that is usual."""

SPOKEN: Final[Mapping[Word, Verdict]] = MappingProxyType(
    {
        Word.SILENCE: Verdict.FILTERED,
        Word.PROHIBITED: Verdict.REJECTED,
        Word.UNREACHABLE: Verdict.UNREACHABLE,
    }
)
"""What a lost packet is called, by the word that was heard about it."""

_EXAMPLES: Final = 3

_SEGMENT_ORDER: Final = {segment: place for place, segment in enumerate(Segment)}
_WORD_OF: Final = {
    Verdict.FILTERED: Word.SILENCE,
    Verdict.REJECTED: Word.PROHIBITED,
    Verdict.UNREACHABLE: Word.UNREACHABLE,
}
# Which of several words about the same segment wins: the more it says, the better.
_TELLING: Final = {
    Verdict.FILTERED: 0,
    Verdict.UNREACHABLE: 1,
    Verdict.REJECTED: 2,
    Verdict.INTERCEPTED: 3,
}


def outcome(protocol: Protocol, fate: Fate, *, forwarded: bool = False) -> Outcome:
    """What one fate means."""
    if protocol is Protocol.TCP:
        found = TCP[fate.seen, fate.answer]
    else:
        found = (FORWARDED if forwarded else DATAGRAM)[fate.seen]
    if found.verdict is Verdict.FILTERED:
        return Outcome(SPOKEN[fate.word], found.segment)
    return found


def judge(evidence: Evidence) -> Judgement:
    """The verdict of a flow; total: every evidence has exactly one."""
    if evidence.untested:
        return Judgement(verdict=Verdict.UNTESTED, detail=evidence.untested)
    base, retried = _probes(evidence)
    session = evidence.session or Session()
    detail = [_unconfirmed(evidence)] if base.verdict is Verdict.UNTESTED else []
    if base.verdict is Verdict.OPEN and session.stage:
        base = _session(session, _combine(_outcomes(evidence.protocol, evidence.confirm)))
        detail.append(_session_detail(session))
    by, reason = _by(evidence.refusals, base.verdict)
    state = evidence.state if _assisted(evidence, base) else ""
    ports = _ports_detail(evidence) if _is_by_port(evidence, base) else ""
    detail += [text for text in (reason, ports, state) if text]
    detail += evidence.notes
    return Judgement(
        verdict=base.verdict,
        segment=base.segment,
        by=by,
        caveats=_caveats(evidence, base, retried=retried or session.retried),
        detail="; ".join(detail),
    )


def _unconfirmed(evidence: Evidence) -> str:
    sent = evidence.first or evidence.missed or evidence.confirm
    return "the run ended before a miss was confirmed" if sent else "no packet was sent"


def _probes(evidence: Evidence) -> tuple[Outcome, bool]:
    """The outcome of the probe packets, and whether it took a second round to get it."""
    leaving = _combine(_leaving(evidence)) or _OPEN
    arriving, retried = _arrivals(evidence)
    if leaving.verdict is Verdict.DEGRADED:
        # Some leave: nothing may arrive of them either.
        some_arrive = arriving.verdict is Verdict.DEGRADED or not arriving.verdict.is_blocked
        return (leaving if some_arrive else arriving), False
    return (arriving, retried) if leaving is _OPEN else (leaving, False)


def _arrivals(evidence: Evidence) -> tuple[Outcome, bool]:
    """The outcome of the packets whose arrival counts."""
    first = _outcomes(evidence.protocol, evidence.first, forwarded=evidence.forwarded)
    confirm = _outcomes(evidence.protocol, evidence.confirm, forwarded=evidence.forwarded)
    again = _combine(confirm)
    if again is not None and again.verdict is Verdict.DEGRADED and _is_rare(confirm):
        again = _OPEN
    if again in (_OPEN, _CLOSED):
        # Lost in the first round, whole in the burst: single losses are no verdict (design trap 10).
        return _elsewhere(evidence, again), again is _OPEN and (evidence.missed > 0 or _lost(confirm) > 0)
    combined = _combine(first + confirm)
    if combined is None or (again is None and evidence.missed):
        # Lost, and nobody watched where.
        return Outcome(Verdict.UNTESTED), False
    return _elsewhere(evidence, combined), False


def _elsewhere(evidence: Evidence, found: Outcome) -> Outcome:
    """The same, where packets were not simply lost: another host got some, as it will get others."""
    if evidence.astray and found in (_OPEN, _CLOSED):
        return Outcome(Verdict.DEGRADED, Segment.PATH)
    if evidence.astray and found == _LOST_ON_THE_PATH and evidence.protocol is not Protocol.TCP:
        # Nobody answers datagrams: that somebody else takes them is seen there, and not by an answer.
        return _intercepted(Segment.PATH)
    return found


def _lost(outcomes: Counter[Outcome]) -> int:
    return sum(count for each, count in outcomes.items() if each not in (_OPEN, _CLOSED))


def _is_rare(outcomes: Counter[Outcome]) -> bool:
    """Whether so few of many packets are lost, and so silently, that it is no verdict (design trap 10)."""
    is_silent = all(each in (_OPEN, _CLOSED) or each.verdict is Verdict.FILTERED for each in outcomes)
    return is_silent and _lost(outcomes) * RARE <= sum(outcomes.values())


def _leaving(evidence: Evidence) -> Counter[Outcome]:
    """The sends that test only the source's own OUTPUT; what became of them outside does not count."""
    outcomes: Counter[Outcome] = Counter()
    for fate, count in evidence.output:
        outcomes[_OPEN if fate.seen >= Seen.LEFT else outcome(evidence.protocol, fate)] += count
    return outcomes


def _outcomes(protocol: Protocol, fates: Fates, *, forwarded: bool = False) -> Counter[Outcome]:
    outcomes: Counter[Outcome] = Counter()
    for fate, count in fates:
        outcomes[outcome(protocol, fate, forwarded=forwarded)] += count
    return outcomes


def _combine(outcomes: Counter[Outcome]) -> Outcome | None:
    """The outcome of all packets of a flow, None without any."""
    passed = [each for each in outcomes if each.verdict in (Verdict.OPEN, Verdict.CLOSED)]
    lost = [each for each in outcomes if each not in passed]
    if not lost:
        return (_OPEN if _OPEN in passed else _CLOSED) if passed else None
    if not passed:
        return max(lost, key=_furthest)
    places: Counter[Segment | None] = Counter()
    for each in lost:
        places[each.segment] += outcomes[each]
    return Outcome(Verdict.DEGRADED, max(places, key=lambda segment: (places[segment], -_order(segment))))


def _furthest(lost: Outcome) -> tuple[int, int]:
    return _order(lost.segment), _TELLING[lost.verdict]


def _order(segment: Segment | None) -> int:
    return -1 if segment is None else _SEGMENT_ORDER[segment]


def _session(session: Session, probes: Outcome | None) -> Outcome:
    """Where a session was lost whose handshake probe passes; of the probes few may have been lost."""
    found = _combine(_outcomes(Protocol.TCP, session.fates))
    if found is None or found.verdict in (Verdict.OPEN, Verdict.CLOSED):
        # No payload was lost: connections are not established although single SYNs are answered.
        return probes if probes is not None and probes.segment is not None else Outcome(Verdict.DEGRADED)
    return found


def _session_detail(session: Session) -> str:
    stages = {
        "handshake": "a SYN is answered, but no connection is established",
        "request": "the handshake passes, the request after it does not",
        "answer": "the handshake and the request pass, the answer does not",
    }
    text = stages.get(session.stage, session.stage)
    return f"{text} ({session.error})" if session.error else text


def _by(refusals: Iterable[Refusal], verdict: Verdict) -> tuple[str, str]:
    """Who refused, and in which words."""
    word = _WORD_OF.get(verdict)
    fitting = [refusal for refusal in refusals if refusal.word is word or verdict is Verdict.DEGRADED]
    if not fitting:
        return "", ""
    loudest = max(fitting, key=lambda refusal: refusal.count)
    # Who drops without a word says nothing of itself either: only the source's own errno tells.
    return "" if loudest.word is Word.SILENCE else loudest.by, loudest.reason


def _is_by_port(evidence: Evidence, base: Outcome) -> bool:
    """Whether the source port decides what is lost."""
    return base.verdict is Verdict.DEGRADED and bool(evidence.failing_ports and evidence.passing_ports)


def _ports_detail(evidence: Evidence) -> str:
    """The share of source ports that fail, with examples to try by hand."""
    failing, passing = evidence.failing_ports, evidence.passing_ports
    share = f"{len(failing)} of {len(failing) + len(passing)} source ports always fail"
    examples = ", ".join(str(port) for port in failing[:_EXAMPLES])
    return f"{share}: {examples}{', …' if len(failing) > _EXAMPLES else ''}; {passing[0]} passes"


def _assisted(evidence: Evidence, base: Outcome) -> bool:
    """Whether a state can be what brought the packets where they came."""
    arrives = base.verdict in (Verdict.OPEN, Verdict.DEGRADED) or base.segment is Segment.DESTINATION_INGRESS
    return bool(evidence.state) and arrives


def _caveats(evidence: Evidence, base: Outcome, *, retried: bool) -> tuple[Caveat, ...]:
    found = {
        Caveat.STATE_ASSISTED: _assisted(evidence, base),
        Caveat.PORT_IN_USE: evidence.holder is not None,
        Caveat.NAT: bool(evidence.nat),
        # A repeat that got through is told of a success only: a session may have failed after it.
        Caveat.RETRIED: retried and base.verdict is Verdict.OPEN,
        Caveat.ECMP: _is_by_port(evidence, base),
    }
    return tuple(caveat for caveat, applies in found.items() if applies)
