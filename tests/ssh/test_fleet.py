"""Many hosts by ssh, and some by a bad line: the cells are those that the same network has without ssh."""

from __future__ import annotations

import signal
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

from netprobe import bundle, coordinator, session
from netprobe.access import Access
from netprobe.lab import Lab, describe
from netprobe.lab.expectations import label
from netprobe.model import Family, Inventory, Run, Settings, Verdict
from tests.lab.leavings import processes
from tests.lab.probing import Held, held
from tests.ssh.relay import wire
from tests.transports.conformance import is_gone
from tests.transports.sshd import PORT, Servers, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

HOSTS: Final = 20
FEW: Final = 4
IMPATIENT: Final = ("-oServerAliveInterval=1", "-oServerAliveCountMax=3")
FAULTS: Final = """
faults:
  - {on: n3, nft: tcp dport 179 drop}
  - {on: n4, nft: udp dport 4789 reject with icmp admin-prohibited}
  - {on: n2, hook: output, nft: tcp dport 5473 drop}
  - on: router
    nft: [ip daddr $n4 ip protocol 4 drop, tcp dport 6443 ip saddr $n1 reject with tcp reset]
"""


def _lab(hosts: int) -> Lab:
    names = ", ".join(f"{{name: n{n}, roles: [node, typha, apiserver]}}" for n in range(1, hosts + 1))
    return Lab(describe(f"name: a fleet\nfamilies: [ipv4]\nhosts: [{names}]\n{FAULTS}"))


@pytest.fixture
def servers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Servers]:
    """A lab with a server on each of its hosts."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with _lab(request.param) as lab:
        servers = Servers(lab, tmp_path)
        monkeypatch.setenv("PATH", servers.path)
        yield servers


def _run(inventory: Inventory, access: Access | None = None) -> Run:
    return trio.run(coordinator.run, inventory, Settings(), None, None, access)


@pytest.mark.parametrize("servers", [HOSTS], indirect=True)
def test_a_fleet_by_ssh_has_the_cells_that_it_has_without(servers: Servers) -> None:
    """Each verdict, segment, refuser and caveat; with no more logins at a time than were asked for."""
    by_ssh = _run(servers.inventory(), Access(forks=8))
    without = _run(servers.lab.inventory())

    assert HOSTS * (HOSTS - 1) < sum(Counter(cell.judgement.verdict for cell in by_ssh.cells).values())
    assert held(without) == held(by_ssh)
    assert {""} == {host.error for host in by_ssh.hosts}


def _by_wires(
    servers: Servers, stack: ExitStack, rtt_s: float, loss: float
) -> tuple[Inventory, dict[str, subprocess.Popen[str]]]:
    """The inventory of the lab, with hosts that are logged in to by addresses of wires of their own."""
    hosts, cables = [], dict[str, subprocess.Popen[str]]()
    for number, host in enumerate(servers.inventory().hosts, start=1):
        here, there = f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"
        ends = servers.lab.router.namespace, servers.lab.hosts[host.name].namespace
        addresses = f"{here}/30", f"{there}/30"
        cable = wire(*ends, f"wire{number}", addresses, rtt_s=rtt_s, loss=loss)
        cables[host.name] = stack.enter_context(cable)
        known_as = f"-oHostKeyAlias=[{host.address(Family.IPV4)}]:{PORT}"
        connection = msgspec.structs.replace(
            host.connection, host=there, options=(*host.connection.options, *IMPATIENT, known_as)
        )
        hosts.append(msgspec.structs.replace(host, connection=connection))
    return Inventory(hosts=tuple(hosts)), cables


@pytest.mark.parametrize("servers", [FEW], indirect=True)
def test_a_bad_line_to_the_hosts_makes_no_cell_wrong(servers: Servers) -> None:
    """
    With 200 ms to and fro and a packet in a hundred lost, by addresses that are not those that are probed.
    """
    without = _run(servers.lab.inventory())
    with ExitStack() as stack:
        inventory, _cables = _by_wires(servers, stack, rtt_s=0.2, loss=0.01)
        by_wires = _run(inventory)

    assert held(without) == held(by_wires)
    assert {""} == {host.error for host in by_wires.hosts}


class Puller:
    """A progress that pulls a cable when a phase begins."""

    def __init__(self, cable: subprocess.Popen[str], phase: str) -> None:
        self._cable = cable
        self._phase = phase

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""
        assert total >= 0
        if name == self._phase:
            self._cable.send_signal(signal.SIGSTOP)

    def advance(self, n: int = 1) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""


def _impatient() -> bytes:
    """The agent, but one that ends where it hears nothing for two seconds."""
    program = zlib.decompress(bundle.stream()[bundle.LENGTH_DIGITS :])
    hasty = zlib.compress(program.replace(b"_IDLE_S = 60.0", b"_IDLE_S = 2.0"))

    assert program != zlib.decompress(hasty)
    return str(len(hasty)).zfill(bundle.LENGTH_DIGITS).encode() + hasty


@pytest.mark.parametrize("servers", [FEW], indirect=True)
def test_a_cable_that_is_pulled_loses_its_host_and_no_other(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its flows are untested with the reason, the others are what they are; and its agent ends by itself.
    """
    without = held(_run(servers.lab.inventory()))
    hasty = _impatient()
    monkeypatch.setattr(bundle, "stream", lambda _program: hasty)
    monkeypatch.setattr(session, "_ALIVE_S", 0.5)
    before = processes(servers.lab, "n1")
    with ExitStack() as stack:
        inventory, cables = _by_wires(servers, stack, rtt_s=0.0, loss=0.0)
        run = trio.run(coordinator.run, inventory, Settings(), Puller(cables["n1"], "sessions"))
        agents = processes(servers.lab, "n1") - before
        for pid in agents:
            # sshd itself learns of it later: it has no keep-alive of its own.
            if "python" in Path(f"/proc/{pid}/comm").read_text():
                assert is_gone(pid)

    assert agents
    error = next(host.error for host in run.hosts if host.name == "n1")
    assert error.startswith("the connection to 192.0.2.6 port 2022 dropped: ")
    for cell in run.cells:
        is_lost = "n1" in (cell.flow.src, cell.flow.dst)
        assert not is_lost or cell.judgement.verdict is Verdict.UNTESTED
        assert is_lost or without[label(cell.flow)] == Held.of(cell)
