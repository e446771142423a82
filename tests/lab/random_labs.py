"""
Random labs against the model; scripts/random-labs runs many.

Each seed is a lab that is built, probed, and compared cell by cell; what is wrong is printed with the seed,
the description of the lab, and the evidence.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import click
import msgspec
import trio
import yaml

from netprobe import coordinator
from netprobe.lab import Lab
from netprobe.lab.expectations import label
from netprobe.model import Caveat, Cell, Run, Verdict
from netprobe.plan import Settings
from tests.lab.probing import Held, evidence
from tests.lab.seeds import network
from tests.lab.truth import Model, Truth

_RATIONED = "refusals may have been rationed"


class Result(msgspec.Struct):
    """What came of one seed; `rationed` counts the refusals that there was no time to hear."""

    seed: int
    cells: int = 0
    rationed: int = 0
    assisted: int = 0
    hindered: int = 0
    seconds: float = 0
    wrong: list[str] = []
    held: dict[str, int] = {}


def probe(seed: int) -> Result:
    """Build the lab of a seed, probe it, and compare."""
    return trio.run(probed, seed)


async def probed(seed: int) -> Result:
    """The same, beside whatever else goes on."""
    started = time.monotonic()
    try:
        with Lab(network(seed).description()) as lab:
            run = await coordinator.run(lab.inventory(), Settings())
    except Exception:  # noqa: BLE001 (one seed that fails must not hide what others find)
        return Result(seed, wrong=[traceback.format_exc()])
    result = compared(seed, run)
    result.seconds = time.monotonic() - started
    return result


def compared(seed: int, run: Run) -> Result:
    """What a run in the lab of a seed found, against the model."""
    model = Model(network(seed))
    result = Result(seed, cells=len(run.cells))
    held: Counter[str] = Counter()
    for cell in run.cells:
        truth = model.truth(cell.flow)
        held[str(truth.found._replace(by="", caveats=()))] += 1
        if Held.of(cell) == truth.found:
            is_marked = Caveat.STATE_ASSISTED in truth.found.caveats
            result.assisted += is_marked and truth.found._replace(caveats=()) != truth.fresh
            result.hindered += not is_marked and truth.found != truth.fresh
        elif _is_rationed(cell, truth):
            result.rationed += 1
        else:
            result.wrong.append(_mistake(cell, truth))
    result.held = dict(held)
    return result


def _is_rationed(cell: Cell, truth: Truth) -> bool:
    """Whether a refusal went unheard, and the cell says that it may have: nobody has all the time."""
    spoken = truth.found.verdict in (Verdict.REJECTED, Verdict.UNREACHABLE)
    silent = truth.found._replace(verdict=Verdict.FILTERED, by="")
    return spoken and Held.of(cell) == silent and _RATIONED in cell.judgement.detail


def _mistake(cell: Cell, truth: Truth) -> str:
    return (
        f"{label(cell.flow)}: expected {truth.found}, found {Held.of(cell)} ({cell.judgement.detail})\n"
        f"    evidence {evidence(cell)}"
    )


def report(result: Result) -> str:
    """A failure with all that is needed to look into it."""
    raw = msgspec.to_builtins(network(result.seed).description(), enc_hook=str)
    fault_keys = ("on", "hook", "priority", "policy", "nft", "route")
    raw["faults"] = [{key: fault[key] for key in fault_keys if fault.get(key)} for fault in raw["faults"]]
    description = yaml.safe_dump(raw, sort_keys=False, width=200, default_flow_style=None)
    return "\n".join([f"seed {result.seed}:", *result.wrong, description])


@click.command(help=__doc__)
@click.option("--seeds", default=200, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--jobs", default=4, show_default=True, help="How many labs at a time.")
def main(seeds: int, first: int, jobs: int) -> None:
    """Run many seeds, some at a time; the exit status is 1 where any cell is wrong."""
    started = time.monotonic()
    results = []
    # Labs work with threads in namespaces: each gets a fresh process, not the fork of a busy one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for done in as_completed([pool.submit(probe, seed) for seed in range(first, first + seeds)]):
            result = done.result()
            results.append(result)
            if result.wrong:
                click.echo(report(result))
            else:
                rationed = f", {result.rationed} rationed" if result.rationed else ""
                click.echo(
                    f"seed {result.seed}: {result.cells} cells, {result.seconds:.1f} s{rationed}", err=True
                )
    click.echo(summary(results, time.monotonic() - started))
    sys.exit(any(result.wrong for result in results))


def summary(results: Sequence[Result], seconds: float) -> str:
    """What was compared, and what came of it."""
    held: Counter[str] = Counter()
    for result in results:
        held.update(result.held)
    lines = [f"{count:7} {words}" for words, count in held.most_common()]
    lines.append(
        f"{len(results)} labs, {sum(result.cells for result in results)} cells, "
        f"{sum(len(result.wrong) for result in results)} wrong in "
        f"{sum(bool(result.wrong) for result in results)} labs; "
        f"{sum(result.assisted for result in results)} assisted by a state and marked so, "
        f"{sum(result.hindered for result in results)} hindered by one, "
        f"{sum(result.rationed for result in results)} refusals rationed and said so; {seconds:.0f} s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
