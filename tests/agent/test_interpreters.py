"""The agent runs on every Python from 3.6 on: really."""

from __future__ import annotations

import pytest

from netprobe.lab import Lab
from netprobe.model import Family
from tests.agent.bench import CASES, Bench, seen
from tests.agent.driver import TIMEOUT_S, VERSIONS, Agent, RefusedError, interpreters


@pytest.fixture
def interpreter(version: str) -> str:
    """The interpreter of a version."""
    found = interpreters().get(version)
    if found is None:
        pytest.skip(f"no Python {version} in the PATH or with pyenv")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_it_starts_tells_and_ends(version: str, interpreter: str) -> None:
    """Hello, facts, an error answer, bye: without a namespace, on any machine."""
    with Agent(python=interpreter) as agent:
        assert {"hello": "netprobe", "protocol": 1, "pid": agent.process.pid} == agent.hello
        assert agent.ask("facts")["python"].startswith(f"{version}.")
        with pytest.raises(RefusedError, match="expect: expected an integer"):
            agent.ask("collect", expect="many")
        assert {} == agent.ask("bye")
        assert 0 == agent.process.wait(TIMEOUT_S)


@pytest.mark.lab
@pytest.mark.parametrize("version", VERSIONS)
def test_it_does_all_that_a_run_asks_for(version: str, interpreter: str) -> None:
    """Taps, listeners, volleys by both ways, sessions, conntrack and collections, in both families."""
    assert version
    with (
        Lab.mesh(2) as lab,
        Agent.on(lab, "n1", python=interpreter) as source,
        Agent.on(lab, "n2", python=interpreter) as destination,
    ):
        bench = Bench(lab)
        for agent in (source, destination):
            assert agent.ask("arm", bench.arming())["taps"] == len(bench.arming().taps)
        address, port = lab.hosts["n2"].address(Family.IPV6), 179
        request, answer = bench.speech("bgp")
        sockets = [[6, address, port, request, answer]]
        assert {"failed": []} == destination.ask("listen", mss=1100, sockets=sockets)
        volleys = [
            bench.volley(probe, family, (number,), way=way)
            for number, (probe, family, _port) in enumerate(CASES)
            for way in ("kernel", "link")
        ]
        fired = bench.fire(source, *volleys)
        sessions = [[lab.hosts["n1"].address(Family.IPV6), port, request, answer, [[99, address]]]]
        connected = source.ask("connect", attempt=0, timeout=5.0, parallel=1, rate=1000.0, sessions=sessions)
        collected = bench.collect(destination, expect=len(volleys))
        ipip = [4, *(lab.hosts[name].address(Family.IPV4) for name in ("n1", "n2")), 0, 0]

        assert (len(volleys), []) == (fired.sent, fired.errors)
        assert dict.fromkeys(range(len(CASES)), 1) == seen(collected)["socket", "probe"]
        assert dict.fromkeys(range(len(CASES)), 1) == seen(collected)["interface", "probe"]
        assert [(99, 1)] == collected.served
        assert [99, 2, ""] == connected["results"][0][:3]
        assert source.ask("conntrack", tuples=[ipip], delete=True)["found"] == []
