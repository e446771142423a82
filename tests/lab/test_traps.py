"""
Flows that share one conntrack entry with their opposite: IP protocol 4 and WireGuard (design §3.2).

All hosts of the labs are stateful: what one of them sends, or what it receives, would open the way for the
other orientation if the run were not careful.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Caveat, Family, Run, Segment, Verdict
from tests.lab.probing import Held, evidence, held, only, probe, wrong

pytestmark = pytest.mark.lab

SHARING: Final = ("ipip", "wireguard", "wireguard-v6")
RUNS: Final = 3

_ANSWERS_ONLY: Final = """
    policy: drop
    nft:
      - ct state established,related accept
      - icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
"""
EVERY_TWO: Final = f"""
name: every stateful firewall against every other
hosts: [none-1, none-2, in-1, in-2, out-1, out-2, both-1, both-2]
networks:
  - {{name: input, hosts: [in-1, in-2, both-1, both-2]}}
  - {{name: output, hosts: [out-1, out-2]}}
faults:
  - on: [in-1, in-2, both-1, both-2]
{_ANSWERS_ONLY}
  - on: [out-1, out-2, both-1, both-2]
    hook: output
{_ANSWERS_ONLY}
expect:
  "* -> input *": filtered @ destination-ingress
  "output -> * *": filtered @ source-egress
  "both-1 -> * *": filtered @ source-egress
  "both-2 -> * *": filtered @ source-egress
"""
WITH_TUNNELS: Final = f"""
name: hosts with live tunnels, behind firewalls that accept only answers, or none
hosts: [in-1, in-2, out-1, out-2, free-1, free-2]
networks:
  - {{name: input, hosts: [in-1, in-2]}}
  - {{name: output, hosts: [out-1, out-2]}}
faults:
  - on: [in-1, in-2]
{_ANSWERS_ONLY}
  - on: [out-1, out-2]
    hook: output
{_ANSWERS_ONLY}
expect:
  "* -> input *": filtered @ destination-ingress
  "output -> * *": filtered @ source-egress
"""
ROUTER: Final = """
name: a router that accepts what is new from one host only
hosts: [a, b]
faults:
  - on: router
    policy: drop
    nft: [ct state established accept, ip saddr $a accept, ip6 saddr $a.ipv6 accept]
"""

# A tunnel's packet as its kernel would send it: an IPv4 header by itself, or any WireGuard message.
_TUNNEL: Final = """
import socket, sys
source, destination, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in source else socket.AF_INET
with socket.socket(family, *((socket.SOCK_DGRAM, 0) if port else (socket.SOCK_RAW, 4))) as tunnel:
    tunnel.bind((source, port))
    tunnel.sendto(bytes.fromhex("4500001400000000013b0000c0000201c0000202"), (destination, port))
"""


def entries(lab: Lab, on: str) -> set[str]:
    """What conntrack of a host knows: each entry with its number, without what passing packets change."""
    listed = "".join(
        lab.run(on, ["conntrack", "-L", "-o", "id", "-f", family.value]).stdout
        for family in lab.description.families
    )
    return {
        re.sub(r"^(\S+ +\d+) \d+ ", r"\1 ", line).replace("[ASSURED] ", "") for line in listed.splitlines()
    }


def ours(lab: Lab, on: str) -> set[str]:
    """The entries that both orientations of a flow share: equal ports, or none at all."""
    return {
        entry
        for entry in entries(lab, on)
        if entry.startswith(("unknown  4 ", "ipencap  4 ")) or re.search(r"sport=(5182[01]) dport=\1 ", entry)
    }


@pytest.fixture(scope="module")
def every_two() -> Iterator[tuple[Lab, list[Run]]]:
    """Hosts of every kind with three runs in a row."""
    with Lab(describe(EVERY_TWO)) as lab:
        yield lab, [probe(lab, *SHARING) for _ in range(RUNS)]


@pytest.mark.parametrize("number", range(RUNS))
def test_no_stateful_firewall_is_opened_by_the_other_way(
    every_two: tuple[Lab, list[Run]], number: int
) -> None:
    """
    INPUT that drops what is new, OUTPUT that drops what is no answer, or both, at one end or at both.

    The second and the third run would read what an earlier one left behind.
    """
    lab, runs = every_two

    assert [] == wrong(lab, runs[number])


def test_a_run_leaves_no_entry_that_the_next_would_read(every_two: tuple[Lab, list[Run]]) -> None:
    """
    At no host, for none of the three probes.
    """
    lab, _runs = every_two

    assert [] == [entry for host in lab.hosts for entry in ours(lab, host)]


def tunnel(lab: Lab, one: str, other: str) -> None:
    """Let a tunnel's packets of each kind pass between two hosts, twice each way: answered at both ends."""
    for source, destination in 2 * ((one, other), (other, one)):
        for family, port in ((Family.IPV4, 0), (Family.IPV4, 51820), (Family.IPV6, 51821)):
            addresses = (lab.hosts[name].address(family) for name in (source, destination))
            lab.run(source, [sys.executable, "-c", _TUNNEL, *addresses, str(port)])


def insert(lab: Lab, on: str, peer: str) -> None:
    """Put the entries of answered tunnels into the conntrack table of a host."""
    for family, port in ((Family.IPV4, 0), (Family.IPV4, 51820), (Family.IPV6, 51821)):
        ends = "-s", lab.hosts[on].address(family), "-d", lab.hosts[peer].address(family)
        protocol = ("-p", "udp", "--sport", str(port), "--dport", str(port)) if port else ("-p", "4")
        lab.run(on, ["conntrack", "-I", *ends, *protocol, "-t", "600", "-u", "SEEN_REPLY"])


@pytest.fixture(scope="module")
def tunnels() -> Iterator[Lab]:
    """
    Hosts with entries that a run has not made.

    Between `in-1` and `in-2` by real packets, at both; at `out-1` and at `free-1` by the program conntrack.
    """
    with Lab(describe(WITH_TUNNELS)) as lab:
        tunnel(lab, "in-1", "in-2")
        insert(lab, "out-1", "out-2")
        insert(lab, "free-1", "free-2")
        yield lab


@pytest.fixture(scope="module")
def beside_tunnels(tunnels: Lab) -> tuple[list[dict[str, set[str]]], list[Run]]:
    """Three runs, and what conntrack of each host knows before, between and after them."""
    known = [{host: ours(tunnels, host) for host in tunnels.hosts}]
    runs = []
    for _ in range(RUNS):
        runs.append(probe(tunnels, *SHARING))
        known.append({host: ours(tunnels, host) for host in tunnels.hosts})
    return known, runs


def test_no_entry_that_was_there_before_is_touched(
    beside_tunnels: tuple[list[dict[str, set[str]]], list[Run]],
) -> None:
    """
    Three of each two hosts, at the hosts that have them; nothing is added to them either.
    """
    known, _runs = beside_tunnels

    assert {"in-1": 3, "in-2": 3, "out-1": 3, "out-2": 0, "free-1": 3, "free-2": 0} == {
        host: len(found) for host, found in known[0].items()
    }
    assert all("[UNREPLIED]" not in entry for found in known[0].values() for entry in found)
    assert [known[0]] * RUNS == known[1:]


@pytest.mark.parametrize("flow", ["ipip/ipv4", "wireguard:51820/ipv4", "wireguard-v6:51821/ipv6"])
@pytest.mark.parametrize(
    ("source", "destination", "owners"),
    [("in-1", "in-2", "in-1 and in-2"), ("in-2", "in-1", "in-2 and in-1"), ("out-1", "out-2", "out-1")],
)
def test_what_only_a_live_tunnel_lets_through_says_so(
    beside_tunnels: tuple[list[dict[str, set[str]]], list[Run]],
    source: str,
    destination: str,
    owners: str,
    flow: str,
) -> None:
    """
    It is open, because and as long as there is that entry; the detail names the hosts that have it.
    """
    _known, runs = beside_tunnels
    for run in runs:
        cell = only(run.cells, f"{source} -> {destination} {flow}")

        assert Held(Verdict.OPEN, caveats=(Caveat.STATE_ASSISTED,)) == Held.of(cell), evidence(cell)
        assert (
            f"conntrack of {owners} had an entry for these two addresses before the run"
            == cell.judgement.detail
        )


def test_all_others_are_judged_as_if_there_were_no_tunnel(
    tunnels: Lab, beside_tunnels: tuple[list[dict[str, set[str]]], list[Run]]
) -> None:
    """
    Also the opposite of a flow with an entry, and a flow that needs none: another port shows that.
    """
    _known, runs = beside_tunnels
    assisted = {("in-1", "in-2"), ("in-2", "in-1"), ("out-1", "out-2")}
    for run in runs:
        others = [cell for cell in run.cells if (cell.flow.src, cell.flow.dst) not in assisted]

        assert [] == [str(each) for each in tunnels.expectations.compare(others, is_partial=True)]
        for source, destination in (("free-1", "free-2"), ("free-2", "free-1")):
            for flow in ("wireguard:51820/ipv4", "wireguard-v6:51821/ipv6"):
                cell = only(run.cells, f"{source} -> {destination} {flow}")
                assert Held(Verdict.OPEN) == Held.of(cell), evidence(cell)


def test_without_the_tunnels_they_are_blocked(
    tunnels: Lab, beside_tunnels: tuple[list[dict[str, set[str]]], list[Run]]
) -> None:
    """
    Whoever takes the entries away, it is not the run.
    """
    assert beside_tunnels
    for host in tunnels.hosts:
        tunnels.run(host, ["conntrack", "-F"])

    assert [] == wrong(tunnels, probe(tunnels, *SHARING))


def test_a_stateful_router_may_help_the_second_way_and_the_cell_says_so() -> None:
    """
    The entries of a router are not the run's to delete. A packet from another source port clears the first
    way; IP protocol 4 has none.
    """
    with Lab(describe(ROUTER)) as lab:
        found = held(probe(lab, *SHARING))

    assisted = Held(Verdict.OPEN, caveats=(Caveat.STATE_ASSISTED,))
    for flow in ("ipip/ipv4", "wireguard:51820/ipv4", "wireguard-v6:51821/ipv6"):
        assert (assisted if "ipip" in flow else Held(Verdict.OPEN)) == found[f"a -> b {flow}"]
        assert assisted == found[f"b -> a {flow}"]


REMEMBERS: Final = """
name: a router that lets one side begin, and the other answer
hosts: [a, b]
faults:
  - on: router
    nft: [ct state established accept, 'iifname "a" meta l4proto { 4, 17 } drop']
"""


def test_what_a_router_remembers_of_an_earlier_run_is_said_to_be_possible() -> None:
    """
    It cannot be asked to forget: a second run finds open what the first found filtered, and must not be sure.
    """
    shared = [f"a -> b {flow}" for flow in ("ipip/ipv4", "wireguard:51820/ipv4", "wireguard-v6:51821/ipv6")]
    with Lab(describe(REMEMBERS)) as lab:
        first, second = (held(probe(lab, "ipip", "wireguard", "wireguard-v6")) for _ in range(2))

    assert [Held(Verdict.FILTERED, Segment.PATH)] * 3 == [first[flow] for flow in shared]
    assert [Held(Verdict.OPEN, caveats=(Caveat.STATE_ASSISTED,))] * 3 == [second[flow] for flow in shared]
