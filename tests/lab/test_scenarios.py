"""
Every scenario, and the demo, by real packets: each cell as its description expects it, twice in a row.

A run is mostly waiting, so a few of them go on at the same time; one that is wrong only then is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab
from netprobe.model import Run
from netprobe.plan import Settings
from tests.described import DEMO, SCENARIOS
from tests.lab.probing import held, wrong

PATHS: Final = [*SCENARIOS, DEMO]
AT_A_TIME: Final = 6
_RUNS: Final = 2

Probed = tuple[Lab, list[Run | Exception]]


@pytest.fixture(scope="module")
def probed() -> Iterator[Mapping[Path, Probed]]:
    """Each lab, which is still there, with its runs."""
    with contextlib.ExitStack() as labs:
        found: dict[Path, Probed] = {path: (labs.enter_context(Lab.from_file(path)), []) for path in PATHS}
        trio.run(_probe, found)
        yield found


async def _probe(labs: Mapping[Path, Probed]) -> None:
    limit = trio.CapacityLimiter(AT_A_TIME)

    async def probe(lab: Lab, runs: list[Run | Exception]) -> None:
        async with limit:
            for _ in range(_RUNS):
                try:
                    runs.append(await coordinator.run(lab.inventory(), Settings()))
                except Exception as error:  # noqa: BLE001 - it is raised again by the test that it belongs to
                    runs.append(error)

    async with trio.open_nursery() as nursery:
        for lab, runs in labs.values():
            nursery.start_soon(probe, lab, runs)


@pytest.mark.lab
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_scenario_is_found_as_it_is_twice_in_a_row(probed: Mapping[Path, Probed], path: Path) -> None:
    """
    What the first run leaves behind (connections, neighbours, spent rations of ICMP) changes no cell.
    """
    lab, results = probed[path]
    runs = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        assert [] == wrong(lab, result)
        runs.append(result)
    first, second = runs

    assert held(first) == held(second)
    assert all(not report.error for run in runs for report in run.hosts)
