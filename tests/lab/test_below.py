"""
BPF programs that drop packets at an interface, below netfilter: before netprobe's taps, or behind them.

TCX links stand where `tc` filters do: an AF_PACKET socket sees arriving packets before them, and leaving ones
behind them. An XDP program gets arriving packets before there is anything to tap.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Segment, Verdict
from tests.lab.live.programs import Lines
from tests.lab.probing import Held, evidence, probe

pytestmark = pytest.mark.lab

PROGRAM: Final = Path(__file__).with_name("dropper.py")
PAIR: Final = "name: two hosts\nhosts: [a, b]\n"


@pytest.mark.parametrize(
    ("host", "hook", "segment", "detail"),
    [
        ("a", "egress", Segment.SOURCE_EGRESS, ""),
        ("b", "ingress", Segment.DESTINATION_INGRESS, ""),
        ("b", "xdp", Segment.PATH, "b has an XDP program at eth0, which comes before any tap"),
    ],
)
def test_what_a_bpf_program_drops_is_lost_where_it_stands_or_where_it_could_be_seen_last(
    host: str, hook: str, segment: Segment, detail: str
) -> None:
    """
    For any tap what XDP drops looks like a loss on the path: the detail says that it may be none.
    """
    with Lab(describe(PAIR)) as lab:
        argv = [sys.executable, str(PROGRAM), "eth0", hook]
        dropper = lab.popen(host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        Lines(dropper.stdout).find("^ready$")
        run = probe(lab, "bgp", "vxlan", "wireguard", "wireguard-v6")

    for cell in run.cells:
        is_dropped = cell.flow.src == "a" and cell.flow.probe != "bgp"
        expected = Held(Verdict.FILTERED, segment) if is_dropped else Held(Verdict.OPEN)

        assert expected == Held.of(cell), evidence(cell)
        if is_dropped:
            assert detail == cell.judgement.detail
    (interface,) = next(report for report in run.hosts if report.name == "b").interfaces
    assert (hook == "xdp") is interface.xdp
