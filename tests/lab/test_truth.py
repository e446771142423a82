"""The model of the random labs against networks whose cells are worked out by hand; nothing is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from netprobe import plan
from netprobe.lab import Hook
from netprobe.lab.blueprint import blueprint
from netprobe.lab.expectations import label
from netprobe.lab.topology import topology
from netprobe.model import Caveat, Family, Host, Inventory, Role, Segment, Verdict
from tests.lab.halves import Truth
from tests.lab.probing import Held
from tests.lab.rules import (
    ROUTER,
    Action,
    Chain,
    Handover,
    Loss,
    Net,
    Redirect,
    Reject,
    Rule,
    Service,
    State,
    Untracked,
    WrongRoute,
)
from tests.lab.seeds import network
from tests.lab.truth import Model

A, B, C = "10.77.1.11", "10.77.2.11", "10.77.3.11"
ROUTER_AT_A, ROUTER_AT_B = "10.77.1.1", "10.77.2.1"

OPEN: Final = Held(Verdict.OPEN)
DROP, ACCEPT = Action.DROP, Action.ACCEPT
KNOWN_PASS: Final = Rule(ACCEPT, state=State.KNOWN)
NEW_STOP: Final = Chain(DROP, (KNOWN_PASS,))
BGP, FROM_BGP = frozenset({179}), frozenset({179})

Chains = Mapping[tuple[str, Hook], Chain | tuple[Chain, ...]]


def net(
    chains: Chains | None = None,
    *routes: WrongRoute,
    racks: Mapping[str, tuple[str, ...]] | None = None,
    untracked: Mapping[str, Untracked] | None = None,
    masquerade: tuple[Rule, ...] = (),
    snat_to: str | None = None,
    handovers: tuple[Handover, ...] = (),
    redirects: tuple[Redirect, ...] = (),
    services: tuple[Service, ...] = (),
) -> Net:
    """Three hosts, each on a link of its own, and a router between them."""
    theirs = {
        where: (found,) if isinstance(found, Chain) else found for where, found in (chains or {}).items()
    }
    return Net(
        seed=0,
        hosts={"a": (Role.NODE,), "b": (Role.NODE,), "c": (Role.NODE, Role.ETCD)},
        families=tuple(Family),
        racks=racks or {},
        chains=theirs,
        routes=routes,
        untracked=untracked or {},
        masquerade=masquerade,
        snat_to=snat_to,
        handovers=handovers,
        redirects=redirects,
        services=services,
    )


def truths(of: Net) -> dict[str, Truth]:
    """The truth about every flow, by its label."""
    found, model = topology(of.description()), Model(of)
    hosts = tuple(
        Host(name=name, addresses=tuple(station.addresses.values()), roles=of.hosts[name])
        for name, station in found.stations.items()
    )
    return {label(flow): model.truth(flow) for flow in plan.flows(Inventory(hosts=hosts))}


def blocked(of: Net) -> dict[str, Held]:
    """The cells of a network that are not open."""
    found = {name: truth.found for name, truth in truths(of).items()}
    return {name: held for name, held in found.items() if held.verdict is not Verdict.OPEN}


def bgp(of: Net, pair: str = "a -> b") -> Held:
    """The cell of one flow."""
    return truths(of)[f"{pair} bgp:179/ipv4"].found


def filtered(segment: Segment) -> Held:
    """What a drop makes of a cell."""
    return Held(Verdict.FILTERED, segment)


def test_nothing_in_the_way() -> None:
    """
    Everything is open.
    """
    assert {} == blocked(net())


def test_a_rule_stops_what_it_names_and_nothing_else() -> None:
    """
    Neither another port, nor another family, nor the opposite direction.
    """
    rule = Rule(DROP, "tcp", dports=BGP, src="a", family=Family.IPV6)

    assert {"a -> b bgp:179/ipv6": filtered(Segment.DESTINATION_INGRESS)} == blocked(
        net({("b", Hook.INPUT): Chain(ACCEPT, (rule,))})
    )


@pytest.mark.parametrize(
    ("on", "hook", "there", "back"),
    [
        ("a", Hook.OUTPUT, Segment.SOURCE_EGRESS, Segment.DESTINATION_EGRESS),
        ("a", Hook.POSTROUTING, Segment.SOURCE_EGRESS, Segment.DESTINATION_EGRESS),
        ("a", Hook.EGRESS, Segment.SOURCE_EGRESS, Segment.DESTINATION_EGRESS),
        (ROUTER, Hook.INGRESS, Segment.PATH, Segment.RETURN_PATH),
        (ROUTER, Hook.PREROUTING, Segment.PATH, Segment.RETURN_PATH),
        (ROUTER, Hook.FORWARD, Segment.PATH, Segment.RETURN_PATH),
        (ROUTER, Hook.POSTROUTING, Segment.PATH, Segment.RETURN_PATH),
        ("b", Hook.INGRESS, Segment.DESTINATION_INGRESS, Segment.SOURCE_INGRESS),
        ("b", Hook.PREROUTING, Segment.DESTINATION_INGRESS, Segment.SOURCE_INGRESS),
        ("b", Hook.INPUT, Segment.DESTINATION_INGRESS, Segment.SOURCE_INGRESS),
    ],
)
def test_where_each_hook_is_on_the_way(on: str, hook: Hook, there: Segment, back: Segment) -> None:
    """
    What is dropped from a to b is a's probe on its way there, or a's answer on its way back.
    """
    probe, answer = Rule(DROP, "tcp", dports=BGP, src="a"), Rule(DROP, "tcp", sports=FROM_BGP, src="a")

    assert filtered(there) == bgp(net({(on, hook): Chain(ACCEPT, (probe,))}))
    assert filtered(back) == bgp(net({(on, hook): Chain(ACCEPT, (answer,))}), "b -> a")


def test_what_is_bridged_meets_the_ports_of_the_router_only() -> None:
    """
    Neighbours do not pass its IP hooks.
    """
    rule = Chain(ACCEPT, (Rule(DROP, "tcp", dports=BGP),))
    rack = {"rack": ("a", "b")}

    assert OPEN == bgp(net({(ROUTER, Hook.FORWARD): rule}, racks=rack))
    assert filtered(Segment.PATH) == bgp(net({(ROUTER, Hook.INGRESS): rule}, racks=rack))


@pytest.mark.parametrize(
    ("reject", "verdict"),
    [
        (Reject.PROHIBITED, Verdict.REJECTED),
        (Reject.PORT, Verdict.REJECTED),
        (Reject.RESET, Verdict.REJECTED),
        (Reject.HOST, Verdict.UNREACHABLE),
        (Reject.NO_ROUTE, Verdict.UNREACHABLE),
    ],
)
def test_who_refuses_and_how(reject: Reject, verdict: Verdict) -> None:
    """
    A router says ICMP errors in its own name, and resets in that of the destination.
    """
    rule = Chain(ACCEPT, (Rule(reject, "tcp", dports=BGP, src="a"),))
    router = "" if reject is Reject.RESET else ROUTER_AT_A

    assert Held(verdict, Segment.SOURCE_EGRESS, A) == bgp(net({("a", Hook.OUTPUT): rule}))
    assert Held(verdict, Segment.PATH, router) == bgp(net({(ROUTER, Hook.FORWARD): rule}))
    assert Held(verdict, Segment.DESTINATION_INGRESS, B) == bgp(net({("b", Hook.INPUT): rule}))


def test_a_refused_answer() -> None:
    """
    The one who hears is the destination, whose answer it was.
    """
    rule = Chain(ACCEPT, (Rule(Reject.PROHIBITED, "tcp", sports=FROM_BGP),))

    assert Held(Verdict.REJECTED, Segment.RETURN_PATH, ROUTER_AT_B) == bgp(
        net({(ROUTER, Hook.FORWARD): rule})
    )
    assert Held(Verdict.REJECTED, Segment.SOURCE_INGRESS, A) == bgp(net({("a", Hook.INPUT): rule}))


@pytest.mark.parametrize(
    ("on", "chain"),
    [
        (("b", Hook.OUTPUT), Chain(ACCEPT, (Rule(DROP, src="b"),))),
        ((ROUTER, Hook.INGRESS), Chain(ACCEPT, (Rule(DROP, src="b"),))),
        ((ROUTER, Hook.POSTROUTING), Chain(ACCEPT, (Rule(DROP, src="b"),))),
    ],
)
def test_a_refusal_that_gets_lost(on: tuple[str, Hook], chain: Chain) -> None:
    """
    Then the loss is one without a word.
    """
    refusing = {("b", Hook.INPUT): Chain(ACCEPT, (Rule(Reject.PROHIBITED, "tcp", dports=BGP),))}

    assert filtered(Segment.DESTINATION_INGRESS) == bgp(net({**refusing, on: chain}))


@pytest.mark.parametrize(
    ("kind", "own", "routers"),
    [
        (
            "unreachable",
            Held(Verdict.UNREACHABLE, Segment.SOURCE_EGRESS, A),
            Held(Verdict.UNREACHABLE, Segment.PATH, ROUTER_AT_A),
        ),
        (
            "prohibit",
            Held(Verdict.REJECTED, Segment.SOURCE_EGRESS, A),
            Held(Verdict.REJECTED, Segment.PATH, ROUTER_AT_A),
        ),
        ("blackhole", Held(Verdict.UNREACHABLE, Segment.SOURCE_EGRESS, A), filtered(Segment.PATH)),
    ],
)
def test_routes_that_lead_nowhere(kind: str, own: Held, routers: Held) -> None:
    """
    The sender itself is told in any case; a router says nothing of a black hole.
    """
    assert own == bgp(net(None, WrongRoute("a", kind, "b", Family.IPV4)))
    assert routers == bgp(net(None, WrongRoute(ROUTER, kind, "b", Family.IPV4)))
    assert OPEN == bgp(net(None, WrongRoute(ROUTER, kind, "b", Family.IPV6)))


def test_a_route_that_is_missing_on_the_way_back() -> None:
    """
    The answer does not even leave; tunnels need none.
    """
    found = blocked(net(None, WrongRoute("b", "unreachable", "a", Family.IPV4)))

    assert filtered(Segment.DESTINATION_EGRESS) == found["a -> b bgp:179/ipv4"]
    assert "a -> b ipip/ipv4" not in found
    assert Held(Verdict.UNREACHABLE, Segment.SOURCE_EGRESS, B) == found["b -> a ipip/ipv4"]


def test_a_stateful_firewall_lets_its_own_host_out() -> None:
    """
    And what others begin it stops.
    """
    found = blocked(net({("b", Hook.INPUT): NEW_STOP}))

    assert {"a -> b", "c -> b"} == {name[:6] for name in found}
    assert {filtered(Segment.DESTINATION_INGRESS)} == {held._replace(caveats=()) for held in found.values()}


def test_a_session_needs_more_than_a_handshake() -> None:
    """
    A firewall that is asked for new packets only lets the SYN through, and then nothing.
    """
    rule = Rule(ACCEPT, "tcp", dports=BGP, state=State.NEW)
    answers = Rule(ACCEPT, "tcp", sports=FROM_BGP)

    assert filtered(Segment.PATH) == bgp(net({(ROUTER, Hook.FORWARD): Chain(DROP, (rule, answers))}))


def test_what_conntrack_does_not_see_is_not_known_either() -> None:
    """
    An answer that is not tracked is none that a stateful firewall lets in.
    """
    stateful = {("a", Hook.INPUT): NEW_STOP}

    assert OPEN == bgp(net(stateful))
    assert OPEN == bgp(net(stateful, untracked={"a": Untracked("udp")}))
    assert OPEN == bgp(net(stateful, untracked={"a": Untracked("tcp", frozenset({443}))}))
    assert filtered(Segment.SOURCE_INGRESS) == bgp(net(stateful, untracked={"a": Untracked("tcp", BGP)}))


def test_an_error_about_what_conntrack_does_not_see_is_invalid() -> None:
    """
    And where that is dropped, the refusal gets lost.
    """
    chains = {
        ("b", Hook.INPUT): Chain(ACCEPT, (Rule(Reject.PROHIBITED, "tcp", dports=BGP),)),
        ("b", Hook.OUTPUT): Chain(ACCEPT, (Rule(DROP, state=State.INVALID),)),
    }

    assert Held(Verdict.REJECTED, Segment.DESTINATION_INGRESS, B) == bgp(net(chains))
    assert filtered(Segment.DESTINATION_INGRESS) == bgp(net(chains, untracked={"b": Untracked("tcp")}))


@pytest.mark.parametrize("probe", ["ipip/ipv4", "wireguard:51820/ipv4"])
def test_the_router_remembers_the_first_orientation(probe: str) -> None:
    """
    What shares its entry passes because of it, and is marked; the truth is another.
    """
    stateful = Chain(DROP, (KNOWN_PASS, Rule(ACCEPT, src="a")))
    second = truths(net({(ROUTER, Hook.FORWARD): stateful}))[f"b -> a {probe}"]

    assert Held(Verdict.OPEN, caveats=(Caveat.STATE_ASSISTED,)) == second.found
    assert filtered(Segment.PATH) == second.fresh


@pytest.mark.parametrize(
    ("on", "chain"),
    [
        (("a", Hook.EGRESS), Chain(ACCEPT, (Rule(DROP, "4"),))),
        ((ROUTER, Hook.INGRESS), Chain(ACCEPT, (Rule(DROP, "4", src="a"),))),
    ],
)
def test_the_router_remembers_only_what_it_has_seen(on: tuple[str, Hook], chain: Chain) -> None:
    """
    Where the first orientation does not come to it, the second gets no help.
    """
    stateful = Chain(DROP, (KNOWN_PASS, Rule(ACCEPT, src="a")))
    second = truths(net({(ROUTER, Hook.FORWARD): stateful, on: chain}))["b -> a ipip/ipv4"]

    assert Truth(filtered(Segment.PATH), filtered(Segment.PATH)) == second


def test_protocol_4_has_no_other_port_to_tell_a_state_by() -> None:
    """
    It may have been helped wherever both orientations come through, also by nobody; all others can tell.
    """
    found = {name: truth.found.caveats for name, truth in truths(net()).items() if truth.found.caveats}

    assert {(Caveat.STATE_ASSISTED,)} == set(found.values())
    assert {"b -> a ipip/ipv4", "c -> a ipip/ipv4", "c -> b ipip/ipv4"} <= set(found)
    assert all("ipip" in name for name in found)


def test_a_state_at_the_ends_is_taken_away() -> None:
    """
    Two hosts that let in only what they know are closed to each other's tunnels.
    """
    found = blocked(net({("a", Hook.INPUT): NEW_STOP, ("b", Hook.INPUT): NEW_STOP}))

    assert Verdict.FILTERED is found["a -> b ipip/ipv4"].verdict
    assert Verdict.FILTERED is found["b -> a ipip/ipv4"].verdict


def test_translated_addresses() -> None:
    """
    The destination sees the router, and so do its rules; its refusals come to the source all the same.
    """
    hidden = (Rule(Action.MASQUERADE, "tcp", dports=BGP, dst="b"),)
    refusing = Chain(ACCEPT, (Rule(Reject.PROHIBITED, "tcp", dports=BGP),))
    named = Chain(ACCEPT, (Rule(DROP, "tcp", dports=BGP, src="a"),))
    caveat = (Caveat.NAT,)

    assert Held(Verdict.OPEN, caveats=caveat) == bgp(net(masquerade=hidden))
    assert OPEN == bgp(net(masquerade=hidden, untracked={ROUTER: Untracked("tcp")}))
    assert OPEN == bgp(net(masquerade=hidden), "b -> a")
    assert Held(Verdict.OPEN, caveats=caveat) == bgp(net({("b", Hook.INPUT): named}, masquerade=hidden))
    assert filtered(Segment.PATH) == bgp(net({(ROUTER, Hook.FORWARD): named}, masquerade=hidden))
    assert Held(Verdict.REJECTED, Segment.DESTINATION_INGRESS, B, caveat) == bgp(
        net({("b", Hook.INPUT): refusing}, masquerade=hidden)
    )


def test_a_refusal_of_a_translated_answer_comes_from_the_router() -> None:
    """
    That is whose connection it is, as far as the destination can see.
    """
    hidden = (Rule(Action.MASQUERADE, "tcp", dports=BGP, dst="b"),)
    refusing = Chain(ACCEPT, (Rule(Reject.PROHIBITED, "tcp", sports=FROM_BGP),))

    assert Held(Verdict.REJECTED, Segment.SOURCE_INGRESS, ROUTER_AT_B, (Caveat.NAT,)) == bgp(
        net({("a", Hook.INPUT): refusing}, masquerade=hidden)
    )


def test_connections_that_another_host_gets() -> None:
    """
    It answers, or its kernel refuses, or its firewall does, and all of it in the destination's name.
    """
    handovers = (Handover("a", "b", 179, "c"),)
    drop, refuse = (Chain(ACCEPT, (Rule(does, "tcp", dports=BGP),)) for does in (DROP, Reject.PORT))
    answers = Chain(ACCEPT, (Rule(DROP, "tcp", sports=FROM_BGP),))
    reset = {("c", Hook.INPUT): Chain(ACCEPT, (Rule(Reject.RESET, "tcp", dports=BGP),))}

    assert Held(Verdict.INTERCEPTED, Segment.PATH) == bgp(net(handovers=handovers))
    assert Held(Verdict.REJECTED, Segment.PATH) == bgp(net(reset, handovers=handovers))
    assert filtered(Segment.PATH) == bgp(net({**reset, (ROUTER, Hook.FORWARD): drop}, handovers=handovers))
    assert Held(Verdict.INTERCEPTED, Segment.PATH) == bgp(net({("b", Hook.INPUT): drop}, handovers=handovers))
    assert filtered(Segment.PATH) == bgp(net({("c", Hook.INPUT): drop}, handovers=handovers))
    assert filtered(Segment.PATH) == bgp(net({("c", Hook.OUTPUT): answers}, handovers=handovers))
    assert Held(Verdict.INTERCEPTED, Segment.PATH) == bgp(
        net({("a", Hook.INPUT): answers}, handovers=handovers)
    )
    assert Held(Verdict.REJECTED, Segment.PATH, B) == bgp(
        net({("c", Hook.INPUT): refuse}, handovers=handovers)
    )


def test_a_connection_that_is_handed_to_a_host_where_nobody_listens() -> None:
    """
    The kernel there refuses: a reset of a probe that never came to its destination.
    """
    of = net(handovers=(Handover("a", "c", 2379, "b"),))

    assert Held(Verdict.REJECTED, Segment.PATH) == truths(of)["a -> c etcd:2379/ipv4"].found


def test_rules_are_written_once_for_each_family_that_they_name() -> None:
    """
    Addresses need the family's own words; below the IP layer, the family has another name.
    """
    both = tuple(Family)
    rule = Rule(Reject.RESET, "tcp", dports=frozenset({443, 179}), src="a", state=State.NEW)
    rest = "tcp dport { 179, 443 } ct state new reject with tcp reset"
    plain = Rule(DROP, "4", family=Family.IPV6)

    assert [f"ip saddr ${{a.ipv4}} {rest}", f"ip6 saddr ${{a.ipv6}} {rest}"] == [*rule.nft(both, Hook.INPUT)]
    assert ["meta nfproto ipv6 meta l4proto 4 drop"] == [*plain.nft(both, Hook.INPUT)]
    assert ["meta protocol ip6 meta l4proto 4 drop"] == [*plain.nft(both, Hook.INGRESS)]
    assert ["drop"] == [*Rule(DROP).nft(both, Hook.INPUT)]


def both_ways(does: Action | Reject, loss: Loss | None = None) -> Rule:
    """A rule about bgp's SYNs from a, to wherever."""
    return Rule(does, "tcp", dports=BGP, src="a", loss=loss)


def test_what_one_table_accepts_another_may_drop() -> None:
    """
    Whichever is asked first; and of two that refuse the first one's word counts.
    """
    here, there = Chain(DROP, (Rule(ACCEPT),), -10), Chain(ACCEPT, (both_ways(Reject.PORT),), 10, "site")
    later = Chain(ACCEPT, (both_ways(Reject.HOST),), 50, "audit")
    at = (ROUTER, Hook.FORWARD)

    assert OPEN == bgp(net({at: (here,)}))
    assert Held(Verdict.REJECTED, Segment.PATH, ROUTER_AT_A) == bgp(net({at: (here, there)}))
    assert Held(Verdict.REJECTED, Segment.PATH, ROUTER_AT_A) == bgp(net({at: (later, there)}))


def test_words_that_only_one_family_has_are_chosen_by_the_family() -> None:
    """
    One rule for each.
    """
    both, rule = tuple(Family), Rule(Reject.HOST_PROHIBITED, "tcp")

    assert [
        "meta nfproto ipv4 meta l4proto tcp reject with icmp host-prohibited",
        "meta nfproto ipv6 meta l4proto tcp reject with icmpv6 reject-route",
    ] == [*rule.nft(both, Hook.INPUT)]


@pytest.mark.parametrize(("loss", "caveats"), [(Loss.RANDOM, ()), (Loss.PORTS, (Caveat.ECMP,))])
def test_what_is_halved_is_degraded_where_it_is(loss: Loss, caveats: tuple[Caveat, ...]) -> None:
    """
    And with luck open, or lost whole.
    """
    truth = truths(net({(ROUTER, Hook.FORWARD): Chain(ACCEPT, (both_ways(DROP, loss),))}))
    found = truth["a -> b bgp:179/ipv4"]

    assert Held(Verdict.DEGRADED, Segment.PATH, caveats=caveats) == found.found
    assert frozenset() == found.also
    assert {(Verdict.OPEN, None), (Verdict.FILTERED, Segment.PATH), (Verdict.DEGRADED, Segment.PATH)} == (
        found.rare
    )
    assert Truth(OPEN, OPEN) == truth["b -> a bgp:179/ipv4"]


def test_what_is_halved_and_then_stopped_is_lost_where_it_is_stopped() -> None:
    """
    A word about it may be lost as well.
    """
    chains = {
        (ROUTER, Hook.FORWARD): Chain(ACCEPT, (Rule(DROP, loss=Loss.RANDOM),)),
        ("b", Hook.INPUT): Chain(ACCEPT, (both_ways(Reject.PORT),)),
    }
    found = truths(net(chains))["a -> b bgp:179/ipv4"]

    assert Held(Verdict.REJECTED, Segment.DESTINATION_INGRESS, B) == found.found
    assert {filtered(Segment.DESTINATION_INGRESS)} == found.also
    assert {(Verdict.FILTERED, Segment.PATH)} == found.rare


def test_of_payloads_alone_half_may_be_lost_unseen() -> None:
    """
    TCP sends them again.
    """
    rule = both_ways(DROP, Loss.RANDOM)._replace(state=State.KNOWN)
    found = truths(net({("b", Hook.INPUT): Chain(ACCEPT, (rule,))}))["a -> b bgp:179/ipv4"]

    assert OPEN == found.found
    assert {
        Held(Verdict.OPEN, caveats=(Caveat.RETRIED,)),
        Held(Verdict.DEGRADED, Segment.DESTINATION_INGRESS),
        filtered(Segment.DESTINATION_INGRESS),
    } == found.also


def test_what_the_source_keeps_in_by_half_is_degraded_there() -> None:
    """
    Also of a flow whose arrivals enter below that chain.
    """
    found = truths(net({("a", Hook.OUTPUT): Chain(ACCEPT, (Rule(DROP, "4", loss=Loss.RANDOM),))}))

    assert (Verdict.DEGRADED, Segment.SOURCE_EGRESS) == found["a -> b ipip/ipv4"].found[:2]


def test_a_port_that_leads_to_nothing_is_closed() -> None:
    """
    A datagram comes, whoever is there; behind the redirection filters know the other port.
    """
    chain = Chain(DROP, (KNOWN_PASS, Rule(ACCEPT, "tcp", dports=frozenset({9})), Rule(ACCEPT, "udp")))
    of = net(
        {("b", Hook.INPUT): chain},
        redirects=(Redirect("b", "tcp", 179, 9), Redirect("b", "udp", 8472, 9)),
    )
    found = truths(of)

    assert Held(Verdict.CLOSED, caveats=(Caveat.PORT_IN_USE,)) == bgp(of)
    assert Held(Verdict.OPEN, caveats=(Caveat.PORT_IN_USE,)) == found["a -> b flannel:8472/ipv4"].found
    assert OPEN == found["a -> c bgp:179/ipv4"].found


def test_a_service_is_asked_for_no_session() -> None:
    """
    So nobody hears what a firewall does with one.
    """
    rules = (both_ways(ACCEPT)._replace(state=State.NEW),)
    chains = {("b", Hook.INPUT): Chain(DROP, rules)}
    service = Service("b", "tcp", 179, Family.IPV4, is_anywhere=True)

    assert filtered(Segment.DESTINATION_INGRESS) == bgp(net(chains))
    assert Held(Verdict.OPEN, caveats=(Caveat.PORT_IN_USE,)) == bgp(net(chains, services=(service,)))


def test_who_speaks_behind_a_translated_address_speaks_from_it() -> None:
    """
    Be it that of the way out, or another one of the router's.
    """
    answers = Chain(ACCEPT, (Rule(Reject.PORT, "tcp", sports=FROM_BGP),))
    hidden = (Rule(Action.MASQUERADE, "tcp", dports=BGP, dst="b"),)
    chains = {("a", Hook.INPUT): answers}
    nat = (Caveat.NAT,)
    at_router = net({(ROUTER, Hook.FORWARD): answers}, masquerade=hidden, snat_to="a")

    assert Held(Verdict.REJECTED, Segment.SOURCE_INGRESS, ROUTER_AT_B, nat) == bgp(
        net(chains, masquerade=hidden)
    )
    assert Held(Verdict.REJECTED, Segment.SOURCE_INGRESS, ROUTER_AT_A, nat) == bgp(
        net(chains, masquerade=hidden, snat_to="a")
    )
    assert Held(Verdict.REJECTED, Segment.RETURN_PATH, ROUTER_AT_A, nat) == bgp(at_router)


def test_the_generator_makes_networks_that_a_lab_can_build() -> None:
    """
    Names, placeholders, chains and routes are right; the same seed is the same network.
    """
    for seed in range(1, 201):
        description = network(seed).description()

        assert description == network(seed).description()
        assert 4 <= len(description.hosts) <= 6
        assert {ROUTER, *description.roles} == set(blueprint(description).changes)


def test_the_generator_knows_all_there_is() -> None:
    """
    Every hook, every state, every way to refuse, every wrong route.
    """
    nets = [network(seed) for seed in range(1, 201)]
    chains = [chain for each in nets for theirs in each.chains.values() for chain in theirs]
    rules = [rule for chain in chains for rule in chain.rules]

    assert set(Hook) == {hook for each in nets for _on, hook in each.chains}
    assert {State.NEW, State.KNOWN, State.INVALID, None} == {rule.state for rule in rules}
    assert {ACCEPT, DROP, *Reject} == {rule.does for rule in rules}
    assert {"unreachable", "prohibit", "blackhole"} == {route.type for each in nets for route in each.routes}
    assert any(each.masquerade for each in nets)
    assert any(each.handovers for each in nets)
    assert any(each.untracked for each in nets)
    assert {None, *Loss} == {rule.loss for rule in rules}
    assert any(chain.table for chain in chains)
    assert any(each.snat_to for each in nets)
    assert any(each.redirects for each in nets)
    assert {("tcp", True), ("tcp", False), ("udp", True), ("udp", False)} == {
        (service.protocol, service.is_anywhere) for each in nets for service in each.services
    }
