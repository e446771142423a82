"""A deployment's end: what it found, as the record of a run."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version

from netprobe.coordinator.deployment import Deployment
from netprobe.model import Cell, Inventory, PathMtu, Run, Settings


def now() -> str:
    """The time, as a run tells it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def record(
    there: Deployment,
    inventory: Inventory,
    settings: Settings,
    started: str,
    *,
    finished: str = "",
    cells: tuple[Cell, ...] = (),
    mtus: tuple[PathMtu, ...] = (),
) -> Run:
    """The run that was asked for with this inventory and these settings, and ends now, or then."""
    return Run(
        inventory=inventory,
        settings=settings,
        hosts=there.muster.reports(),
        cells=cells,
        mtus=mtus,
        packets=there.field.packets,
        started=started,
        finished=finished or now(),
        versions={"netprobe": version("netprobe"), "python": platform.python_version()},
    )
