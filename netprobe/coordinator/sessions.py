"""
TCP sessions with payload, where our own listener holds the port and a SYN gets through.

A firewall may let the handshake pass and drop the application. A session that fails is tried again, with taps
that see the payloads, so that the lost one is lost at a place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import trio

from netprobe import plan, wire
from netprobe.attempts import FIRST
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S, Volleys
from netprobe.model import Flow
from netprobe.observations import ANSWERED, NOTHING, SessionResult

_PARALLEL: Final = 32
_UNTAPPED: Final = 0
"""The attempt number of a first session; the taps for payloads are armed only for later ones."""
_AGAIN: Final = (1, 2, 3)
_SESSION_S: Final = 0.7
"""Time for two retransmissions of a payload: after 0.2 s and 0.6 s (TCP_RTO_MIN, doubled)."""
_ROUND_TRIPS: Final = 4


class Sessions:
    """All sessions of a run."""

    def __init__(self, crew: Asked, field: Field, volleys: Volleys, muster: Muster, told: Progress) -> None:
        self._crew = crew
        self._field = field
        self._volleys = volleys
        self._muster = muster
        self._told = told

    async def hold(self) -> list[Flow]:
        """Hold a session for each flow that can; the flows whose SYNs alone deserve a closer look."""
        flows = [flow for flow in self._field.testable(self._field.flows) if self._can(flow)]
        self._told.phase("sessions", len(flows))
        await self._connect(flows, _UNTAPPED)
        failed = [flow for flow in self._field.testable(flows) if not self._went_well(flow)]
        self._told.advance(len(flows) - len(failed))
        if failed:
            await self._muster.arm_payloads({name for flow in failed for name in (flow.src, flow.dst)})
            async with trio.open_nursery() as nursery:
                for attempt in _AGAIN:
                    nursery.start_soon(self._connect, failed, attempt, len(_AGAIN))
            await self._volleys.listen({flow.src for flow in failed}, 0)
        await self._volleys.listen({flow.dst for flow in flows}, 0)
        return [flow for flow in flows if self._retransmitted(flow) or self._unconnected(flow)]

    def _can(self, flow: Flow) -> bool:
        return self._field.will_hold_session(flow) and self._field.seen.passed(flow, FIRST.mask) != 0

    async def _connect(self, flows: Sequence[Flow], attempt: int, beside: int = 1) -> None:
        """Hold a session for each; `beside` is how many such rounds go on at the same time."""
        theirs: dict[str, dict[tuple[str, int, int, int], list[tuple[int, str]]]] = defaultdict(dict)
        for flow in self._field.testable(flows):
            if flow.port is not None:
                what = flow.src_address, flow.port, *self._field.speeches[flow.dst_address, flow.port]
                theirs[flow.src].setdefault(what, []).append((flow.number, flow.dst_address))
        timeout_s = _SESSION_S + self._volleys.slowest_rtt_s() * _ROUND_TRIPS
        # Every host is at both ends, of as many sessions.
        rate = self._volleys.rate / (plan.SESSION_PACKETS * beside)
        requests = {
            name: wire.Connect(
                attempt=attempt,
                timeout=timeout_s,
                parallel=_PARALLEL,
                rate=rate,
                sessions=[(*what, targets) for what, targets in sessions.items()],
            )
            for name, sessions in theirs.items()
        }
        longest = max(Counter(flow.src for flow in flows).values(), default=0)
        patience_s = ANSWER_TIMEOUT_S + timeout_s * (1 + longest / _PARALLEL) + (longest + 1) / rate
        connected = await self._crew.ask("connect", requests, wire.Connected, patience_s)
        for name, result in connected.items():
            for number, stage, error, rtt_us, retransmissions in result.results:
                how = SessionResult(attempt, stage, error, rtt_us, retransmissions, attempt != _UNTAPPED)
                self._field.seen.held(name, number, how)

    def _results(self, flow: Flow) -> list[SessionResult]:
        return self._field.seen.sessions.get(flow.number, [])

    def _went_well(self, flow: Flow) -> bool:
        results = self._results(flow)
        return not results or results[-1].stage == ANSWERED

    def _unconnected(self, flow: Flow) -> bool:
        """Whether a SYN alone was answered, and that of a session was not: by chance, maybe."""
        return any(result.stage == NOTHING for result in self._results(flow))

    def _retransmitted(self, flow: Flow) -> bool:
        resent = flow.number in self._field.seen.resent
        return resent or any(result.retransmissions for result in self._results(flow))
