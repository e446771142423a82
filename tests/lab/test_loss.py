"""
Loss: of half of all packets, of some source ports, of payloads only; and words that come late, or never.

What is lost at random differs from run to run. What is said of it must not: the bounds are such that a wrong
cell by chance alone is rarer than one in a million for each flow.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab, describe
from netprobe.model import Caveat, Run, Segment, Verdict
from netprobe.plan import Settings
from tests.lab.probing import Held, evidence, only, probe, wrong

pytestmark = pytest.mark.lab

RUNS: Final = 3
HALF: Final = "numgen random mod 2 0 drop"
TENTH: Final = "numgen random mod 10 0 drop"
HUNDREDTH: Final = "numgen random mod 100 0 drop"
NINE_OF_TEN: Final = "numgen random mod 10 != 0 drop"


def _lossy(fault: str, *expect: str) -> str:
    lines = "\n".join(f'  "{pattern}": {found}' for pattern, found in (each.split(" = ") for each in expect))
    return (
        "name: a way that loses packets\n"
        "hosts: [a, {name: b, roles: [node, typha, apiserver, etcd]}, c]\n"
        f"faults: [{fault}]\n" + (f"expect:\n{lines}\n" if expect else "")
    )


LABS: Final = {
    "half at the router": _lossy(
        f"{{on: router, nft: 'iifname a oifname b {HALF}'}}",
        "a -> b * = degraded @ path",
        "b -> a bgp = degraded @ return-path",
    ),
    "half at a host": _lossy(
        f"{{on: b, nft: 'meta l4proto != ipv6-icmp {HALF}'}}",
        "* -> b * = degraded @ destination-ingress",
        "b -> * bgp = degraded @ source-ingress",
    ),
    "nine of ten at the router": _lossy(
        f"{{on: router, nft: 'iifname a oifname b {NINE_OF_TEN}'}}",
        "a -> b * = degraded @ path",
        "b -> a bgp = degraded @ return-path",
    ),
    "a hundredth at the router": _lossy(f"{{on: router, nft: 'iifname a oifname b {HUNDREDTH}'}}"),
    "a tenth at the router": _lossy(f"{{on: router, nft: 'iifname a oifname b {TENTH}'}}"),
    "a tenth at a host": _lossy(f"{{on: b, nft: 'meta l4proto != ipv6-icmp {TENTH}'}}"),
}


@pytest.fixture(scope="module")
def lossy() -> Iterator[Mapping[str, tuple[Lab, list[Run]]]]:
    """Labs that lose packets, each with three runs."""
    with contextlib.ExitStack() as stack:
        labs = {name: (stack.enter_context(Lab(describe(text))), list[Run]()) for name, text in LABS.items()}

        async def probe_again(lab: Lab, runs: list[Run]) -> None:
            for _ in range(RUNS):
                runs.append(await coordinator.run(lab.inventory(), Settings()))  # noqa: PERF401 - as they end

        async def probe_all() -> None:
            async with trio.open_nursery() as nursery:
                for lab, runs in labs.values():
                    nursery.start_soon(probe_again, lab, runs)

        trio.run(probe_all)
        yield labs


@pytest.mark.parametrize("name", ["half at the router", "half at a host", "nine of ten at the router"])
def test_a_way_that_loses_half_or_more_is_degraded_there(
    lossy: Mapping[str, tuple[Lab, list[Run]]], name: str
) -> None:
    """
    For every probe that takes it, TCP also where only the answers do; never filtered, and never open.

    Of nine in ten a flow loses all of its 150 and more packets once in ten million runs.
    """
    lab, runs = lossy[name]

    assert [] == [each for run in runs for each in wrong(lab, run)]


@pytest.mark.parametrize(
    ("name", "there", "back"),
    [
        ("a tenth at the router", Segment.PATH, Segment.RETURN_PATH),
        ("a tenth at a host", Segment.DESTINATION_INGRESS, Segment.SOURCE_INGRESS),
    ],
)
def test_a_way_that_loses_a_tenth_is_degraded_there_or_passes(
    lossy: Mapping[str, tuple[Lab, list[Run]]], name: str, there: Segment, back: Segment
) -> None:
    """
    One lost packet is no blocked flow: it is never filtered. Most flows lose enough of many to be degraded.
    """
    _lab, runs = lossy[name]
    cells = [cell for run in runs for cell in run.cells]
    lossless = {("a", "c"), ("c", "a")} | ({("b", "c"), ("c", "b")} if "router" in name else set())
    said = {Verdict.OPEN: 0, Verdict.DEGRADED: 0}
    for cell in cells:
        verdict, segment = cell.judgement.verdict, cell.judgement.segment

        assert verdict in said, evidence(cell)
        if verdict is Verdict.DEGRADED:
            assert segment in (there, back, None), evidence(cell)
            assert (cell.flow.src, cell.flow.dst) not in lossless
        if (cell.flow.src, cell.flow.dst) == ("a", "b"):
            said[verdict] += 1

    assert said[Verdict.DEGRADED] > said[Verdict.OPEN]


def test_a_way_that_loses_a_hundredth_is_open(lossy: Mapping[str, tuple[Lab, list[Run]]]) -> None:
    """
    Maybe retried. Three packets of the 34 of a confirmation are lost once in two hundred.

    Of the twenty flows here and three runs, five degraded cells are rarer than one in ten thousand.
    """
    _lab, runs = lossy["a hundredth at the router"]
    degraded = []
    for cell in (cell for run in runs for cell in run.cells):
        assert cell.judgement.verdict in (Verdict.OPEN, Verdict.DEGRADED), evidence(cell)
        if cell.judgement.verdict is Verdict.DEGRADED:
            degraded.append(evidence(cell))

    assert len(degraded) < 5, degraded


PAYLOADS_AND_SYNS: Final = """
name: a firewall that lets no session through, on a host that keeps half of its answers
hosts: [a, b]
families: [ipv4]
faults:
  - {on: b, hook: input, policy: drop, nft: [tcp dport 179 ct state new accept, meta l4proto icmp accept]}
  - {on: b, hook: output, nft: "tcp sport 179 numgen random mod 2 0 drop"}
"""


def test_no_packet_is_sent_twice_and_no_kernel_taken_for_a_firewall() -> None:
    """
    Of a packet that is sent twice one may be lost unseen. Connections here stay half open, and get resets.
    """
    with Lab(describe(PAYLOADS_AND_SYNS)) as lab:
        watch = ["tcpdump", "-i", "any", "-Q", "out", "-n", "-S", "-l", "tcp dst port 179"]
        tap = lab.popen("a", watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert tap.stderr is not None
        assert tap.stdout is not None
        while "listening on" not in tap.stderr.readline():
            assert tap.poll() is None
        run = probe(lab, "bgp")
        tap.terminate()
        # A probe's sequence number is its timestamp as well; a session's is the kernel's.
        sent = re.findall(r"\.(\d+) > \S+: Flags \[S\], seq (\d+),.*TS val \2 ecr 0", tap.stdout.read())

    cell = only(run.cells, "a -> b bgp:179/ipv4")
    assert Held(Verdict.DEGRADED, Segment.DESTINATION_EGRESS) == Held.of(cell), evidence(cell)
    assert () == cell.evidence.refusals
    assert len(sent) == len(set(sent)) == cell.sent


KEPT_RESETS: Final = """
name: a host that keeps its resets in, and a router that loses half of what it sends
hosts: [a, b]
families: [ipv4]
faults:
  - {on: a, hook: output, nft: "tcp flags & (rst | ack) == rst drop"}
  - {on: router, nft: "iifname a tcp dport 179 numgen inc mod 2 0 drop"}
"""


def test_what_takes_a_probe_back_is_no_probe() -> None:
    """
    Where it is not let out, nobody says that of the probe itself.
    """
    with Lab(describe(KEPT_RESETS)) as lab:
        cell = only(probe(lab, "bgp").cells, "a -> b bgp:179/ipv4")

    assert Held(Verdict.DEGRADED, Segment.PATH) == Held.of(cell), evidence(cell)
    assert () == cell.evidence.refusals


ALONE: Final = """
name: three pairs of hosts that lose nine of ten packets, and nothing else does
hosts: [a, b, c, d, e, f]
families: [ipv4]
faults:
  - on: router
    nft:
      - ip saddr $a ip daddr $b ip protocol 4 numgen random mod 10 != 0 drop
      - ip saddr $c ip daddr $d ip protocol 4 numgen random mod 10 != 0 drop
      - ip saddr $e ip daddr $f ip protocol 4 numgen random mod 10 != 0 drop
"""


def test_a_flow_that_alone_loses_nine_of_ten_is_degraded() -> None:
    """
    Twenty packets would all be lost in one of eight runs; a hundred and twenty more are not.
    """
    with Lab(describe(ALONE)) as lab:
        cells = [cell for _ in range(3) for cell in probe(lab, "ipip").cells]

    for cell in cells:
        is_lossy = (cell.flow.src, cell.flow.dst) in {("a", "b"), ("c", "d"), ("e", "f")}
        assert (Verdict.DEGRADED if is_lossy else Verdict.OPEN) is cell.judgement.verdict, evidence(cell)


PORTS: Final = """
name: of two links, of which the source port chooses one, one is dead
hosts: [a, b]
faults:
  - on: router
    nft:
      - iifname "a" tcp dport 179 tcp sport & 1 == 1 drop
      - iifname "a" udp dport 8472 udp sport & 1 == 1 drop
      - iifname "b" tcp sport 5473 tcp dport & 1 == 1 drop
expect:
  a -> b bgp: degraded @ path
  a -> b flannel:8472: degraded @ path
"""


def test_loss_that_the_source_port_decides_says_so() -> None:
    """
    A hash over ports chose a dead member of a bundle or of an equal-cost route (design trap 9).
    """
    with Lab(describe(PORTS)) as lab:
        runs = [probe(lab, "bgp", "flannel", "vxlan") for _ in range(RUNS)]

        assert [] == [each for run in runs for each in wrong(lab, run)]
    for cell in (cell for run in runs for cell in run.cells):
        is_lossy = cell.judgement.verdict is Verdict.DEGRADED

        assert is_lossy == (Caveat.ECMP in cell.judgement.caveats), evidence(cell)
        if is_lossy:
            failing = ", ".join(map(str, cell.evidence.failing_ports[:3]))
            share = f"4 of 8 source ports always fail: {failing}, …; {cell.evidence.passing_ports[0]} passes"
            assert cell.judgement.detail.startswith(share), evidence(cell)
        assert all(port % 2 for port in cell.evidence.failing_ports)
        assert not any(port % 2 for port in cell.evidence.passing_ports)


HASHED: Final = """
name: of four links, which a hash over addresses and ports chooses, one is dead
hosts: [a, {name: b, roles: [node, typha]}]
families: [ipv4]
faults:
  - on: router
    nft:
      - iifname "a" tcp dport { 179, 5473 } jhash ip saddr . tcp sport . tcp dport mod 4 == 0 drop
      - iifname "a" udp dport { 4789, 8472 } jhash ip saddr . udp sport . udp dport mod 4 == 0 drop
"""


def test_a_dead_link_of_four_shows_in_the_flows_that_a_hash_gives_to_it() -> None:
    """
    All eight source ports of a flow miss it one time in ten: it is then open, or degraded without
    the caveat, for what other ports have lost.

    Of the four UDP flows and two of TCP, in each of three runs, most are found out, and none of the others.
    """
    with Lab(describe(HASHED)) as lab:
        cells = [cell for _ in range(RUNS) for cell in probe(lab, "bgp", "typha", "flannel", "vxlan").cells]

    hashed = [cell for cell in cells if cell.flow.src == "a"]
    found = [cell for cell in hashed if Caveat.ECMP in cell.judgement.caveats]
    for cell in hashed:
        judgement = cell.judgement
        verdicts = [Verdict.DEGRADED] if cell in found else [Verdict.DEGRADED, Verdict.OPEN]

        assert judgement.verdict in verdicts, evidence(cell)
        assert judgement.segment in (Segment.PATH, None)
        if cell in found:
            share = f"{len(cell.evidence.failing_ports)} of 8 source ports always fail: "
            assert judgement.detail.startswith(share)
    assert len(found) > len(hashed) / 2
    assert {Verdict.OPEN} == {cell.judgement.verdict for cell in cells if cell not in hashed}


LIMITED: Final = """
name: a host that lets one SYN a second pass from each source, for all ports together
hosts: [a, {name: b, roles: [node, typha, etcd, apiserver]}]
families: [ipv4]
faults:
  - on: b
    nft_ruleset: |
      table inet meters {
        set syns { type ipv4_addr; flags dynamic; size 1000; }
        chain input {
          type filter hook input priority 0
          tcp flags & (syn | ack) == syn add @syns { ip saddr limit rate over 1/second burst 2 packets } drop
        }
      }
"""


def test_flows_that_share_a_limit_are_not_filtered_by_the_luck_of_the_first() -> None:
    """
    Each is asked alone, a second after the last; what could not be asked so is not tested.
    """
    with Lab(describe(LIMITED)) as lab:
        runs = [probe(lab, "bgp", "typha", "etcd", "apiserver") for _ in range(RUNS)]

    allowed = {Held(Verdict.DEGRADED, Segment.DESTINATION_INGRESS), Held(Verdict.DEGRADED)}
    for cell in (cell for run in runs for cell in run.cells):
        if cell.flow.src == "a":
            is_untested = cell.judgement.verdict is Verdict.UNTESTED

            assert is_untested or Held.of(cell) in allowed, evidence(cell)
            assert is_untested == ("something limits the rate" in cell.judgement.detail)


TURNS: Final = """
name: of some links that are taken by turns, packet by packet, one is dead
hosts: [a, b, c, d]
faults:
  # As a bond in mode balance-rr does; each rule counts for one flow alone.
  - on: router
    nft:
      - iifname "a" oifname "b" ip daddr $b udp dport 8472 numgen inc mod 2 0 drop
      - iifname "a" oifname "c" ip daddr $c udp dport 8472 numgen inc mod 3 0 drop
      - iifname "a" oifname "d" ip daddr $d udp dport 8472 numgen inc mod 4 0 drop
expect:
  a -> * flannel:8472/ipv4: degraded @ path
"""


def test_loss_by_turns_is_not_laid_at_the_ports_door() -> None:
    """
    However the turns of the ports and those of the links fall together.
    """
    with Lab(describe(TURNS)) as lab:
        run = probe(lab, "flannel")

        assert [] == wrong(lab, run)
    assert [] == [evidence(cell) for cell in run.cells if Caveat.ECMP in cell.judgement.caveats]


PAYLOADS: Final = """
name: firewalls that let handshakes through, and drop what the application says
hosts: [a, {name: b, roles: [node, typha, etcd]}]
faults:
  - on: router
    nft:
      - iifname "a" tcp dport 179 tcp flags & psh == psh drop
      - iifname "b" tcp sport 5473 tcp flags & psh == psh drop
  - {on: b, nft: "tcp dport 2379 tcp flags & psh == psh reject with tcp reset"}
expect:
  a -> b bgp: filtered @ path
  a -> b typha: filtered @ return-path
  a -> b etcd: rejected @ destination-ingress
"""
STAGES: Final = {
    "bgp": "the handshake passes, the request after it does not",
    "typha": "the handshake and the request pass, the answer does not",
    "etcd": "the handshake passes, the request after it does not (ECONNRESET)",
}


def test_what_is_lost_after_the_handshake_names_the_stage() -> None:
    """
    A session finds it; with `--depth syn`, which asks for less, all of it is open.
    """
    with Lab(describe(PAYLOADS)) as lab:
        deep, flat = (probe(lab, *STAGES, settings=Settings(depth=depth)) for depth in ("session", "syn"))

        assert [] == wrong(lab, deep)
    assert {Held(Verdict.OPEN)} == {Held.of(cell) for cell in flat.cells}
    for cell in (cell for cell in deep.cells if cell.flow.src == "a"):
        assert cell.judgement.detail.startswith(STAGES[cell.flow.probe]), evidence(cell)


MESH: Final = """
name: a mesh in which a router and hosts refuse much at once
hosts: [a, b, c, d, e, f]
faults:
  - on: router
    nft:
      - tcp dport 179 reject with icmpx admin-prohibited
      - udp dport 8472 reject with icmpx admin-prohibited
      - meta l4proto 4 reject with icmpx admin-prohibited
  - {on: [a, b, c], nft: "udp dport 4789 reject"}
"""


def test_no_refusal_of_a_mesh_is_taken_for_silence() -> None:
    """
    Linux tells each host about one refusal a second; where there was no time for all, the cell says so.
    """
    with Lab(describe(MESH)) as lab:
        run = probe(lab)

    refused = {Verdict.REJECTED: 0, Verdict.FILTERED: 0}
    for cell in run.cells:
        flow, judgement = cell.flow, cell.judgement
        if flow.probe in ("bgp", "ipip") or flow.port == 8472:
            expected: Segment | None = Segment.PATH
        else:
            is_refused = flow.port == 4789 and flow.dst in ("a", "b", "c")
            expected = Segment.DESTINATION_INGRESS if is_refused else None

        assert expected is judgement.segment, evidence(cell)
        if expected is None:
            assert Verdict.OPEN is judgement.verdict, evidence(cell)
        else:
            refused[judgement.verdict] += 1
            is_unheard = judgement.verdict is Verdict.FILTERED
            assert is_unheard == ("refusals may have been rationed" in judgement.detail), evidence(cell)

    assert refused[Verdict.REJECTED] > 4 * refused[Verdict.FILTERED]


DEAF: Final = """
name: hosts that no neighbour finds
hosts: [a, b, c, d]
networks: [{name: rack, hosts: [a, b]}]
faults:
  - on: [b, c]
    nft_ruleset: |
      table arp deaf {
        chain hears { type filter hook input priority 0; policy drop; }
        chain says { type filter hook output priority 0; policy drop; }
      }
      table ip6 deaf {
        set words { type icmpv6_type; elements = { nd-neighbor-solicit, nd-neighbor-advert }; }
        chain hears { type filter hook input priority 0; icmpv6 type @words drop; }
        chain says { type filter hook output priority 0; icmpv6 type @words drop; }
      }
"""


def test_a_host_that_no_neighbour_finds_is_unreachable() -> None:
    """
    For its bridge's hosts at their own egress, by themselves; for all others on the path, by their router.

    Two of the hosts neither ask who has an address nor answer that they have theirs. The word about it comes
    seconds later, and not for every packet: what is lost without one is lost at the same place. The others
    hear it about each of the two.
    """
    with Lab(describe(DEAF)) as lab:
        run = probe(lab, "bgp", "vxlan")

    expected, told = {}, set()
    for cell in run.cells:
        flow = cell.flow
        pair = flow.src, flow.dst, flow.family
        expected[pair] = Held(Verdict.OPEN)
        if flow.src in ("b", "c") or {flow.src, flow.dst} == {"a", "b"}:
            expected[pair] = Held(Verdict.UNREACHABLE, Segment.SOURCE_EGRESS, flow.src_address)
        elif flow.dst in ("b", "c"):
            expected[pair] = Held(Verdict.UNREACHABLE, Segment.PATH, _gateway(flow.src_address))
        silent = Held(Verdict.FILTERED, expected[pair].segment)

        assert Held.of(cell) in (expected[pair], silent), evidence(cell)
        if Held.of(cell) == expected[pair]:
            told.add(pair)

    assert {pair for pair in expected if pair[0] in ("a", "d")} <= told


def _gateway(address: str) -> str:
    """The router's address on the link of a host; it has the first one."""
    return re.sub(r"[0-9]+$", "1", address)
