"""Any argument vector that runs its operands."""

from __future__ import annotations

import os

import pytest

from netprobe.model import Connection, Host
from tests.transports.conformance import Conformance, MakeHost


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests of agents are root's")
class TestCommand(Conformance):
    """`env` stands for `podman exec -i`: it runs what follows, with its own stdin and stdout."""

    @pytest.fixture
    def host(self) -> MakeHost:
        """The machine itself, by way of a program."""
        connection = Connection(type="command", argv=("env", "--", "NETPROBE=1"))
        return lambda python: Host(
            name="there", addresses=("127.0.0.1",), connection=connection, python=python
        )
