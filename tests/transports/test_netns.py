"""A network namespace by its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netprobe import wire
from netprobe.lab import Lab
from netprobe.model import Connection, Family, Host
from tests.transports import programs
from tests.transports.conformance import TIMEOUT_S, Conformance, MakeHost, opened, reason


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A namespace, among others."""
    with Lab.mesh(2) as lab:
        yield lab


@pytest.mark.lab
class TestNetns(Conformance):
    """As `ip netns` knows it."""

    @pytest.fixture
    def host(self, lab: Lab) -> MakeHost:
        """A host of the lab."""
        connection = Connection(type="netns", name=lab.hosts["n1"].namespace)
        return lambda python: Host(name="n1", addresses=("10.77.1.11",), connection=connection, python=python)

    async def test_the_agent_is_inside(self, host: MakeHost, lab: Lab) -> None:
        """Its addresses are those of the namespace."""
        async with opened(host(programs.shell('exec "$0" "$@"'))) as (session, nursery):
            await session.start(nursery)
            facts = await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)

            assert lab.hosts["n1"].address(Family.IPV4) in {address for _, address, _ in facts.addresses}

    async def test_a_namespace_that_is_not_there_is_named(self) -> None:
        """With what nsenter says of it."""
        connection = Connection(type="netns", name="np-no-such")
        found = await reason(Host(name="n1", addresses=("10.77.1.11",), connection=connection))

        assert found.startswith("the agent did not start (exit status 1): nsenter: ")
        assert "/run/netns/np-no-such: No such file or directory" in found
