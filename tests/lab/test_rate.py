"""How fast a host sends: no faster than `--rate` says, whatever it sends."""

from __future__ import annotations

import subprocess
from bisect import bisect_left
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab, describe
from netprobe.model import Family, Role, Verdict
from netprobe.plan import Settings
from tests.lab.probing import asked, probe

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


class Notes:
    """A progress that keeps what it is told beside the phases."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""

    def advance(self, n: int = 1) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""
        self.told.append(text)


@pytest.mark.lab
@pytest.mark.parametrize("rate", ["1mbit", "500kbit"])
def test_links_that_are_slower_than_the_run_make_no_cell_degraded(rate: str) -> None:
    """
    What the run's own packets have crowded out is asked again, no faster than such links carry.
    """
    with Lab.mesh(6, roles=tuple(Role), families=(Family.IPV4,)) as lab:
        for name, host in lab.hosts.items():
            queue = ["root", "tbf", "rate", rate, "burst", "5kb", "latency", "100ms"]
            lab.run(name, ["tc", "qdisc", "add", "dev", host.interface, *queue])
        notes = Notes()
        run = trio.run(coordinator.run, lab.inventory(), Settings(), notes)

    assert {Verdict.OPEN} == {cell.judgement.verdict for cell in run.cells}
    assert any("a link may be too slow for the run's pace" in note for note in notes.told)


@pytest.mark.lab
def test_a_way_that_loses_packets_at_any_rate_is_degraded_however_many_flows_it_carries() -> None:
    """
    Slowness is no excuse: also what is sent calmly gets lost there.
    """
    lossy = "{on: n1, nft: numgen random mod 10 < 4 drop}"
    answers = '{on: n2, nft: "tcp flags syn,ack / syn,ack numgen random mod 10 < 4 drop"}'
    text = f"name: lossy\nfamilies: [ipv4]\nhosts: [n1, n2, n3, n4, n5]\nfaults: [{lossy}, {answers}]"
    notes = Notes()
    with Lab(describe(text)) as lab:
        inventory = asked(lab, "bgp", "vxlan", "flannel")
        run = trio.run(coordinator.run, inventory, Settings(), notes)
    lost = {cell.judgement.verdict for cell in run.cells if cell.flow.dst == "n1"}
    unanswered = {
        cell.judgement.verdict for cell in run.cells if (cell.flow.src, cell.flow.probe) == ("n2", "bgp")
    }

    assert {Verdict.DEGRADED} == lost
    assert {Verdict.DEGRADED} == unanswered
    assert any("a link may be too slow for the run's pace" in note for note in notes.told)
