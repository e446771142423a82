"""One agent on one host: start it, ask it, end it; every failure is one `HostLostError` with its reason."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from typing import Final, TypeVar

import msgspec
import trio

from netprobe import bundle, failures, launch, transports, wire
from netprobe.access import Access
from netprobe.failures import Story, one_line
from netprobe.model import Host
from netprobe.transports.base import NoPlaceError

START_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 1.0
_GRACE_S: Final = 0.2
_LOG_LINES: Final = 300
"""Of what ssh tells while it logs in."""
_STDERR_LINES: Final = 50
_ALIVE_S: Final = 15.0
"""How often an agent is told that we are still there; it ends where it hears nothing for a minute."""
_STDERR_BYTES: Final = 1 << 16

_T = TypeVar("_T")


class HostLostError(Exception):
    """
    An agent that did not start, died, talked garbage or hung; the text is the reason, in one line.

    `is_refused`: the host took no connection just now, and may take one later.
    """

    def __init__(self, reason: str, *, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.is_refused = is_refused


class Session:
    """
    A conversation with the agent of one host; `program` is which of the two (`bundle.stream`).

    Once lost, a session stays lost: every later request fails with the first reason.
    """

    def __init__(self, host: Host, access: Access | None = None, program: str = "main") -> None:
        self.host = host
        self.lost: HostLostError | None = None
        self._access = access or Access()
        self._program = program
        self._transport = transports.registry()[host.connection.type]
        self._arranged: Host | None = None
        self._conversation = wire.Conversation()
        self._process: trio.Process | None = None
        self._waiting: dict[int, tuple[trio.Event, list[wire.Reply]]] = {}
        self._greeted = trio.Event()
        self._reason = ""
        self._gone = trio.Event()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._stderr_closed = trio.Event()
        self._writing = trio.Lock()
        self._asks = launch.prompt()
        self._ready = trio.Event()
        self._is_asked = False

    async def start(self, nursery: trio.Nursery, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the agent and wait for its hello; `HostLostError` where none comes within `timeout_s`."""
        host = await self._arrange()
        argv = self._transport.argv(host, launch.SHELL, self._access)
        try:
            self._process = await trio.lowlevel.open_process(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C is the coordinator's to handle: it ends the agents in order.
                start_new_session=True,
            )
        except OSError as error:
            self._stderr_closed.set()
            raise await self._lose(f"cannot run {argv[0]}: {error.strerror}") from None
        nursery.start_soon(self._read_stdout, self._process)
        nursery.start_soon(self._read_stderr, self._process)
        nursery.start_soon(self._keep_alive)
        with trio.move_on_after(timeout_s) as scope:
            await self._write(launch.line(host, self._transport.within(host), self._access, self._asks))
            if host.sudo and self._access.sudo_password is not None:
                # What follows must not be taken for a password.
                await self._ready.wait()
            await self._write(bundle.stream(self._program))
            await self._greeted.wait()
        if scope.cancelled_caught:
            raise await self._lose(f"the agent did not start within {timeout_s:g} s")
        if self.lost is not None:
            raise self.lost

    async def _arrange(self) -> Host:
        """The host with a place to run the agent, made where there is none."""
        if self._transport.arrange is None:
            return self.host
        try:
            self._arranged = await self._transport.arrange(self.host)
        except NoPlaceError as error:
            self._stderr.extend(filter(None, map(one_line, error.said)))
            self._stderr_closed.set()
            raise await self._lose(str(error)) from None
        return self._arranged

    async def request(self, verb: str, fields: msgspec.Struct, kind: type[_T], timeout_s: float) -> _T:
        """
        Ask, and wait for the answer.

        Raises `HostLostError` where none comes within `timeout_s` or the session is lost already,
        `wire.AgentError` where the agent answers with an error.
        """
        if self.lost is not None:
            raise self.lost
        number, data = self._conversation.request(verb, fields)
        answered = trio.Event()
        replies: list[wire.Reply] = []
        self._waiting[number] = answered, replies
        with trio.move_on_after(timeout_s):
            await self._write(data)
            await answered.wait()
        self._waiting.pop(number, None)
        if not replies:
            if self.lost is not None:
                raise self.lost
            raise await self._lose(f"the agent hung: no answer to {verb!r} within {timeout_s:g} s")
        try:
            return wire.result(replies[0], kind)
        except wire.ProtocolError as error:
            raise await self._lose_for_garbage(error) from None

    async def end(self) -> None:
        """
        End the agent and wait until its process is gone; killed where it does not go by itself.

        Where this is cancelled it is killed at once.
        """
        process = self._process
        if process is not None:
            try:
                await self._ask_to_end()
            finally:
                self._kill()
            with trio.move_on_after(_END_TIMEOUT_S):
                await process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
        if self._arranged is not None and self._transport.dismiss is not None:
            arranged, self._arranged = self._arranged, None
            # What is left there goes by itself; that it could not be taken away now is no result of a run.
            with contextlib.suppress(NoPlaceError):
                await self._transport.dismiss(arranged)

    async def _ask_to_end(self) -> None:
        """Close its stdin: the agent ends then, and takes its traces with it; so does ssh."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(_END_TIMEOUT_S):
            await process.wait()

    def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        # With what it started: it leads a session of its own. What runs by sudo is not ours to kill; it ends
        # because its stdin has closed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    async def _keep_alive(self) -> None:
        while self.lost is None:
            await trio.sleep(_ALIVE_S)
            # Before the agent runs, an empty line could be taken for something else.
            if self._greeted.is_set():
                await self._write(b"\n")

    async def _write(self, data: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            async with self._writing:
                await process.stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # It has gone; why, the reader of its stdout and stderr will know.
            return

    async def _read_stdout(self, process: trio.Process) -> None:
        if process.stdout is None:
            return
        try:
            async for data in process.stdout:
                for reply in self._conversation.receive(bytes(data)):
                    self._deliver(reply)
                if launch.AT_INTERPRETER in self._conversation.noise:
                    self._ready.set()
                if self._conversation.greeted:
                    self._greeted.set()
        except wire.ProtocolError as error:
            await self._lose_for_garbage(error)
            return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        # The reason comes last, on stderr.
        with trio.move_on_after(_END_TIMEOUT_S):
            await self._stderr_closed.wait()
            await process.wait()
        await self._lose(self._epitaph(process.returncode))

    async def _read_stderr(self, process: trio.Process) -> None:
        pending = b""
        if process.stderr is None:
            return
        try:
            async for data in process.stderr:
                pending, log = failures.without_log(pending + data)
                self._log.extend(log)
                *lines, pending = pending.split(b"\n")
                self._stderr.extend(text for text in map(_text, lines) if text)
                if self._asks.encode() in pending:
                    pending = b""
                    await self._tell_password()
                # Whoever writes without end writes no line that could be told.
                pending = pending[:_STDERR_BYTES]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            if text := _text(pending):
                self._stderr.append(text)
            self._stderr_closed.set()

    async def _tell_password(self) -> None:
        """Answer sudo's question; once, because a second one means that the answer was wrong."""
        password = self._access.sudo_password
        if self._is_asked or password is None:
            if self._process is not None and self._process.stdin is not None:
                await self._process.stdin.aclose()
            return
        self._is_asked = True
        await self._write(f"{password.reveal()}\n".encode())

    def _deliver(self, reply: wire.Reply) -> None:
        if reply.id is None:
            raise wire.ProtocolError(f"it could not read what was sent to it: {reply.error}")
        waiting = self._waiting.get(reply.id)
        if waiting is None:
            # A late answer: nobody waits for it any more.
            return
        answered, replies = waiting
        replies.append(reply)
        answered.set()

    async def _lose_for_garbage(self, error: wire.ProtocolError) -> HostLostError:
        # What it said on stderr before may come later than what it said on stdout.
        with trio.move_on_after(_GRACE_S):
            await self._stderr_closed.wait()
        return await self._lose(f"the agent talks garbage: {error}")

    async def _lose(self, reason: str) -> HostLostError:
        """
        Stop the process, hear its last words, note that the host is lost, and wake everybody who waits.

        The first reason stands.
        """
        if self._reason:
            await self._gone.wait()
        else:
            self._reason = one_line(reason)
            try:
                await self._ask_to_end()
                self._kill()
                # The reason of the reason comes last, on stderr.
                with trio.move_on_after(_END_TIMEOUT_S):
                    await self._stderr_closed.wait()
            finally:
                self.lost = self._why()
                for answered, _replies in self._waiting.values():
                    answered.set()
                self._greeted.set()
                self._ready.set()
                self._gone.set()
        return self.lost or HostLostError(reason)

    def _why(self) -> HostLostError:
        """What the host and the way there have said, explained as far as it is understood."""
        story = Story(
            host=self.host,
            reason=self._reason,
            stdout=tuple(self._conversation.noise),
            stderr=tuple(self._stderr),
            log=tuple(self._log),
            greeted=self._conversation.greeted,
        )
        why, is_refused = failures.explain(story)
        if self._access.sudo_password is not None:
            why = self._access.sudo_password.out_of(why)
        return HostLostError(why, is_refused=is_refused)

    def _epitaph(self, status: int | None) -> str:
        what = "the agent ended" if self._conversation.greeted else "the agent did not start"
        if status is None:
            return what
        how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        return f"{what} ({how})"


def _text(line: bytes) -> str:
    return one_line(line[: 4 * failures.LINE_CHARACTERS].decode("utf-8", "replace"))
