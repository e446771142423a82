"""The machine itself, as root and by sudo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import netprobe
from netprobe.model import Connection, Host
from tests.transports import accounts
from tests.transports.conformance import TIMEOUT_S, Conformance, MakeHost

ROOT_DIRECTORY: Final = Path(netprobe.__file__).parents[1]
SYSTEM_PYTHON: Final = "/usr/bin/python3"

BY_SUDO: Final = """
import os, time
import trio
from netprobe import wire
from netprobe.model import Connection, Host
from netprobe.session import HostLostError, Session

async def main():
    host = Host(name="here", addresses=("127.0.0.1",), connection=Connection(type="local"), sudo=True)
    session = Session(host)
    async with trio.open_nursery() as nursery:
        await session.start(nursery)
        facts = await session.request("facts", wire.AskFacts(), wire.Facts, 10)
        print(os.geteuid(), facts.uid)
        try:
            await session.request("collect", wire.Collect(expect=1, within=60), wire.Collected, 0.3)
        except HostLostError as error:
            print(error)
        started = time.monotonic()
        await session.end()
        nursery.cancel_scope.cancel()
        print(session._process.returncode is not None, time.monotonic() - started < 5)

trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests of agents are root's")
class TestLocal(Conformance):
    """By no other program."""

    @pytest.fixture
    def host(self) -> MakeHost:
        """The machine itself."""
        return lambda python: Host(
            name="here", addresses=("127.0.0.1",), connection=Connection(type="local"), python=python
        )


@pytest.mark.lab
@pytest.mark.skipif(bool(accounts.obstacle()), reason=accounts.obstacle())
def test_what_runs_by_sudo_is_lost_and_ends_although_it_cannot_be_killed(tmp_path: Path) -> None:
    """A user may not kill root's process; it ends because its stdin closes."""
    accounts.write(tmp_path)
    paths = [str(ROOT_DIRECTORY), *(path for path in sys.path if path.endswith("-packages"))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = accounts.as_user([SYSTEM_PYTHON, "-c", BY_SUDO])
    ran = subprocess.run(
        accounts.covered(tmp_path, argv),
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd="/",
        timeout=TIMEOUT_S,
    )
    if "No module named" in ran.stderr or "Permission denied" in ran.stderr:
        pytest.skip(f"no interpreter here that another user may run: {ran.stderr.splitlines()[-1]}")

    assert "" == ran.stderr
    assert [
        f"{accounts.USER_ID} 0",
        "the agent hung: no answer to 'collect' within 0.3 s",
        "True True",
    ] == ran.stdout.splitlines()
