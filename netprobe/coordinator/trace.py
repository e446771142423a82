"""
Traces: how far a flow's packets come, hop by hop, beside those of a probe that is open on the same pair.

A trace sends the probe's own packet with a TTL of 1, 2, 3, …, all from one source port, because paths of
equal cost are chosen by it. Routers ration what they say of expired packets to about one word a second for
each host that they tell it (design trap 11). So eight hops of every flow are asked at once; those that stayed
silent are then asked again slowly, of all flows of one source only one at a time. The silence of a hop that
was never asked so is no evidence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import trio

from netprobe import hops
from netprobe.access import Access
from netprobe.attempts import ALL_OF_A_PORT, HOPS, HOPS_AGAIN, Attempts
from netprobe.coordinator import run
from netprobe.coordinator.deployment import Deployment, deployed
from netprobe.coordinator.field import KERNEL, LINK
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.record import now
from netprobe.coordinator.volleys import SPOKEN_PERIOD_S, SPOKEN_RATE, Volley
from netprobe.diagnosis import diagnose
from netprobe.model import Family, Flow, Hop, Inventory, Reply, Run, Segment, Settings, Trace, Verdict
from netprobe.modes import needed_cells, required_flows
from netprobe.plan import numbered
from netprobe.template import Shape

DEFAULT_MAX_HOPS: Final = 30
DEFAULT_TRIES: Final = 3
MOST_TRACES: Final = 24
"""So many groups of a run's blocked flows are traced, those with the most flows."""

_WINDOW: Final = 8
"""So many hops are asked at once: most ways are not longer, and an open port gets few SYNs too many."""
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 10.0
"""How long silent hops are asked again, for all traces together: a run must end."""


class Reach(NamedTuple):
    """How far a trace goes (at most 32 hops), and how often it asks a hop that stays silent."""

    max_hops: int = DEFAULT_MAX_HOPS
    tries: int = DEFAULT_TRIES


class Pair(NamedTuple):
    """A flow to trace, and the one to trace beside it, which is open between the same two hosts."""

    flow: Flow
    reference: Flow | None = None


class Traced(NamedTuple):
    """The traces of pairs, in their order, and how many packets these took."""

    traces: tuple[Trace, ...]
    packets: int


async def trace(
    inventory: Inventory,
    settings: Settings,
    pairs: Sequence[Pair],
    reach: Reach = Reach(),  # noqa: B008 (it is a constant)
    progress: Progress | None = None,
    access: Access | None = None,
) -> Traced:
    """
    Trace flows of an inventory, side by side.

    What cannot be traced has the reason in its trace.
    """
    told = Silent() if progress is None else progress
    flows = list(dict.fromkeys(flow for pair in pairs for flow in pair if flow is not None))
    theirs = dict(zip(flows, numbered(flows), strict=True))
    ends = {name for flow in flows for name in (flow.src, flow.dst)}
    there = tuple(host for host in inventory.hosts if host.name in ends)
    inventory = msgspec.structs.replace(inventory, hosts=there)
    async with deployed(inventory, settings, told, access, list(theirs.values())) as deployment:
        own = [Pair(theirs[flow], None if other is None else theirs[other]) for flow, other in pairs]
        tracer = _Tracer(deployment, reach, own)
        told.phase("tracing", len(flows))
        await tracer.trace()
    found = {flow: msgspec.structs.replace(tracer.result(each), flow=flow) for flow, each in theirs.items()}
    traces = tuple(
        found[flow] if other is None else hops.beside(found[flow], found[other]) for flow, other in pairs
    )
    return Traced(traces, deployment.field.packets)


def _with(result: Run, traced: Traced) -> Run:
    packets = result.packets + traced.packets
    return msgspec.structs.replace(result, traces=traced.traces, packets=packets, finished=now())


async def trace_one(
    inventory: Inventory,
    settings: Settings,
    flows: Sequence[Flow],
    flow: Flow,
    reach: Reach,
    progress: Progress | None = None,
    access: Access | None = None,
) -> Run:
    """
    A run over flows of one pair, numbered from 0, with the trace of one of them.

    Beside it is traced another one that is open, unless the flow itself is.
    """
    result = await run(inventory, settings, progress, flows, access)
    cell = result.cells[flow.number]
    if cell.judgement.verdict is Verdict.UNTESTED:
        return msgspec.structs.replace(result, traces=(Trace(flow=flow, error=cell.judgement.detail),))
    is_open = cell.judgement.verdict is Verdict.OPEN
    pair = Pair(flow, None if is_open else hops.reference(flow, result.cells))
    return _with(result, await trace(inventory, settings, [pair], reach, progress, access))


async def trace_blocked(result: Run, progress: Progress | None = None, access: Access | None = None) -> Run:
    """
    A run with the trace of one flow of each group that was lost on the path; of the largest groups.

    Of a session that was lost it would say nothing: the packets of a trace are SYNs, which come through. Nor
    of a pod's packets: what routers say of them they tell the pod.
    """
    diagnosis = diagnose(result, needed_cells(required_flows(result)))
    examples = [group.example for group in diagnosis.blocked if group.segment is Segment.PATH]
    flows = [cell.flow for cell in examples if cell.evidence.session is None and not cell.flow.forwarded]
    pairs = [Pair(flow, hops.reference(flow, result.cells)) for flow in flows[:MOST_TRACES]]
    if not pairs:
        return result
    return _with(
        result, await trace(result.inventory, result.settings, pairs, progress=progress, access=access)
    )


class _Question(NamedTuple):
    flow: Flow
    ttl: int


class _Tracer:
    """
    The traces of one deployment.

    `_asked` is up to which hop a flow was asked, `_sure` how often a hop was asked when it must have had a
    word for the flow's source.
    """

    def __init__(self, there: Deployment, reach: Reach, pairs: Sequence[Pair]) -> None:
        self._there = there
        self._reach = reach
        self._flows = there.field.flows
        self._asked: dict[Flow, int] = dict.fromkeys(self._flows, 0)
        self._sure: Counter[_Question] = Counter()
        self._fired_at = trio.current_time()
        self._compared: dict[Flow, list[Flow]] = defaultdict(list)
        for flow, other in pairs:
            if other is not None:
                self._compared[flow].append(other)

    async def trace(self) -> None:
        """Ask all hops of all flows, as far as there is patience."""
        self._craft()
        await self._there.muster.teach()
        await self._there.muster.arm_points()
        await self._at_once()
        await self._again()
        await self._there.volleys.listen(self._there.crew.names, 0)
        most = max(self._asked.values(), default=0)
        made = ((Attempts(numbers.first, most), ALL_OF_A_PORT) for numbers in (HOPS, HOPS_AGAIN))
        await self._there.volleys.withdraw(self._flows, made)

    def result(self, flow: Flow) -> Trace:
        """The trace of a flow, as it is known by now."""
        field = self._there.field
        overflowed = [name for name in (flow.src, flow.dst) if field.overflowed[name]]
        if flow.number in field.reasons:
            return Trace(flow=flow, error=field.reasons[flow.number])
        if overflowed:
            return Trace(flow=flow, error=f"the taps of {overflowed[0]} had no room: try a lower --rate")
        asked = self._asked[flow]
        unsure = [ttl for ttl in range(1, asked + 1) if not self._sure[_Question(flow, ttl)]]
        return hops.trace(field.seen, flow, asked, unsure)

    def _craft(self) -> None:
        for flow in self._flows:
            for ttl in range(1, self._reach.max_hops + 1):
                self._there.field.templates.packet(flow, shape=Shape(hops=ttl))

    async def _at_once(self) -> None:
        """Ask a window of hops after the other, until every way has come to its end."""
        for first in range(1, self._reach.max_hops + 1, _WINDOW):
            window = range(first, min(first + _WINDOW, self._reach.max_hops + 1))
            flows = [flow for flow in self._there.field.testable(self._flows) if not self._is_done(flow)]
            if not flows:
                return
            for flow in flows:
                self._asked[flow] = window[-1]
            await self._ask([_Question(flow, ttl) for ttl in window for flow in flows], HOPS)

    def _is_done(self, flow: Flow) -> bool:
        """Whether no further hop of a flow needs to be asked."""
        return any(True for _ in self._ends(flow))

    def _ends(self, flow: Flow) -> Iterable[int]:
        """The hops at which a flow's way ends, or that of one that it is compared to."""
        if own := hops.end(self._hop(_Question(flow, ttl)) for ttl in range(1, self._asked[flow] + 1)):
            yield own
        for other in self._compared[flow]:
            theirs = (self._hop(_Question(other, ttl)) for ttl in range(1, self._asked[other] + 1))
            yield from (each.ttl for each in theirs if each.reply is Reply.ARRIVED)

    def _hop(self, question: _Question) -> Hop:
        return hops.hop(self._there.field.seen, *question)

    async def _again(self) -> None:
        """Ask silent hops again, those of one flow at a time of all that tell the same listener."""
        ends_at = trio.current_time() + _PATIENCE_S
        while self._fired_at + SPOKEN_PERIOD_S < ends_at:
            turn: dict[tuple[str, Family], list[_Question]] = {}
            for flow in sorted(self._there.field.testable(self._flows), key=self._patience_with):
                if silent := self._silent(flow):
                    turn.setdefault(self._listener(flow), silent)
            if not turn:
                return
            questions = sorted((each for some in turn.values() for each in some), key=lambda each: each.ttl)
            after_s = max(0.0, self._fired_at + SPOKEN_PERIOD_S - trio.current_time())
            await self._ask(questions, HOPS_AGAIN, after_s=after_s)
            self._sure.update(questions)

    def _listener(self, flow: Flow) -> tuple[str, Family]:
        """Whom routers tell about a flow's packets: hosts behind one address share what is said to that."""
        seen = self._there.field.seen
        alike = (each for each in self._flows if (each.src, each.family) == (flow.src, flow.family))
        known = (seen.nat[each.number] for each in alike if each.number in seen.nat)
        return next(known, flow.src), flow.family

    def _patience_with(self, flow: Flow) -> int:
        """How often the hop of a flow that was asked least has been."""
        return min((self._sure[question] for question in self._silent(flow)), default=0)

    def _silent(self, flow: Flow) -> list[_Question]:
        """The hops on a flow's way that are worth another question."""
        last = min([self._asked[flow], *self._ends(flow)])
        questions = (_Question(flow, ttl) for ttl in range(1, last + 1))
        return [
            question
            for question in questions
            if self._sure[question] < self._reach.tries - 1 and not self._is_answered(question)
        ]

    def _is_settled(self, question: _Question) -> bool:
        """Whether there is nothing to wait for."""
        return question.flow.number in self._there.field.reasons or self._is_answered(question)

    def _is_answered(self, question: _Question) -> bool:
        return self._hop(question).reply is not Reply.NONE

    async def _ask(self, questions: Sequence[_Question], numbers: Attempts, *, after_s: float = 0) -> None:
        """Send what the questions need, nearest hops first, and wait for the answers."""
        by_ttl: dict[int, list[Flow]] = defaultdict(list)
        for flow, ttl in questions:
            by_ttl[ttl].append(flow)
        volleys = [
            Volley(theirs, Attempts(numbers.first + ttl - 1, 1), way, ALL_OF_A_PORT, shape=Shape(hops=ttl))
            for ttl, flows in by_ttl.items()
            for way, theirs in zip((KERNEL, LINK), self._there.field.by_way(flows), strict=True)
            if theirs
        ]
        await self._there.volleys.fire(volleys, after_s=after_s, most_a_second=SPOKEN_RATE, timed=True)
        self._fired_at = trio.current_time()
        deadline = self._fired_at + self._there.field.settings.timeout_s
        open_ = list(questions)
        while open_ and trio.current_time() < deadline:
            await self._there.volleys.listen(
                {end for flow, _ in open_ for end in (flow.src, flow.dst)}, _POLL_S
            )
            open_ = [each for each in open_ if not self._is_settled(each)]
