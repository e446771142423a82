"""The agents of a run, asked all at once; a host that fails is lost with its reason, and the others go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import trio

from netprobe import wire
from netprobe.access import Access
from netprobe.coordinator.progress import Progress
from netprobe.failures import one_line
from netprobe.model import Host
from netprobe.session import HostLostError, Session

_TRIES: Final = 6
_FIRST_PAUSE_S: Final = 0.5
"""Before a host that took no connection is tried again; the next pause is twice as long."""

_T = TypeVar("_T")


class Crew:
    """
    One session for each host, all with the same program (`bundle.stream`).

    `lost` says why a host takes no further part: its agent failed, or answered that it cannot do what was
    asked. Whoever is lost is reported to `report` at once, by name and reason.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        access: Access,
        report: Callable[[str, str], None],
        told: Progress,
        program: str = "main",
    ) -> None:
        self.lost: dict[str, str] = {}
        self._access = access
        self._report = report
        self._told = told
        self._program = program
        self._sessions = {host.name: Session(host, access, program) for host in hosts}

    @property
    def names(self) -> list[str]:
        """The hosts that are not lost."""
        return [name for name in self._sessions if name not in self.lost]

    def _lose(self, name: str, reason: str) -> None:
        if name not in self.lost:
            self.lost[name] = reason
            self._report(name, reason)
            self._told.note(f"{name}: {reason}")

    async def start(self, nursery: trio.Nursery) -> None:
        """Start all agents; returns when each has greeted or failed."""
        limit = trio.CapacityLimiter(self._access.forks)

        async def start(name: str) -> None:
            for pause in self._pauses():
                async with limit:
                    error = await self._try(name, nursery)
                if error is None or not error.is_refused:
                    break
                await trio.sleep(pause)
                await self._sessions[name].end()
                self._sessions[name] = Session(self._sessions[name].host, self._access, self._program)
            if error is not None:
                self._lose(name, str(error))
            self._told.advance()

        async with trio.open_nursery() as starters:
            for name in self._sessions:
                starters.start_soon(start, name)

    async def _try(self, name: str, nursery: trio.Nursery) -> HostLostError | None:
        try:
            await self._sessions[name].start(nursery)
        except HostLostError as error:
            return error
        return None

    @staticmethod
    def _pauses() -> list[float]:
        """How long to wait after each try; hosts behind one door must not come back all at once."""
        spread = random.SystemRandom()
        return [_FIRST_PAUSE_S * 2**n * spread.uniform(0.5, 1.5) for n in range(_TRIES)]

    async def ask(
        self, verb: str, requests: Mapping[str, msgspec.Struct], kind: type[_T], timeout_s: float
    ) -> dict[str, _T]:
        """Ask several hosts at once. The answers of those that gave one; the others are lost."""
        answers: dict[str, _T] = {}

        async def ask(name: str, fields: msgspec.Struct) -> None:
            try:
                answers[name] = await self._sessions[name].request(verb, fields, kind, timeout_s)
            except HostLostError as error:
                self._lose(name, str(error))
            except wire.AgentError as error:
                self._lose(name, f"the agent cannot {verb}: {one_line(str(error))}")

        async with trio.open_nursery() as askers:
            for name, fields in requests.items():
                if name not in self.lost:
                    askers.start_soon(ask, name, fields)
        return answers

    async def end(self) -> None:
        """End all agents, also those that are lost, and also when the run is cancelled."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as enders:
                for session in self._sessions.values():
                    enders.start_soon(session.end)
