"""
One host of four misbehaves: its flows are untested and say why, all other cells are right, the run ends.

How long a run may take: as long as one in which all is well, and once the time that the request may take in
which the host was lost (`volleys.ANSWER_TIMEOUT_S` and what a volley itself takes), if it said nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from netprobe import coordinator, plan
from netprobe.coordinator import muster, sessions, state, volleys
from netprobe.lab import Lab, describe
from netprobe.model import Cell, Connection, Run, Verdict
from netprobe.plan import Settings
from netprobe.session import Session
from tests.lab import probing

pytestmark = pytest.mark.lab

SPOKEN: Final = """
name: four hosts, and a few faults that are heard of at once
hosts: [n1, n2, n3, {name: n4, roles: [node, typha, etcd, apiserver]}]
faults:
  - on: n3
    nft: 'ip saddr { $n2, $n4 } tcp dport 179 reject with tcp reset'
    expect: {"* -> n3 bgp/ipv4": rejected @ destination-ingress, n1 -> n3 bgp/ipv4: open}
  - on: n4
    nft: ip6 saddr $n1.ipv6 tcp dport { 443, 6443 } reject with tcp reset
    expect: {n1 -> n4 apiserver/ipv6: rejected @ destination-ingress}
"""
SILENT: Final = """
name: four hosts, and packets that are lost without a word, also from and to the one that will misbehave
hosts: [n1, n2, n3, {name: n4, roles: [node, typha, etcd, apiserver]}]
faults:
  - on: router
    nft:
      - ip saddr $n1 ip daddr $n3 ip protocol 4 drop
      - ip saddr $n2 ip daddr $n1 udp dport 4789 drop
      - ip saddr $n3 ip daddr $n2 tcp dport 179 drop
    expect:
      n1 -> n3 ipip: filtered @ path
      n2 -> n1 vxlan/ipv4: filtered @ path
      n2 -> n1 flannel:4789/ipv4: filtered @ path
      n3 -> n2 bgp/ipv4: filtered @ path
"""

BAD: Final = "n2"
BOUND_S: Final = 15.0
"""For a run of less than two seconds, on a machine that may be busy."""
ANSWER_S: Final = 2.0
HUNG_BOUND_S: Final = BOUND_S + ANSWER_S + 2 * 3.5

PHASES: Final = probing.PHASES[1:]
"""With an agent that has begun to work."""
VERBS: Final = ("facts", "conntrack", "arm", "listen", "fire", "collect", "connect")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A network where nothing has to be asked again; agents come and go in it."""
    with Lab(describe(SPOKEN)) as lab:
        yield lab


@pytest.fixture(scope="module")
def silent_lab() -> Iterator[Lab]:
    """A network for which a run goes through all of its phases."""
    with Lab(describe(SILENT)) as lab:
        yield lab


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that says nothing is lost soon."""
    for module in (volleys, muster, sessions, state):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", ANSWER_S)


class Watcher:
    """A progress that calls back when a phase begins, once, and keeps what it is told."""

    def __init__(self, phase: str = "", then: Callable[[], None] = lambda: None) -> None:
        self._phase = phase
        self._then = then
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, total: int) -> None:
        """See `Progress`."""
        assert total >= 0
        if name == self._phase and name not in self.phases:
            self._then()
        self.phases.append(name)

    def advance(self, n: int = 1) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""
        self.notes.append(text)


def shell(script: str) -> tuple[str, ...]:
    """A shell script in the place of an interpreter; `$0` is one, `$@` what makes an agent of it."""
    return ("sh", "-c", script, sys.executable)


def probed(
    lab: Lab,
    python: Sequence[str],
    watcher: Watcher | None = None,
    bound_s: float = BOUND_S,
    connection: Connection | None = None,
) -> Run:
    """A run with something else in the place of the bad host's interpreter; it ends in time."""
    inventory = lab.inventory()
    hosts = tuple(
        msgspec.structs.replace(host, python=tuple(python), connection=connection or host.connection)
        if host.name == BAD
        else host
        for host in inventory.hosts
    )
    inventory = msgspec.structs.replace(inventory, hosts=hosts)
    started = time.monotonic()
    run = trio.run(coordinator.run, inventory, Settings(), watcher or Watcher())

    assert time.monotonic() - started < bound_s
    return run


def bad(run: Run) -> list[Cell]:
    """The cells that end at the bad host."""
    return [cell for cell in run.cells if BAD in (cell.flow.src, cell.flow.dst)]


def check_others(lab: Lab, run: Run) -> None:
    """All other cells are as the lab has them."""
    theirs = bad(run)
    others = [cell for cell in run.cells if cell not in theirs]

    assert len(plan.flows(lab.inventory())) == len(others) + len(theirs)
    assert [] == [str(each) for each in lab.expectations.compare(others, is_partial=True)]


def check_lost(lab: Lab, run: Run, expected: str) -> None:
    """The bad host's cells are untested for this reason, and all others right."""
    assert {(Verdict.UNTESTED, expected)} == {
        (cell.judgement.verdict, cell.judgement.detail) for cell in bad(run)
    }
    assert [expected.removeprefix(f"{BAD}: ")] == [report.error for report in run.hosts if report.error]
    check_others(lab, run)


def check_all(lab: Lab, run: Run) -> None:
    """All cells are right, whatever the bad host does."""
    assert [] == [str(each) for each in lab.expectations.compare(run.cells)]
    assert [] == [report.error for report in run.hosts if report.error]


def test_a_host_without_an_interpreter_is_lost(lab: Lab) -> None:
    """With what the one who should have started it says."""
    run = probed(lab, ["/nonexistent/python3"])

    check_lost(
        lab,
        run,
        "n2: the agent did not start (exit status 127): "
        "nsenter: failed to execute /nonexistent/python3: No such file or directory",
    )


def test_a_host_that_cannot_be_reached_is_lost(lab: Lab) -> None:
    """The program that would reach it is not there."""
    connection = Connection(type="command", argv=("/nonexistent/podman", "exec"))
    run = probed(lab, ["python3"], connection=connection)

    check_lost(lab, run, "n2: cannot run /nonexistent/podman: No such file or directory")


def agent(path: Path) -> tuple[str, ...]:
    """A good agent that leaves its number in a file, and some words on stderr."""
    return shell(f'echo $$ >\'{path}\'; echo a while ago >&2; echo last words >&2; exec "$0" "$@"')


@pytest.mark.parametrize("phase", PHASES)
def test_an_agent_is_killed_between_requests(silent_lab: Lab, phase: str, tmp_path: Path) -> None:
    """When a phase begins; what it saw before is no evidence, and nobody else's is changed by it."""
    path = tmp_path / "pid"
    watcher = Watcher(phase, lambda: os.kill(int(path.read_text()), signal.SIGKILL))
    run = probed(silent_lab, agent(path), watcher)

    check_lost(silent_lab, run, "n2: the agent ended (killed by SIGKILL): a while ago | last words")
    assert phase in watcher.phases


class Wire:
    """What is asked of whom, in a row, with a blow when the bad host is first asked for something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, verb: str, blow: Callable[[], None]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._verb = verb
        self._blow: Callable[[], None] | None = blow
        self._write = Session._write
        wire = self
        monkeypatch.setattr(Session, "_write", lambda session, data: wire.write(session, data))  # noqa: PLW0108

    async def write(self, session: Session, data: bytes) -> None:
        """Pass on what a session writes."""
        await self._write(session, data)
        if not data.startswith(b"{"):
            return
        request = json.loads(data)
        self.requests.append({"host": session.host.name, **request})
        if self._blow and (session.host.name, request["verb"]) == (BAD, self._verb):
            blow, self._blow = self._blow, None
            blow()
            self.requests.append({"verb": "blow"})

    def after(self, verb: str) -> list[dict[str, Any]]:
        """The requests of a verb that came after the blow."""
        at = self.requests.index({"verb": "blow"})
        return [request for request in self.requests[at:] if request["verb"] == verb]


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_is_killed_in_the_middle_of_a_request(
    lab: Lab, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it works on its first one of a kind."""
    path = tmp_path / "pid"
    Wire(monkeypatch, verb, lambda: os.kill(int(path.read_text()), signal.SIGKILL))
    run = probed(lab, agent(path))

    check_lost(lab, run, "n2: the agent ended (killed by SIGKILL): a while ago | last words")


def test_nothing_more_is_sent_to_a_host_that_is_lost(
    silent_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No burst, no session, and no question again for flows that end at it; the others get all of them."""
    path = tmp_path / "pid"
    watcher = Watcher()
    asked = Wire(monkeypatch, "collect", lambda: os.kill(int(path.read_text()), signal.SIGKILL))
    run = probed(silent_lab, agent(path), watcher)

    check_lost(silent_lab, run, "n2: the agent ended (killed by SIGKILL): a while ago | last words")
    assert {"confirming", "sessions", "asking the silent ones again"} <= set(watcher.phases)
    addresses = silent_lab.hosts[BAD].addresses.values()
    for verb in ("fire", "connect"):
        later = asked.after(verb)

        assert {"n1", "n3", "n4"} == {request["host"] for request in later}
        for request in later:
            assert not any(f'"{address}"' in json.dumps(request) for address in addresses)


@pytest.mark.parametrize(
    ("line", "answer"),
    [(5, "kernel: oops"), (10, '{"id":6,"ok":[]}'), (11, "\\xff\\xfe"), (13, "[" * 5000)],
)
def test_an_agent_talks_garbage(lab: Lab, line: int, answer: str) -> None:
    """In the place of one of its answers; its connection is of no use any more."""
    script = f'echo something is wrong >&2; "$0" "$@" | sed -u \'{line}s/.*/{answer}/\''
    run = probed(lab, shell(script))
    (detail,) = {cell.judgement.detail for cell in bad(run)}

    assert detail.startswith("n2: the agent talks garbage: ")
    assert detail.endswith(": something is wrong")
    check_lost(lab, run, detail)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("verb", ["facts", "fire", "collect"])
def test_an_agent_is_stopped(lab: Lab, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither dead nor alive: only a timeout tells, which is waited for once."""
    path = tmp_path / "pid"
    Wire(monkeypatch, verb, lambda: os.kill(int(path.read_text()), signal.SIGSTOP))
    run = probed(lab, agent(path), bound_s=HUNG_BOUND_S)
    (detail,) = {cell.judgement.detail for cell in bad(run)}

    # It may have been quicker than the blow: then it is the next request that it does not answer.
    assert re.fullmatch(
        r"n2: the agent hung: no answer to '\w+' within [\d.]+ s: a while ago \| last words", detail
    )
    check_lost(lab, run, detail)


def test_an_agent_that_never_stops_complaining_does_no_harm(lab: Lab) -> None:
    """As long as it answers; what it writes on stderr is read, and forgotten."""
    check_all(lab, probed(lab, shell('yes complaint >&2 & exec "$0" "$@"')))


def test_an_agent_that_complains_without_an_end_of_line_does_no_harm(lab: Lab) -> None:
    """Nor does it fill the coordinator's memory."""
    check_all(lab, probed(lab, shell('yes complaint | tr -d "\\n" >&2 & exec "$0" "$@"')))


def test_an_agent_that_answers_slowly_is_waited_for(lab: Lab) -> None:
    """What it saw, it saw in time."""
    slowly = 'while IFS= read -r line; do sleep 0.1; printf "%s\\n" "$line"; done'
    check_all(lab, probed(lab, shell(f'"$0" "$@" | {slowly}')))


def without(capability: str) -> tuple[str, ...]:
    """An interpreter that does not get a capability, although it is root's."""
    return ("setpriv", "--bounding-set", f"-{capability}", "--", sys.executable)


def test_without_cap_net_raw_nothing_of_a_host_is_tested(lab: Lab) -> None:
    """The reason is what is missing and what to do, not what failed for the want of it."""
    run = probed(lab, without("net_raw"))
    reason = (
        "the agent on n2 runs as uid 0 without CAP_NET_RAW: what confines it (a container, a unit) takes "
        "that away; with --privileged a container has it"
    )

    assert {(Verdict.UNTESTED, reason)} == {
        (cell.judgement.verdict, cell.judgement.detail) for cell in bad(run)
    }
    assert [] == [report.error for report in run.hosts if report.error]
    check_others(lab, run)


def test_without_cap_net_admin_what_needs_conntrack_is_not_tested(lab: Lab) -> None:
    """All else is."""
    run = probed(lab, without("net_admin"))
    reason = (
        "the agent on n2 runs as uid 0 without CAP_NET_ADMIN: what confines it (a container, a unit) takes "
        "that away; with --privileged a container has it"
    )
    untested = [cell for cell in run.cells if cell.judgement.verdict is Verdict.UNTESTED]
    tested = [cell for cell in run.cells if cell not in untested]

    assert {"ipip", "wireguard", "wireguard-v6"} == {cell.flow.probe for cell in untested}
    assert {reason} == {cell.judgement.detail for cell in untested}
    assert untested == [cell for cell in bad(run) if cell.flow.probe in ("ipip", "wireguard", "wireguard-v6")]
    assert [] == [str(each) for each in lab.expectations.compare(tested, is_partial=True)]
