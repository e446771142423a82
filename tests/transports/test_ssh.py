"""The ssh program against a real server: keys, users, sudo, and what it says when it may not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from netprobe import transports, wire
from netprobe.access import Access
from netprobe.lab import Lab
from netprobe.model import Connection, Host
from tests.transports.accounts import USER, USER_ID
from tests.transports.conformance import TIMEOUT_S, Conformance, MakeHost, opened, reason
from tests.transports.sshd import PORT, Servers, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

SYSTEM_PYTHON = ("python3",)
"""What the login shell of somebody finds, who may not look into root's home directory."""


@pytest.fixture(scope="module")
def lab_with_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three hosts with a server each."""
    with Lab.mesh(3) as lab:
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


async def _uid(host: Host) -> int:
    async with opened(host) as (session, nursery):
        await session.start(nursery)
        return (await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)).uid


async def test_a_user_is_a_user(servers: Servers) -> None:
    """`user` is who logs in."""
    assert USER_ID == await _uid(servers.host("n2", servers.connection("n2", user=USER), SYSTEM_PYTHON))


async def test_sudo_makes_root_of_a_user(servers: Servers) -> None:
    """The real sudo, on the host, without a password."""
    connection = servers.connection("n2", user=USER)

    assert 0 == await _uid(servers.host("n2", connection, SYSTEM_PYTHON, sudo=True))


async def test_sudo_that_wants_a_password_says_so(servers: Servers) -> None:
    """It is not waited for: nobody is there to type one."""
    connection = servers.connection("n2", user=USER)
    # As another user than root, which the rules do not allow.
    host = servers.host("n2", connection, ("sudo", "-n", "-u", "nobody", "python3"))

    assert (await reason(host)).startswith(f"sudo wants a password for {USER}: ")


async def test_an_unknown_host_key_is_refused(servers: Servers) -> None:
    """It is not asked about, and nothing is added to the known hosts."""
    found = await reason(servers.host("n1", servers.connection("n1", known_hosts="no_known_hosts")))

    assert re.match(
        r"the host key of 10\.77\.1\.11 port 2022 is not known \(ssh-ed25519 SHA256:\S+\): ", found
    )
    assert "" == (servers.directory / "no_known_hosts").read_text()


async def test_a_key_that_is_not_authorized_is_refused(servers: Servers) -> None:
    """With the ways that the server would take."""
    found = await reason(servers.host("n1", servers.connection("n1", key="other_key")))

    offered = r"offered \S+/other_key \(ED25519 SHA256:\S+\)"

    assert re.match(
        rf"permission denied for root at 10\.77\.1\.11 port 2022: {offered}; the server takes publickey: ",
        found,
    )


async def test_a_key_that_is_not_there_is_named(servers: Servers) -> None:
    """Its path, and that the login failed."""
    found = await reason(servers.host("n1", servers.connection("n1", key="no_such_key")))

    assert re.match(
        r"permission denied for root at .*: no key was offered; there is no \S+/no_such_key; ", found
    )


async def test_a_port_where_nobody_listens_is_named(servers: Servers) -> None:
    """`port` is where the client goes."""
    found = await reason(servers.host("n1", servers.connection("n1", port=PORT + 1)))

    assert found.startswith("10.77.1.11 port 2023 refuses the connection: ")


async def test_a_name_that_does_not_resolve_is_named(servers: Servers) -> None:
    """Without a `host` the host's own name is where the client goes."""
    host = servers.host("n1", Connection(type="ssh", options=("-F", "none")))
    found = await reason(host)

    assert re.match(r"cannot resolve n1 \(.+\): correct connection\.host, ", found)


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
