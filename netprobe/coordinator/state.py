"""Conntrack entries of the flows that share one with their opposite: looked up before, deleted between."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

from netprobe import wire
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import Field
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S
from netprobe.model import Flow

_Tuple: TypeAlias = tuple[int, str, str, int, int]


class State:
    """
    The entries of a run's own tuples at both ends of each flow.

    An entry that was there before belongs to somebody's live tunnel and is never deleted (design trap 2).
    """

    def __init__(self, crew: Asked, field: Field) -> None:
        self._crew = crew
        self._field = field
        self._deletions: dict[str, wire.Conntrack] = {}

    async def look(self) -> None:
        """Note which entries there are before the first packet."""
        flows: dict[str, dict[_Tuple, list[int]]] = defaultdict(lambda: defaultdict(list))
        for name, theirs in self._field.ending_at.items():
            for flow in self._field.testable(theirs):
                if self._field.shares_conntrack(flow):
                    flows[name][_tuple(flow)].append(flow.number)
        requests = {name: wire.Conntrack(tuples=list(theirs)) for name, theirs in flows.items()}
        # Which of them are the run's own, each agent knows since this look.
        self._deletions = {
            name: wire.Conntrack(tuples=request.tuples, delete=True) for name, request in requests.items()
        }
        tracked = await self._crew.ask("conntrack", requests, wire.Tracked, ANSWER_TIMEOUT_S)
        for name, result in tracked.items():
            numbers = list(flows[name].values())
            before = {number for number in result.found if number < len(numbers)}
            self._field.before[name] = {flow for number in before for flow in numbers[number]}

    async def leave(self) -> None:
        """Have every agent delete the entries that were not there before, and end."""
        requests = dict.fromkeys(self._crew.names, wire.Nothing())
        await self._crew.ask("bye", requests, wire.Nothing, ANSWER_TIMEOUT_S)

    async def forget(self) -> None:
        """Delete the entries that were not there before, so that they open no way for what follows."""
        await self._crew.ask("conntrack", self._deletions, wire.Tracked, ANSWER_TIMEOUT_S)


def _tuple(flow: Flow) -> _Tuple:
    # WireGuard speaks between equal ports; IP protocol 4 has none.
    port = flow.port or 0
    return flow.protocol, flow.src_address, flow.dst_address, port, port
