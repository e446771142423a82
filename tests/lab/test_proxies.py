"""A real proxy between two hosts: it takes connections and speaks for a host that may never hear of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from netprobe.lab import ChainType, Hook, Lab, describe
from netprobe.model import Segment, Verdict
from tests.lab.live.programs import Lines
from tests.lab.probing import Held, evidence, probe

pytestmark = pytest.mark.lab

PAIR: Final = "name: two hosts\nhosts: [a, b]\n"
_PORT: Final = 10179
_PROXY: Final = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
connections = []
while True:
    connections.append(listener.accept())
"""


@pytest.mark.parametrize("is_open", [True, False], ids=["open-behind", "dropped-behind"])
def test_a_proxy_on_the_way_is_no_open_port(*, is_open: bool) -> None:
    """
    Also where the destination would drop the probe: it never sees one. Its own connections are open.
    """
    with Lab(describe(PAIR)) as lab:
        argv = [sys.executable, "-c", _PROXY, str(_PORT)]
        Lines(lab.popen("router", argv, stdout=subprocess.PIPE).stdout).find("^ready$")
        rule = f'iifname "a" tcp dport 179 redirect to :{_PORT}'
        lab.nft("router", rule, hook=Hook.PREROUTING, type=ChainType.NAT)
        if not is_open:
            lab.nft("b", "tcp dport 179 drop")
        run = probe(lab, "bgp")

    for cell in run.cells:
        intercepted = Held(Verdict.INTERCEPTED, Segment.PATH)

        assert (intercepted if cell.flow.src == "a" else Held(Verdict.OPEN)) == Held.of(cell), evidence(cell)
        assert "holds the port" not in cell.judgement.detail


def test_a_redirection_to_where_nobody_listens_is_a_rejection_on_the_way() -> None:
    """
    The router's own kernel refuses, in the name of the destination; the detail has the TTL of its reset.
    """
    with Lab(describe(PAIR)) as lab:
        rule = 'iifname "a" tcp dport 179 redirect to :9'
        lab.nft("router", rule, hook=Hook.PREROUTING, type=ChainType.NAT)
        run = probe(lab, "bgp")

    for cell in run.cells:
        refused = Held(Verdict.REJECTED, Segment.PATH)

        assert (refused if cell.flow.src == "a" else Held(Verdict.OPEN)) == Held.of(cell), evidence(cell)
        if cell.flow.src == "a":
            assert "TCP reset in the destination's name (TTL 64 on arrival)" == cell.judgement.detail
