"""Blocked flows by cause: what is put together, and what is said about it."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.diagnosis import Diagnosis, Group, Untested, diagnose
from netprobe.diagnosis.evidence import in_one_line
from netprobe.diagnosis.names import Names, common_domain, common_prefix, fold
from netprobe.diagnosis.routes import Route, routes
from netprobe.diagnosis.words import CAUSES, RATIONED_ALONE, RATIONED_TOO, SEVERAL_ADDRESSES, STAGES
from netprobe.model import (
    RATIONED,
    Answer,
    Caveat,
    Fate,
    Flow,
    Inventory,
    Protocol,
    Refusal,
    Run,
    Seen,
    Segment,
    Session,
    Verdict,
    Word,
)
from tests.golden.made_up import (
    Fault,
    Outcome,
    cell,
    hosts,
    is_,
    lost,
    rejected,
    run,
    unreachable,
    untested,
    where,
)
from tests.golden.scenes import five_hosts
from tests.golden.strategies import runs, shuffled

INGRESS, PATH = lost(Segment.DESTINATION_INGRESS), lost(Segment.PATH)
RATIONED_PATH = msgspec.structs.replace(PATH, notes=(RATIONED,))
CLOSED = Outcome(verdict=Verdict.CLOSED, fates=((Fate(Seen.AT_SOCKET, Answer.RST), 5),))


def diagnosed(
    faults: Sequence[Fault],
    names: str = "abcde",
    *,
    probes: tuple[str, ...] | None = None,
    dual: bool = False,
) -> Diagnosis:
    """The diagnosis of hosts that are called by one letter each."""
    return diagnose(run(Inventory(hosts=hosts(list(names), 2, dual=dual), probes=probes), faults))


def said(group: Group) -> tuple[str, str, int]:
    """What, between whom, how many flows."""
    ends = [
        f"{','.join(route.sources)} {'<>' if route.both_ways else '>'} {','.join(route.destinations)}"
        for route in group.routes
    ]
    return ", ".join(what.label for what in group.what), "; ".join(ends), len(group.cells)


def test_a_closed_host_is_one_group() -> None:
    """All sources lose a probe at one destination: that destination's own firewall."""
    (group,) = diagnosed([where(is_(probe="vxlan", dst="b"), INGRESS)]).blocked

    assert ("vxlan udp/4789", "a,c,d,e > b", 4) == said(group)
    assert group.routes[0].from_all
    assert "b's own firewall or kernel drops it: it reached b's interface and got no further." == group.where
    assert "15 sent, 15 reached b's interface, 0 passed b's firewall" == group.evidence
    assert ("a", "b") == (group.example.flow.src, group.example.flow.dst)


def test_alike_families_and_ports_of_a_probe_are_one_group() -> None:
    """A firewall that knows no address family is one cause."""
    (group,) = diagnosed([where(is_(probe="flannel", dst="b"), INGRESS)], dual=True).blocked

    assert ("flannel udp/4789,8472", "a,c,d,e > b", 16) == said(group)
    assert ["ipv4", "ipv6"] == [family.value for family in group.what[0].families]


def test_families_that_are_not_alike_are_two_groups() -> None:
    """IPv6 is lost from one host more."""
    faults: list[Fault] = [
        where(is_(probe="bgp", src="a", dst="b"), PATH),
        lambda flow: PATH if (flow.probe, flow.src, flow.dst_address) == ("bgp", "c", "fd00:1::10") else None,
    ]
    groups = diagnosed(faults, dual=True).blocked

    assert [("bgp tcp/179", "a,c > b", 2), ("bgp tcp/179", "a > b", 1)] == [said(group) for group in groups]


def test_a_host_that_drops_everything_is_one_group() -> None:
    """One cause, whatever it drops."""
    (group,) = diagnosed([where(is_(dst="e"), INGRESS)]).blocked

    assert (
        "bgp tcp/179, ipip (protocol 4), vxlan udp/4789, wireguard udp/51820, flannel udp/4789,8472"
        == (said(group)[0])
    )


def test_closed_hosts_are_one_group_though_none_probes_itself() -> None:
    """Each of them loses flows from all others, which are not quite the same others."""
    faults = [where(is_(probe="ipip", dst=dst), INGRESS) for dst in "bcd"]
    (group,) = diagnosed(faults).blocked

    assert ("ipip (protocol 4)", "a,b,c,d,e > b,c,d", 12) == said(group)
    assert group.where.startswith("The destination's own firewall")


def test_the_same_loss_at_different_hosts_stays_apart_where_the_others_differ() -> None:
    """One is closed to everybody, one to a single host: two rules, two causes."""
    faults = [where(is_(probe="ipip", dst="b"), INGRESS), where(is_(probe="ipip", src="a", dst="c"), INGRESS)]

    assert ["a,c,d,e > b", "a > c"] == [said(group)[1] for group in diagnosed(faults).blocked]


def test_a_path_between_two_sets_of_hosts_is_said_as_their_product() -> None:
    """Six pairs in one line."""
    fault: Fault = lambda flow: PATH if flow.src in "ace" and flow.dst in "bd" else None  # noqa: E731
    (group,) = diagnosed([fault], probes=("ipip",)).blocked

    assert ("ipip (protocol 4)", "a,c,e > b,d", 6) == said(group)
    assert group.hint.startswith("IP protocol 4 is neither TCP nor UDP")


def test_what_is_worth_knowing_of_one_probe_is_not_said_of_several() -> None:
    """Where packets of pods alone are lost, a source check is likely; with others it is something else."""

    def hints(*probes: str) -> list[str]:
        inventory = Inventory(hosts=hosts("ab"), probes=probes, pod_cidr=("10.244.0.0/16",))
        return [group.hint for group in diagnose(run(inventory, [lambda _flow: PATH])).blocked]

    (alone,) = hints("pod-route")

    assert alone.startswith("It bears a pod's address: clouds drop that by a source/destination check")
    assert [""] == hints("pod-route", "ipip")
    assert [""] == hints("pod-route", "vxlan")


def test_a_path_that_is_lost_in_both_directions_is_said_once() -> None:
    """A dead host: nothing to it, nothing from it."""
    fault: Fault = lambda flow: PATH if "b" in (flow.src, flow.dst) else None  # noqa: E731
    (group,) = diagnosed([fault], probes=("ipip", "vxlan")).blocked

    assert ("ipip (protocol 4), vxlan udp/4789", "a,c,d,e <> b", 16) == said(group)


def test_a_dead_host_is_not_part_of_what_else_a_probe_loses() -> None:
    """All probes lose e, IP-in-IP also what goes from a to b: that is another cause."""
    faults: list[Fault] = [
        lambda flow: PATH if "e" in (flow.src, flow.dst) else None,
        where(is_(probe="ipip", src="a", dst="b"), PATH),
    ]

    assert [
        ("ipip (protocol 4), vxlan udp/4789", "a,b,c,d <> e", 16),
        ("ipip (protocol 4)", "a > b", 1),
    ] == [said(group) for group in diagnosed(faults, probes=("ipip", "vxlan")).blocked]


def test_a_router_that_speaks_from_its_address_in_each_network_is_one_cause() -> None:
    """a, c and e are in one network, b and d in another: each hears the address of its own gateway."""
    fault: Fault = lambda flow: rejected(  # noqa: E731
        Segment.PATH, "10.0.0.1" if flow.src in "ace" else "10.0.1.1"
    )
    (group,) = diagnosed([fault], probes=("vxlan",)).blocked

    assert ("10.0.0.1", "10.0.1.1") == group.by
    assert "A firewall on the path refuses it (10.0.0.1, 10.0.1.1)." == group.where
    assert SEVERAL_ADDRESSES == group.hint


def test_answers_are_refused_to_the_network_that_they_come_from() -> None:
    """On the way back it is the destination that is told."""
    fault: Fault = lambda flow: rejected(  # noqa: E731
        Segment.RETURN_PATH, "10.0.0.1" if flow.dst in "ace" else "10.0.1.1"
    )

    assert 1 == len(diagnosed([fault], probes=("bgp",)).blocked)


def test_refusals_by_different_routers_are_different_causes() -> None:
    """A network that hears two addresses hears two routers, and who refused is where to look."""
    faults = [
        where(is_(src="a"), rejected(Segment.PATH, "10.0.0.1")),
        where(is_(src="c"), rejected(Segment.PATH, "10.0.0.2")),
    ]
    groups = diagnosed(faults, probes=("vxlan",)).blocked

    assert [("10.0.0.1",), ("10.0.0.2",)] == [group.by for group in groups]
    assert "A firewall on the path refuses it (10.0.0.1)." == groups[0].where


def test_probes_that_different_routers_refuse_are_different_causes() -> None:
    """The same hosts hear one router about VXLAN and another about BGP."""
    faults = [
        where(is_(probe="vxlan"), rejected(Segment.PATH, "10.0.0.1")),
        where(is_(probe="bgp"), rejected(Segment.PATH, "10.0.0.2")),
    ]

    assert 2 == len(diagnosed(faults, probes=("vxlan", "bgp")).blocked)


def test_a_router_has_an_address_of_each_family() -> None:
    """Which is nothing to wonder about."""
    fault: Fault = lambda flow: rejected(  # noqa: E731
        Segment.PATH, "10.0.0.1" if "." in flow.src_address else "fd00::1"
    )
    (group,) = diagnosed([fault], probes=("vxlan",), dual=True).blocked

    assert (("10.0.0.1", "fd00::1"), "") == (group.by, group.hint)


def test_many_addresses_of_a_router_are_shortened() -> None:
    """Two of them, and how many more."""
    inventory = Inventory(hosts=hosts("abcdef", 6), probes=("vxlan",))
    fault: Fault = lambda flow: rejected(  # noqa: E731
        Segment.PATH, flow.src_address.rpartition(".")[0] + ".1"
    )
    (group,) = diagnose(run(inventory, [fault])).blocked

    assert 6 == len(group.by)
    assert "A firewall on the path refuses it (10.0.0.1, 10.0.1.1 and 4 more)." == group.where


def rationed(flow: Flow) -> Outcome | None:
    """Every second flow of each probe is heard to be refused, the others are not; which is chance."""
    chance = (ord(flow.src) * 7 + ord(flow.dst) * 3 + (flow.port or 0)) % 5
    return (
        RATIONED_PATH
        if chance < 2
        else rejected(Segment.PATH, "10.0.0.1" if flow.src in "ace" else "10.0.1.1")
    )


def test_one_rule_whose_refusals_are_rationed_is_one_cause() -> None:
    """And the flows that nobody was heard to refuse are counted for themselves, never as rejected."""
    (group,) = diagnosed([rationed], probes=("vxlan", "flannel")).blocked

    assert ("vxlan udp/4789, flannel udp/4789,8472", "a,b,c,d,e > a,b,c,d,e", 60) == said(group)
    assert {Verdict.FILTERED} == {cell.judgement.verdict for cell in group.silent}
    heard = [cell for cell in group.cells if cell not in group.silent]
    assert {Verdict.REJECTED} == {group.verdict} == {cell.judgement.verdict for cell in heard}
    assert group.example in heard
    assert RATIONED_TOO in group.hint


def test_silence_that_was_asked_again_is_another_cause() -> None:
    """Only where a ration can explain it is it put with refusals."""
    fault: Fault = lambda flow: PATH if rationed(flow) == RATIONED_PATH else rationed(flow)  # noqa: E731

    assert {Verdict.FILTERED, Verdict.REJECTED} == {
        group.verdict for group in diagnosed([fault], probes=("vxlan",)).blocked
    }


@pytest.mark.parametrize(
    "refused",
    [
        where(is_(src="a", dst="b", probe="vxlan"), rejected(Segment.DESTINATION_INGRESS, "10.0.1.10")),
        where(is_(src="a", dst="b", probe="bgp"), rejected(Segment.PATH, "10.0.0.1")),
        where(is_(src="a", dst="b", probe="vxlan"), rejected(Segment.PATH, "10.0.0.1")),
    ],
    ids=["another place", "another probe", "other hosts"],
)
def test_silence_is_not_put_with_refusals_of_something_else(refused: Fault) -> None:
    """Then it is a cause of its own, which says that it may have been refused."""
    faults = [refused, where(is_(src="c", probe="vxlan"), RATIONED_PATH)]
    silent, heard = diagnosed(faults, probes=("vxlan", "bgp")).blocked

    assert (Verdict.FILTERED, 4, ()) == (silent.verdict, len(silent.cells), silent.silent)
    assert RATIONED_ALONE == silent.hint
    assert (Verdict.REJECTED, 1, ()) == (heard.verdict, len(heard.cells), heard.silent)


def test_hosts_that_refuse_for_themselves_are_one_cause() -> None:
    """Each refuses from its own address, and two families are two addresses."""
    fault: Fault = lambda flow: (  # noqa: E731
        rejected(Segment.DESTINATION_INGRESS, flow.dst_address) if flow.dst in "bc" else None
    )
    (group,) = diagnosed([fault], probes=("vxlan",), dual=True).blocked

    assert ("vxlan udp/4789", "a,b,c,d,e > b,c", 16) == said(group)
    assert () == group.by


def test_a_reset_in_the_destination_s_name_is_said_to_be_one() -> None:
    """A firewall that answers with a RST does so from the address that was asked."""
    (group,) = diagnosed(
        [where(is_(src="a", dst="b", probe="bgp"), rejected(Segment.PATH, "10.0.1.10"))]
    ).blocked

    assert "A firewall on the path refuses it (in b's name)." == group.where


def test_a_router_that_is_a_host_of_the_inventory_is_called_by_its_name() -> None:
    """Its address alone would have to be looked up."""
    (group,) = diagnosed(
        [where(is_(src="a", dst="b", probe="bgp"), unreachable(Segment.PATH, "10.0.0.11"))]
    ).blocked

    assert "A router on the path has no way to b (c, 10.0.0.11)." == group.where


def test_groups_with_most_flows_come_first() -> None:
    """Then the order of the flows decides, so that two runs read alike."""
    faults = [
        where(is_(probe="bgp", src="c", dst="d"), PATH),
        where(is_(probe="ipip", src="a", dst="b"), PATH),
        where(is_(probe="vxlan", dst="b"), INGRESS),
    ]

    assert ["vxlan udp/4789", "bgp tcp/179", "ipip (protocol 4)"] == [
        said(group)[0] for group in diagnosed(faults).blocked
    ]


def test_what_nobody_listens_to_is_no_blocked_flow() -> None:
    """Closed flows are grouped by their destination, apart from the blocked ones."""
    diagnosis = diagnosed([where(is_(probe="etcd", dst="a"), CLOSED)])

    assert () == diagnosis.blocked
    (group,) = diagnosis.closed
    assert ("etcd tcp/2379", "b,c,d,e > a", 4) == said(group)
    assert group.where.startswith("The network lets it through, and nothing listens on a")
    assert "5 sent, 5 passed a's firewall, 5 answers came back" == group.evidence


def test_untested_flows_are_grouped_by_reason() -> None:
    """A host without an agent is one reason for all flows to it and from it."""
    fault: Fault = lambda flow: untested("no agent on b") if "b" in (flow.src, flow.dst) else None  # noqa: E731
    diagnosis = diagnosed([fault], probes=("ipip", "vxlan"))

    assert () == diagnosis.blocked
    (group,) = diagnosis.untested
    assert ("no agent on b", 16) == (group.reason, len(group.cells))
    assert (Route(sources=tuple("acde"), destinations=("b",), both_ways=True, from_all=True),) == group.routes


def test_caveats_of_a_group_are_counted() -> None:
    """They say how far its verdict is to be trusted."""
    retried = msgspec.structs.replace(PATH, caveats=(Caveat.RETRIED,))
    (group,) = diagnosed([where(is_(src="a"), retried)], probes=("ipip",)).blocked

    assert {Caveat.RETRIED: 4} == group.caveats


def test_a_broken_session_says_that_the_connection_opens() -> None:
    """The place to look for is a firewall that reads along."""
    outcome = Outcome(
        verdict=Verdict.FILTERED,
        segment=Segment.RETURN_PATH,
        fates=((Fate(Seen.AT_SOCKET, Answer.ACCEPT), 5),),
        session=Session(fates=((Fate(Seen.AT_SOCKET, Answer.ACCEPT_LEFT), 2),), stage="answer"),
    )
    (group,) = diagnosed([where(is_(probe="bgp", src="a", dst="b"), outcome)]).blocked

    assert group.hint.startswith("The connection opens, the request arrives")
    assert "2 payloads sent, 2 answers left b, 0 answers reached a's interface" == group.evidence


@pytest.mark.parametrize(
    "verdict", [each for each in Verdict if each not in (Verdict.OPEN, Verdict.UNTESTED)]
)
@pytest.mark.parametrize("segment", [*Segment, None])
@pytest.mark.parametrize("protocol", Protocol)
def test_every_verdict_has_a_sentence_wherever_it_happened(
    verdict: Verdict, segment: Segment | None, protocol: Protocol
) -> None:
    """No combination is left to a default, and none names a host that is not there."""
    probe = {Protocol.TCP: "bgp", Protocol.UDP: "vxlan", Protocol.IPIP: "ipip"}[protocol]
    outcome = Outcome(verdict=verdict, segment=segment, by="192.0.2.1", fates=((Fate(Seen.SENT), 15),))
    diagnosis = diagnosed([where(is_(probe=probe, src="a", dst="b"), outcome)])

    (group,) = (*diagnosis.blocked, *diagnosis.closed)

    assert re.fullmatch(r"[^{}]+\.", group.where)
    assert group.evidence.startswith("15 sent")


def test_the_tables_have_no_row_that_is_never_read() -> None:
    """Every text belongs to a verdict that is grouped, a segment, or a stage of a session."""
    assert set(Verdict) - {Verdict.OPEN, Verdict.UNTESTED} == set(CAUSES)
    assert {"handshake", "request", "answer"} == set(STAGES)


LOST_AT = {
    Segment.SOURCE_EGRESS: "15 sent, 0 left a",
    Segment.PATH: "15 sent, 15 left a, 0 reached b's interface",
    Segment.DESTINATION_INGRESS: "15 sent, 15 reached b's interface, 0 passed b's firewall",
    Segment.DESTINATION_EGRESS: "15 sent, 15 passed b's firewall, 0 answers left b",
    Segment.RETURN_PATH: "15 sent, 15 answers left b, 0 answers reached a's interface",
    Segment.SOURCE_INGRESS: "15 sent, 15 answers reached a's interface, 0 answers passed a's firewall",
}
BGP = Flow(
    1, "bgp", next(iter(five_hosts().cells)).flow.family, Protocol.TCP, 179, "a", "10.0.0.1", "b", "10.0.0.2"
)


@pytest.mark.parametrize("segment", Segment)
def test_the_evidence_is_what_was_counted_around_the_loss(segment: Segment) -> None:
    """The last point that was passed, and the first that was not."""
    assert LOST_AT[segment] == in_one_line(cell(BGP, lost(segment)), {})


def test_the_evidence_says_who_refused_and_how() -> None:
    """An address, or the host's name where it is an end of the flow."""
    by_router = rejected(Segment.PATH, "192.0.2.1", "ICMP 3/13")
    by_host = rejected(Segment.DESTINATION_INGRESS, "10.0.0.2", "ICMP 3/10")

    assert in_one_line(cell(BGP, by_router), {}).endswith("interface; ICMP 3/13 from 192.0.2.1, 5 times")
    assert in_one_line(cell(BGP, by_host), {"b": "bee"}).endswith(
        "bee's firewall; ICMP 3/10 from bee, 5 times"
    )


def test_the_evidence_of_a_send_that_the_kernel_refused_says_so() -> None:
    """Nothing was sent, and the errno is known."""
    outcome = Outcome(
        verdict=Verdict.FILTERED,
        segment=Segment.SOURCE_EGRESS,
        fates=((Fate(Seen.AT_SOCKET), 5),),
        output=((Fate(Seen.UNSENT), 3),),
        refusals=(Refusal(Word.SILENCE, "", "dropped (EPERM)"),),
    )

    assert "3 tried, 0 sent; dropped (EPERM)" == in_one_line(cell(BGP, outcome), {})


def test_the_evidence_names_source_ports_where_only_some_fail() -> None:
    """One broken link of several is seen in the ports that it carries."""
    outcome = Outcome(
        verdict=Verdict.DEGRADED,
        segment=Segment.PATH,
        fates=((Fate(Seen.AT_SOCKET, Answer.ACCEPT), 5), (Fate(Seen.LEFT), 6)),
        failing_ports=tuple(range(1, 7)),
        passing_ports=(7,),
    )

    assert (
        "11 sent, 11 left a, 5 reached b's interface; source ports 1, 2, 3, 4 and 2 more fail, 7 pass"
        == in_one_line(cell(BGP, outcome), {})
    )


@pytest.mark.parametrize(
    ("segment", "fate", "expected"),
    [
        (
            Segment.PATH,
            Fate(Seen.LEFT, Answer.ACCEPT),
            "5 sent, 0 reached b's interface, 5 answers came back",
        ),
        (
            Segment.DESTINATION_INGRESS,
            Fate(Seen.AT_INTERFACE, Answer.ACCEPT_LEFT),
            "5 sent, 0 passed b's firewall, 5 answers left b",
        ),
    ],
)
def test_the_evidence_of_an_interception_is_an_answer_to_a_packet_that_nobody_got(
    segment: Segment, fate: Fate, expected: str
) -> None:
    """Somebody else answered, on the path or in front of the destination's kernel."""
    outcome = Outcome(verdict=Verdict.INTERCEPTED, segment=segment, fates=((fate, 5),))

    assert expected == in_one_line(cell(BGP, outcome), {})


@given(runs(), st.randoms(use_true_random=False))
def test_any_run_can_be_diagnosed_whatever_its_order(some_run: Run, chance: random.Random) -> None:
    """Every flow that is not open is in exactly one group, and the order of the cells does not matter."""
    order = list(range(len(some_run.cells)))
    chance.shuffle(order)

    diagnosis = diagnose(some_run)

    groups: list[Group | Untested] = [*diagnosis.blocked, *diagnosis.closed, *diagnosis.untested]
    grouped = [each.flow.number for group in groups for each in group.cells]
    assert sorted(grouped) == [
        each.flow.number for each in some_run.cells if each.judgement.verdict is not Verdict.OPEN
    ]
    for group in groups:
        assert {(each.flow.src, each.flow.dst) for each in group.cells} == pairs_of(group.routes)
    for group in (*diagnosis.blocked, *diagnosis.closed):
        for each in group.cells:
            verdict = Verdict.FILTERED if each in group.silent else group.verdict
            assert verdict is each.judgement.verdict
    assert diagnosis == diagnose(shuffled(some_run, order))


def pairs_of(some: Sequence[Route]) -> set[tuple[str, str]]:
    """Every pair that routes stand for."""
    found = set()
    for route in some:
        pairs = {
            (src, dst) for src, dst in itertools.product(route.sources, route.destinations) if src != dst
        }
        found |= pairs | ({(dst, src) for src, dst in pairs} if route.both_ways else set())
    return found


HOSTS = "abcdefgh"
PAIRS = st.sets(st.sampled_from([(src, dst) for src in HOSTS for dst in HOSTS if src != dst]), min_size=1)


@given(PAIRS, st.randoms(use_true_random=False))
def test_routes_are_exactly_their_pairs_in_whatever_order_they_come(
    pairs: set[tuple[str, str]], chance: random.Random
) -> None:
    """Nothing is lost in folding, nothing is added, and nothing is said twice."""
    order = {host: place for place, host in enumerate(HOSTS)}
    mixed = list(pairs)
    chance.shuffle(mixed)

    found = routes(mixed, order, pairs)

    assert pairs == pairs_of(found)
    assert len(pairs) == sum(route.pairs for route in found)
    assert found == routes(sorted(pairs), order, pairs)


def test_a_mesh_is_one_route() -> None:
    """All pairs among some hosts, though none with itself."""
    mesh = set(itertools.permutations("abc", 2))
    (route,) = routes(mesh, {"a": 0, "b": 1, "c": 2}, mesh)

    assert route.is_mesh
    assert 6 == route.pairs


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ("n1 n2 n3 n4", "n1, n2, n3, n4"),
        ("n1 n2 n3 n4 n7", "n[1-4,7]"),
        ("n9 n10 n11 n12 n13", "n[9-13]"),
        ("n08 n09 n10 n11 n1", "n1, n[08-11]"),
        ("a-1-x a-2-x a-3-x a-4-x b-9", "a-[1-4]-x, b-9"),
        ("one two three four five", "one, two, three, four, five"),
        ("n n1 n2 n3 n4", "n, n[1-4]"),
    ],
)
def test_many_names_are_folded(names: str, folded: str) -> None:
    """Ranges keep their zeros, and a few names stay as they are."""
    assert folded == ", ".join(fold(names.split()))


def unfolded(text: str) -> list[str]:
    """The names again."""
    match = re.fullmatch(r"(.*)\[([0-9,-]+)\](.*)", text, re.DOTALL)
    if match is None:
        return [text]
    names = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        width = len(first) if first.startswith("0") else 0
        names += [f"{match[1]}{n:0{width}}{match[3]}" for n in range(int(first), int(last or first) + 1)]
    return names


@given(st.lists(st.from_regex(r"[ab]-?[0-9]{0,3}-?[c0]{0,2}", fullmatch=True), unique=True, max_size=40))
def test_folded_names_can_be_read_back(names: list[str]) -> None:
    """No name is lost, changed or added."""
    assert sorted(names) == sorted(name for text in fold(names) for name in unfolded(text))


@pytest.mark.parametrize(
    ("names", "domain"),
    [
        ("a.example.com b.example.com", ".example.com"),
        ("n1.eu.example.com n2.us.example.com", ".example.com"),
        ("x1.example.com 1.example.com", ".example.com"),
        ("10.0.0.1 10.1.0.1", ""),
        ("a b", ""),
        ("a.example.com", ""),
        ("a.example.com b", ""),
        ("example.com a.example.com", ".com"),
    ],
)
def test_the_common_domain_is_what_all_names_end_in(names: str, domain: str) -> None:
    """Whole labels with a letter; addresses have none."""
    assert domain == common_domain(names.split())


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        ("node-1 node-2", "node-"),
        ("ip-10-0-1 ip-10-0-2", "ip-10-0-"),
        ("node1 node2", ""),
        ("n n-1", ""),
        ("a-", ""),
    ],
)
def test_the_common_prefix_ends_where_a_word_ends(names: str, prefix: str) -> None:
    """Half a number is no prefix."""
    assert prefix == common_prefix(names.split())


@pytest.mark.parametrize(
    ("chosen", "limit", "text"),
    [
        (range(96), 20, "n[0-95]"),
        (range(0, 96, 4), 40, "10.0.0.0/24 (24 hosts)"),
        (range(4, 96, 4), 40, "10.0.0.0/24 but n0 (23 hosts)"),
        ([*range(0, 96, 4), *range(1, 96, 4)], 40, "10.0.0.0/24, 10.0.1.0/24 (48 hosts)"),
        (range(0, 96, 8), 24, "n0, n8, n16 and 9 more"),
        (range(0, 96, 8), 14, "n0 and 11 more"),
        ([3], 1, "n3"),
    ],
)
def test_hosts_are_said_in_the_first_way_that_is_short(chosen: Sequence[int], limit: int, text: str) -> None:
    """By name, by subnet, or the first ones and a count."""
    some_run = run(Inventory(hosts=hosts([f"n{number}" for number in range(96)], 4), probes=()))

    assert text == Names(some_run).listed([f"n{number}" for number in chosen], limit)
