"""
A full mesh of BIRD, as Calico builds it, is up while netprobe runs; with and without what guards sessions.

With graceful restart, a connection from a peer's address that is completed would end the peer's session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Family, Run
from tests.lab.live.bird import PORT, Bird
from tests.lab.live.programs import IGNORED, TRACKING, check_open, connect, needs, three_runs, traces
from tests.lab.probing import Held, evidence

pytestmark = needs("bird", "birdc", "conntrack")

# `ttl security` (RFC 5082) wants neighbours; one network makes them such.
MESH: Final = f"""
name: a full mesh of BGP speakers
hosts: [a, b, c, d]
networks: [{{name: rack, hosts: [a, b, c, d]}}]
faults: [{TRACKING % "a, b, c, d"}]
"""
GUARDS: Final = {
    "no guard": "",
    "ttl security": "direct; ttl security on;",
    "password": 'password "secret";',
}

_JITTER: Final = timedelta(milliseconds=100)
"""BIRD reckons its times back from the clock whenever it is asked; a session needs a second to come again."""


class Mesh(msgspec.Struct, frozen=True):
    """A mesh, and what became of it in three runs: of each host, since when it has which sessions."""

    birds: dict[str, Bird]
    runs: list[Run]
    before: dict[str, dict[str, datetime]]
    after: dict[str, dict[str, datetime]]
    said: dict[str, list[str]]
    traces: tuple[dict[str, set[str]], dict[str, set[str]]]


@pytest.fixture(scope="module", params=GUARDS)
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh with a guard, all of whose sessions are up before the runs."""
    directory = tmp_path_factory.mktemp("birds")
    with Lab(describe(MESH)) as lab:
        birds = {name: Bird(lab, name, directory, GUARDS[request.param]) for name in lab.hosts}
        for bird in birds.values():
            bird.wait()
        for bird in birds.values():
            bird.said()
        before, left = _since(birds), traces(lab)
        runs = three_runs(lab, "bgp")
        said = {name: bird.said() for name, bird in birds.items()}
        yield Mesh(birds, runs, before, _since(birds), said, (left, traces(lab)))


def _since(birds: Mapping[str, Bird]) -> dict[str, dict[str, datetime]]:
    return {name: bird.since() for name, bird in birds.items()}


def test_every_session_is_as_old_as_before(mesh: Mesh) -> None:
    """
    It has been established since the same time, at both of its ends, over both families.
    """
    for name, bird in mesh.birds.items():
        assert bird.sessions == set(mesh.before[name]) == set(mesh.after[name])
        for session, since in mesh.before[name].items():
            assert abs(mesh.after[name][session] - since) < _JITTER


def test_bird_has_nothing_to_say(mesh: Mesh) -> None:
    """
    Three runs add not a line to any log: no connection was closed, no state has changed.
    """
    assert {name: [] for name in mesh.birds} == mesh.said


def test_nothing_is_left_between_the_speakers(mesh: Mesh) -> None:
    """
    No half-open connection, and of all conntrack entries those of the sessions.
    """
    before, after = mesh.traces

    assert before == after
    assert {name: len(bird.sessions) for name, bird in mesh.birds.items()} == {
        name: len(left) for name, left in after.items()
    }


@pytest.mark.parametrize("mesh", ["no guard", "ttl security"], indirect=True)
def test_bgp_is_open_and_bird_is_named(mesh: Mesh) -> None:
    """
    `ttl security` as well: BIRD asks its sessions for it, and not the socket that listens.
    """
    for run in mesh.runs:
        assert 4 * 3 * 2 == len(run.cells)
        check_open(run, {(name, PORT): bird.program.holds for name, bird in mesh.birds.items()})


@pytest.mark.parametrize("mesh", ["password"], indirect=True)
def test_a_password_is_told_from_a_firewall(mesh: Mesh) -> None:
    """
    What is not signed (RFC 2385) is dropped by the kernel of its destination: in silence, but counted.
    """
    for run in mesh.runs:
        assert 4 * 3 * 2 == len(run.cells)
        for cell in run.cells:
            assert IGNORED == Held.of(cell), evidence(cell)
            assert mesh.birds[cell.flow.dst].program.holds in cell.judgement.detail
            assert "TCPMD5NotFound" in cell.judgement.detail


def test_a_full_connect_would_have_been_noticed(tmp_path: Path) -> None:
    """
    It ends the session of its peer, and BIRD says so: what all of the above would have found.
    """
    with Lab(describe("{name: two BGP speakers, hosts: [a, b], families: [ipv4]}")) as lab:
        birds = {name: Bird(lab, name, tmp_path) for name in lab.hosts}
        for bird in birds.values():
            bird.wait()
        connect(lab, "a", lab.hosts["b"].address(Family.IPV4), PORT)

        birds["b"].program.lines.find("a_ipv4: State changed to (stop|down|start)")
