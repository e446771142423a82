"""The agents of a run end with it, in order where there is time for that."""

from __future__ import annotations

import signal
import sys
import time

import pytest
import trio
import trio.testing

from netprobe import session
from netprobe.access import Access
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.progress import Silent
from netprobe.model import Connection, Host

HANGS = 'import os, time; os.write(1, b\'{"hello":"netprobe","protocol":1,"pid":1}\\n\'); time.sleep(60)'


def interrupts(error: BaseException) -> bool:
    """Whether it is Ctrl-C, also out of the groups that nurseries raise."""
    inner = getattr(error, "exceptions", None)
    return all(map(interrupts, inner)) if inner else isinstance(error, KeyboardInterrupt)


def test_the_second_ctrl_c_waits_for_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one asks them to end, and would wait as long as they may take; the second one kills them."""
    monkeypatch.setattr(session, "_END_TIMEOUT_S", 60.0)
    python = (sys.executable, "-c", HANGS, "agent")
    host = Host(name="a", addresses=("127.0.0.1",), connection=Connection(type="local"), python=python)
    blows: list[float] = []
    processes: list[trio.Process] = []

    async def interrupt() -> None:
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked(0.1)
            blows.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    async def run() -> None:
        crew = Crew([host], Access(), lambda name, reason: pytest.fail(f"{name}: {reason}"), Silent())
        async with trio.open_nursery() as nursery:
            await crew.start(nursery)
            processes.extend(filter(None, (each._process for each in crew._sessions.values())))
            trio.lowlevel.spawn_system_task(interrupt)
            try:
                await trio.sleep_forever()
            finally:
                await crew.end()
                nursery.cancel_scope.cancel()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 (what it is, is looked at below)
        trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)
    took_s = time.monotonic() - blows[1]
    (process,) = processes

    assert interrupts(caught.value)
    assert took_s < 30
    assert -signal.SIGKILL == process.returncode
