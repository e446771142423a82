"""What the tests of whole runs share: a run in a lab, and what its cells hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import trio

from netprobe import coordinator
from netprobe.lab import Lab
from netprobe.lab.expectations import label
from netprobe.model import Caveat, Cell, Inventory, Run, Segment, Verdict
from netprobe.plan import Settings

PHASES: Final = (
    "starting agents",
    "preparing",
    "first look",
    "confirming",
    "the other way",
    "sessions",
    "asking the silent ones again",
)
"""What a run tells of its progress, as far as hosts have a part in it."""


class Held(NamedTuple):
    """What a cell holds, but for the words."""

    verdict: Verdict
    segment: Segment | None = None
    by: str = ""
    caveats: tuple[Caveat, ...] = ()

    @classmethod
    def of(cls, cell: Cell) -> Held:
        """What this cell holds."""
        judgement = cell.judgement
        return cls(judgement.verdict, judgement.segment, judgement.by, judgement.caveats)

    def __str__(self) -> str:
        """As a description of a lab has it, and more."""
        where = f" @ {self.segment.value}" if self.segment else ""
        by = f" by {self.by}" if self.by else ""
        return f"{self.verdict.value}{where}{by}" + "".join(f" +{caveat.value}" for caveat in self.caveats)


def asked(lab: Lab, *probes: str) -> Inventory:
    """The inventory of a lab, for these probes only (without any: for all)."""
    return msgspec.structs.replace(lab.inventory(), probes=probes or None)


def probe(lab: Lab, *probes: str, settings: Settings | None = None) -> Run:
    """One run."""
    return trio.run(coordinator.run, asked(lab, *probes), settings or Settings())


def held(run: Run) -> dict[str, Held]:
    """What each cell holds, by its flow as a pattern names it: `a -> b bgp:179/ipv4`."""
    return {label(cell.flow): Held.of(cell) for cell in run.cells}


def words(run: Run) -> dict[str, str]:
    """The same as text, without who refused and without caveats."""
    return {name: str(found._replace(by="", caveats=())) for name, found in held(run).items()}


def wrong(lab: Lab, run: Run, *, is_partial: bool = False) -> list[str]:
    """The cells that are not what the lab expects, each with all that was seen of it."""
    return [
        f"{mismatch}\n    {evidence(mismatch.cell)}"
        for mismatch in lab.expectations.compare(run.cells, is_partial=is_partial)
    ]


def evidence(cell: Cell | None) -> str:
    """The evidence of a cell for a person who has to find out."""
    return "" if cell is None else msgspec.json.encode(cell.evidence, enc_hook=str).decode()


def only(cells: Iterable[Cell], pattern: str) -> Cell:
    """The one cell whose flow is called so."""
    (cell,) = (cell for cell in cells if label(cell.flow) == pattern)
    return cell
