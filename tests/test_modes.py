"""What each mode needs, and what a run means for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.gaps import Gap
from netprobe.model import Family, Flow, Host, Inventory, Role, Run, Segment, Verdict, severity
from netprobe.modes import MODES, ModeResult, When, evaluate, exit_status, required_flows
from netprobe.probes import registry
from tests.golden.made_up import Fault, Outcome, hosts, is_, lost, run, untested, where

CLOSED = Outcome(verdict=Verdict.CLOSED)
FILTERED = lost(Segment.PATH)
UNTESTED = untested("no agent")


def inventory(names: str = "abc", subnets: int = 1, *, dual: bool = False, **more: object) -> Inventory:
    """Hosts that are called by one letter each."""
    return msgspec.structs.replace(Inventory(hosts=hosts(list(names), subnets, dual=dual)), **more)


def result(some_run: Run, mode: str) -> ModeResult:
    """The result of one mode."""
    return next(each for each in evaluate(some_run) if each.mode.name == mode)


def port(number: int, outcome: Outcome, src: str | None = None) -> Fault:
    """One outcome for the API server's flows to a port."""
    matches = is_(probe="apiserver", src=src)
    return lambda flow: outcome if flow.port == number and matches(flow) else None


def test_the_modes_need_what_the_requirements_page_says() -> None:
    """Every row of the page is in a mode, and each mode needs its rows; without encapsulation also pods'."""
    marks = {When.ALWAYS: "", When.DIFFERENT_SUBNETS: " between", When.SAME_SUBNET: " inside"}
    needs = {
        name: {f"{need.probe}{'?' * need.optional}{marks[need.when]}" for need in mode.needs}
        for name, mode in MODES.items()
    }

    assert {
        "none": {"bgp", "pod-route?"},
        "ipip": {"bgp", "ipip"},
        "ipip-crosssubnet": {"bgp", "ipip between", "pod-route? inside"},
        "vxlan": {"vxlan"},
        "vxlan-crosssubnet": {"vxlan between", "pod-route? inside"},
        "wireguard": {"wireguard", "wireguard-v6"},
        "flannel": {"flannel"},
        "typha": {"typha"},
        "datastore-kubernetes": {"apiserver"},
        "datastore-etcd": {"etcd"},
    } == needs


def test_every_probe_is_needed_by_some_mode() -> None:
    """A probe that no mode needs would be sent for nothing."""
    assert set(registry()) == {need.probe for mode in MODES.values() for need in mode.needs}


def test_a_square_has_the_worst_verdict_of_the_flows_behind_it() -> None:
    """One lost packet type is enough to make a pair of hosts unusable for the mode."""
    matrix = result(run(inventory(), [where(is_(probe="ipip", src="a", dst="b"), FILTERED)]), "ipip").matrix

    assert Verdict.FILTERED is matrix.verdict("a", "b")
    assert [Verdict.OPEN, Verdict.FILTERED] == [flow.verdict for flow in matrix.squares["a", "b"].flows]
    assert Verdict.OPEN is matrix.verdict("b", "a")


def test_a_square_covers_all_families() -> None:
    """What is lost over IPv6 alone makes the square as bad as what is lost over IPv4."""
    fault: Fault = lambda flow: FILTERED if flow.probe == "bgp" and ":" in flow.dst_address else None  # noqa: E731
    matrix = result(run(inventory(dual=True), [fault]), "none").matrix

    assert Verdict.FILTERED is matrix.verdict("a", "b")


def test_a_host_with_itself_has_no_square() -> None:
    """No host probes itself."""
    matrix = result(run(inventory()), "none").matrix

    assert matrix.verdict("a", "a") is None
    assert ("a", "b", "c") == matrix.sources == matrix.destinations


def test_a_control_plane_matrix_has_its_servers_as_destinations() -> None:
    """Rows are all nodes, columns are the hosts with the role."""
    matrix = result(run(inventory("abcde")), "typha").matrix

    assert tuple("abcde") == matrix.sources
    assert tuple("abc") == matrix.destinations


def test_inside_a_subnet_ipip_crosssubnet_needs_bgp_only() -> None:
    """IP-in-IP that is lost inside a subnet does no harm there, and between subnets it does."""
    hosts_in_two = inventory("abcd", 2)  # a and c, b and d
    inside = run(hosts_in_two, [where(is_(probe="ipip", src="a", dst="c"), FILTERED)])
    between = run(hosts_in_two, [where(is_(probe="ipip", src="a", dst="b"), FILTERED)])

    assert result(inside, "ipip-crosssubnet").usable
    assert not result(inside, "ipip").usable
    assert not result(between, "ipip-crosssubnet").usable


def test_inside_a_subnet_vxlan_crosssubnet_needs_nothing() -> None:
    """In one subnet the mode is usable with no flow at all, and its matrix is empty."""
    one = result(run(inventory(), [where(is_(probe="vxlan"), FILTERED)]), "vxlan-crosssubnet")

    assert (True, 0) == (one.usable, one.required)
    assert one.matrix.verdict("a", "b") is None
    assert ("a", "b", "c") == one.matrix.sources


@pytest.mark.parametrize(
    ("networks", "why"),
    [
        ((), "an agent that said nothing"),
        (("nonsense", "10.0.0.10"), "an agent that said nonsense, or no prefix length"),
        (("10.0.0.99/24",), "a network of another address, as behind NAT"),
        (("10.0.0.10/32",), "a prefix that holds the host alone, while the other's holds both"),
    ],
)
def test_hosts_whose_network_is_not_known_count_as_in_different_subnets(
    networks: tuple[str, ...], why: str
) -> None:
    """The stricter need applies unless both hosts say that they share a subnet."""
    whole = run(inventory("ab"))
    first, second = whole.hosts
    partly = msgspec.structs.replace(whole, hosts=(msgspec.structs.replace(first, networks=networks), second))

    assert result(partly, "vxlan-crosssubnet").required == 2, why


def test_subnets_are_told_apart_by_family() -> None:
    """Two hosts may share their IPv4 subnet and not their IPv6 one."""
    whole = run(inventory("ab", dual=True), prefix=(24, 128))

    assert 2 == result(whole, "vxlan-crosssubnet").required


RANGE: Final = ("10.244.0.0/16",)
POD_LOST: Final = where(is_(probe="pod-route", src="a", dst="c"), FILTERED)


def test_without_a_range_of_pods_the_modes_are_judged_without_them_and_say_so() -> None:
    """No flow of theirs is required, none is a gap, and the exit status is that of the rest."""
    some_run = run(inventory("abcd", 2))

    for mode in ("none", "ipip-crosssubnet", "vxlan-crosssubnet"):
        one = result(some_run, mode)
        assert (True, 0, ("pod-route",), ()) == (one.usable, one.not_probed, one.left_out, one.missing)
        assert not one.matrix.gaps
    assert all(each.left_out == () for each in evaluate(some_run) if each.mode.name in ("ipip", "vxlan"))
    assert 0 == exit_status(some_run)


def test_with_a_range_of_pods_no_encapsulation_needs_them_carried_between_all_nodes() -> None:
    """And a network that drops their packets is one in which the mode is not usable."""
    asked = inventory("abcd", 2, pod_cidr=RANGE)

    assert (True, 24, ()) == (
        result(run(asked), "none").usable,
        result(run(asked), "none").required,
        result(run(asked), "none").left_out,
    )
    assert Verdict.FILTERED is result(run(asked, [POD_LOST]), "none").matrix.verdict("a", "c")
    assert 1 == exit_status(run(asked, [POD_LOST]))


@pytest.mark.parametrize(
    ("mode", "required"), [("ipip-crosssubnet", 12 + 8 + 4), ("vxlan-crosssubnet", 8 + 4)]
)
def test_the_crosssubnet_modes_need_packets_of_pods_carried_inside_subnets_only(
    mode: str, required: int
) -> None:
    """Between subnets they are encapsulated: what becomes of bare ones there does no harm."""
    asked = inventory("abcd", 2, pod_cidr=RANGE)  # a and c, b and d
    between = where(is_(probe="pod-route", src="a", dst="b"), FILTERED)

    assert required == result(run(asked), mode).required
    assert not result(run(asked, [POD_LOST]), mode).usable
    assert result(run(asked, [between]), mode).usable
    assert not result(run(asked, [between]), "none").usable


def test_in_one_subnet_vxlan_crosssubnet_is_nothing_but_packets_of_pods() -> None:
    """No flow of VXLAN is required, and every one of a pod."""
    one = result(run(inventory(pod_cidr=RANGE), [where(is_(probe="vxlan"), FILTERED)]), "vxlan-crosssubnet")

    assert (True, 6) == (one.usable, one.required)


def test_packets_of_pods_that_were_left_out_though_there_is_a_range_are_a_gap() -> None:
    """`--only a`: between b and d, in one subnet, nothing is known; between b and c nothing is needed."""
    whole = run(inventory("abcd", 2, pod_cidr=RANGE))
    one = result(
        left(whole, lambda flow: "a" in (flow.src, flow.dst) or flow.probe == "vxlan"), "vxlan-crosssubnet"
    )

    assert (8 + 2, 2) == (one.required, one.not_probed)
    assert Gap.NOT_PROBED is one.matrix.gap("b", "d")
    assert one.matrix.gap("b", "c") is None


def test_a_mode_whose_packets_of_pods_were_left_out_altogether_is_not_judged_unasked() -> None:
    """As IP-in-IP's without its own packets; asked for by name it is not known."""
    bare = run(inventory(pod_cidr=RANGE, probes=("bgp",)))
    named = run(inventory(pod_cidr=RANGE, probes=("bgp",), modes=("none",)))

    assert [] == evaluate(bare)
    assert ("pod-route",) == result(named, "none").missing
    assert 3 == exit_status(named)


def test_what_lacks_flows_inside_subnets_and_what_lacks_those_between_have_not_the_same_gaps() -> None:
    """They are drawn apart."""
    whole = run(inventory("abcd", 2, pod_cidr=RANGE, modes=("vxlan-crosssubnet",)))

    def lacking(probe: str) -> object:
        some_run = left(whole, lambda flow: flow.probe != probe)
        return result(some_run, "vxlan-crosssubnet").matrix.gaps.signature

    assert lacking("pod-route") != lacking("vxlan")


def test_one_open_port_of_the_api_server_is_enough() -> None:
    """443 filtered while 6443 is open is not a blocked flow, and the pair counts once."""
    one = result(run(inventory("ab"), [port(443, FILTERED)]), "datastore-kubernetes")

    assert (True, 2) == (one.usable, one.required)
    assert 2 == len(one.matrix.squares["a", "b"].flows[0].cells)


def test_a_pair_without_an_open_port_of_the_api_server_counts_once() -> None:
    """What counts is the best of what was found."""
    one = result(
        run(inventory("ab"), [port(443, FILTERED, "a"), port(6443, CLOSED, "a")]),
        "datastore-kubernetes",
    )

    assert (2, 1, 0) == (one.required, one.blocked, one.untested)
    assert Verdict.CLOSED is one.matrix.verdict("a", "b")


def test_an_untested_port_may_be_the_open_one() -> None:
    """A pair of which one port could not be tested, and none is open, is not known to be blocked."""
    one = result(
        run(inventory("ab"), [port(443, UNTESTED, "a"), port(6443, CLOSED, "a")]),
        "datastore-kubernetes",
    )

    assert (0, 1) == (one.blocked, one.untested)


def test_every_port_of_the_api_server_counts_when_the_inventory_sets_them() -> None:
    """Whoever names ports wants them all open."""
    asked = inventory("ab", ports={"apiserver": (6443, 443)})
    one = result(run(asked, [port(443, FILTERED)]), "datastore-kubernetes")

    assert (4, 2) == (one.required, one.blocked)


def test_only_modes_whose_probes_ran_are_judged() -> None:
    """With IP-in-IP alone nothing can be said about the mode, which needs BGP too."""
    assert [] == evaluate(run(inventory(probes=("ipip",))))
    assert ["none"] == [each.mode.name for each in evaluate(run(inventory(probes=("bgp",))))]


def test_the_inventory_narrows_the_modes() -> None:
    """Modes that it does not name are not judged."""
    assert ["ipip", "typha"] == [each.mode.name for each in evaluate(run(inventory(modes=("typha", "ipip"))))]


def test_wireguard_is_judged_by_the_families_that_the_hosts_have() -> None:
    """Hosts without IPv6 leave no gap."""
    one = result(run(inventory()), "wireguard")

    assert (True, 6) == (one.usable, one.required)
    assert 12 == result(run(inventory(dual=True)), "wireguard").required


def test_a_mode_that_was_asked_for_and_cannot_be_judged_is_named() -> None:
    """Silence would read as if it were fine."""
    some_run = run(inventory(modes=("ipip", "typha"), probes=("bgp", "typha")))

    assert {"ipip": ("ipip",), "typha": ()} == {each.mode.name: each.missing for each in evaluate(some_run)}


def left(some_run: Run, keep: Callable[[Flow], bool]) -> Run:
    """A run of which options left only some flows."""
    return msgspec.structs.replace(some_run, cells=tuple(cell for cell in some_run.cells if keep(cell.flow)))


def test_a_mode_of_which_some_flows_were_left_out_is_not_usable() -> None:
    """`--only a`: what b and c need between them is not known, and nothing is wrong with the rest."""
    some_run = left(run(inventory()), lambda flow: "a" in (flow.src, flow.dst))
    one = result(some_run, "none")

    assert (False, 4, 2, 6) == (one.usable, one.required, one.not_probed, one.needed)
    assert Gap.NOT_PROBED is one.matrix.gap("b", "c")
    assert (None, None) == (one.matrix.gap("a", "b"), one.matrix.gap("b", "b"))
    assert 0 == exit_status(some_run)


def test_a_family_that_was_left_out_leaves_a_gap_in_the_count_and_none_in_the_matrix() -> None:
    """`--family ipv4`: every pair has its square, of what was probed."""
    some_run = left(run(inventory(dual=True)), lambda flow: flow.family is Family.IPV4)

    for mode in ("none", "ipip", "wireguard"):
        one = result(some_run, mode)
        assert (False, 6) == (one.usable, one.not_probed)
        assert one.matrix.gap("a", "b") is None


def test_a_need_of_which_nothing_was_probed_leaves_a_gap_in_every_square() -> None:
    """Open BGP says nothing about IP-in-IP."""
    asked = inventory(modes=("ipip",), probes=("bgp",))
    one = result(run(asked), "ipip")

    assert (("ipip",), 6, 6) == (one.missing, one.required, one.not_probed)
    assert Gap.NOT_PROBED is one.matrix.gap("a", "b")


@pytest.mark.parametrize(("status", "faults"), [(3, ()), (1, [where(is_(probe="bgp", src="a"), FILTERED)])])
def test_a_mode_that_was_asked_for_and_is_not_known_is_not_fine(status: int, faults: Sequence[Fault]) -> None:
    """3 at least; and what it needs and was probed counts: blocked BGP is 1."""
    assert status == exit_status(run(inventory(modes=("ipip",), probes=("bgp",)), faults))


def mixed(**more: object) -> Inventory:
    """Three hosts with both families, and d without IPv4."""
    dual = hosts(list("abcd"), dual=True)
    return Inventory(
        hosts=(*dual[:3], msgspec.structs.replace(dual[3], addresses=dual[3].addresses[1:])),
        **more,  # type: ignore[arg-type]
    )


def test_a_pair_without_the_family_that_a_mode_needs_is_impossible() -> None:
    """IP-in-IP is IPv4's: to and from a host without it there is none, and the mode is not usable."""
    some_run = run(mixed(modes=("ipip",)))
    one = result(some_run, "ipip")

    assert (False, 6, 0) == (one.usable, one.impossible, one.not_probed)
    assert Gap.IMPOSSIBLE is one.matrix.gap("d", "a") is one.matrix.gap("b", "d")
    assert one.matrix.gap("a", "b") is None
    assert ["ipip needs IPv4 at both ends"] == one.matrix.gaps.obstacles
    assert 1 == exit_status(some_run)


def test_what_needs_one_family_of_several_is_possible_with_any() -> None:
    """BGP and WireGuard take the family that both hosts have."""
    for mode in ("none", "vxlan", "wireguard"):
        assert result(run(mixed()), mode).usable


def test_a_crosssubnet_mode_has_gaps_only_between_subnets() -> None:
    """Inside a subnet it needs nothing, so nothing is missing there."""
    whole = run(inventory("abcd", 2))  # a and c, b and d
    one = result(left(whole, lambda flow: "a" in (flow.src, flow.dst)), "vxlan-crosssubnet")

    assert (4, 4) == (one.required, one.not_probed)
    assert Gap.NOT_PROBED is one.matrix.gap("b", "c")
    assert one.matrix.gap("b", "d") is None
    assert result(whole, "vxlan-crosssubnet").usable


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(Role), min_size=1, max_size=2, unique=True),
            st.sampled_from([("4",), ("6",), ("4", "6")]),
        ),
        min_size=2,
        max_size=5,
    ),
    st.lists(st.sampled_from("abcde"), unique=True),
    st.sampled_from([(), ("10.244.0.0/16",), ("fd00:10:244::/56",), ("10.244.0.0/16", "fd00:10:244::/56")]),
    st.sampled_from([(32, 128), (24, 64), (24, 128)]),
)
def test_gaps_are_counted_as_they_would_be_listed(
    kinds: list[tuple[list[Role], tuple[str, ...]]],
    only: list[str],
    pod_cidr: tuple[str, ...],
    prefix: tuple[int, int],
) -> None:
    """Whatever the hosts' roles and families, and whatever was left out."""
    some = Inventory(
        hosts=tuple(
            Host(
                name="abcde"[number],
                addresses=tuple(
                    f"10.0.0.{number + 1}" if each == "4" else f"fd00::{number + 1}" for each in has
                ),
                roles=tuple(roles),
            )
            for number, (roles, has) in enumerate(kinds)
        ),
        modes=tuple(MODES),
        pod_cidr=pod_cidr,
    )
    whole = run(some, prefix=prefix)
    partly = left(whole, lambda flow: not only or flow.src in only or flow.dst in only)

    for all_of_it, one in zip(evaluate(whole), evaluate(partly), strict=True):
        assert 0 == all_of_it.not_probed
        assert all_of_it.required == one.required + one.not_probed
        assert all_of_it.impossible == one.impossible
        pairs = set(all_of_it.matrix.squares) - set(one.matrix.squares)
        assert all(one.matrix.gap(*pair) for pair in pairs)
        assert set(one.matrix.sources) >= {src for src, _dst in pairs}
        assert set(one.matrix.destinations) >= {dst for _src, dst in pairs}


NOTHING: Sequence[Fault] = ()
BLOCKED = where(is_(probe="bgp", src="a", dst="b"), FILTERED)
UNKNOWN = where(is_(probe="bgp", src="b", dst="a"), UNTESTED)
NO_LISTENER = where(is_(probe="etcd", src="b", dst="a"), CLOSED)


@pytest.mark.parametrize(
    ("status", "faults"),
    [
        (0, NOTHING),
        (1, [BLOCKED]),
        (3, [UNKNOWN]),
        (1, [BLOCKED, UNKNOWN]),
        (1, [NO_LISTENER]),
        (1, [NO_LISTENER, UNKNOWN]),
        (0, [port(443, FILTERED)]),
        (0, [port(443, UNTESTED)]),
        (1, [port(443, FILTERED), port(6443, CLOSED)]),
        (3, [port(443, FILTERED), port(6443, UNTESTED)]),
    ],
)
def test_the_exit_status_is_1_before_3_before_0(status: int, faults: Sequence[Fault]) -> None:
    """Blocked wins over untested, and alternatives count as one flow."""
    assert status == exit_status(run(inventory(), faults))


def test_flows_that_no_judged_mode_needs_do_not_count() -> None:
    """IP-in-IP is lost, and only VXLAN was asked for."""
    fault = where(is_(probe="ipip"), FILTERED)

    assert 1 == exit_status(run(inventory(), [fault]))
    assert 0 == exit_status(run(inventory(modes=("vxlan",)), [fault]))


def test_flows_that_were_asked_for_count_without_a_mode() -> None:
    """A single probe may belong to no mode that can be judged, and it was asked for."""
    fault = where(is_(probe="ipip"), FILTERED)

    assert 1 == exit_status(run(inventory(probes=("ipip",)), [fault]))
    assert 0 == exit_status(run(inventory(probes=("ipip",))))


def test_a_mode_that_needs_less_of_a_probe_than_was_asked_for_decides() -> None:
    """Inside a subnet IP-in-IP is not needed, though its flows were probed by name."""
    asked = inventory(probes=("bgp", "ipip"), modes=("ipip-crosssubnet",))

    assert 0 == exit_status(run(asked, [where(is_(probe="ipip"), FILTERED)]))


def test_a_flow_that_several_modes_need_is_required_once() -> None:
    """BGP belongs to three modes."""
    some_run = run(inventory(probes=("bgp", "ipip")))

    assert [cell.flow.number for cell in some_run.cells] == [
        flow.cells[0].flow.number for flow in required_flows(some_run)
    ]


@given(st.data())
def test_the_counts_of_a_mode_fit_its_matrix_and_the_exit_status(data: st.DataObject) -> None:
    """Whatever the verdicts: each square is the worst of its flows, and no count is lost."""
    drawn = st.sampled_from(Verdict)
    some_run = run(inventory("abc", 2), [lambda _flow: Outcome(verdict=data.draw(drawn))])

    results = evaluate(some_run)

    for each in results:
        flows = [flow for square in each.matrix.squares.values() for flow in square.flows]
        assert each.required == len(flows) == each.counts.get(Verdict.OPEN, 0) + each.blocked + each.untested
        assert each.usable == all(flow.verdict is Verdict.OPEN for flow in flows)
        for square in each.matrix.squares.values():
            assert severity(square.verdict) == max(severity(flow.verdict) for flow in square.flows)
    blocked, unknown = any(each.blocked for each in results), any(each.untested for each in results)
    assert (1 if blocked else 3 if unknown else 0) == exit_status(some_run, results)


def test_a_host_with_no_address_of_a_family_has_no_square_for_it() -> None:
    """Where no flow exists, none is required."""
    mixed = Inventory(
        hosts=(Host(name="four", addresses=("10.0.0.1",)), Host(name="six", addresses=("fd00::1",)))
    )

    assert [] == evaluate(run(mixed))
