"""The ssh program as a transport, against a real server; what goes wrong there is in tests/ssh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netprobe import transports
from netprobe.access import Access
from netprobe.lab import Lab
from netprobe.model import Connection, Host
from tests.transports.conformance import Conformance, MakeHost, reason
from tests.transports.sshd import Servers, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]


@pytest.fixture(scope="module")
def lab_with_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Two hosts with a server each."""
    with Lab.mesh(2) as lab:
        yield Servers(lab, tmp_path_factory.mktemp("ssh"))


@pytest.fixture
def servers(lab_with_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Servers:
    """The servers, and a client that reaches them."""
    monkeypatch.setenv("PATH", lab_with_servers.path)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return lab_with_servers


class TestSsh(Conformance):
    """As root, by key."""

    @pytest.fixture
    def host(self, servers: Servers) -> MakeHost:
        """The first of the hosts."""
        return lambda python: servers.host("n1", servers.connection("n1"), python)


async def test_options_are_the_clients(servers: Servers) -> None:
    """They stand before all others, because ssh takes the first that it is given."""
    found = await reason(servers.host("n1", servers.connection("n1", options=["-oCiphers=rot13"])))

    assert "Bad SSH2 cipher spec 'rot13'" in found


def test_the_command_line_is_as_the_inventory_says() -> None:
    """In batch mode, without a terminal, with timeouts, and the remote command quoted once."""
    connection = Connection(
        type="ssh", host="a.example", user="ops", port=22, identity="~/.ssh/id", options=("-4",)
    )
    host = Host(name="a", addresses=("10.0.0.1",), connection=connection, sudo=True)
    argv = transports.registry()["ssh"].argv(host, ["python3", "-c", "print('a b')"], Access())

    assert ["ssh", "-4", "-F"] == argv[:3]
    assert {
        "-T",
        "-oBatchMode=yes",
        "-oControlMaster=no",
        "-oConnectTimeout=10",
        "-oServerAliveInterval=5",
        "-oServerAliveCountMax=3",
    } <= set(argv)
    assert ["-l", "ops", "-p", "22", "-i", "~/.ssh/id", "--", "a.example"] == argv[-9:-1]
    assert """exec python3 -c 'print('"'"'a b'"'"')'""" == argv[-1]


def test_without_a_host_the_name_is_where_the_client_goes() -> None:
    """As `~/.ssh/config` may know it."""
    host = Host(name="a", addresses=("10.0.0.1",), connection=Connection(type="ssh"))

    assert ["--", "a"] == transports.registry()["ssh"].argv(host, ["true"], Access())[-3:-1]
