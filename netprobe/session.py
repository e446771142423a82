"""One agent on one host: start it, ask it, end it; every failure is one `HostLostError` with its reason."""

from __future__ import annotations

import subprocess
from collections import deque
from typing import Final, TypeVar

import msgspec
import trio

from netprobe import bundle, transports, wire
from netprobe.model import Host

START_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 1.0
_STDERR_LINES: Final = 5
_READ_BYTES: Final = 1 << 18

_T = TypeVar("_T")


class HostLostError(Exception):
    """An agent that did not start, died, talked garbage or hung; the text is the reason, in one line."""


class Session:
    """
    A conversation with the agent of one host.

    Once lost, a session stays lost: every later request fails with the first reason.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lost: HostLostError | None = None
        self._conversation = wire.Conversation()
        self._process: trio.Process | None = None
        self._waiting: dict[int, tuple[trio.Event, list[wire.Reply]]] = {}
        self._greeted = trio.Event()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._stderr_closed = trio.Event()
        self._writing = trio.Lock()

    async def start(self, nursery: trio.Nursery, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the agent and wait for its hello; `HostLostError` where none comes within `timeout_s`."""
        argv = transports.registry()[self.host.connection.type].argv(
            self.host, bundle.command(self.host.python)
        )
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
            raise self._lose(f"cannot run {argv[0]}: {error.strerror}") from None
        nursery.start_soon(self._read_stdout, self._process)
        nursery.start_soon(self._read_stderr, self._process)
        with trio.move_on_after(timeout_s) as scope:
            await self._write(bundle.stream())
            await self._greeted.wait()
        if scope.cancelled_caught:
            raise self._lose(f"the agent did not start within {timeout_s:g} s")
        if self.lost is not None:
            raise self.lost

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
        with trio.move_on_after(timeout_s) as scope:
            await self._write(data)
            await answered.wait()
        self._waiting.pop(number, None)
        if self.lost is not None:
            raise self.lost
        if scope.cancelled_caught:
            raise self._lose(f"the agent hung: no answer to {verb!r} within {timeout_s:g} s")
        try:
            return wire.result(replies[0], kind)
        except wire.ProtocolError as error:
            raise self._lose(f"the agent talks garbage: {error}") from None

    async def end(self) -> None:
        """End the agent and wait until its process is gone; killed where it does not go by itself."""
        process = self._process
        if process is None:
            return
        with trio.CancelScope(shield=True):
            if process.stdin is not None:
                # The agent ends when its stdin closes, and so does ssh.
                await process.stdin.aclose()
            with trio.move_on_after(_END_TIMEOUT_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()

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
                if self._conversation.greeted:
                    self._greeted.set()
        except wire.ProtocolError as error:
            self._lose(f"the agent talks garbage: {error}")
            return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        # The reason comes last, on stderr.
        with trio.move_on_after(_END_TIMEOUT_S):
            await self._stderr_closed.wait()
            await process.wait()
        self._lose(self._epitaph(process.returncode))

    async def _read_stderr(self, process: trio.Process) -> None:
        pending = b""
        if process.stderr is None:
            return
        try:
            async for data in process.stderr:
                *lines, pending = (pending + data).split(b"\n")
                self._stderr.extend(line.decode("utf-8", "replace") for line in lines if line.strip())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            if pending.strip():
                self._stderr.append(pending.decode("utf-8", "replace"))
            self._stderr_closed.set()

    def _deliver(self, reply: wire.Reply) -> None:
        waiting = self._waiting.get(reply.id) if reply.id is not None else None
        if waiting is None:
            # An error about a line that was not ours, or a late answer: nobody waits for it.
            return
        answered, replies = waiting
        replies.append(reply)
        answered.set()

    def _lose(self, reason: str) -> HostLostError:
        """Note that the host is lost, wake everybody who waits, and stop the process."""
        if self.lost is None:
            self.lost = HostLostError(reason)
            for answered, _replies in self._waiting.values():
                answered.set()
            self._greeted.set()
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
        return self.lost

    def _epitaph(self, status: int | None) -> str:
        what = "ended" if self._conversation.greeted else "did not start"
        how = f" (exit status {status})" if status is not None else ""
        said = [*self._conversation.noise[-2:], *self._stderr]
        return f"the agent {what}{how}" + (f": {' | '.join(line.strip() for line in said)}" if said else "")
