"""
What every transport must do: bring the agent to a host, carry big messages both ways, and lose with a reason.

A transport's tests are a subclass with a fixture `host`, which makes the host that is reached by that
transport out of what stands in its `python:`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

import netprobe
from netprobe import wire
from netprobe.model import Host
from netprobe.session import HostLostError, Session
from netprobe.template import Template
from tests.transports import programs

TIMEOUT_S: Final = 20.0
SHORT_S: Final = 0.3

ROOT_DIRECTORY: Final = Path(netprobe.__file__).parents[1]
COORDINATOR: Final = """
import sys
import msgspec, trio
from netprobe import wire
from netprobe.model import Host
from netprobe.session import Session

async def main():
    session = Session(msgspec.json.decode(sys.argv[1], type=Host))
    async with trio.open_nursery() as nursery:
        await session.start(nursery)
        await session.request("facts", wire.AskFacts(), wire.Facts, 10)
        if sys.argv[2]:
            waiting = wire.Collect(expect=1, within=60)
            nursery.start_soon(session.request, "collect", waiting, wire.Collected, 60)
            await trio.testing.wait_all_tasks_blocked(0.05)
        print("ready", flush=True)

import trio.testing
trio.run(main)
"""

MakeHost = Callable[[tuple[str, ...]], Host]


@asynccontextmanager
async def opened(host: Host) -> AsyncIterator[tuple[Session, trio.Nursery]]:
    """A session that is not started yet, and a nursery for it; at the end nothing of it is left."""
    session = Session(host)
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            try:
                yield session, nursery
            finally:
                await session.end()
            nursery.cancel_scope.cancel()
    process = session._process

    assert process is None or process.returncode is not None


async def reason(host: Host, start_s: float = TIMEOUT_S, answer_s: float = TIMEOUT_S) -> str:
    """Why a host is lost, at its start or at the first request."""
    async with opened(host) as (session, nursery):
        found = await _lost(session, nursery, start_s, answer_s)
        with pytest.raises(HostLostError, match=f"^{re.escape(found)}$"):
            await session.request("facts", wire.AskFacts(), wire.Facts, answer_s)

        assert 1 == len(found.splitlines())
        return found


async def _lost(session: Session, nursery: trio.Nursery, start_s: float, answer_s: float) -> str:
    try:
        await session.start(nursery, start_s)
        await session.request("facts", wire.AskFacts(), wire.Facts, answer_s)
    except HostLostError as error:
        return str(error)
    return pytest.fail("the host was not lost")


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also one that is nobody's child here, within the time that it may take."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            import select

            return bool(select.select([process], [], [], TIMEOUT_S)[0])
        finally:
            os.close(process)
    return True


@contextmanager
def killed_at_last(path: Path) -> Iterator[None]:
    """A process whose number is in a file has ended behind this."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


class Conformance:
    """The tests."""

    @pytest.fixture
    def host(self) -> MakeHost:
        """How to make a host that is reached by the transport."""
        raise NotImplementedError

    async def test_an_agent_starts_answers_and_ends(self, host: MakeHost, tmp_path: Path) -> None:
        """Hello, facts, end; nothing of it runs any longer."""
        async with opened(host(programs.with_number_in(tmp_path / "pid"))) as (session, nursery):
            await session.start(nursery)
            facts = await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)

            assert 0 == facts.uid

        assert is_gone(int((tmp_path / "pid").read_text()))

    async def test_big_messages_come_through(self, host: MakeHost) -> None:
        """More than any pipe or window holds, in one request and in one answer."""
        peers = [f"127.{n >> 8 & 255}.{n & 255}.1" for n in range(5000)]
        bulk = Template(data=bytes(60_000), network=False)
        armed = wire.Arm(nonce=0, flows=0, sights=[], taps=[], templates=[bulk] * 40)
        async with opened(host(programs.shell('exec "$0" "$@"'))) as (session, nursery):
            await session.start(nursery)
            await session.request("arm", armed, wire.Armed, TIMEOUT_S)
            facts = await session.request("facts", wire.AskFacts(peers=peers), wire.Facts, TIMEOUT_S)

            assert set(peers) == facts.routes.keys()

    async def test_a_slow_reader_is_waited_for(self, host: MakeHost) -> None:
        """A request that is longer than what the other end takes at a time is not cut off."""
        bulk = Template(data=bytes(60_000), network=False)
        armed = wire.Arm(nonce=0, flows=0, sights=[], taps=[], templates=[bulk] * 10)
        async with opened(host(programs.READS_SLOWLY)) as (session, nursery):
            await session.start(nursery)
            armed_with = await session.request("arm", armed, wire.Armed, TIMEOUT_S)

            assert 0 == armed_with.taps

    async def test_a_banner_does_no_harm(self, host: MakeHost) -> None:
        """Whatever is printed before the hello, with or without a newline at its end."""
        async with opened(host(programs.PRINTS_A_BANNER)) as (session, nursery):
            await session.start(nursery)
            await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)

    @pytest.mark.parametrize(
        ("program", "expected"),
        [
            (programs.NOT_FOUND, r".*/nonexistent/python3.*([Nn]o such file|not found).*"),
            (programs.EXITS_AT_ONCE, r"the agent did not start \(exit status 7\): first \| sorry"),
            (
                programs.PRINTS_FOR_EVER,
                r"the agent talks garbage: 200 lines, .*: 'y': y \| y \| no agent here",
            ),
            (programs.PRINTS_BYTES, r"the agent talks garbage: .*"),
            (programs.ANOTHER_PROTOCOL, r"the agent talks garbage: an agent of protocol 2, not 1"),
            (
                programs.TALKS_GARBAGE,
                r"the agent talks garbage: not an agent's answer: 'kernel: oops': about to",
            ),
            (programs.DIES_AFTER_HELLO, r"the agent ended \(exit status 9\): first \| out of memory"),
        ],
    )
    async def test_a_host_is_lost_with_its_reason(
        self, host: MakeHost, program: tuple[str, ...], expected: str
    ) -> None:
        """In one line, with the last that it said on stderr, and for good."""
        assert re.fullmatch(expected, await reason(host(program)))

    async def test_a_host_that_hangs_is_lost_with_its_reason(self, host: MakeHost) -> None:
        """The request that it did not answer, and the last that it said on stderr."""
        found = await reason(host(programs.HANGS_AFTER_HELLO), answer_s=SHORT_S)

        assert "the agent hung: no answer to 'facts' within 0.3 s: waiting" == found

    async def test_a_host_that_closes_its_stdout_is_lost(self, host: MakeHost) -> None:
        """Though it lives on; ssh does not tell of it, and then the missing answer does."""
        assert re.fullmatch(
            "the agent (ended|hung: no answer to .*)",
            await reason(host(programs.CLOSES_STDOUT), answer_s=1.5),
        )

    async def test_a_host_that_says_nothing_is_not_waited_for(self, host: MakeHost) -> None:
        """For longer than the start may take; what it asks for on stderr is in the reason."""
        found = await reason(host(programs.HANGS_BEFORE_HELLO), 1.0)

        assert "the agent did not start within 1 s: Last login: never | Password?" == found

    @pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP], ids=lambda s: s.name)
    async def test_an_agent_is_lost_in_the_middle(
        self, host: MakeHost, blow: signal.Signals, tmp_path: Path
    ) -> None:
        """While it works on a request: killed, ended, or stopped, which only a timeout tells."""
        started = time.monotonic()
        path = tmp_path / "pid"
        with killed_at_last(path):
            async with opened(host(programs.with_number_in(path))) as (session, nursery):
                await session.start(nursery)
                async with trio.open_nursery() as asking:
                    asking.start_soon(self._ask_in_vain, session, blow)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    os.kill(int(path.read_text()), blow)

        assert time.monotonic() - started < TIMEOUT_S / 2

    @pytest.mark.parametrize("is_busy", [False, True])
    def test_an_agent_ends_with_its_coordinator(
        self, host: MakeHost, tmp_path: Path, *, is_busy: bool
    ) -> None:
        """Which is killed, and has no time to tell anybody."""
        path = tmp_path / "pid"
        reached = msgspec.json.encode(host(programs.with_number_in(path)), enc_hook=lambda each: each.value)
        argv = [sys.executable, "-c", COORDINATOR, reached.decode(), "busy" if is_busy else ""]
        with (
            killed_at_last(path),
            subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT_DIRECTORY) as coordinator,
        ):
            assert coordinator.stdout is not None
            said = coordinator.stdout.readline()
            coordinator.kill()

            assert b"ready\n" == said
            assert is_gone(int(path.read_text()))

    @staticmethod
    async def _ask_in_vain(session: Session, blow: signal.Signals) -> None:
        expected = "the agent hung: no answer to 'collect'" if blow == signal.SIGSTOP else "the agent ended"
        with pytest.raises(HostLostError, match=f"^{expected}"):
            await session.request("collect", wire.Collect(expect=1, within=60), wire.Collected, 1.0)
