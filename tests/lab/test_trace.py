"""Where on the path a flow is lost, by real routers: what is said rests on packets that a hop saw."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

from netprobe import coordinator, hops, plan
from netprobe.coordinator.trace import Pair, Reach, trace, trace_blocked, trace_one
from netprobe.inventory import dump
from netprobe.lab import ChainType, Hook, Lab, describe, namespaces
from netprobe.model import Family, Flow, Reply, Run, Segment, Settings, Trace, Verdict
from netprobe.reports import Options, registry
from netprobe.reports.json import load
from tests.lab.chain import chain, ends
from tests.lab.probing import only

pytestmark = pytest.mark.lab

TIMEOUT_S: Final = 30.0
HOPS: Final = {
    Family.IPV4: ("10.77.1.1", "10.77.3.11", "10.77.4.11"),
    Family.IPV6: ("fd77:6e70:6c61:1::1", "fd77:6e70:6c61:3::11", "fd78:2::2"),
}
ONE, TWO, THREE = HOPS[Family.IPV4]
LINK_3: Final = "to-r2"
"""The interface of r3 towards r2."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A chain of three routers."""
    with chain() as lab:
        yield lab


def at_the_link(lab: Lab, on: str, rule: str, device: str) -> None:
    """Add a rule to the ingress hook of an interface that the lab does not know."""
    chain = f'type filter hook ingress device "{device}" priority 0;'
    lab.run(on, ["nft", "-f", "-"], input=f"table netdev t {{\n chain c {{\n {chain}\n {rule}\n }}\n}}\n")


def flows_of(lab: Lab, family: Family) -> list[Flow]:
    """All from a to b."""
    every = plan.flows(ends(lab), Settings(families=(family,)))
    return plan.numbered(flow for flow in every if flow.src == "a")


def traced(
    lab: Lab,
    probe: str,
    family: Family = Family.IPV4,
    port: int | None = None,
    reach: Reach = Reach(),  # noqa: B008
) -> Run:
    """The run of `netprobe trace` from a to b."""
    flows = flows_of(lab, family)
    flow = next(each for each in flows if each.probe == probe and port in (None, each.port))
    return trio.run(trace_one, ends(lab), Settings(families=(family,)), flows, flow, reach)


def words(run: Run) -> str:
    """What its trace says."""
    (found,) = run.traces
    return hops.in_one_line(found, {})


def by(found: Trace | None) -> list[str]:
    """Who saw the packets, hop by hop."""
    assert found is not None
    return [each.by if each.reply in hops.SAW else each.reply.value for each in found.hops]


ALL: Final = [
    *((probe, Family.IPV4) for probe in ("bgp", "ipip", "vxlan", "wireguard", "typha", "etcd")),
    *((probe, Family.IPV6) for probe in ("bgp", "vxlan", "wireguard-v6", "flannel", "apiserver")),
]


def together(lab: Lab, *pairs: tuple[Flow, Flow | None], tries: int = 3) -> tuple[Trace, ...]:
    """Traces side by side, without a run before."""
    asked = [Pair(flow, other) for flow, other in pairs]
    return trio.run(trace, ends(lab), Settings(), asked, Reach(tries=tries)).traces


def first_of(lab: Lab, probe: str, family: Family, port: int | None = None) -> Flow:
    """The first flow of a probe from a to b."""
    return next(flow for flow in flows_of(lab, family) if flow.probe == probe and port in (None, flow.port))


def test_every_open_probe_comes_through_by_every_hop(lab: Lab) -> None:
    """Over each protocol and family, and the hops say after how long."""
    for found in together(lab, *((first_of(lab, *each), None) for each in ALL)):
        flow = found.flow

        assert "comes through to b (hop 4)" == hops.in_one_line(found, {})
        assert [*HOPS[flow.family], flow.dst_address] == by(found)
        assert all(each.rtt_ms for each in found.hops[:3])


def test_all_packets_of_a_trace_leave_from_one_port(lab: Lab) -> None:
    """Equal-cost paths are chosen by it; and the port that they go to is the probe's."""
    types = "typeof udp sport . udp dport; flags dynamic; size 99;"
    rule = "meta l4proto udp add @ports { udp sport . udp dport }"
    chain = f"chain c {{\n type filter hook prerouting priority 0;\n {rule}\n }}"
    lab.run("router", ["nft", "-f", "-"], input=f"table inet t {{\n set ports {{ {types} }}\n {chain}\n}}\n")
    (found,) = together(lab, (first_of(lab, "vxlan", Family.IPV4), None))
    listed = json.loads(lab.run("router", ["nft", "-j", "list", "set", "inet", "t", "ports"]).stdout)
    (elements,) = (each["set"]["elem"] for each in listed["nftables"] if "set" in each)

    assert found.passed
    assert [4789] == [element["concat"][1] for element in elements]


LOST: Final = [
    ("ipip", Family.IPV4),
    ("vxlan", Family.IPV4),
    ("wireguard", Family.IPV4),
    ("bgp", Family.IPV4),
    ("vxlan", Family.IPV6),
    ("bgp", Family.IPV6),
]


MUTE: Final = ", unless that one never speaks of UDP"
"""Beside a TCP probe."""


def test_a_drop_where_a_router_forwards_is_behind_its_hop(lab: Lab) -> None:
    """Each protocol and family beside another one that is open there: r2 saw the packet, r3 did not."""
    rules = ["ip protocol 4 drop", "udp dport {4789, 51820} drop", "tcp dport 179 drop"]
    lab.nft("r2", rules, hook=Hook.FORWARD)
    pairs = [(first_of(lab, probe, family), first_of(lab, "flannel", family, 8472)) for probe, family in LOST]
    for found in together(lab, *pairs, tries=2):
        saw, said = HOPS[found.flow.family], hops.in_one_line(found, {})

        unless = {
            6: ", unless that one never speaks of TCP",
            4: ", unless that one never speaks of IP protocol 4",
        }
        where = f"not at hop 3 ({saw[2]}), where flannel udp/8472 is{unless.get(found.flow.protocol, '')}"
        assert f"last seen at {saw[1]} (hop 2), {where}" == said
        assert [*saw[:2], "none", "none"] == by(found)
        assert [*saw, found.flow.dst_address] == by(found.reference)


@pytest.mark.parametrize("is_below", [False, True])
def test_a_drop_before_a_router_forwards_is_before_its_hop(lab: Lab, *, is_below: bool) -> None:
    """Be it at the prerouting hook of r3, or where packets come in: its TTL is never looked at."""
    if is_below:
        at_the_link(lab, "r3", "meta l4proto udp drop", LINK_3)
    else:
        lab.nft("r3", "meta l4proto udp drop", hook=Hook.PREROUTING)

    assert f"last seen at {TWO} (hop 2), not at hop 3 ({THREE}), where bgp tcp/179 is{MUTE}" == words(
        traced(lab, "vxlan")
    )


def test_a_drop_at_the_last_router_is_before_the_destination(lab: Lab) -> None:
    """Whose own tap is the witness."""
    lab.nft("r3", "udp dport 4789 drop", hook=Hook.FORWARD)

    said = words(traced(lab, "vxlan"))
    assert said.startswith(f"last seen at {THREE} (hop 3), not at b (hop 4), where ")


def test_a_drop_at_the_destination_is_no_loss_of_the_path(lab: Lab) -> None:
    """The packet came to its interface, by all hops."""
    lab.nft("b", "udp dport 4789 drop", hook=Hook.INPUT)
    run = traced(lab, "vxlan")

    assert "comes to b's interface (hop 4), and no further" == words(run)
    assert Segment.DESTINATION_INGRESS is run.cells[run.traces[0].flow.number].judgement.segment


def test_a_drop_at_the_source_is_before_the_first_hop(lab: Lab) -> None:
    """With what its kernel said."""
    lab.nft("a", "udp dport 4789 drop", hook=Hook.OUTPUT)

    assert "never left a: the source's own firewall dropped it (EPERM)" == words(traced(lab, "vxlan"))


def test_a_router_that_never_speaks_is_no_place_of_a_loss(lab: Lab) -> None:
    """The other probe is not seen there either; the next hop decides."""
    lab.nft("r2", ["icmp type time-exceeded drop"], hook=Hook.OUTPUT)
    lab.nft("r3", "udp dport 4789 drop", hook=Hook.PREROUTING)
    run = traced(lab, "vxlan")

    assert words(run).startswith(f"last seen at {ONE} (hop 1), not at hop 3 ({THREE}), where ")
    assert words(run).endswith("; no word from hop 2")
    assert "comes through to b (hop 4)" == words(traced(lab, "bgp"))


def test_where_nobody_speaks_only_the_ends_are_known(lab: Lab) -> None:
    """ICMP is dropped on its way back: the destination's tap needs none."""
    lab.nft("router", ["meta l4proto icmp drop"])
    lab.nft("router", ["meta l4proto icmp drop"], hook=Hook.OUTPUT)
    lab.nft("r2", "udp dport 4789 drop", hook=Hook.FORWARD)
    run = traced(lab, "vxlan")

    assert words(run).startswith("left a, not at b (hop 4 or before), where ")
    assert words(run).endswith("; no word from hops 1 to 3")
    assert [*["none"] * 3, "10.77.2.11"] == by(run.traces[0].reference)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("icmpx host-unreachable", f"refused by {TWO}: ICMP 3/1 host unreachable"),
        ("icmpx no-route", f"refused by {TWO}: ICMP 3/0 network unreachable"),
        ("tcp reset", "TCP reset in the destination's name (TTL 63 on arrival)"),
    ],
)
def test_a_refusal_is_told_with_the_hop_behind_which_it_is(lab: Lab, verdict: str, said: str) -> None:
    """And with who refuses, where the packet tells."""
    lab.nft("r2", f"tcp dport 179 reject with {verdict}", hook=Hook.FORWARD)

    assert f"last seen at {TWO} (hop 2); {said}" == words(traced(lab, "bgp"))


def test_who_answers_in_the_destinations_name_is_found(lab: Lab) -> None:
    """A router that hands the connection to itself: its own socket answers, and b sees nothing."""
    make = partial(socket.create_server, ("", 179))
    with namespaces.inside(lab.hosts["r2"].namespace, make):
        lab.nft("r2", "tcp dport 179 redirect", hook=Hook.PREROUTING, type=ChainType.NAT)
        run = traced(lab, "bgp")

    assert f"last seen at {ONE} (hop 1); somebody at hop 2 or before it answers in b's name" == words(run)
    assert Verdict.INTERCEPTED is run.cells[run.traces[0].flow.number].judgement.verdict


def test_a_loop_is_called_one(lab: Lab) -> None:
    """r3 sends back what r2 sends it."""
    destination = lab.hosts["b"].address(Family.IPV4)
    lab.run("r3", ["ip", "route", "replace", destination, "via", "10.78.2.1"])
    run = traced(lab, "vxlan", reach=Reach(max_hops=8, tries=2))

    circles = {f"goes round in circles: {by} is at hops" for by in (TWO, THREE)}
    assert words(run).partition(" hops")[0] + " hops" in circles


BESIDE: Final = """
name: two firewalls beside the router, which sends through them what goes from the one host to the other
hosts: [a, b, r1, r2]
families: [ipv4]
faults:
  - {on: [r1, r2], sysctl: {net.ipv4.ip_forward: 1, net.ipv4.conf.all.send_redirects: 0}}
  - {on: [router, r1, r2], sysctl: {net.ipv4.conf.all.rp_filter: 0}}
  - {on: router, run: [ip, route, add, default, via, $r1, table, "71"]}
  - {on: router, run: [ip, route, add, default, via, $r2, table, "72"]}
"""


@contextmanager
def beside_the_router(*rules: str, drop: str) -> Iterator[Lab]:
    """The lab, with policy rules on the router for what goes to b, and a firewall that drops IP-in-IP."""
    with Lab(describe(BESIDE)) as lab:
        for rule in rules:
            lab.run("router", ["ip", "rule", "add", "to", "10.77.2.11", *rule.split()])
        lab.nft(drop, "ip protocol 4 drop", hook=Hook.FORWARD)
        yield lab


def test_firewalls_beside_a_router_are_no_circle() -> None:
    """It is on the way three times, and what is let through arrives."""
    with beside_the_router("iif a lookup 71", "iif r1 lookup 72", drop="r2") as lab:
        run = traced(lab, "ipip")
        router, first, second = "10.77.1.1", "10.77.3.11", "10.77.4.11"

        assert [router, first, router, second] == by(run.traces[0])[:4]
        assert words(run).startswith(
            f"last seen at {second} (hop 4), not at hop 5 ({router}), where bgp tcp/179 is"
        )


def test_a_protocol_with_a_way_of_its_own_is_compared_with_nothing() -> None:
    """It is lost at a hop that the other one does not have, because that one has arrived by then."""
    with beside_the_router("iif a ipproto 4 lookup 71", drop="r1") as lab:
        run = traced(lab, "ipip")
        other = "bgp tcp/179, which is open there, takes another way"

        assert ["10.77.1.1", "10.77.2.11"] == by(run.traces[0].reference)
        assert f"last seen at 10.77.3.11 (hop 2), not seen any further; {other}" == words(run)


def test_many_traces_at_once_claim_no_more_than_was_seen(lab: Lab) -> None:
    """Routers run out of words; a hop that may have had none is not said to have seen nothing."""
    lab.nft("r2", ["meta l4proto udp drop", "ip protocol 4 drop", "tcp dport != 179 drop"], hook=Hook.FORWARD)
    flows = flows_of(lab, Family.IPV4)
    (bgp,) = (flow for flow in flows if flow.probe == "bgp")
    lost = [flow for flow in flows if flow is not bgp]
    traces = together(lab, *((flow, bgp) for flow in lost))

    assert 9 == len(lost) == len(traces)
    for found in traces:
        # At the latest the destination's tap knows, and none of them is lost before r2.
        assert found.lost_ttl in (3, 4)
        assert found.last_ttl in (1, 2) or found.hops[0].is_unsure
        assert [each.is_unsure for each in found.hops[2:3]] == [found.lost_ttl == 4]
        for each, saw in zip(found.hops[:2], (ONE, TWO), strict=True):
            assert each.by == saw or (each.reply is Reply.NONE and each.is_unsure)
    assert any(found.lost_ttl == 3 for found in traces)


def test_without_another_probe_there_is_nothing_to_compare_with(lab: Lab) -> None:
    """And it is not said that a hop behind the last one did not see it."""
    lab.nft("r2", ["ip saddr $a ip daddr $b drop"], hook=Hook.FORWARD)

    said = words(traced(lab, "vxlan", reach=Reach(max_hops=8)))
    assert (
        f"last seen at {TWO} (hop 2), not seen any further; no other probe is open there to compare with"
        == said
    )


def test_a_run_with_traces_says_them_beside_its_groups(lab: Lab) -> None:
    """One for each group that is lost on the path, in the text and in a document that comes back whole."""
    lab.nft("r2", ["ip protocol 4 drop"], hook=Hook.FORWARD)
    lab.nft("r3", ["tcp dport 2379 reject with icmpx admin-prohibited"], hook=Hook.FORWARD)
    lab.nft("b", ["tcp dport 5473 drop"], hook=Hook.INPUT)

    async def both() -> Run:
        return await trace_blocked(await coordinator.run(ends(lab), Settings(families=(Family.IPV4,))))

    run = trio.run(both)
    text = " ".join(registry()["text"].render(run, Options(width=200)).split())

    assert {"ipip", "etcd"} == {found.flow.probe for found in run.traces}
    assert f"trace: last seen at {TWO} (hop 2), not at hop 3 ({THREE}), where " in text
    assert f"trace: last seen at {THREE} (hop 3); refused by {THREE}: ICMP 3/13 " in text
    assert 2 == text.count("trace: ")
    assert run == load(registry()["json"].render(run, Options()).encode())
    assert Segment.DESTINATION_INGRESS is only(run.cells, "a -> b typha:5473/ipv4").judgement.segment


LOOK: Final = "ss -aHntuw0 | sort; nft list ruleset; ip -o address; ip route show table all"


def look(lab: Lab) -> Sequence[str]:
    """Sockets, rules, addresses and routes of the two ends; and half-open connections, if there are any."""
    return [lab.run(on, ["sh", "-c", LOOK]).stdout for on in ("a", "b")]


def test_nothing_is_left_by_a_trace_nor_by_one_that_is_interrupted(lab: Lab, tmp_path: Path) -> None:
    """Not even connections that are half open, although the answers to its SYNs are lost."""
    before = look(lab)
    lab.nft("router", "tcp sport 179 drop")
    (tmp_path / "hosts.yaml").write_text(dump(ends(lab)))
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "netprobe.cli", "trace"]
    argv += [str(tmp_path / "hosts.yaml"), "a", "b", "bgp", "-v"]
    whole = subprocess.run([*argv, "--format", "json"], capture_output=True, text=True, check=False)
    (found,) = json.loads(whole.stdout)["traces"]

    assert (1, 4) == (whole.returncode, found["arrived_ttl"])
    assert before == look(lab)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = b""
        # The second time that hosts are prepared it is for the trace.
        while said.count(b"preparing") < 2:
            assert select.select([process.stderr], [], [], TIMEOUT_S)[0]
            said += os.read(process.stderr.fileno(), 1 << 16)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)

    assert (130, b"") == (process.returncode, stdout)
    assert b"netprobe: error: interrupted" in stderr
    assert b"Traceback" not in stderr
    assert before == look(lab)


def test_an_address_that_is_translated_on_the_way_hides_no_hop(lab: Lab) -> None:
    """The first router lends its own: what is said of the packets comes back to a all the same."""
    rule = "ip saddr 10.77.1.11 masquerade"
    lab.nft("router", rule, hook=Hook.POSTROUTING, type=ChainType.NAT)
    lab.nft("r3", "udp dport 4789 drop", hook=Hook.PREROUTING)
    lost, whole = together(
        lab,
        (first_of(lab, "vxlan", Family.IPV4), first_of(lab, "bgp", Family.IPV4)),
        (first_of(lab, "bgp", Family.IPV4), None),
    )

    assert (
        f"last seen at {TWO} (hop 2), not at hop 3 ({THREE}), where bgp tcp/179 is{MUTE}"
        == hops.in_one_line(lost, {})
    )
    assert "comes through to b (hop 4)" == hops.in_one_line(whole, {})


def test_hosts_that_share_an_address_share_the_words_that_are_told_to_it(lab: Lab) -> None:
    """Behind the router that lends it to both; so they are not asked about at the same time."""
    hidden = "ip saddr {10.77.1.11, 10.77.5.11} masquerade"
    lab.nft("router", hidden, hook=Hook.POSTROUTING, type=ChainType.NAT)
    lab.nft("r2", ["meta l4proto udp drop", "ip protocol 4 drop", "tcp dport != 179 drop"], hook=Hook.FORWARD)
    inventory = ends(lab, "abc")
    every = plan.flows(inventory, Settings(families=(Family.IPV4,)))
    # Of IP-in-IP and WireGuard, which have the same ports or none, it lets only one of the two through.
    to_b = [flow for flow in every if flow.dst == "b" and flow.probe not in ("ipip", "wireguard")]
    bgp = {flow.src: flow for flow in to_b if flow.probe == "bgp"}
    pairs = [Pair(flow, bgp[flow.src]) for flow in to_b if flow is not bgp[flow.src]]
    traces = trio.run(trace, inventory, Settings(), pairs).traces

    assert {"a", "c"} == {found.flow.src for found in traces}
    for found in traces:
        # r2 saw each of them: where it did not say so, it must not be said that it did not.
        assert found.lost_ttl in (3, 4)
        assert found.hops[1].by == TWO or found.hops[1].is_unsure


def test_a_host_that_is_lost_is_the_reason_why_there_is_no_trace(lab: Lab) -> None:
    """In the trace itself, and beside that of another flow."""
    inventory = ends(lab)
    broken = msgspec.structs.replace(inventory.hosts[1], python=("/nowhere/python3",))
    inventory = msgspec.structs.replace(inventory, hosts=(inventory.hosts[0], broken))
    pair = Pair(first_of(lab, "vxlan", Family.IPV4), first_of(lab, "bgp", Family.IPV4))
    ((found,), packets) = trio.run(trace, inventory, Settings(), [pair])

    assert 0 == packets
    assert hops.in_one_line(found, {}).startswith("not traced: b: ")
    assert found.reference is not None
    assert found.error == found.reference.error


def test_two_hosts_on_one_link_are_one_hop_apart() -> None:
    """No router in between; a trace of what their own switch drops has nothing to say but that."""
    drop = "{on: router, hook: ingress, nft: ip daddr $b udp dport 4789 drop}"
    text = f"{{name: a rack, hosts: [a, b], networks: [{{name: rack, hosts: [a, b]}}], faults: [{drop}]}}"
    with Lab(describe(text)) as lab:
        run = traced(lab, "vxlan")

        assert words(run).startswith("left a, not at b (hop 1), where ")
        assert "comes through to b (hop 1)" == words(traced(lab, "bgp"))
