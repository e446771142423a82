"""From what was seen of a flow at every TTL to the hop at which it is lost, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe import hops
from netprobe.attempts import HOPS, HOPS_AGAIN, MAX_HOPS
from netprobe.model import (
    Caveat,
    Cell,
    Evidence,
    Family,
    Flow,
    Hop,
    Judgement,
    Protocol,
    Refusal,
    Reply,
    Trace,
    Verdict,
    Word,
)
from netprobe.observations import INTERFACE, LEFT, SOCKET, Observations
from netprobe.template import ATTEMPT_BITS, Kind

A, B = "10.0.0.1", "10.0.9.2"
R1, R2, R3, R4 = "10.0.1.1", "10.0.2.1", "10.0.3.1", "10.0.4.1"
VXLAN: Final = Flow(0, "vxlan", Family.IPV4, Protocol.UDP, 4789, "a", A, "b", B)
BGP: Final = Flow(1, "bgp", Family.IPV4, Protocol.TCP, 179, "a", A, "b", B)
IPIP: Final = Flow(2, "ipip", Family.IPV4, Protocol.IPIP, None, "a", A, "b", B)
FLOWS: Final = (VXLAN, BGP, IPIP)

EXCEEDED: Final = "ICMP 11/0 time to live exceeded"
PROHIBITED: Final = "ICMP 3/13 communication administratively prohibited"
ARRIVES, PASSES, RESET, ANSWERED = "arrives", "passes", "reset", "answered"
"""What can become of a packet, beside what routers say of it: `x` and an address, or `no` and an address."""


def seen_of(flow: Flow, fates: Mapping[int, str], *, tries: int = 1, left: bool = True) -> Observations:
    """What was seen of a flow, by TTL."""
    seen = Observations(FLOWS)
    number = flow.number
    for ttl in range(1, MAX_HOPS + 1):
        seen.sent[number] |= hops.attempts(ttl) & (HOPS.mask if tries == 1 else -1)
    if left:
        seen.saw("a", LEFT, Kind.PROBE, [(number, seen.sent[number])])
    for ttl, fate in fates.items():
        mask = hops.attempts(ttl) & seen.sent[number]
        what, _, by = fate.partition(" ")
        if what == "x":
            seen.heard("a", number, mask, Refusal(Word.UNREACHABLE, by, EXCEEDED))
        elif what == "no":
            seen.heard("a", number, mask, Refusal(Word.PROHIBITED, by, PROHIBITED))
        elif what in (ARRIVES, PASSES):
            points = (INTERFACE, SOCKET) if what == PASSES else (INTERFACE,)
            for point in points:
                seen.saw("b", point, Kind.PROBE, [(number, mask)])
        elif fate:
            seen.saw("a", INTERFACE, Kind.RST if what == RESET else Kind.ACCEPT, [(number, mask)])
    return seen


def traced(flow: Flow, *fates: str, asked: int = 8, unsure: tuple[int, ...] = (), left: bool = True) -> Trace:
    """The trace of a flow whose packets with TTL 1, 2, … met these fates."""
    seen = seen_of(flow, dict(enumerate(fates, 1)), left=left)
    return hops.trace(seen, flow, asked, unsure)


WHOLE: Final = traced(BGP, f"x {R1}", f"x {R2}", f"x {R3}", *[PASSES] * 5)


def said(lost: Trace, other: Trace | None = WHOLE) -> str:
    """The sentence."""
    return hops.in_one_line(lost if other is None else hops.beside(lost, other), {})


def test_every_attempt_of_a_trace_has_one_ttl() -> None:
    """One of the first question and one of later ones; together they are all that a tag can number."""
    masks = [hops.attempts(ttl) for ttl in range(1, MAX_HOPS + 1)]

    assert [2] * MAX_HOPS == [mask.bit_count() for mask in masks]
    assert (1 << (1 << ATTEMPT_BITS)) - 1 == sum(masks) == HOPS.mask | HOPS_AGAIN.mask


def test_a_packet_that_a_router_let_expire_was_there() -> None:
    """The destination's tap says so of itself, and behind it there is nothing."""
    assert (
        Hop(ttl=1, reply=Reply.EXCEEDED, by=R1, said=EXCEEDED),
        Hop(ttl=2, reply=Reply.EXCEEDED, by=R2, said=EXCEEDED),
        Hop(ttl=3, reply=Reply.EXCEEDED, by=R3, said=EXCEEDED),
        Hop(ttl=4, reply=Reply.ARRIVED, by=B),
    ) == WHOLE.hops
    assert (4, B, 4, True) == (WHOLE.last_ttl, WHOLE.last_by, WHOLE.arrived_ttl, WHOLE.passed)


ONE, TWO, THREE = (f"last seen at {by} (hop {ttl})" for ttl, by in enumerate((R1, R2, R3), 1))
IS: Final = ", where bgp tcp/179 is"
MUTE: Final = ", unless that one never speaks of UDP"
"""Beside a TCP probe."""
NOT_AT_3: Final = f", not at hop 3 ({R3}){IS}{MUTE}"
ANOTHER_WAY: Final = ", not seen any further; bgp tcp/179, which is open there, takes another way"


@pytest.mark.parametrize(
    ("fates", "sentence"),
    [
        ([f"x {R1}", f"x {R2}"], TWO + NOT_AT_3),
        ([f"x {R1}", f"x {R2}", f"x {R3}"], f"{THREE}, not at b (hop 4){IS}"),
        ([], f"left a, not at hop 1 ({R1}){IS}{MUTE}"),
        (["", f"x {R2}"], TWO + NOT_AT_3),
        ([f"x {R4}", f"x {R2}"], TWO + NOT_AT_3),
        ([f"x {R1}", f"x {R4}"], f"last seen at {R4} (hop 2){ANOTHER_WAY}"),
        ([f"x {R1}", f"x {R2}", f"x {R2}"], f"last seen at {R2} (hop 3){ANOTHER_WAY}"),
        ([f"x {R1}", f"x {R2}", f"no {R2}", f"no {R2}"], f"{TWO}; refused by {R2}: {PROHIBITED}"),
        ([f"x {R1}", f"no {R2}"], f"{ONE}; refused by {R2}: {PROHIBITED}"),
        ([f"x {R1}", f"x {R2}", ARRIVES], "comes to b's interface (hop 3), and no further"),
        ([f"x {R1}", f"x {R2}", "", PASSES], "comes through to b (hop 4)"),
        ([f"x {R1}", *[f"x {R2}", f"x {R3}"] * 2], f"goes round in circles: {R2} is at hops 2, 4"),
    ],
    ids=lambda each: "-".join(each).replace(" ", "") if isinstance(each, list) else "",
)
def test_the_sentence_says_what_was_seen_and_no_more(fates: list[str], sentence: str) -> None:
    """Beside a probe that comes to b by three routers."""
    assert sentence == said(traced(VXLAN, *fates))


@pytest.mark.parametrize(
    ("fates", "words"),
    [
        ([f"x {R1}", RESET], "TCP reset in the destination's name (TTL 0 on arrival)"),
        ([f"x {R1}", "", ANSWERED], "somebody at hop 3 or before it answers in b's name"),
    ],
)
def test_who_answers_for_the_destination_is_behind_the_last_hop(fates: list[str], words: str) -> None:
    """A reset and a SYN-ACK do not say who sent them."""
    assert f"{ONE}; {words}" == said(traced(BGP, *fates), None)


def test_silence_that_may_be_rationed_is_no_evidence_but_the_destinations_tap_is() -> None:
    """It never runs out of words."""
    lost = traced(VXLAN, f"x {R1}", unsure=(2, 3))

    assert (
        f"last seen at {R1} (hop 1), not at b (hop 4), where bgp tcp/179 is; no word from hops 2 to 3"
        == said(lost)
    )
    assert [False, True, True, False] == [each.is_unsure for each in hops.beside(lost, WHOLE).hops]


def test_hops_that_never_speak_prove_nothing() -> None:
    """Neither where both are silent, nor where nobody speaks at all."""
    beside_a_silent_one = traced(BGP, f"x {R1}", "", f"x {R3}", *[PASSES] * 5)
    unheard = traced(BGP, "", "", "", *[PASSES] * 5)

    assert f"{ONE}{NOT_AT_3}; no word from hop 2" == said(traced(VXLAN, f"x {R1}"), beside_a_silent_one)
    assert "left a, not at b (hop 4 or before), where bgp tcp/179 is; no word from hops 1 to 3" == said(
        traced(VXLAN), unheard
    )


CHAINED: Final = [f"x {R1}", f"x {R2}", f"x {R1}", f"x {R3}", f"x {R1}"]
"""By way of two firewalls beside the first router."""
TWICE: Final = [f"x {R1}", f"x {R2}"] * 2
"""Twice by way of one."""


@pytest.mark.parametrize(
    ("fates", "other", "sentence"),
    [
        (CHAINED[:4], [*CHAINED, *[PASSES] * 3], f"last seen at {R3} (hop 4), not at hop 5 ({R1}){IS}{MUTE}"),
        (CHAINED, [*CHAINED, *[PASSES] * 3], f"last seen at {R1} (hop 5), not at b (hop 6){IS}"),
        (CHAINED[:3], None, f"last seen at {R1} (hop 3), not seen any further"),
        (CHAINED[:4], None, f"last seen at {R3} (hop 4), not seen any further"),
        (CHAINED, None, f"last seen at {R1} (hop 5), not seen any further"),
        (TWICE, [*TWICE, *[PASSES] * 4], f"last seen at {R2} (hop 4), not at b (hop 5){IS}"),
        (TWICE, [*TWICE[:3], "", *[PASSES] * 4], f"last seen at {R2} (hop 4), not at b (hop 5){IS}"),
        ([*TWICE, f"no {R4}"], None, f"last seen at {R2} (hop 4); refused by {R4}: {PROHIBITED}"),
        ([f"x {R1}", *[f"x {R2}"] * 4], None, f"last seen at {R2} (hop 5), not seen any further"),
        ([f"x {R1}", f"x {R2}", *[f"x {R3}"] * 2], None, f"last seen at {R3} (hop 4), not seen any further"),
    ],
)
def test_a_way_that_returns_to_a_router_is_no_circle(
    fates: list[str], other: list[str] | None, sentence: str
) -> None:
    """Neither where what arrives does the same, nor where it goes on elsewhere, nor where someone refuses."""
    assert said(traced(VXLAN, *fates), None if other is None else traced(BGP, *other)).startswith(sentence)


@pytest.mark.parametrize(
    ("fates", "circle"),
    [
        (TWICE, f"{R1} is at hops 1, 3"),
        ([f"x {R3}", *TWICE * 2], f"{R1} is at hops 2, 4, 6, 8"),
        ([f"x {R3}", f"x {R1}", "", f"x {R1}", "", f"x {R1}"], f"{R1} is at hops 2, 4, 6"),
        ([f"x {R1}", f"x {R2}", f"x {R2}"] * 2, f"{R1} is at hops 1, 4"),
        (CHAINED[:4] * 2, f"{R1} is at hops 1, 5"),
    ],
)
def test_what_is_seen_again_and_again_to_the_end_is_a_circle(fates: list[str], circle: str) -> None:
    """As a whole twice, or one of its routers three times; also beside a flow that arrives."""
    lost = traced(VXLAN, *fates)

    assert f"goes round in circles: {circle}" == said(lost, None) == said(lost)


def test_a_circle_is_one_beside_a_flow_that_leaves_it() -> None:
    """Which comes by the same hops for a while, twice to the same router, and has arrived before."""
    lost, other = traced(VXLAN, *CHAINED[:4] * 2), traced(BGP, *CHAINED, *[PASSES] * 3)

    assert f"goes round in circles: {R1} is at hops 1, 5" == said(lost, other)


def test_a_flow_that_goes_on_where_the_other_one_has_arrived_takes_another_way() -> None:
    """A router beyond the other's last hop, or at it: then the other one says nothing of this one."""
    short = traced(BGP, f"x {R1}", *[PASSES] * 7)

    assert f"last seen at {R2} (hop 2){ANOTHER_WAY}" == said(traced(VXLAN, f"x {R1}", f"x {R2}"), short)
    assert f"last seen at {R3} (hop 3){ANOTHER_WAY}" == said(traced(VXLAN, f"x {R1}", "", f"x {R3}"), short)


@pytest.mark.parametrize(
    ("fates", "other", "hop"),
    [
        ([f"x {R1}", f"x {R2}", "", ARRIVES], [f"x {R1}", f"x {R2}", PASSES], "hop 3"),
        ([f"x {R1}", f"x {R2}", "", "", ARRIVES], [f"x {R1}", f"x {R2}", "", PASSES], "hop 4 or before"),
        ([f"x {R1}", f"x {R2}", "", ARRIVES], [f"x {R1}", f"x {R2}", f"x {R3}", PASSES], "hop 4"),
        ([f"x {R1}", f"x {R2}", "", ARRIVES], None, "hop 4 or before"),
        ([f"x {R1}", f"x {R2}", ARRIVES], [f"x {R1}", f"x {R2}", "", PASSES], "hop 3"),
        ([f"x {R1}", f"x {R2}", f"x {R3}", ARRIVES], [f"x {R1}", f"x {R2}", PASSES], "hop 4"),
        ([f"x {R1}", f"x {R4}", "", ARRIVES], [f"x {R1}", f"x {R2}", PASSES], "hop 4 or before"),
        (["", ARRIVES], [""] * 3, "hop 2 or before"),
        ([ARRIVES], None, "hop 1"),
    ],
)
def test_a_packet_that_is_lost_at_times_moves_no_destination_away(
    fates: list[str], other: list[str] | None, hop: str
) -> None:
    """Which may be at a hop before, if that is silent; another flow by the same way may know better."""
    through = [PASSES if each == ARRIVES else each for each in fates]

    assert f"comes to b's interface ({hop}), and no further" == said(
        traced(VXLAN, *fates), None if other is None else traced(BGP, *other)
    )
    assert f"comes through to b ({hop})" == said(
        traced(VXLAN, *through), None if other is None else traced(BGP, *other)
    )


def test_where_the_other_flow_is_lost_at_times_its_end_may_be_nearer() -> None:
    """Unless the one that is lost was seen just before it."""
    other = traced(BGP, f"x {R1}", f"x {R2}", "", PASSES)

    assert f"{TWO}, not at b (hop 4 or before){IS}; no word from hop 3" == said(
        traced(VXLAN, f"x {R1}", f"x {R2}"), other
    )
    assert f"{THREE}, not at b (hop 4){IS}" == said(traced(VXLAN, f"x {R1}", f"x {R2}", f"x {R3}"), other)


def test_without_a_comparison_it_is_said_that_there_is_none() -> None:
    """None that is open, one that could not be traced, one that is lost by now as well."""
    lost = traced(VXLAN, f"x {R1}")
    start = f"{ONE}, not seen any further; "

    assert start + "no other probe is open there to compare with" == said(lost, None)
    assert start + "bgp tcp/179, which is open there, could not be traced: b: gone" == said(
        lost, Trace(flow=BGP, error="b: gone")
    )
    assert start + "nor was bgp tcp/179, which is open there" == said(lost, traced(BGP, f"x {R1}"))


def test_a_packet_that_never_left_was_lost_before_the_first_hop() -> None:
    """With the kernel's reason, if it gave one."""
    seen = seen_of(VXLAN, {}, left=False)
    kept_in = hops.trace(seen, VXLAN, 8)
    seen.failed("a", "EPERM", [(VXLAN.number, HOPS.mask)])

    assert "never left a" == said(kept_in)
    assert "never left a: the source's own firewall dropped it (EPERM)" == said(hops.trace(seen, VXLAN, 8))


def test_a_host_that_cannot_send_is_not_traced() -> None:
    """For a reason that says nothing of the network."""
    seen = seen_of(VXLAN, {}, left=False)
    seen.failed("a", "ENOBUFS", [(VXLAN.number, HOPS.mask)])

    assert "not traced: a could not send: ENOBUFS" == said(hops.trace(seen, VXLAN, 8))


def test_the_time_is_that_of_a_packet_whose_answer_can_be_told_from_others() -> None:
    """The shortest; of a tag that was sent twice nobody knows which packet is answered."""
    seen = seen_of(VXLAN, {})
    seen.depart("a", [(0, 1000), (1, 2000), (1, 9000), (2, 3000)])
    for attempt, by in ((0, R1), (1, R2), (2, R3)):
        seen.heard("a", VXLAN.number, 1 << attempt, Refusal(Word.UNREACHABLE, by, EXCEEDED), 10_250)

    assert [9.25, None, 7.25] == [hops.hop(seen, VXLAN, ttl).rtt_ms for ttl in (1, 2, 3)]


def test_a_hop_that_spoke_about_either_packet_has_spoken() -> None:
    """About the first one or about that of a later question."""
    for again in (0, 1):
        seen = Observations(FLOWS)
        seen.sent[VXLAN.number] = HOPS.mask | HOPS_AGAIN.mask
        mask = 1 << (HOPS_AGAIN.first if again else HOPS.first) + 1
        seen.heard("a", VXLAN.number, mask, Refusal(Word.UNREACHABLE, R2, EXCEEDED))

        assert [Reply.NONE, Reply.EXCEEDED, Reply.NONE] == [
            hops.hop(seen, VXLAN, ttl).reply for ttl in (1, 2, 3)
        ]


def cell(flow: Flow, verdict: Verdict = Verdict.OPEN, *caveats: Caveat) -> Cell:
    """A cell."""
    judgement = Judgement(verdict=verdict, caveats=caveats)
    return Cell(flow=flow, judgement=judgement, evidence=Evidence(protocol=flow.protocol), sent=8, arrived=8)


def test_the_comparison_is_open_on_the_same_pair_and_of_the_same_protocol_if_there_is_one() -> None:
    """Else of any other; one without a caveat first."""
    flannel = msgspec.structs.replace(VXLAN, number=7, probe="flannel", port=8472)
    back = msgspec.structs.replace(flannel, src="b", dst="a")
    six = msgspec.structs.replace(flannel, family=Family.IPV6)
    lost = cell(VXLAN, Verdict.FILTERED)

    assert flannel == hops.reference(VXLAN, [lost, cell(BGP), cell(flannel)])
    assert BGP == hops.reference(VXLAN, [lost, cell(IPIP, Verdict.OPEN, Caveat.STATE_ASSISTED), cell(BGP)])
    assert None is hops.reference(VXLAN, [lost, cell(back), cell(six), cell(BGP, Verdict.CLOSED)])


def test_probes_are_called_as_in_reports() -> None:
    """With their ports, where they have any."""
    assert ["vxlan udp/4789", "bgp tcp/179", "ipip (protocol 4)"] == [hops.label(flow) for flow in FLOWS]


ROUTERS: Final = st.sampled_from([R1, R2, R3, R4])
FATES: Final = st.one_of(
    st.just(""),
    st.sampled_from([ARRIVES, PASSES, RESET, ANSWERED]),
    ROUTERS.map(lambda by: f"x {by}"),
    ROUTERS.map(lambda by: f"no {by}"),
)


@given(st.lists(FATES, max_size=8), st.lists(FATES, max_size=8), st.sets(st.integers(1, 8)), st.booleans())
def test_whatever_is_seen_no_more_is_claimed(
    lost: list[str], other: list[str], unsure: set[int], is_tcp: bool
) -> None:
    """
    A hop that is said not to see a flow saw the other one, is behind all that saw it, and was asked in vain.
    """
    flow, reference = (BGP, VXLAN) if is_tcp else (VXLAN, BGP)
    theirs = traced(reference, *other)
    found = hops.beside(traced(flow, *lost, unsure=tuple(unsure)), theirs)
    sentence = hops.in_one_line(found, {})

    assert [*range(1, len(found.hops) + 1)] == [each.ttl for each in found.hops]
    assert {Reply.NONE} >= {each.reply for each in found.hops if each.is_unsure}
    assert ("not at" in sentence) <= (found.lost_ttl is not None)
    if found.lost_ttl is not None:
        there = theirs.hops[found.lost_ttl - 1]
        here = found.hops[found.lost_ttl - 1]

        assert found.lost_ttl > found.last_ttl
        assert there.reply in hops.SAW
        assert here.reply is Reply.NONE
        assert there.reply is Reply.ARRIVED or not here.is_unsure
        assert not {Reply.ARRIVED, Reply.REFUSED, Reply.ANSWERED} & {each.reply for each in found.hops}
    if found.last_ttl:
        assert found.hops[found.last_ttl - 1].by == found.last_by
