"""Connections that drop in the middle, and servers that take only a few at a time."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio
import trio.testing

from netprobe import wire
from netprobe.access import Access
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.progress import Silent
from netprobe.model import Host
from netprobe.session import HostLostError, Session
from tests.ssh.site import Site, misfits
from tests.transports import programs
from tests.transports.conformance import TIMEOUT_S, killed_at_last
from tests.transports.sshd import PORT, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

ALIVE: Final = ("-oServerAliveInterval=1", "-oServerAliveCountMax=1")
TABLE: Final = "netprobe_test_drop"
DROPPED: Final = r"the connection to 10\.77\.1\.11 port 2022 dropped: "


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def _lost(host: Host, blow: Callable[[], None]) -> str:
    """Why a session is lost that something happens to while its agent works."""
    session = Session(host)
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            try:
                await session.start(nursery)
                nursery.start_soon(_strike, blow)
                waiting = wire.Collect(expect=1, within=60)
                with pytest.raises(HostLostError) as caught:
                    await session.request("collect", waiting, wire.Collected, TIMEOUT_S)
            finally:
                await session.end()
            nursery.cancel_scope.cancel()
    return str(caught.value)


async def _strike(blow: Callable[[], None]) -> None:
    await trio.testing.wait_all_tasks_blocked(0.05)
    blow()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            signal.SIGKILL,
            "Connection to .* closed by remote host.|client_loop: .*|Connection (closed|reset) by .*",
        ),
        (signal.SIGSTOP, "nothing came back any more"),
    ],
    ids=["killed", "stopped"],
)
async def test_a_server_that_goes_is_told(
    site: Site, tmp_path: Path, number: signal.Signals, told: str
) -> None:
    """The process of sshd that has our connection ends, or does nothing any more."""
    path = tmp_path / "pid"
    host = site.user("root", options=ALIVE, python=programs.with_number_in(path))
    servers: list[int] = []

    def blow() -> None:
        servers.append(_parent(int(path.read_text())))
        os.kill(servers[0], number)

    with killed_at_last(path):
        try:
            said = await _lost(host, blow)
        finally:
            for server in servers:
                with suppress(ProcessLookupError):
                    os.kill(server, signal.SIGKILL)

    assert re.fullmatch(f"{DROPPED}({told})", said)


async def test_a_server_that_goes_before_our_command_runs_is_told(site: Site) -> None:
    """Nothing has run in the place of our command then."""
    before = DROPPED.replace("dropped: ", "dropped while we logged in: ")

    assert {} == await misfits({"killed": (site.user("hangs-up"), f"{before}Connection to .* closed by .*")})


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("drop", "nothing came back any more"),
        ("reject with tcp reset", r"(client_loop: .*|Read from remote host .*|Connection reset by .*)"),
    ],
)
async def test_a_way_that_breaks_is_told(site: Site, tmp_path: Path, verdict: str, told: str) -> None:
    """A firewall comes up in the middle; a host that cannot be reached any more is not waited for."""
    path = tmp_path / "pid"
    host = site.user("root", options=ALIVE, python=programs.with_number_in(path))
    servers: list[int] = []

    def blow() -> None:
        servers.append(_parent(int(path.read_text())))
        site.lab.run("n1", ["nft", "add", "table", "inet", TABLE])
        chain = "{ type filter hook input priority 0; }"
        site.lab.run("n1", ["nft", "add", "chain", "inet", TABLE, "input", chain])
        rule = ["tcp", "dport", str(PORT), *verdict.split()]
        site.lab.run("n1", ["nft", "add", "rule", "inet", TABLE, "input", *rule])

    with killed_at_last(path):
        try:
            said = await _lost(host, blow)
        finally:
            for server in servers:
                os.kill(server, signal.SIGKILL)
            site.lab.run("n1", ["nft", "delete", "table", "inet", TABLE])

    assert re.fullmatch(f"{DROPPED}({told})", said)


HOSTS: Final = 12
BUSY, BUSY_JUMP = 2401, 2402


async def test_hosts_behind_a_busy_server_all_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes one login at a time and refuses the others, which come again; so it is with a jump host."""
    config = f"""
Host busy*
    HostName {site.address("n1")}
Host busy
    Port {BUSY}
Host busy-jump
    Port {BUSY_JUMP}
Host behind
    Port {PORT}
    HostName {site.address("n2")}
    ProxyJump busy-jump
Host *
    User root
    IdentityFile {site.directory / "key"}
"""
    monkeypatch.setenv("PATH", site.at_home(config))
    hosts = [
        msgspec.structs.replace(site.named(name), name=f"{name}-{number}")
        for name in ("busy", "behind")
        for number in range(HOSTS)
    ]
    lost: dict[str, str] = {}
    with (
        site.another("n1", BUSY, startups="1:100:2"),
        site.another("n1", BUSY_JUMP, startups="1:100:2"),
        trio.fail_after(4 * TIMEOUT_S),
    ):
        async with trio.open_nursery() as nursery:
            crew = Crew(hosts, Access(), lost.__setitem__, Silent())
            try:
                await crew.start(nursery)
                asked = dict.fromkeys(crew.names, wire.AskFacts())
                facts = await crew.ask("facts", asked, wire.Facts, TIMEOUT_S)
            finally:
                await crew.end()
            nursery.cancel_scope.cancel()

    assert {} == lost
    assert 2 * HOSTS == len(facts)
