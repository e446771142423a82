"""What is counted as sent: packets that left a program, not those that its own kernel refused."""

from __future__ import annotations

from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.lab.expectations import label
from tests.lab.probing import probe

pytestmark = pytest.mark.lab

DROPPING: Final = """
name: a host that lets no datagram out
hosts: [a, b]
faults:
  - {on: a, hook: output, nft: [udp dport 4789 drop]}
expect:
  a -> b vxlan: filtered @ source-egress
"""


def test_what_the_kernel_refused_to_send_was_not_sent() -> None:
    """Each try of a was answered with EPERM: its cell and the run count b's packets alone."""
    with Lab(describe(DROPPING)) as lab:
        run = probe(lab, "vxlan")
    sent = {label(cell.flow): cell.sent for cell in run.cells}

    assert 0 == sent["a -> b vxlan:4789/ipv4"] == sent["a -> b vxlan:4789/ipv6"]
    assert 0 < sent["b -> a vxlan:4789/ipv4"]
    assert sum(sent.values()) == run.packets
