"""
What may be seen of a flow of whose packets some rules drop half.

A run sends so many packets that most of what is seen is certain: the flow is degraded where they are lost, or
blocked behind that. What depends on single packets has two true answers: whether a refusal is heard of which
half get lost; whether a session, whose kernels send again what is lost, has noticed; whether a later SYN from
a port counts as a new connection for a firewall. What is left takes luck. The eight packets of a first look,
of which a session has two, all pass once in 256 times; the ten that follow are all lost once in a thousand;
eight source ports have the same hash once in 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from netprobe.model import Caveat, Segment, Verdict
from tests.lab.probing import Held
from tests.lab.rules import Loss

PASSES: Final = (Verdict.OPEN, Verdict.CLOSED)
SPOKEN: Final = (Verdict.REJECTED, Verdict.UNREACHABLE)


def plus(held: Held, *caveats: Caveat) -> Held:
    """The same with more caveats, in the order in which a cell has them."""
    return held._replace(caveats=tuple(each for each in Caveat if each in {*held.caveats, *caveats}))


def _without(held: Held, caveat: Caveat) -> Held:
    """The same without a caveat."""
    return held._replace(caveats=tuple(each for each in held.caveats if each is not caveat))


class Met(NamedTuple):
    """A rule that drops half of what it is about; of a refusal where there is no segment."""

    segment: Segment | None
    loss: Loss
    in_session: bool


class Truth(NamedTuple):
    """
    What a cell must hold; `fresh` is the network's truth where a state on the way changes what is seen.

    Where packets are lost by halves, `also` is what it may hold as well, and `rare` the verdicts and segments
    that are as true of what a run of bad, or good, luck sees: less than one flow in a hundred.
    """

    found: Held
    fresh: Held
    also: frozenset[Held] = frozenset()
    rare: frozenset[tuple[Verdict, Segment | None]] = frozenset()

    def is_rare(self, held: Held) -> bool:
        """Whether a cell holds what takes luck."""
        return not held.by and (held.verdict, held.segment) in self.rare

    def __str__(self) -> str:
        """All that it may hold, what is likely first."""
        rare = [str(Held(*each)) for each in self.rare]
        return " or ".join(
            [str(self.found), *sorted(map(str, self.also)), *(f"(rarely {each})" for each in rare)]
        )


def halved(found: Held, fresh: Held, met: Sequence[Met], *, in_session: bool) -> Truth:
    """The truth about a flow that without these losses is `found`; `in_session`: the session decided that."""
    lost = [each for each in met if each.segment is not None and not each.in_session]
    silent = {(Verdict.FILTERED, each.segment) for each in met if each.segment is not None}
    ports = (Caveat.ECMP,) if all(each.loss is Loss.PORTS for each in lost) else ()
    degraded = [plus(Held(Verdict.DEGRADED, each.segment, caveats=found.caveats), *ports) for each in lost]
    payload = {
        held._replace(segment=each.segment, caveats=found.caveats)
        for each in met
        if each.in_session and each.segment is not None
        for held in (Held(Verdict.DEGRADED), Held(Verdict.FILTERED))
    }
    is_blocked = found.verdict not in PASSES
    is_closed = found.verdict is Verdict.CLOSED
    if ports and (is_blocked or is_closed or any(each.loss is Loss.RANDOM for each in met)):
        # What else loses packets of the session may lose a later SYN from the same port. And ports are
        # compared by the answers of who listens, not by those of a kernel that says that nobody does.
        degraded += [_without(each, Caveat.ECMP) for each in degraded]
    if is_blocked:
        # Single SYNs tell more of the way than a session does.
        also = set(degraded) if in_session else set()
        if met and found.verdict in SPOKEN:
            also.add(found._replace(verdict=Verdict.FILTERED, by=""))
        return Truth(found, fresh, frozenset(also), frozenset(silent))
    if degraded:
        rare = {(found.verdict, None), *silent, *((each.verdict, each.segment) for each in degraded)}
        return Truth(degraded[0], fresh, frozenset(degraded[1:]), frozenset(rare))
    # TCP sends its payloads again until they have come: whoever holds a session may see nothing.
    also = {*payload, plus(found, Caveat.RETRIED)} if payload else set()
    return Truth(found, fresh, frozenset(also))
