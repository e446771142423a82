"""GoBGP, as other networks of Kubernetes embed it, holds sessions with a BIRD while netprobe runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Family, Run
from tests.lab.live.bird import AS_NUMBER, PORT, Bird
from tests.lab.live.programs import TRACKING, Program, check_open, connect, needs, three_runs, traces

pytestmark = needs("gobgpd", "gobgp", "bird", "birdc", "conntrack")

LAB: Final = f"{{name: GoBGP and BIRD, hosts: [a, b], faults: [{TRACKING % 'a, b'}]}}"
ESTABLISHED: Final = 6  # gobgp.proto, PeerState.SessionState

# The one that only waits has no delays of its own, of up to ten seconds.
_NEIGHBOR: Final = """
[[neighbors]]
[neighbors.config]
neighbor-address = "{address}"
peer-as = {number}
[neighbors.transport.config]
passive-mode = true
[neighbors.graceful-restart.config]
enabled = true
restart-time = 120
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "{family}-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
"""


class Pair(msgspec.Struct, frozen=True):
    """A GoBGP at `a` and a BIRD at `b`, and what became of their sessions in three runs."""

    lab: Lab
    gobgp: Program
    bird: Bird
    runs: list[Run]
    before: tuple[Any, ...]
    after: tuple[Any, ...]


def _configured(lab: Lab, directory: Path) -> str:
    here, there = lab.hosts["a"], lab.hosts["b"]
    text = f'[global.config]\nas = {AS_NUMBER}\nrouter-id = "{here.address(Family.IPV4)}"\n'
    for family, address in there.addresses.items():
        text += _NEIGHBOR.format(address=address, number=AS_NUMBER, family=family.value)
    path = directory / "gobgpd.toml"
    path.write_text(text)
    return str(path)


def _sessions(lab: Lab) -> dict[str, tuple[int, str, int]]:
    """Of each session that GoBGP has: its state, since when, and how often it was lost."""
    neighbors = json.loads(lab.run("a", ["gobgp", "--json", "neighbor"]).stdout)
    return {
        each["conf"]["neighbor_address"]: (
            each["state"]["session_state"],
            json.dumps(each["timers"]["state"]["uptime"]),
            each["state"].get("flops", 0),
        )
        for each in neighbors
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both sessions are up before the runs."""
    directory = tmp_path_factory.mktemp("gobgp")
    with Lab(describe(LAB)) as lab:
        argv = ["gobgpd", "--config-file", _configured(lab, directory), "--log-level", "info"]
        gobgp = Program(lab, "a", argv, ready="Add a peer configuration")
        bird = Bird(lab, "b", directory)
        bird.wait()
        for _session in bird.sessions:
            gobgp.lines.find("Peer Up")
        bird.said()
        before = _sessions(lab), bird.since(), traces(lab)
        runs = three_runs(lab, "bgp")
        yield Pair(lab, gobgp, bird, runs, before, (_sessions(lab), bird.since(), traces(lab)))


def test_no_session_has_flapped(pair: Pair) -> None:
    """
    By GoBGP's own account: established, since the same time, never lost.
    """
    sessions, others, _traces = pair.before

    assert sessions == pair.after[0]
    assert {(ESTABLISHED, 0)} == {(state, lost) for state, _since, lost in sessions.values()}
    assert set(pair.lab.hosts["b"].addresses.values()) == set(sessions)
    assert set(others) == set(pair.after[1]) == pair.bird.sessions


def test_nothing_is_left_between_the_speakers(pair: Pair) -> None:
    """
    No half-open connection, and of all conntrack entries those of the sessions.
    """
    assert pair.before[2] == pair.after[2]


def test_bgp_is_open_and_both_programs_are_named(pair: Pair) -> None:
    """
    `gobgpd` at the one end, `bird` at the other.
    """
    for run in pair.runs:
        assert 2 * 2 == len(run.cells)
        check_open(run, {("a", PORT): pair.gobgp.holds, ("b", PORT): pair.bird.program.holds})


def test_gobgp_has_nothing_to_say_but_of_a_full_connect(pair: Pair) -> None:
    """
    Three runs add not a line to its log, nor to BIRD's: the next is that of a connection of the test itself.
    """
    address = pair.lab.hosts["a"].address(Family.IPV4)
    connect(pair.lab, "b", address, PORT)
    (line,) = pair.gobgp.lines.until(".")

    assert "Closed an accepted connection" in line
    assert [] == pair.bird.said()
