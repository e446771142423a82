"""Two runs on the same hosts at the same time, and one host that an inventory lists twice."""

from __future__ import annotations

import msgspec
import pytest
import trio

from netprobe import coordinator
from netprobe.coordinator import Silent
from netprobe.lab import Lab, describe
from netprobe.model import Run, Segment, Verdict
from netprobe.plan import Settings
from tests.lab.probing import asked, evidence

pytestmark = pytest.mark.lab

STATEFUL = """
name: hosts that let in what they know
hosts: [a, b, c]
families: [ipv4]
faults:
  - {on: a, policy: drop, nft: ct state established accept}
  - {on: b, policy: drop, nft: ct state established accept}
  - {on: c, policy: drop, nft: ct state established accept}
"""


class Until(Silent):
    """Waits for a phase of a run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.begun = trio.Event()

    def phase(self, name: str, total: int) -> None:  # noqa: ARG002 - as every progress is told
        """A phase begins."""
        if name == self._name:
            self.begun.set()


async def test_of_two_runs_at_once_one_is_right_and_the_other_knows_nothing() -> None:
    """
    Together they would take each other's conntrack entries and listeners for those of the hosts.
    """
    runs: dict[str, Run] = {}

    with Lab(describe(STATEFUL)) as lab:
        inventory = asked(lab, "ipip", "wireguard", "bgp")
        until = Until("first look")

        async def first() -> None:
            runs["first"] = await coordinator.run(inventory, Settings(), until)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await until.begun.wait()
            runs["second"] = await coordinator.run(inventory, Settings())
        runs["third"] = await coordinator.run(inventory, Settings())

    for name in ("first", "third"):
        for cell in runs[name].cells:
            where = cell.judgement.verdict, cell.judgement.segment

            assert (Verdict.FILTERED, Segment.DESTINATION_INGRESS) == where, evidence(cell)
    for cell in runs["second"].cells:
        assert Verdict.UNTESTED is cell.judgement.verdict, evidence(cell)
        assert "another netprobe run is at work on" in cell.judgement.detail


async def test_a_host_that_is_listed_twice_is_tested_once() -> None:
    """
    By two names and two addresses it would see its own packets as delivered to the wrong one.
    """
    with Lab.mesh(2) as lab:
        lab.run("n2", ["ip", "address", "add", "10.77.2.99/24", "dev", "eth0"])
        inventory = asked(lab, "bgp")
        twin = msgspec.structs.replace(inventory.hosts[1], name="twin", addresses=("10.77.2.99",))
        run = await coordinator.run(
            msgspec.structs.replace(inventory, hosts=(*inventory.hosts, twin)), Settings()
        )

    held = {(cell.flow.src, cell.flow.dst): cell.judgement for cell in run.cells}
    untested = {pair for pair, judgement in held.items() if judgement.verdict is Verdict.UNTESTED}
    assert untested in [{pair for pair in held if name in pair} for name in ("n2", "twin")]
    assert all("it is listed twice" in held[pair].detail for pair in untested)
