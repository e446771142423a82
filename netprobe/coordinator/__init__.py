"""
A run: deploy, arm, fire, collect, confirm, judge.

Everything is trio: one task for each agent, a deadline on every wait. A host that fails becomes a reason
beside its flows; the others are tested on. However a run ends, its agents are ended first.
"""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version

import trio

from netprobe.coordinator.cells import cells
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.field import Field
from netprobe.coordinator.muster import Muster
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.refusals import Refusals
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.sessions import Sessions
from netprobe.coordinator.state import State
from netprobe.coordinator.volleys import Volleys
from netprobe.model import Inventory, Run
from netprobe.plan import Settings

__all__ = ["Progress", "Settings", "Silent", "run"]


async def run(inventory: Inventory, settings: Settings, progress: Progress | None = None) -> Run:
    """
    Probe everything that an inventory asks for.

    Hosts that fail are in the result with their reasons. Raises `ValueError` where an inventory asks for more
    flows than a run can number; nothing has been started then.
    """
    told = Silent() if progress is None else progress
    started = _now()
    field = Field(inventory, settings)
    crew = Crew([host for host in inventory.hosts if field.ending_at[host.name]], field.lose, told)
    muster = Muster(crew, field)
    async with trio.open_nursery() as nursery:
        try:
            await _probe(crew, field, muster, nursery, told)
        finally:
            await crew.end()
        nursery.cancel_scope.cancel()
    told.phase("judging", len(field.flows))
    return Run(
        inventory=inventory,
        settings=settings,
        hosts=muster.reports(),
        cells=cells(field),
        packets=field.packets,
        started=started,
        finished=_now(),
        versions={"netprobe": version("netprobe"), "python": platform.python_version()},
    )


async def _probe(crew: Crew, field: Field, muster: Muster, nursery: trio.Nursery, told: Progress) -> None:
    volleys = Volleys(crew, field)
    state = State(crew, field)
    rounds = Rounds(field, muster, volleys, state, told)
    told.phase("starting agents", len(crew.names))
    async with trio.open_nursery() as starting:
        starting.start_soon(trio.to_thread.run_sync, field.craft)
        await crew.start(nursery)
    told.phase("preparing", len(crew.names))
    await muster.facts()
    await state.look()
    await muster.arm()
    await muster.listen()
    refusals = Refusals(field, volleys, rounds, told)
    await rounds.one_way()
    await refusals.ask_ahead()
    await rounds.other_way()
    if field.settings.depth == "session":
        sessions = Sessions(crew, field, volleys, muster, told)
        await rounds.look_closer(await sessions.hold())
    await refusals.ask_again()
    if muster.watching:
        # What came late, after its volley had been waited for, is evidence as well.
        await volleys.listen(crew.names, 0)
    await state.leave()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
