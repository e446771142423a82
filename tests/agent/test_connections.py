"""Which connections a host has: those that are up, or were until now; by IPv4 as by IPv6."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from netprobe.lab import Lab, describe, namespaces
from netprobe.model import Family
from tests.agent.driver import Agent

pytestmark = pytest.mark.lab

PORT = 6443


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts."""
    with Lab(describe("{name: a client and a server, hosts: [n1, n2]}")) as lab:
        yield lab


@pytest.mark.parametrize("family", Family)
def test_a_connection_is_found_at_both_of_its_ends(lab: Lab, family: Family) -> None:
    """
    By addresses and ports, also where an IPv6 socket has an IPv4 peer, and when one end has closed it.

    Neither the socket that listens, nor another port of the same pair, is this connection.
    """
    here, there = (lab.hosts[name].address(family) for name in ("n1", "n2"))
    listen = partial(
        socket.create_server, ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
    )
    connect = partial(socket.create_connection, (there, PORT))
    with ExitStack() as stack:
        one, other = (stack.enter_context(Agent.on(lab, name)) for name in ("n1", "n2"))
        server = stack.enter_context(namespaces.inside(lab.hosts["n2"].namespace, listen))
        client = stack.enter_context(namespaces.inside(lab.hosts["n1"].namespace, connect))
        port = client.getsockname()[1]
        accepted, _peer = server.accept()
        stack.enter_context(accepted)
        ours, theirs = [here, port, there, PORT], [there, PORT, here, port]
        wrong = [[there, PORT, here, port ^ 1], [there, PORT, there, port], ["::", PORT, "::", 0]]

        assert [1] == one.ask("facts", connections=[theirs, ours])["connections"]
        assert [0] == other.ask("facts", connections=[theirs, ours, *wrong])["connections"]
        client.close()
        assert [0] == other.ask("facts", connections=[theirs])["connections"]
    with Agent.on(lab, "n2") as agent:
        assert [] == agent.ask("facts")["connections"]
