"""
Refusals that were not heard: silence is only silence when nobody was short of words.

Linux gives out about one ICMP error a second to each destination, after a small burst
(net.ipv4.icmp_ratelimit; design trap 11). A mesh fired at once therefore hears few of the refusals that it
gets. So, when everything else is done, each silent flow is asked once more, a ration's time after the first
round; and where somebody on its way is known to refuse, once more alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from netprobe.attempts import FIRST, SLOW, Attempts
from netprobe.coordinator.field import Field
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.volleys import SPOKEN_PERIOD_S, Volleys
from netprobe.model import Family, Flow, Segment

_ROUTE_PERIOD_S: Final = 2.2
"""An error of an IPv4 route costs two of these rations (linux/net/ipv4/route.c, ip_error)."""
_ROUTE_BURST: Final = 3
"""More than come out of the full bucket at once (ip_rt_error_burst is five of them)."""
_ROUTE_REASONS: Final = ("ICMP 3/0 ", "ICMP 3/1 ", "ICMP 3/13 ")
_IPV6_PERIOD_S: Final = 0.3
"""The time for a /64; wider routes take less, only a host's own takes the second (icmpv6_xrlim_allow)."""
_PATIENCE_S: Final = 10.0
"""How long flows are asked one by one: a run must end."""
_NEIGHBOUR_FAILED_S: Final = 3.4
"""A router says "host unreachable" when three requests for the neighbour, one a second, stayed unanswered."""
_TOGETHER: Final = Attempts(SLOW.first, 1)
_TOGETHER_LATE: Final = Attempts(SLOW.first + 1, 1)
_ALONE: Final = Attempts(SLOW.first + 2, 4)
_SURE: Final = _ALONE.first + 1
"""The second question is asked when the ration is full again whoever refuses; later ones, if it was not."""


class Ration(NamedTuple):
    """
    The errors that one host is told: by whom (an address, "" for the routers between), in a family.

    Hosts whose addresses are translated are known to each other's destinations by the address they share.
    """

    listener: str
    by: str
    family: Family


class _Queue:
    """
    The silent flows of one ration, in the order in which they are worth a question.

    First those of which more is known to be refused: to the same destination, of the same probe. Each flow is
    asked once before any is asked again. `drawn_at` is when the ration was last drawn on, by the clock of
    trio, and `words` how many refusals its listener had heard then.
    """

    def __init__(self, ration: Ration, flows: Iterable[Flow], refused: Iterable[Flow]) -> None:
        self.ration = ration
        self.drawn_at = 0.0
        self.words = 0
        self._attempts = dict.fromkeys(flows, _ALONE.first)
        self._heard = Counter(feature for flow in refused for feature in self._features(flow))
        self._in_vain: Counter[tuple[object, ...]] = Counter()

    @staticmethod
    def _features(flow: Flow) -> tuple[tuple[object, ...], ...]:
        return (Segment.SOURCE_EGRESS, flow.src), (Segment.PATH, flow.dst), (flow.probe, flow.port)

    def _promise(self, flow: Flow) -> float:
        """How likely the flow is refused, by those like it (Laplace's rule of succession)."""
        counts = ((self._heard[each], self._in_vain[each]) for each in self._features(flow))
        return sum((heard + 1) / (heard + in_vain + 2) for heard, in_vain in counts)

    @property
    def flows(self) -> Iterable[Flow]:
        """Those that are still to be asked."""
        return self._attempts

    def best(self) -> tuple[Flow, int]:
        """The flow to ask, and the number of the attempt."""
        return min(self._attempts.items(), key=lambda item: (item[1], -self._promise(item[0])))

    def due_at(self, period_s: float) -> float:
        """When the next question may be asked, if the ration has one more refusal after a period."""
        attempt = self.best()[1]
        if self.ration.family is Family.IPV4:
            return self.drawn_at + (period_s if attempt < _SURE else _ROUTE_PERIOD_S)
        return self.drawn_at + (_IPV6_PERIOD_S if attempt < _SURE else SPOKEN_PERIOD_S)

    def asked(self, flow: Flow, words: int, *, heard: bool, is_quiet: bool) -> bool:
        """
        Note what came of a question, and how many refusals the listener has heard by now.

        Whether the flow is asked no more although its refusal may have been rationed each time: `is_quiet`
        says that nothing else draws on the ration without a word.
        """
        (self._heard if heard else self._in_vain).update(self._features(flow))
        self._attempts[flow] += 1
        # What else was refused has taken the ration.
        is_settled = heard or (self._attempts[flow] > _SURE and words == self.words and is_quiet)
        self.words = words
        if not is_settled and self._attempts[flow] < _ALONE.first + _ALONE.total:
            return False
        self.drop(flow)
        return not is_settled

    def drop(self, flow: Flow) -> None:
        """Ask a flow no more."""
        del self._attempts[flow]


class Refusals:
    """The last round: silent flows are asked again."""

    def __init__(self, field: Field, volleys: Volleys, rounds: Rounds, told: Progress) -> None:
        self._field = field
        self._volleys = volleys
        self._rounds = rounds
        self._told = told
        self._started = self._drawn_at = trio.current_time()
        self._refused = 0
        self._patience_s = _PATIENCE_S

    async def ask_ahead(self) -> None:
        """
        Ask the silent flows after one way, if that cannot wait until the other way has been probed.

        A stateful device that sees the opposite of a flow first has no reason any more to refuse it.
        """
        silent, drawn = self._silent(self._field.missing(self._field.flows, FIRST)), self._drawn()
        if any(self._field.shares_conntrack(flow) and self._ration(flow) in drawn for flow in silent):
            await self._ask(silent)
        self._drawn_at = trio.current_time()
        self._refused = len(self._field.seen.refused)

    async def ask_again(self) -> None:
        """Ask the silent flows again."""
        silent = self._silent(self._field.missing(self._field.flows, FIRST))
        if silent:
            if len(self._field.seen.refused) == self._refused:
                # Nothing was refused the other way.
                self._drawn_at = self._started
            await self._ask(silent)
            await self._rounds.withdraw(silent)

    def conclude_asked(self, periods_s: Mapping[str, float], elapsed_s: float) -> None:
        """
        Note whose refusals may have been rationed although each silent flow was asked slowly once.

        So many seconds lay between two questions of a source, and at least the period of a ration between two
        to one destination; all sources asked at the same time.
        """
        drawn = self._drawn(elapsed_s)
        for flow in self._silent(self._field.flows) if drawn else ():
            ration = self._ration(flow)
            if ration not in drawn:
                continue
            is_own = ration.listener == flow.src
            is_enough = is_own and drawn[ration] <= (SPOKEN_PERIOD_S if ration.by else periods_s[flow.src])
            if not is_enough:
                self._field.unasked.add(flow.number)

    async def _ask(self, silent: Sequence[Flow]) -> None:
        self._told.phase("asking the silent ones again", len(silent))
        # Nothing at all comes through between the hosts of some: a router may still be looking for the
        # neighbour. When it has given up, it says so about every packet. Or it has a route to nowhere;
        # errors about those cost double.
        rested_at = max(self._started + _NEIGHBOUR_FAILED_S, trio.current_time() + _ROUTE_PERIOD_S)
        unheard = self._volleys.unheard(silent)
        dead = {flow.number for flow in unheard}
        alive = [flow for flow in silent if flow.number not in dead]
        await self._together(alive, _TOGETHER, self._drawn_at + SPOKEN_PERIOD_S)
        if unheard:
            left_s = max(0.0, rested_at - trio.current_time())
            await self._volleys.listen({flow.src for flow in unheard}, left_s)
            # One way after the other: where a host refuses what the opposite sends, its own refusals meet the
            # same dead route, and draw on what the router has to say about its probes.
            for is_second in (False, True):
                late = [flow for flow in self._silent(unheard) if self._field.is_second(flow) is is_second]
                await self._together(late, _TOGETHER_LATE, 0)
        await self._one_by_one(silent)

    async def _together(self, flows: Sequence[Flow], attempts: Attempts, not_before: float) -> None:
        unasked = self._unasked(flows, attempts)
        if unasked:
            after_s = max(0.0, not_before - trio.current_time())
            self._drawn_at = trio.current_time() + after_s
            await self._rounds.ask(unasked, attempts, after_s=after_s)

    async def _one_by_one(self, flows: Sequence[Flow]) -> None:
        """Ask each flow alone whose refusal may have been rationed, as long as there is patience."""
        if not self._field.seen.refused:
            return
        started = trio.current_time()
        words = self._field.seen.words
        queues = self._queues(self._unasked(flows, _ALONE))
        while True:
            drawn = self._drawn()
            waiting = [each for each in queues if each.ration in drawn and self._prune(each)]
            due = {queue: queue.due_at(drawn[queue.ration]) for queue in waiting}
            at = max(min(due.values(), default=0), trio.current_time())
            if not due or at > started + self._patience_s:
                break
            ready = [queue for queue, when in due.items() if when <= at]
            # One attempt at a time: those that are due as well with another one follow at once.
            attempt = min(queue.best()[1] for queue in ready)
            turn = {queue: flow for queue in ready for flow, number in [queue.best()] if number == attempt}
            for queue in turn:
                queue.drawn_at = at
            after_s = max(0.0, at - trio.current_time())
            await self._rounds.ask([*turn.values()], Attempts(attempt, 1), after_s=after_s)
            for queue, flow in turn.items():
                listener, heard = queue.ration.listener, self._field.lost_at(flow) is None
                is_quiet = drawn[queue.ration] < _ROUTE_PERIOD_S or not self._repeats(listener)
                if queue.asked(flow, words[listener], heard=heard, is_quiet=is_quiet):
                    self._field.unasked.add(flow.number)
        self._field.unasked.update(flow.number for queue in due for flow in queue.flows)
        self._patience_s = max(0.0, self._patience_s - (trio.current_time() - started))

    def _queues(self, flows: Iterable[Flow]) -> list[_Queue]:
        refused = defaultdict(list)
        for number, heard in self._field.seen.refused.items():
            for listener in {each.listener for each in heard}:
                refused[listener].append(self._field.flows[number])
        silent = defaultdict(list)
        for flow in self._field.testable(flows):
            ration = self._ration(flow)
            if ration is not None:
                silent[ration].append(flow)
        queues = [_Queue(ration, theirs, refused[ration.listener]) for ration, theirs in silent.items()]
        for queue in queues:
            queue.drawn_at, queue.words = self._drawn_at, self._field.seen.words[queue.ration.listener]
        return queues

    def _repeats(self, name: str) -> bool:
        """
        Whether a host sends SYN-ACKs again by itself, because it has connections half open.

        Each may meet the route to nowhere as well, and draws on that ration even where it leaves too little
        for a word (linux/net/ipv4/route.c, ip_error, before icmp_send asks once more).
        """
        theirs = (flow for flow in self._field.ending_at.get(name, ()) if flow.dst == name)
        return any(self._field.seen.is_waiting(flow) for flow in theirs)

    def _prune(self, queue: _Queue) -> bool:
        """Drop from the head of a queue what was answered late or lost a host; whether anything is left."""
        while queue.flows:
            flow, _attempt = queue.best()
            if self._silent([flow]):
                return True
            queue.drop(flow)
        return False

    def _unasked(self, flows: Iterable[Flow], attempts: Attempts) -> list[Flow]:
        return [flow for flow in flows if not self._field.seen.sent[flow.number] & attempts.mask]

    def _silent(self, flows: Iterable[Flow]) -> list[Flow]:
        return [
            flow
            for flow in self._field.testable(flows)
            # Whoever refuses a pod's packet tells the pod.
            if not flow.forwarded and self._field.lost_at(flow) is not None
        ]

    def _drawn(self, elapsed_s: float | None = None) -> dict[Ration, float]:
        """The rations that errors have come out of, and how many seconds each takes to give one more."""
        if elapsed_s is None:
            elapsed_s = trio.current_time() - self._started
        addresses = {address for host in self._field.inventory.hosts for address in host.addresses}
        words: Counter[Ration] = Counter()
        of_routes = set()
        for number, heard in self._field.seen.refused.items():
            flow = self._field.flows[number]
            for refused in heard:
                refusal = refused.refusal
                by = refusal.by if refusal.by in addresses else ""
                listener = self._as_seen(flow) if by == flow.dst_address else refused.listener
                ration = Ration(listener, by, Family.of(refusal.by))
                words[ration] += 1
                if refusal.reason.startswith(_ROUTE_REASONS):
                    of_routes.add(ration)
        # A firewall may say the same for half of the price; then more is heard than routes can have said.
        most = _ROUTE_BURST + elapsed_s / _ROUTE_PERIOD_S
        return {
            ration: _ROUTE_PERIOD_S if ration in of_routes and count <= most else SPOKEN_PERIOD_S
            for ration, count in words.items()
        }

    def _ration(self, flow: Flow) -> Ration | None:
        """Whom a refusal at the place where the flow was lost would tell, and who would."""
        match self._field.lost_at(flow):
            case Segment.PATH:
                return Ration(flow.src, "", flow.family)
            case Segment.DESTINATION_INGRESS:
                return Ration(self._as_seen(flow), flow.dst_address, flow.family)
            case Segment.RETURN_PATH:
                return Ration(flow.dst, "", flow.family)
            case Segment.SOURCE_INGRESS:
                return Ration(flow.dst, flow.src_address, flow.family)
            case _:
                # A host's refusals of its own packets are not rationed: they never leave it.
                return None

    def _as_seen(self, flow: Flow) -> str:
        """The source as its destination knows it: hosts behind one address share what it says to that."""
        return self._field.seen.nat.get(flow.number, flow.src)
