"""The conntrack entries that a run makes end with its agent, however that ends; those of others do not."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from netprobe.lab import Lab, describe, namespaces
from netprobe.model import Family
from tests.agent.driver import TIMEOUT_S, Agent, RefusedError

pytestmark = pytest.mark.lab

TRACKING: Final = """
name: hosts that track connections
hosts: [n1, n2, n3]
families: [ipv4]
faults: [{on: [n1, n2, n3], nft: ct state established accept}]
"""

ENDS: Final[dict[str, Callable[[Agent], object]]] = {
    "bye": lambda agent: agent.ask("bye"),
    "stdin closes": lambda agent: agent.process.stdin and agent.process.stdin.close(),
    "stdout closes": lambda agent: (
        agent.process.stdout and agent.process.stdout.close(),
        agent.send("facts"),
    ),
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A network without an entry."""
    with Lab(describe(TRACKING)) as lab:
        yield lab


def _send(lab: Lab, src: str, dst: str) -> None:
    """One packet of a tunnel."""
    make = partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
    with namespaces.inside(lab.hosts[src].namespace, make) as tunnel:
        tunnel.sendto(bytes(20), (lab.hosts[dst].address(Family.IPV4), 0))


def _tuple(lab: Lab, src: str, dst: str) -> list[object]:
    return [4, *(lab.hosts[name].address(Family.IPV4) for name in (src, dst)), 0, 0]


@pytest.mark.parametrize("end", ENDS)
def test_what_a_run_made_is_gone_and_what_was_there_stays(lab: Lab, end: str) -> None:
    """By `bye`, by the end of stdin, and when nobody reads any more."""
    tuples = [_tuple(lab, "n1", "n2"), _tuple(lab, "n1", "n3"), _tuple(lab, "n2", "n3")]
    _send(lab, "n1", "n3")
    with Agent.on(lab, "n1") as observer, Agent.on(lab, "n1") as agent:
        assert [1] == agent.ask("conntrack", tuples=tuples)["found"]
        _send(lab, "n1", "n2")
        assert [0, 1] == observer.ask("conntrack", tuples=tuples)["found"]
        ENDS[end](agent)
        agent.process.wait(TIMEOUT_S)
        assert [1] == observer.ask("conntrack", tuples=tuples)["found"]


def test_what_arrives_while_a_run_is_cut_off_is_gone_as_well(lab: Lab) -> None:
    """The other agents of the run end a little later."""
    tuples = [_tuple(lab, "n2", "n1")]
    with Agent.on(lab, "n1") as observer, Agent.on(lab, "n1", first=HOLDS) as agent:
        assert [] == agent.ask("conntrack", tuples=tuples)["found"]
        stdin = agent.process.stdin
        assert stdin is not None
        stdin.close()
        os.waitid(os.P_PID, agent.process.pid, os.WSTOPPED | os.WNOWAIT)
        _send(lab, "n2", "n1")
        assert [0] == observer.ask("conntrack", tuples=tuples)["found"]
        os.kill(agent.pid, signal.SIGCONT)
        agent.process.wait(TIMEOUT_S)
        assert [] == observer.ask("conntrack", tuples=tuples)["found"]


HOLDS: Final = """
import os, signal, time
def sleep(seconds, real=time.sleep):
    assert seconds >= 0.2
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep = sleep
"""
"""It stops where it would wait for what is still on its way."""


def test_a_look_that_failed_is_no_reason_to_delete(lab: Lab) -> None:
    """What was not looked up is not known to be the run's own."""
    tuples = [_tuple(lab, "n1", "n2")]
    with Agent.on(lab, "n1") as observer, Agent.on(lab, "n1") as agent:
        with pytest.raises(RefusedError):
            agent.ask("conntrack", tuples=[*tuples, []])
        _send(lab, "n1", "n2")
        agent.ask("bye")
        agent.process.wait(TIMEOUT_S)
        assert [0] == observer.ask("conntrack", tuples=tuples)["found"]
