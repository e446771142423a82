"""Agents on all hosts: started, asked what their hosts are, taps armed, ports held; ended in any case."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from netprobe.access import Access
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.field import Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.progress import Progress
from netprobe.coordinator.state import State
from netprobe.coordinator.volleys import Volleys
from netprobe.model import Flow, Inventory, Settings


class Deployment(NamedTuple):
    """What a run works with while its agents are there."""

    crew: Asked
    field: Field
    muster: Muster
    volleys: Volleys
    state: State


@asynccontextmanager
async def deployed(
    inventory: Inventory,
    settings: Settings,
    told: Progress,
    access: Access | None = None,
    flows: Sequence[Flow] | None = None,
) -> AsyncIterator[Deployment]:
    """
    Deploy the agents of an inventory, or those that `flows` need; they are ended however the body ends.

    What is probed are the flows that the inventory asks for, unless other ones are given.

    Hosts that fail are lost to the field with their reasons. Raises `ValueError` where an inventory asks for
    more flows than a run can number; nothing has been started then.
    """
    field = Field(inventory, settings, flows)
    needed = [host for host in inventory.hosts if field.ending_at[host.name]]
    crew = Crew(needed, access or Access(), field.lose, told)
    there = Deployment(crew, field, Muster(crew, field), Volleys(crew, field), State(crew, field))
    async with trio.open_nursery() as nursery:
        try:
            await _prepare(there, crew, nursery, told)
            yield there
            await there.state.leave()
        finally:
            await crew.end()
        nursery.cancel_scope.cancel()


async def _prepare(there: Deployment, crew: Crew, nursery: trio.Nursery, told: Progress) -> None:
    told.phase("starting agents", len(crew.names))
    async with trio.open_nursery() as starting:
        starting.start_soon(trio.to_thread.run_sync, there.field.craft)
        await crew.start(nursery)
    told.phase("preparing", len(there.crew.names))
    await there.muster.facts()
    await there.state.look()
    await there.muster.arm()
    await there.muster.listen()
