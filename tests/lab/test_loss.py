"""
Loss: single packets, half of them, or those of some source ports; and refusals that are rationed.

What is lost at random differs from run to run. What is said of it must not: the bounds are such that a wrong
cell by chance alone is rarer than one in a million for each flow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab, describe
from netprobe.model import Caveat, Run, Segment, Verdict
from netprobe.plan import Settings
from tests.lab.probing import evidence, probe, wrong

pytestmark = pytest.mark.lab

RUNS: Final = 3
HALF: Final = "numgen random mod 2 0 drop"
TENTH: Final = "numgen random mod 10 0 drop"


def _lossy(fault: str, *expect: str) -> str:
    lines = "\n".join(f'  "{pattern}": {found}' for pattern, found in (each.split(" = ") for each in expect))
    return (
        "name: a way that loses packets\n"
        "hosts: [a, {name: b, roles: [node, typha, apiserver, etcd]}, c]\n"
        f"faults: [{fault}]\n" + (f"expect:\n{lines}\n" if expect else "")
    )


LABS: Final = {
    "half at the router": _lossy(
        f"{{on: router, nft: 'iifname a oifname b {HALF}'}}",
        "a -> b * = degraded @ path",
        "b -> a bgp = degraded @ return-path",
    ),
    "half at a host": _lossy(
        f"{{on: b, nft: 'meta l4proto != ipv6-icmp {HALF}'}}",
        "* -> b * = degraded @ destination-ingress",
        "b -> * bgp = degraded @ source-ingress",
    ),
    "a tenth at the router": _lossy(f"{{on: router, nft: 'iifname a oifname b {TENTH}'}}"),
    "a tenth at a host": _lossy(f"{{on: b, nft: 'meta l4proto != ipv6-icmp {TENTH}'}}"),
}


@pytest.fixture(scope="module")
def lossy() -> Iterator[Mapping[str, tuple[Lab, list[Run]]]]:
    """Labs that lose packets, each with three runs."""
    with contextlib.ExitStack() as stack:
        labs = {name: (stack.enter_context(Lab(describe(text))), list[Run]()) for name, text in LABS.items()}

        async def probe_again(lab: Lab, runs: list[Run]) -> None:
            for _ in range(RUNS):
                runs.append(await coordinator.run(lab.inventory(), Settings()))  # noqa: PERF401 - as they end

        async def probe_all() -> None:
            async with trio.open_nursery() as nursery:
                for lab, runs in labs.values():
                    nursery.start_soon(probe_again, lab, runs)

        trio.run(probe_all)
        yield labs


@pytest.mark.parametrize("name", ["half at the router", "half at a host"])
def test_a_way_that_loses_half_is_degraded_there(
    lossy: Mapping[str, tuple[Lab, list[Run]]], name: str
) -> None:
    """
    For every probe that takes it, TCP also where only the answers do; never filtered, and never open.
    """
    lab, runs = lossy[name]

    assert [] == [each for run in runs for each in wrong(lab, run)]


@pytest.mark.parametrize(
    ("name", "there", "back"),
    [
        ("a tenth at the router", Segment.PATH, Segment.RETURN_PATH),
        ("a tenth at a host", Segment.DESTINATION_INGRESS, Segment.SOURCE_INGRESS),
    ],
)
def test_a_way_that_loses_a_tenth_is_degraded_there_or_passes(
    lossy: Mapping[str, tuple[Lab, list[Run]]], name: str, there: Segment, back: Segment
) -> None:
    """
    One lost packet is no blocked flow: it is never filtered. Most flows lose enough of many to be degraded.
    """
    _lab, runs = lossy[name]
    cells = [cell for run in runs for cell in run.cells]
    lossless = {("a", "c"), ("c", "a")} | ({("b", "c"), ("c", "b")} if "router" in name else set())
    said = {Verdict.OPEN: 0, Verdict.DEGRADED: 0}
    for cell in cells:
        verdict, segment = cell.judgement.verdict, cell.judgement.segment

        assert verdict in said, evidence(cell)
        if verdict is Verdict.DEGRADED:
            assert segment in (there, back, None), evidence(cell)
            assert (cell.flow.src, cell.flow.dst) not in lossless
        if (cell.flow.src, cell.flow.dst) == ("a", "b"):
            said[verdict] += 1

    assert said[Verdict.DEGRADED] > said[Verdict.OPEN]


PORTS: Final = """
name: of two links, of which the source port chooses one, one is dead
hosts: [a, b]
faults:
  - on: router
    nft:
      - iifname "a" tcp dport 179 tcp sport & 1 == 1 drop
      - iifname "a" udp dport 8472 udp sport & 1 == 1 drop
      - iifname "b" tcp sport 5473 tcp dport & 1 == 1 drop
expect:
  a -> b bgp: degraded @ path
  a -> b flannel:8472: degraded @ path
"""


def test_loss_that_the_source_port_decides_says_so() -> None:
    """
    A hash over ports chose a dead member of a bundle or of an equal-cost route (design trap 9).
    """
    with Lab(describe(PORTS)) as lab:
        runs = [probe(lab, "bgp", "flannel", "vxlan") for _ in range(RUNS)]

        assert [] == [each for run in runs for each in wrong(lab, run)]
    for cell in (cell for run in runs for cell in run.cells):
        is_lossy = cell.judgement.verdict is Verdict.DEGRADED

        assert is_lossy == (Caveat.ECMP in cell.judgement.caveats), evidence(cell)
        assert all(port % 2 for port in cell.evidence.failing_ports)
        assert not any(port % 2 for port in cell.evidence.passing_ports)
