"""
A host whose conntrack table is full.

How many entries a table may have is one setting for the whole machine, and namespaces can only read it; so a
namespace of the lab gets as many. Each table counts its own: nobody else's is any fuller for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Segment, Verdict
from tests.lab.probing import Held, evidence, probe

pytestmark = pytest.mark.lab

PAIR: Final = (
    "name: a host that tracks connections\nhosts: [a, b]\nfaults: [{on: b, nft: ct state invalid drop}]\n"
)
_MOST: Final = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def fill(lab: Lab, on: str) -> None:
    """Put answered entries, which are kept, into the conntrack table of a host until it takes no more."""
    entries = (
        f"-I -p udp -s 198.18.{number >> 16}.{number >> 8 & 255} -d 198.19.0.{number & 255} "
        "--sport 9 --dport 9 -t 600 -u ASSURED,SEEN_REPLY\n"
        for number in range(int(_MOST.read_text()) + 1)
    )
    done = lab.run(on, ["conntrack", "-R", "/dev/stdin"], input="".join(entries), check=False)

    assert "not enough memory" in done.stderr


def test_a_full_table_drops_what_comes_and_what_goes() -> None:
    """
    At the destination the kernel's counter tells; the host's own packets are refused to it, as by a firewall.
    """
    with Lab(describe(PAIR)) as lab:
        fill(lab, "b")
        run = probe(lab, "bgp", "vxlan", "ipip")

    for cell in run.cells:
        is_arriving = cell.flow.dst == "b"
        segment = Segment.DESTINATION_INGRESS if is_arriving else Segment.SOURCE_EGRESS

        assert Held(Verdict.FILTERED, segment) == Held.of(cell)._replace(caveats=()), evidence(cell)
        assert ("nf_conntrack.drop of b grew" in cell.judgement.detail) is is_arriving, evidence(cell)
