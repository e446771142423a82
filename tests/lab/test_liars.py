"""
One host of four lies: whatever its agent says, the run goes on, and no cell between two others is wrong.

What it says of its own flows nobody can check: their cells may hold anything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

from netprobe import coordinator, hops, plan, reports
from netprobe.coordinator import muster, sessions, state, volleys
from netprobe.coordinator.trace import Pair, trace
from netprobe.lab import Lab, describe
from netprobe.model import Caveat, Cell, Family, Flow, Inventory, Judgement, Run, Segment, Verdict
from netprobe.plan import Settings
from netprobe.reports import Options

pytestmark = pytest.mark.lab

LAB: Final = """
name: three honest hosts with faults between them, and a liar
hosts: [n1, {name: liar, roles: [node, etcd]}, n3, {name: n4, roles: [node, typha, etcd]}]
faults:
  - on: router
    nft: ["ip saddr $n1 ip daddr $n3 ip protocol 4 drop", "ip saddr $n3 ip daddr $n4 udp dport 4789 drop"]
    expect:
      n1 -> n3 ipip: filtered @ path
      n3 -> n4 vxlan/ipv4: filtered @ path
      n3 -> n4 flannel:4789/ipv4: filtered @ path
  - {on: n4, nft: ip saddr $n1 tcp dport 179 reject with tcp reset, expect: {n1 -> n4 bgp/ipv4: rejected}}
"""
LIAR: Final = "liar"
PROGRAM: Final = Path(__file__).with_name("liar.py")
BOUND_S: Final = 40.0
ANSWER_S: Final = 1.0

Found = tuple[Verdict, Segment | None, str, tuple[Caveat, ...]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The network."""
    with Lab(describe(LAB)) as lab:
        yield lab


def with_liar(inventory: Inventory, seed: int, style: str, flows: int) -> Inventory:
    """The inventory with a liar of a style, who knows how many flows there are."""
    python = (sys.executable, str(PROGRAM), str(seed), style, str(flows), sys.executable)
    hosts = (
        msgspec.structs.replace(host, python=python) if host.name == LIAR else host
        for host in inventory.hosts
    )
    return msgspec.structs.replace(inventory, hosts=tuple(hosts))


def probed(lab: Lab, seed: int = 0, style: str = "") -> Run:
    """A run with a liar of a style, or with none."""
    inventory = lab.inventory()
    if style:
        inventory = with_liar(inventory, seed, style, len(plan.flows(inventory)))
    return trio.run(coordinator.run, inventory, Settings())


def of_the_honest(run: Run) -> dict[Flow, Found]:
    """What there is between honest hosts; notes are no verdict, and anybody may have one."""
    return {
        cell.flow: (judgement.verdict, judgement.segment, judgement.by, judgement.caveats)
        for cell in run.cells
        if LIAR not in (cell.flow.src, cell.flow.dst)
        for judgement in [cell.judgement]
    }


@pytest.fixture(scope="module")
def truth(lab: Lab) -> dict[Flow, Found]:
    """What there is when everybody is honest."""
    run = probed(lab)

    assert [] == [str(each) for each in lab.expectations.compare(run.cells)]
    return of_the_honest(run)


@pytest.mark.parametrize(
    ("style", "seed"),
    [(style, seed) for style, seeds in (("lies", 2), ("junk", 4), ("noise", 4)) for seed in range(seeds)],
)
def test_a_liar_is_not_believed_about_others(
    lab: Lab, truth: dict[Flow, Found], style: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor can it end the run, or stop it, or spoil its reports."""
    for module in (volleys, muster, sessions, state):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", ANSWER_S)
    started = time.monotonic()
    run = probed(lab, seed, style)

    assert time.monotonic() - started < BOUND_S
    assert truth == of_the_honest(run)
    assert len(plan.flows(lab.inventory())) == len(run.cells)
    assert all(isinstance(cell, Cell) and isinstance(cell.judgement, Judgement) for cell in run.cells)
    for report in reports.registry().values():
        assert report.render(run, Options(width=100, color=False, unicode=True, verbose=True))


@pytest.mark.parametrize("style", ["lies", "junk", "noise"])
def test_a_liar_is_no_hop_of_others(lab: Lab, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own flows a trace may say anything; it comes to an end, and can be told."""
    for module in (volleys, muster, sessions, state):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", ANSWER_S)
    every = plan.flows(lab.inventory(), Settings(families=(Family.IPV4,)))
    flows = {(flow.src, flow.dst, flow.probe, flow.port): flow for flow in every}
    pairs = [
        Pair(flows["n1", end, "ipip", None], flows["n1", end, "vxlan", 4789]) for end in ("n3", LIAR)
    ] + [Pair(flows[LIAR, "n1", "bgp", 179], flows[LIAR, "n1", "vxlan", 4789])]
    inventory = with_liar(lab.inventory(), 1, style, 6)
    honest, *others = trio.run(trace, inventory, Settings(), pairs).traces

    said = "last seen at 10.77.1.1 (hop 1), not at n3 (hop 2), where vxlan udp/4789 is"
    assert said == hops.in_one_line(honest, {})
    assert all(hops.in_one_line(each, {}) for each in others)
