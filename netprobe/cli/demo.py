"""`netprobe demo`: a small faulty cluster out of network namespaces, probed for real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from netprobe.cli.errors import Refused
from netprobe.cli.output import Output
from netprobe.cli.run import probe, render

if TYPE_CHECKING:
    from netprobe.lab import Expectations, Planted
    from netprobe.model import Cell

_FAULTS_DIFFER: Final = 1


@click.command(
    epilog="""\b
Examples:
  netprobe demo
  netprobe demo -v"""
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Every flow with its evidence, and a line for each phase."
)
def demo(*, verbose: bool) -> int:
    """
    Build a small faulty cluster on this machine, probe it, and compare what was planted with what was found.

    The hosts are network namespaces; they are gone when the command ends. Without root it works where user
    namespaces are allowed. Exit status 0: exactly the planted faults were found.
    """
    from netprobe.cli.progress import Progress
    from netprobe.lab import Lab, LabError
    from netprobe.lab.rootless import reexec_in_user_namespace
    from netprobe.plan import Settings

    try:
        reexec_in_user_namespace()
        description = Path(__file__).parents[1] / "lab" / "demo.yaml"
        with Lab.from_file(description) as lab, Progress(verbose=verbose) as progress:
            result = probe(lab.inventory(), Settings(), progress)
    except LabError as error:
        raise Refused(str(error)) from None
    target = Output(None)
    mismatches = lab.expectations.compare(result.cells)
    lines = [
        "",
        "Planted and found:",
        "",
        *(
            f"  {line}"
            for planted in lab.planted
            for line in _comparison(planted, lab.expectations, result.cells)
        ),
        "",
        *(f"not as planted: {mismatch}" for mismatch in mismatches),
        "The faults that were planted are the faults that were found, and no others."
        if not mismatches
        else f"{len(mismatches)} of {len(result.cells)} cells are not as planted.",
    ]
    target.write(render(result, "text", target, verbose=verbose) + "\n".join(lines) + "\n")
    return _FAULTS_DIFFER if mismatches else 0


def _comparison(planted: Planted, expectations: Expectations, cells: tuple[Cell, ...]) -> Iterator[str]:
    """One planted fault, and below it what was found where it is meant to show."""
    theirs = [cell for cell in cells if planted.shows_in(cell.flow)]
    is_found = bool(theirs) and all(expectations.expected(cell.flow).fits(cell.judgement) for cell in theirs)
    found = Counter(
        judgement.verdict.value + (f" @ {judgement.segment.value}" if judgement.segment else "")
        for judgement in (cell.judgement for cell in theirs)
    )
    yield f"{'found  ' if is_found else 'MISSED '} {planted.says} ({', '.join(planted.on)})"
    yield "        " + ", ".join(f"{number} x {words}" for words, number in found.items())
