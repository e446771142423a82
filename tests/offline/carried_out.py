"""What the tests of plans share: programmes run in the namespaces of a lab, without anything between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from netprobe.lab import Lab
from netprobe.model import Inventory, Run
from netprobe.offline import collate, draw_up
from netprobe.plan import Settings
from tests.agent.driver import entering

LEAD_S: Final = 3.0
PATIENCE_S: Final = 10.0
MARGIN_S: Final = 2.0


def plan(
    directory: Path,
    inventory: Inventory,
    settings: Settings | None = None,
    *,
    margin_s: float = MARGIN_S,
    patience_s: float = PATIENCE_S,
) -> None:
    """Write a plan into a directory."""
    draw_up(inventory, settings or Settings(), margin_s, patience_s).write(directory, inventory)


def compared() -> str:
    """Clocks that are compared as well as can be."""
    readings = (f"{time.time()} {time.time()} {time.monotonic()}" for _ in range(3))
    return ",".join(readings)


def arguments(directory: Path, name: str, start: float) -> list[str]:
    """What a programme is told."""
    output = directory / "observations" / f"{name}.jsonl"
    output.parent.mkdir(exist_ok=True)
    return ["--start", str(start), "--clock", compared(), "--output", str(output)]


def argv(lab: Lab, directory: Path, name: str, start: float, python: Sequence[str]) -> list[str]:
    """The command line that runs a host's programme there."""
    programme = str(directory / "programmes" / f"{name}.py")
    return [*entering(lab, name), *python, "-I", "-S", programme, *arguments(directory, name, start)]


async def carry_out(lab: Lab, inventory: Inventory, directory: Path) -> Mapping[str, str]:
    """Run the programmes of all hosts; what each said on stderr."""
    start = time.time() + LEAD_S
    said: dict[str, str] = {}

    async def run(name: str, command: list[str]) -> None:
        ended = await trio.run_process(command, check=False, capture_stderr=True)
        said[name] = ended.stderr.decode()

    async with trio.open_nursery() as nursery:
        for host in inventory.hosts:
            if (directory / "programmes" / f"{host.name}.py").exists():
                nursery.start_soon(run, host.name, argv(lab, directory, host.name, start, host.python))
    return said


def probed(lab: Lab, directory: Path, inventory: Inventory | None = None) -> Run:
    """A run of a lab by a plan, from its first line to the last."""
    everything = inventory or lab.inventory()
    plan(directory, everything)
    trio.run(carry_out, lab, everything, directory)
    return collate([directory]).run
