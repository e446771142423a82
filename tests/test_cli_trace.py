"""`netprobe trace` and `netprobe run --trace` as a user and a script see them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from netprobe import coordinator
from netprobe.access import Access
from netprobe.attempts import MAX_HOPS
from netprobe.cli import app
from netprobe.coordinator import trace as tracer
from netprobe.coordinator.trace import Reach
from netprobe.model import (
    Evidence,
    Family,
    Flow,
    Hop,
    Inventory,
    Judgement,
    Reply,
    Run,
    Settings,
    Trace,
    Verdict,
)
from netprobe.plan import numbered
from tests.test_cli import FakeCoordinator, a_run

HOSTS = """\
hosts:
  - {name: node-a, addresses: [10.0.0.1, "fd00::1"], roles: [node]}
  - {name: node-b, addresses: [10.0.0.2, "fd00::2"], roles: [node, typha, apiserver]}
  - {name: node-c, addresses: ["fd00::3"]}
probes: [bgp, flannel]
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory file."""
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS)
    return path


class FakeTracer:
    """Stands where the coordinator stands: remembers what it was asked, and finds what it was told to."""

    def __init__(self) -> None:
        self.verdict = Verdict.OPEN
        self.asked: list[tuple[Inventory, Settings, list[Flow], Flow, Reach]] = []

    async def trace_one(
        self,
        inventory: Inventory,
        settings: Settings,
        flows: Sequence[Flow],
        flow: Flow,
        reach: Reach,
        progress: coordinator.Progress,
        access: Access,
    ) -> Run:
        """A trace without a packet."""
        assert Access() == access
        self.asked.append((inventory, settings, list(flows), flow, reach))
        progress.phase("tracing", 1)
        run = a_run(inventory, settings, self.verdict)
        cells = tuple(
            msgspec.structs.replace(
                run.cells[0],
                flow=each,
                judgement=Judgement(verdict=self.verdict),
                evidence=Evidence(protocol=each.protocol),
            )
            for each in flows
        )
        found = Trace(flow=flow, hops=(Hop(ttl=1, reply=Reply.ARRIVED),), arrived_ttl=1, passed=True)
        return msgspec.structs.replace(run, cells=cells, traces=(found,))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTracer:
    """The tracer, replaced."""
    fake = FakeTracer()
    monkeypatch.setattr(tracer, "trace_one", fake.trace_one)
    return fake


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["node-a", "nod-b", "bpg"], ['DST: unknown host "nod-b"; did you mean "node-b"?',
                                     'PROBE: unknown probe "bpg"; did you mean "bgp"?']),
        (["x", "node-b", "bgp"], ['SRC: unknown host "x"; expected one of node-a, node-b, node-c']),
        (["node-a", "node-a", "bgp"], ['DST: "node-a" is SRC as well, and a host never probes itself']),
        (["node-b", "node-a", "typha"],
         ['PROBE: "typha" goes from node to typha, and node-a is no typha']),
        (["node-a", "node-c", "ipip"], ['PROBE: "ipip" is IPv4 only, and node-c has no IPv4 address']),
        (["node-a", "node-b", "ipip", "--family", "ipv6"], ['--family ipv6: "ipip" is IPv4 only']),
        (["node-a", "node-c", "bgp", "--family", "ipv4"], ["--family ipv4: node-c has no IPv4 address"]),
        (["node-a", "node-b", "bgp", "--port", "80"], ['--port 80: "bgp" goes to 179']),
        (["node-a", "node-b", "flannel", "--port", "80"], ['--port 80: "flannel" goes to 4789, 8472']),
        (["node-a", "node-b", "ipip", "--port", "80"], ['--port 80: "ipip" has no ports']),
        (["node-a", "node-b", "pod-route"],
         ['PROBE: "pod-route" cannot be traced: what routers say of it they tell the pod']),
    ],
)  # fmt: skip
def test_a_flow_that_is_not_is_refused(
    words: list[str], expected: list[str], hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    One line for each mistake, with what there is instead; nothing is sent.
    """
    assert 2 == app.status_of(["trace", str(hosts), *words])
    assert ("", "".join(f"netprobe: error: {line}\n" for line in expected)) == capsys.readouterr()
    assert [] == fake.asked


@pytest.mark.parametrize(
    "words",
    [
        ["--max-hops", "0"],
        ["--max-hops", str(MAX_HOPS + 1)],
        ["--tries", "0"],
        ["--format", "csv"],
        ["--rate", "nan"],
        ["--timeout", "nan"],
        [],
    ],
)
def test_a_wrong_command_line_is_told(
    words: list[str], hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Also one that leaves out the probe.
    """
    arguments = ["node-a", "node-b", "bgp", *words] if words else ["node-a", "node-b"]

    assert 2 == app.status_of(["trace", str(hosts), *arguments])
    assert "Try 'netprobe trace --help'." in capsys.readouterr().err
    assert [] == fake.asked


def test_a_trace_that_nobody_can_get_is_not_made(
    hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    `netprobe trace … >&-` leaves no stdout: Python has None in its place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        status = app.status_of(["trace", str(hosts), "node-a", "node-b", "bgp"])

    assert 2 == status
    assert "netprobe: error: cannot write stdout: Bad file descriptor\n" == capsys.readouterr().err
    assert [] == fake.asked


def test_what_is_asked_is_what_is_traced(
    hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    One flow, and all others of its direction and family to compare with; the other hosts have no part in it.
    """
    words = [
        "node-a",
        "node-b",
        "apiserver",
        "--family",
        "ipv6",
        "--port",
        "443",
        "--rate",
        "9",
        "--timeout",
        "2",
    ]

    assert 0 == app.status_of(["trace", str(hosts), *words, "--max-hops", str(MAX_HOPS), "--tries", "1"])
    ((inventory, settings, flows, flow, reach),) = fake.asked
    assert ["node-a", "node-b"] == [host.name for host in inventory.hosts]
    assert Settings(families=(Family.IPV6,), rate=9, timeout_s=2) == settings
    assert {"bgp", "flannel", "apiserver"} == {each.probe for each in flows}
    assert {("node-a", "node-b", Family.IPV6)} == {(each.src, each.dst, each.family) for each in flows}
    assert flows == numbered(flows)
    assert ("apiserver", 443, flow) == (flow.probe, flow.port, flows[flow.number])
    assert Reach(MAX_HOPS, 1) == reach
    capsys.readouterr()


def test_the_defaults_are_those_of_the_tracer(
    hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The first family that both hosts have, and the first port.
    """
    assert 0 == app.status_of(["trace", str(hosts), "node-a", "node-c", "flannel"])
    ((_inventory, settings, _flows, flow, reach),) = fake.asked
    assert (Settings(families=(Family.IPV6,)), 4789, Reach()) == (settings, flow.port, reach)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(Verdict.OPEN, 0), (Verdict.FILTERED, 1), (Verdict.CLOSED, 1), (Verdict.UNTESTED, 3)],
)
def test_the_exit_status_is_that_of_the_flow(
    verdict: Verdict, status: int, hosts: Path, fake: FakeTracer, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Whatever became of those that it is compared with.
    """
    fake.verdict = verdict

    assert status == app.status_of(["trace", str(hosts), "node-a", "node-b", "bgp", "-v"])
    said = capsys.readouterr()
    assert f"(10.0.0.1 → 10.0.0.2): {verdict.value}" in said.out
    assert "comes through to node-b (hop 1)" == said.out.splitlines()[-1]
    assert "netprobe: tracing: 1 in" in said.err


@pytest.mark.parametrize("words", [["--format", "json"], ["-o", "trace.json"]])
def test_a_program_gets_the_document_of_a_run(
    words: list[str],
    hosts: Path,
    fake: FakeTracer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    On stdout, or in a file that is called so.
    """
    monkeypatch.chdir(hosts.parent)

    assert 0 == app.status_of(["trace", str(hosts), "node-a", "node-b", "bgp", *words])
    out = capsys.readouterr().out or (hosts.parent / "trace.json").read_text()
    document = json.loads(out)
    assert ("netprobe.run/1", 1) == (document["schema"], len(document["traces"]))
    assert fake.asked[0][3].probe == document["traces"][0]["flow"]["probe"]


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_run_is_traced_where_that_is_asked(
    hosts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_asked: bool
) -> None:
    """
    And only then; what the run found decides about the exit status.
    """
    runs = FakeCoordinator()
    traced = []

    async def trace_blocked(run: Run, _progress: coordinator.Progress, _access: Access) -> Run:
        traced.append(run)
        return run

    monkeypatch.setattr(coordinator, "run", runs.run)
    monkeypatch.setattr(tracer, "trace_blocked", trace_blocked)
    runs.verdict = Verdict.FILTERED

    assert 1 == app.status_of(["run", str(hosts), *["--trace"][: int(is_asked)]])
    assert int(is_asked) == len(traced)
    capsys.readouterr()
