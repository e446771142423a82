"""A session with agents that are small programs: what is answered, what is not, and which reason stands."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio

from netprobe import bundle, session, wire
from netprobe.failures import one_line
from netprobe.model import Connection, Host
from netprobe.session import HostLostError, Session

TIMEOUT_S: Final = 10.0
SHORT_S: Final = 0.2

PRELUDE: Final = f"""
import json, os, sys, time
read = sys.stdin.buffer.read
def say(text):
    os.write(1, text.encode() + b"\\n")
say("{bundle.AT_INTERPRETER}")
read(int(read({bundle.LENGTH_DIGITS})))
def answer(request):
    say(json.dumps({{"id": request["id"], "ok": {{"taps": request["nonce"]}}}}))
def hear():
    return json.loads(sys.stdin.buffer.readline())
say('{{"hello":"netprobe","protocol":1,"pid":%d}}' % os.getpid())
"""
"""What an agent does before anything else: it takes itself from stdin, and says hello."""

UNTIL_THE_END: Final = "sys.stdin.buffer.read()"


def host(program: str, prelude: str = PRELUDE) -> Host:
    """A host whose agent is a program."""
    python = (sys.executable, "-c", prelude + program)
    return Host(name="h", addresses=("127.0.0.1",), connection=Connection(type="local"), python=python)


@asynccontextmanager
async def opened(program: str, prelude: str = PRELUDE) -> AsyncIterator[Session]:
    """A session that is started; behind this its process is gone."""
    opened = Session(host(program, prelude))
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            try:
                await opened.start(nursery)
                yield opened
            finally:
                await opened.end()
            nursery.cancel_scope.cancel()

    assert opened._process is not None
    assert opened._process.returncode is not None


async def ask(asked: Session, number: int, timeout_s: float = TIMEOUT_S) -> int:
    """Ask for a number, which the programs above answer with."""
    request = wire.Arm(nonce=number, flows=0, sights=[], taps=[], templates=[])
    return (await asked.request("arm", request, wire.Armed, timeout_s)).taps


async def why(asked: Session, timeout_s: float = TIMEOUT_S) -> str:
    """The reason why a request is not answered."""
    with pytest.raises(HostLostError) as caught:
        await ask(asked, 0, timeout_s)
    return str(caught.value)


async def test_answers_find_their_requests() -> None:
    """In whichever order they come."""
    found = {}

    async def note(asked: Session, number: int) -> None:
        found[number] = await ask(asked, number)

    program = "for each in sorted((hear() for _ in range(5)), key=lambda r: -r['nonce']): answer(each)\n"
    async with opened(program + UNTIL_THE_END) as asked:
        async with trio.open_nursery() as askers:
            for number in range(5):
                askers.start_soon(note, asked, number)

        assert {number: number for number in range(5)} == found


async def test_an_answer_to_a_request_that_was_given_up_is_nobodys() -> None:
    """It comes late, before that to the next request."""
    program = "first = hear(); second = hear(); answer(first); answer(second); answer(first)\n"
    async with opened(program + "answer(hear())\n" + UNTIL_THE_END) as asked:
        with trio.move_on_after(SHORT_S) as scope:
            await ask(asked, 1)

        assert scope.cancelled_caught
        assert 2 == await ask(asked, 2)
        assert 3 == await ask(asked, 3)


async def test_a_request_that_is_not_answered_in_time_loses_the_host() -> None:
    """For good: the answer that comes later, or would to the next request, is not waited for."""
    async with opened("hear(); print('busy', file=sys.stderr, flush=True)\n" + UNTIL_THE_END) as asked:
        reason = await why(asked, SHORT_S)
        started = time.monotonic()

        assert "the agent hung: no answer to 'arm' within 0.2 s: busy" == reason
        assert reason == await why(asked)
        assert time.monotonic() - started < SHORT_S
        assert reason == str(asked.lost)


async def test_everybody_who_waits_is_told_the_same_reason() -> None:
    """When the agent ends; nobody waits for the rest of a timeout."""
    reasons = []

    async def note(asked: Session) -> None:
        reasons.append(await why(asked))

    async with opened("[hear() for _ in range(3)]; sys.exit(5)") as asked:
        async with trio.open_nursery() as askers:
            for _ in range(3):
                askers.start_soon(note, asked)

        assert ["the agent ended (exit status 5)"] * 3 == reasons


@pytest.mark.parametrize("then", ["sys.exit(5)", "os.kill(os.getpid(), 9)", "say('more garbage')"])
async def test_the_first_reason_stands(then: str) -> None:
    """Whatever happens to the host afterwards, by itself or because it is lost."""
    async with opened(f"hear(); say('garbage'); {then}; {UNTIL_THE_END}") as asked:
        assert "the agent talks garbage: not an agent's answer: 'garbage'" == await why(asked)
        await asked.end()
        assert "the agent talks garbage: not an agent's answer: 'garbage'" == await why(asked)


async def test_what_ssh_has_done_is_not_for_others_to_say() -> None:
    """A host that is reached without ssh has had no key added, whatever it says."""
    said = "Warning: Permanently added 'h' (ED25519) to the list of known hosts."
    async with opened(
        f"print({said!r}, file=sys.stderr, flush=True); answer(hear()); {UNTIL_THE_END}"
    ) as asked:
        assert 1 == await ask(asked, 1)

    assert said in asked._stderr
    assert [] == asked.notes


async def test_an_error_answer_loses_nobody() -> None:
    """It is about one request, and raised there."""
    refusal = '{"id":1,"error":"EPERM: no"}'
    async with opened(f"hear(); say('{refusal}'); answer(hear()); {UNTIL_THE_END}") as asked:
        with pytest.raises(wire.AgentError, match="EPERM: no"):
            await ask(asked, 1)

        assert 2 == await ask(asked, 2)


@pytest.mark.parametrize("repetition", range(3))
async def test_an_answer_counts_although_the_agent_ends_at_once(repetition: int) -> None:
    """As it does after its last one; only who asks then is told that it has ended."""
    async with opened("answer(hear()); sys.exit(0)") as asked:
        assert repetition == await ask(asked, repetition)
        assert "the agent ended (exit status 0)" == await why(asked)


async def test_an_agent_is_told_that_we_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By empty lines, also while it works on a request."""
    monkeypatch.setattr(session, "_ALIVE_S", 0.01)
    silence = "assert sys.stdin.buffer.readline() == b'\\n'"
    program = (
        f"while True:\n line = sys.stdin.buffer.readline()\n if line.strip(): break\n{silence}\n{silence}\n"
    )
    async with opened(program + "answer(json.loads(line))\n" + UNTIL_THE_END) as asked:
        assert 7 == await ask(asked, 7)


async def test_an_agent_that_does_not_read_is_not_waited_for() -> None:
    """A request that is longer than what the pipe holds is part of the timeout."""
    request = wire.AskFacts(peers=["x" * 100] * 50_000)
    async with opened("time.sleep(60)") as asked:
        with pytest.raises(HostLostError, match=r"^the agent hung: no answer to 'facts' within 0\.2 s$"):
            await asked.request("facts", request, wire.Facts, SHORT_S)


async def test_an_agent_that_does_not_end_is_ended() -> None:
    """Though its stdin closes; with what it has started."""
    program = "import subprocess; child = subprocess.Popen(['sleep', '60']); request = hear()\n"
    program += "request['nonce'] = child.pid; answer(request); time.sleep(60)"
    async with opened(program) as asked:
        child = os.pidfd_open(await ask(asked, 0))
    with os.fdopen(child, "rb", buffering=0):
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + TIMEOUT_S
            await trio.lowlevel.wait_readable(child)

    assert asked._process is not None
    assert -signal.SIGKILL == asked._process.returncode


async def test_a_session_that_never_started_ends() -> None:
    """A run may be cancelled before."""
    with trio.fail_after(TIMEOUT_S):
        await Session(host("")).end()


async def test_a_session_ends_twice() -> None:
    """The second time there is nothing to do."""
    async with opened(UNTIL_THE_END) as asked:
        await asked.end()
        await asked.end()


@pytest.mark.parametrize("prelude", ["import time; time.sleep(60)", "import sys; sys.stdin.buffer.read()"])
async def test_a_start_that_takes_too_long_is_given_up(prelude: str) -> None:
    """Whether the program is read or not; the host is lost."""
    lost = Session(host("", prelude))
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            with pytest.raises(HostLostError, match=r"^the agent did not start within 0\.2 s$"):
                await lost.start(nursery, SHORT_S)
            await lost.end()
            nursery.cancel_scope.cancel()

    assert "the agent did not start within 0.2 s" == str(lost.lost)


@pytest.mark.parametrize(
    "said",
    [
        "'{\"id\":null,\"error\":\"' + 'long ' * 10000 + '\"}'",
        "'x' * 10000",
        "'{\"id\":1,\"ok\":' + '7' * 10000 + '}'",
    ],
)
async def test_a_reason_is_one_short_line(said: str) -> None:
    """However much the host said that it quotes, on stdout and stderr."""
    async with opened(
        f"hear(); print('so\\r\\n' * 1000 + 'y' * 10000, file=sys.stderr); say({said}); {UNTIL_THE_END}"
    ) as asked:
        reason = await why(asked)

    assert 1 == len(reason.splitlines())
    assert reason.startswith("the agent talks garbage: ")
    assert len(reason) < 1000


def test_one_line_is_one_line() -> None:
    """Whatever a terminal takes for its end."""
    assert "a b c" == one_line(" a\r\nb\u2028\x0bc\x85")
    assert 300 == len(one_line("x" * 1000))
