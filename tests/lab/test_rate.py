"""How fast a host sends: no faster than `--rate` says, whatever it sends."""

from __future__ import annotations

import subprocess
from bisect import bisect_left
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Verdict
from netprobe.plan import Settings
from tests.lab.probing import probe

RATE: Final = 20.0
MANY_PORTS: Final = """
name: three hosts with many ports
families: [ipv4]
hosts:
  - a
  - {name: b, roles: [node, typha, apiserver, etcd]}
  - {name: c, roles: [node, typha, apiserver, etcd]}
"""


@pytest.mark.lab
def test_a_host_sends_no_more_in_a_second_than_it_may() -> None:
    """
    Probes, and the segments of sessions. The kernel answers each SYN-ACK by itself, so twice as much it is.
    What it answers to others' SYNs is of their rate, and what it was late by it makes up for: by a tenth.
    """
    with Lab(describe(MANY_PORTS)) as lab:
        probes = "tcp and tcp[tcpflags] & (tcp-syn | tcp-ack) != (tcp-syn | tcp-ack)"
        watch = ["tcpdump", "-i", "any", "-Q", "out", "-n", "-q", "-tt", "-l", probes]
        tap = lab.popen("a", watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert tap.stderr is not None
        assert tap.stdout is not None
        while "listening on" not in tap.stderr.readline():
            assert tap.poll() is None
        run = probe(lab, "bgp", "typha", "apiserver", "etcd", settings=Settings(rate=RATE))
        tap.terminate()
        sent = [float(line.split()[0]) for line in tap.stdout if line[:1].isdigit()]
    most = max(bisect_left(sent, begin + 1.0) - number for number, begin in enumerate(sent))

    assert {Verdict.OPEN} == {cell.judgement.verdict for cell in run.cells}
    assert RATE < len(sent)
    assert most <= 2 * 1.1 * RATE
