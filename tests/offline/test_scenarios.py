"""
Labs with a fault, by a plan: each cell as `netprobe run --depth syn` finds it on the same lab.

A plan is mostly waiting, so all of them go on at the same time. These files have a loss at every segment, a
refusal by everybody who can refuse, and every order of packets that state could spoil.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab
from netprobe.model import Caveat, Run
from netprobe.offline import collate
from netprobe.plan import Settings
from tests.described import SCENARIOS
from tests.lab.probing import Held, held, wrong
from tests.offline import carried_out

CHOSEN: Final = (
    "address-translation",
    "answer-refused",
    "answered-by-a-proxy-on-the-way",
    "bridged-neighbours",
    "datagrams-handed-to-another-host",
    "host-rejects",
    "one-of-two-links-is-dead",
    "path-drop",
    "pods-anti-spoofing",
    "rate-limit",
    "router-has-no-route",
    "router-prohibits",
    "some-answers-lost",
    "stateful-input",
    "stateful-output",
    "output-drop",
)
PATHS: Final = [path for path in SCENARIOS if path.stem in CHOSEN]
_RUNS_AT_A_TIME: Final = 4
_MARGIN_S: Final = 6.0
"""All of these programmes share the processors of one machine."""


class Probed(NamedTuple):
    """A lab, as a live run has found it, and as a plan has."""

    lab: Lab
    live: Run
    planned: Run


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Path, Probed]]:
    """All labs, which are still there, probed in both ways."""
    with contextlib.ExitStack() as stack:
        labs = {path: stack.enter_context(Lab.from_file(path)) for path in PATHS}
        yield trio.run(_probe, labs, tmp_path_factory.mktemp("plans"))


async def _probe(labs: Mapping[Path, Lab], base: Path) -> Mapping[Path, Probed]:
    found: dict[Path, Probed] = {}
    limit = trio.CapacityLimiter(_RUNS_AT_A_TIME)

    async def probe(path: Path, lab: Lab) -> None:
        directory = base / path.stem
        async with limit:
            live = await coordinator.run(lab.inventory(), Settings(depth="syn"))
            draw_up = partial(carried_out.plan, directory, lab.inventory(), margin_s=_MARGIN_S)
            await trio.to_thread.run_sync(draw_up)
        await carried_out.carry_out(lab, lab.inventory(), directory)
        planned = (await trio.to_thread.run_sync(collate, [directory])).run
        found[path] = Probed(lab, live, planned)

    async with trio.open_nursery() as nursery:
        for path, lab in labs.items():
            nursery.start_soon(probe, path, lab)
    return found


def _comparable(run: Run) -> dict[str, Held]:
    """What the cells hold, but for what says only that a packet was repeated."""
    return {
        name: each._replace(caveats=tuple(caveat for caveat in each.caveats if caveat is not Caveat.RETRIED))
        for name, each in held(run).items()
    }


@pytest.mark.lab
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_plan_finds_what_a_run_finds(probed: Mapping[Path, Probed], path: Path) -> None:
    """Verdict, segment, refuser and caveats of every cell."""
    lab, live, planned = probed[path]

    assert _comparable(live) == _comparable(planned), wrong(lab, planned)
    assert [] == [report.error for report in planned.hosts if report.error]


def test_the_chosen_ones_are_there() -> None:
    """A file that was renamed is missed."""
    assert set(CHOSEN) == {path.stem for path in PATHS}
