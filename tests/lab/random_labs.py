"""
Random labs against the model; scripts/random-labs runs many.

Each seed is a lab that is built, probed, and compared cell by cell; what is wrong is printed with the seed,
the description of the lab, and the evidence.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime, timedelta
from typing import Final

import click
import msgspec
import trio
import yaml

from netprobe import coordinator
from netprobe.lab import Lab
from netprobe.lab.expectations import label
from netprobe.model import RATIONED, Caveat, Cell, Family, Flow, Run, Segment, Verdict
from netprobe.plan import Settings
from tests.lab.halves import SPOKEN, Truth
from tests.lab.live.programs import HOLD
from tests.lab.probing import Held, evidence
from tests.lab.rules import Net
from tests.lab.seeds import network
from tests.lab.truth import Model

# Nothing that netprobe sends gets further than to its sockets.
_SERVICE: Final = HOLD + "import signal; signal.pause()"

_IN_TIME: Final = 2
"""
Flows of a ration that a run has time to ask alone, also on a busy machine.

A question takes 2.2 seconds, and up to one more until its answer is missed, of ten seconds for all.
"""


class Result(msgspec.Struct):
    """
    What came of one seed.

    `refused` counts the flows that somebody beyond their source refuses, `rationed` those of them that there
    was no time to hear of, `lossy` the flows of which a rule drops half; `lucky` are those of them that hold
    what only luck brings.
    """

    seed: int
    cells: int = 0
    refused: int = 0
    rationed: int = 0
    assisted: int = 0
    hindered: int = 0
    lossy: int = 0
    lucky: list[str] = []
    seconds: float = 0
    wrong: list[str] = []
    held: dict[str, int] = {}


def probe(seed: int) -> Result:
    """Build the lab of a seed, probe it, and compare."""
    return trio.run(probed, seed)


async def probed(seed: int) -> Result:
    """The same, beside whatever else goes on."""
    started = time.monotonic()
    net = network(seed)
    try:
        with Lab(net.description()) as lab:
            _serve(lab, net)
            run = await coordinator.run(lab.inventory(), Settings())
        result = compared(seed, run)
    except Exception:  # noqa: BLE001 (one seed that fails must not hide what others find)
        return Result(seed, wrong=[traceback.format_exc()])
    result.seconds = time.monotonic() - started
    return result


def _serve(lab: Lab, net: Net) -> None:
    """Start the services of a network, and wait until they listen."""
    sockets: dict[str, list[str]] = {}
    for each in net.services:
        address = lab.hosts[each.on].address(each.family)
        if each.is_anywhere:
            address = "0.0.0.0" if each.family is Family.IPV4 else "::"
        sockets.setdefault(each.on, []).append(f"{each.protocol},{address},{each.port}")
    started = [
        lab.popen(on, [sys.executable, "-c", _SERVICE, *theirs], stdout=subprocess.PIPE)
        for on, theirs in sockets.items()
    ]
    for process in started:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline(), "a service of the lab does not listen"


def compared(seed: int, run: Run) -> Result:
    """What a run in the lab of a seed found, against the model."""
    net = network(seed)
    model = Model(net)
    result = Result(seed, cells=len(run.cells))
    truths = [(cell, model.truth(cell.flow)) for cell in run.cells]
    shares = Counter(_ration(cell.flow, truth.found) for cell, truth in truths)
    unheard: Counter[object] = Counter()
    # Where half of the resets get lost, SYN-ACKs are sent again and again, and draw on the same rations.
    in_time = 0 if net.loses_some else _IN_TIME
    held: Counter[str] = Counter()
    for cell, truth in truths:
        found = Held.of(cell)
        ration = _ration(cell.flow, truth.found)
        held[str(truth.found._replace(by="", caveats=()))] += 1
        result.refused += ration is not None and truth.found.verdict in SPOKEN
        result.lossy += bool(truth.rare)
        if found == truth.found or found in truth.also:
            is_marked = Caveat.STATE_ASSISTED in truth.found.caveats
            is_otherwise = truth.found[:2] != truth.fresh[:2] and not truth.rare
            result.assisted += is_marked and is_otherwise
            result.hindered += not is_marked and is_otherwise
        elif found == truth.fresh and Caveat.STATE_ASSISTED in truth.found.caveats and _is_forgotten(run):
            # What the network does by itself, without the entry that the opposite had made.
            result.hindered += 1
        elif truth.is_rare(found):
            result.lucky.append(_mistake(cell, truth))
        elif _is_rationed(cell, truth) and unheard[ration] < shares[ration] - in_time:
            unheard[ration] += 1
        else:
            result.wrong.append(_mistake(cell, truth))
    result.rationed = unheard.total()
    result.held = dict(held)
    return result


def _is_forgotten(run: Run) -> bool:
    """Whether a router may have forgotten the first datagrams (nf_conntrack_udp_timeout, 30 seconds)."""
    started, finished = (datetime.fromisoformat(each) for each in (run.started, run.finished))
    return finished - started >= timedelta(seconds=30)


def _ration(flow: Flow, held: Held) -> tuple[str, str, Family] | None:
    """Who is told of losses at a place, and by whom ("" for the router): for these there is one ration."""
    match held.segment:
        case Segment.PATH:
            return flow.src, "", flow.family
        case Segment.DESTINATION_INGRESS:
            return flow.src, flow.dst, flow.family
        case Segment.RETURN_PATH:
            return flow.dst, "", flow.family
        case Segment.SOURCE_INGRESS:
            return flow.dst, flow.src, flow.family
        case _:
            return None


def _is_rationed(cell: Cell, truth: Truth) -> bool:
    """Whether a refusal went unheard, and the cell says that it may have: nobody has all the time."""
    spoken = truth.found.verdict in SPOKEN
    silent = truth.found._replace(verdict=Verdict.FILTERED, by="")
    return spoken and Held.of(cell) == silent and RATIONED in cell.judgement.detail


def _mistake(cell: Cell, truth: Truth) -> str:
    return (
        f"{label(cell.flow)}: expected {truth}, found {Held.of(cell)} ({cell.judgement.detail})\n"
        f"    evidence {evidence(cell)}"
    )


def report(result: Result) -> str:
    """A failure with all that is needed to look into it."""
    net = network(result.seed)
    raw = msgspec.to_builtins(net.description(), enc_hook=str)
    fault_keys = ("on", "type", "hook", "priority", "policy", "nft", "nft_ruleset", "route")
    raw["faults"] = [{key: fault[key] for key in fault_keys if fault.get(key)} for fault in raw["faults"]]
    raw["services"] = [str(each) for each in net.services]
    description = yaml.safe_dump(raw, sort_keys=False, width=200, default_flow_style=None)
    return "\n".join([f"seed {result.seed}:", *result.wrong, description])


def probe_all(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """Probe the labs of seeds, so many at a time; each as soon as it is done."""
    # Labs work with threads in namespaces: each gets a fresh process, not the fork of a busy one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for done in as_completed([pool.submit(probe, seed) for seed in seeds]):
            yield done.result()


@click.command(help=__doc__)
@click.option("--seeds", default=200, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--jobs", default=4, show_default=True, help="How many labs at a time.")
@click.option("--json", "is_json", is_flag=True, help="Print a result as a line of JSON for each seed.")
@click.argument("these", metavar="[SEED]...", type=int, nargs=-1)
def main(seeds: int, first: int, jobs: int, *, is_json: bool, these: tuple[int, ...]) -> None:
    """Run many seeds, some at a time; the exit status is 1 where any cell is wrong."""
    started = time.monotonic()
    results = []
    for result in probe_all(these or range(first, first + seeds), jobs):
        results.append(result)
        if is_json:
            click.echo(msgspec.json.encode(result))
            continue
        if result.wrong:
            click.echo(report(result))
            continue
        more = {"rationed": result.rationed, "lossy": result.lossy, "lucky": len(result.lucky)}
        counts = "".join(f", {count} {name}" for name, count in more.items() if count)
        click.echo(f"seed {result.seed}: {result.cells} cells, {result.seconds:.1f} s{counts}", err=True)
        for each in result.lucky:
            click.echo(f"  by luck: {each}", err=True)
    if not is_json:
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
        f"{sum(result.rationed for result in results)} of "
        f"{sum(result.refused for result in results)} refusals rationed and said so, "
        f"{sum(result.lossy for result in results)} halved, of which "
        f"{sum(len(result.lucky) for result in results)} by luck otherwise; {seconds:.0f} s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
