"""
A run: deploy, arm, fire, collect, confirm, judge.

Everything is trio: one task for each agent, a deadline on every wait. A host that fails becomes a reason
beside its flows; the others are tested on. However a run ends, its agents are ended first.
"""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.access import Access
from netprobe.coordinator.cells import cells
from netprobe.coordinator.connections import discount_met
from netprobe.coordinator.deployment import Deployment, deployed
from netprobe.coordinator.kernels import Kernels
from netprobe.coordinator.mtu import measure
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.record import now, record
from netprobe.coordinator.refusals import Refusals
from netprobe.coordinator.rounds import Rounds
from netprobe.coordinator.sessions import Sessions
from netprobe.model import Flow, Inventory, Run
from netprobe.plan import Settings

__all__ = ["Progress", "Settings", "Silent", "measure", "run"]


async def run(
    inventory: Inventory,
    settings: Settings,
    progress: Progress | None = None,
    flows: Sequence[Flow] | None = None,
    access: Access | None = None,
) -> Run:
    """
    Probe everything that an inventory asks for, or only `flows`; `access` says how to log in.

    Hosts that fail are in the result with their reasons. Raises `ValueError` where an inventory asks for more
    flows than a run can number; nothing has been started then.
    """
    told = Silent() if progress is None else progress
    started = now()
    async with deployed(inventory, settings, told, access, flows) as there:
        await _probe(there, told)
    field = there.field
    told.phase("judging", len(field.flows))
    return record(there, inventory, settings, started, cells=cells(field))


async def _probe(there: Deployment, told: Progress) -> None:
    crew, field, muster, volleys, state = there
    rounds = Rounds(field, muster, volleys, state, told)
    refusals = Refusals(field, volleys, rounds, told)
    kernels = Kernels(crew, field, rounds, volleys, told)
    await rounds.one_way()
    await refusals.ask_ahead()
    await rounds.other_way()
    if field.settings.depth == "session":
        await rounds.look_at_answers()
        sessions = Sessions(crew, field, volleys, muster, told)
        await rounds.look_closer(await sessions.hold())
    await refusals.ask_again()
    await rounds.look_again()
    if muster.watching:
        # What came late, after its volley had been waited for, is evidence as well.
        await volleys.listen(crew.names, 0)
    await discount_met(crew, field)
    await kernels.ask()
