"""From what was seen of a flow to its evidence: fates, refusals, and the verdict that follows."""

from __future__ import annotations

import itertools
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.attempts import ARRIVALS_MASK, BURST, FIRST, OUTPUT_MASK, PATTERN
from netprobe.evidence import fates, first_look, refusals, session_fates, unsendable
from netprobe.model import (
    Answer,
    Evidence,
    Family,
    Fate,
    Flow,
    Judgement,
    Protocol,
    Refusal,
    Seen,
    Segment,
    Session,
    Verdict,
    Word,
)
from netprobe.observations import (
    ANSWERED,
    CONNECTED,
    INTERFACE,
    LEFT,
    NOTHING,
    SOCKET,
    Observations,
    SessionResult,
)
from netprobe.template import Kind
from netprobe.verdict import judge

A, B, ROUTER = "10.0.0.1", "10.0.0.2", "192.0.2.1"
TCP: Final = Flow(0, "bgp", Family.IPV4, Protocol.TCP, 179, "a", A, "b", B)
UDP: Final = Flow(1, "vxlan", Family.IPV4, Protocol.UDP, 4789, "a", A, "b", B)
POD: Final = msgspec.structs.replace(UDP, number=2, probe="pod-route", pod_address="10.244.255.254")
FLOWS: Final = (TCP, UDP, POD)

PROBE, ACCEPT, RST, RESET = Kind.PROBE, Kind.ACCEPT, Kind.RST, Kind.RESET
Sighting = tuple[str, str, Kind]

# Where each host sees what, on a way without fault.
GOES: Final[tuple[Sighting, ...]] = (("a", LEFT, PROBE), ("b", INTERFACE, PROBE), ("b", SOCKET, PROBE))
COMES: Final[tuple[Sighting, ...]] = (("b", LEFT, ACCEPT), ("a", INTERFACE, ACCEPT), ("a", SOCKET, ACCEPT))
RESETS: Final[tuple[Sighting, ...]] = (("b", LEFT, RST), ("a", INTERFACE, RST), ("a", SOCKET, RST))
IN_THE_FIRST_ROUND: Final = (SOCKET,)
"""The points that are watched from the beginning; the others are from the first miss on."""


def seen_of(
    flow: Flow,
    *sightings: Sighting,
    attempts: int = BURST.mask,
    errno: str = "",
    quotes: tuple[Refusal, ...] = (),
) -> Observations:
    """All that was seen of a flow: the first round at sockets only, and these attempts at every point."""
    seen = Observations(FLOWS)
    seen.sent[flow.number] = FIRST.mask | attempts
    for host, point, kind in sightings:
        mask = FIRST.mask | attempts if point in IN_THE_FIRST_ROUND else attempts
        seen.saw(host, point, kind, [(flow.number, mask)])
    if errno:
        seen.failed("a", errno, [(flow.number, FIRST.mask | attempts)])
    for refusal in quotes:
        seen.heard("a", flow.number, attempts, refusal)
    return seen


def judgement(flow: Flow, seen: Observations) -> Judgement:
    """What comes of it, put together as at the end of a run."""
    first, missed = first_look(seen, flow, FIRST.mask)
    return judge(
        Evidence(
            protocol=flow.protocol,
            forwarded=flow.forwarded,
            first=first,
            missed=missed,
            confirm=fates(seen, flow, BURST.mask, ARRIVALS_MASK),
            refusals=refusals(seen, flow, ARRIVALS_MASK),
        )
    )


def icmp(word: Word = Word.PROHIBITED, by: str = ROUTER) -> Refusal:
    """An ICMP error that was heard."""
    return Refusal(word, by, "ICMP 3/13 communication administratively prohibited")


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.probe)
def test_a_packet_is_seen_as_far_as_it_came(flow: Flow, steps: int) -> None:
    """
    The furthest point counts, whether or not those before it saw the packet too.
    """
    expected = [Seen.SENT, Seen.LEFT, Seen.AT_INTERFACE, Seen.AT_SOCKET][steps]

    for way in (GOES[:steps], GOES[max(0, steps - 1) : steps]):
        assert ((Fate(expected), 10),) == fates(seen_of(flow, *way), flow, BURST.mask, 0)


def test_a_packet_that_the_kernel_refused_was_not_sent() -> None:
    """
    Unless it was seen all the same: an error may be about what comes after.
    """
    assert ((Fate(Seen.UNSENT), 10),) == fates(seen_of(UDP, errno="EPERM"), UDP, BURST.mask, 0)
    assert ((Fate(Seen.LEFT), 10),) == fates(seen_of(UDP, *GOES[:1], errno="EPERM"), UDP, BURST.mask, 0)


@pytest.mark.parametrize(
    ("answer", "sightings"),
    [
        (Answer.NONE, ()),
        (Answer.ACCEPT_LEFT, COMES[:1]),
        (Answer.ACCEPT_AT_INTERFACE, COMES[:2]),
        (Answer.ACCEPT_AT_INTERFACE, COMES[1:2]),
        (Answer.ACCEPT, COMES),
        (Answer.ACCEPT, COMES[2:]),
        (Answer.RST_LEFT, RESETS[:1]),
        (Answer.RST_AT_INTERFACE, RESETS[:2]),
        (Answer.RST_AT_INTERFACE, RESETS[1:2]),
        (Answer.RST, RESETS),
        (Answer.RST, RESETS[2:]),
        (Answer.RST_INSTEAD, (*COMES[:1], *RESETS[1:])),
        (Answer.RST_INSTEAD, (*COMES[:1], *RESETS[1:2])),
        # The destination accepted and then refused (a late RST): its own word, not somebody else's.
        (Answer.RST, (*COMES[:1], *RESETS)),
        # A RST that follows an accepted connection takes nothing back.
        (Answer.ACCEPT, (*COMES, *RESETS[1:])),
    ],
)
def test_an_answer_is_what_came_back_furthest(answer: Answer, sightings: tuple[Sighting, ...]) -> None:
    """
    Whatever was seen of the probe itself.
    """
    for steps in range(len(GOES) + 1):
        ((fate, count),) = fates(seen_of(TCP, *GOES[:steps], *sightings), TCP, BURST.mask, 0)

        assert (answer, 10) == (fate.answer, count)


def test_every_answer_there_is_has_a_case_above() -> None:
    """
    The eight of them, each out of what was seen at three points of two kinds of packets.
    """
    found = set()
    for sightings in itertools.product((0, 1), repeat=6):
        chosen = itertools.compress((*COMES, *RESETS), sightings)
        ((fate, _count),) = fates(seen_of(TCP, *chosen), TCP, BURST.mask, 0)
        found.add(fate.answer)

    assert set(Answer) == found


def test_nobody_answers_a_datagram() -> None:
    """
    Sightings of another flow's kind of answers are no business of it.
    """
    assert ((Fate(Seen.SENT), 10),) == fates(seen_of(UDP, *COMES, *RESETS), UDP, BURST.mask, 0)


def test_fates_are_counted_by_attempt() -> None:
    """
    A histogram of what became of each, and of no attempt that was not made or not asked about.
    """
    seen = seen_of(UDP)
    number = UDP.number
    seen.saw("a", LEFT, PROBE, [(number, BURST.mask)])
    seen.saw("b", INTERFACE, PROBE, [(number, 0b11 << BURST.first)])
    seen.saw("b", SOCKET, PROBE, [(number, 0b1 << BURST.first | FIRST.mask)])

    assert {Fate(Seen.AT_SOCKET): 1, Fate(Seen.AT_INTERFACE): 1, Fate(Seen.LEFT): 8} == dict(
        fates(seen, UDP, BURST.mask | OUTPUT_MASK, 0)
    )
    assert () == fates(seen, UDP, OUTPUT_MASK, 0)
    assert () == fates(seen, TCP, BURST.mask, 0)


@given(
    made=st.integers(0, (1 << 57) - 1), masks=st.lists(st.integers(0, (1 << 57) - 1), min_size=9, max_size=9)
)
def test_each_attempt_that_was_made_has_one_fate(made: int, masks: list[int]) -> None:
    """
    Whatever was seen of it where, and of attempts that were never made.
    """
    seen = Observations(FLOWS)
    seen.sent[TCP.number] = made
    for (host, point, kind), mask in zip((*GOES, *COMES, *RESETS), masks, strict=True):
        seen.saw(host, point, kind, [(TCP.number, mask)])
    found = fates(seen, TCP, ARRIVALS_MASK, ARRIVALS_MASK)
    passed = sum(
        count for fate, count in found if (fate.seen, fate.answer) == (Seen.AT_SOCKET, Answer.ACCEPT)
    )

    assert (made & ARRIVALS_MASK).bit_count() == sum(count for _fate, count in found)
    assert len(found) == len(dict(found))
    assert seen.passed(TCP, made & ARRIVALS_MASK).bit_count() == passed


def test_a_refusal_is_the_word_about_all_that_was_lost() -> None:
    """
    Errors are rationed: one that was heard once is not unsaid by later silence.
    """
    seen = seen_of(UDP, *GOES[:1])
    seen.heard("a", UDP.number, 1, icmp())

    assert ((Fate(Seen.LEFT, word=Word.PROHIBITED), 10),) == fates(seen, UDP, BURST.mask, FIRST.mask)
    assert ((Fate(Seen.LEFT), 10),) == fates(seen, UDP, BURST.mask, BURST.mask)


def test_who_prohibits_outweighs_who_has_no_way() -> None:
    """
    A firewall on the way is the cause; a router that has no way may only be the next one.
    """
    seen = seen_of(UDP, quotes=(icmp(Word.UNREACHABLE, B), icmp(Word.PROHIBITED)))

    ((fate, _count),) = fates(seen, UDP, BURST.mask, BURST.mask)

    assert Word.PROHIBITED is fate.word


def test_the_first_look_has_what_got_through_and_counts_the_rest() -> None:
    """
    Only sockets are watched then: where the rest was lost is for the confirmation to find out.
    """
    seen = seen_of(TCP, *GOES, *COMES[:2])
    seen.saw("a", SOCKET, ACCEPT, [(TCP.number, 0b111)])

    assert (((Fate(Seen.AT_SOCKET, Answer.ACCEPT), 3),), 5) == first_look(seen, TCP, FIRST.mask)
    assert ((), 5) == first_look(seen, TCP, FIRST.mask & ~0b111)
    assert ((), 0) == first_look(seen, UDP, FIRST.mask)
    assert (((Fate(Seen.AT_SOCKET), 8),), 0) == first_look(seen_of(UDP, *GOES), UDP, FIRST.mask)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EPERM", (Word.SILENCE, "firewall dropped")),
        ("EACCES", (Word.PROHIBITED, "prohibit")),
        ("EINVAL", (Word.UNREACHABLE, "blackhole")),
        ("EHOSTUNREACH", (Word.UNREACHABLE, "unreachable")),
        ("ENETUNREACH", (Word.UNREACHABLE, "no route")),
        ("EHOSTDOWN", (Word.UNREACHABLE, "down")),
        ("ENETDOWN", (Word.UNREACHABLE, "down")),
    ],
)
def test_an_errno_is_the_sources_own_word(name: str, expected: tuple[Word, str]) -> None:
    """
    The kernel's reason is told, and its name, as far as it says something of the network.
    """
    seen = seen_of(UDP, errno=name)
    (refusal,) = refusals(seen, UDP, BURST.mask)
    word, text = expected

    assert (word, A, 10) == (refusal.word, refusal.by, refusal.count)
    assert text in refusal.reason
    assert f"({name})" in refusal.reason
    assert "" == unsendable(seen, UDP, BURST.mask)


def test_an_errno_that_says_nothing_of_the_network_is_no_evidence() -> None:
    """
    A full queue or a packet too long is a failure of the test, and only of the attempts that met it.
    """
    seen = seen_of(UDP, errno="ENOBUFS")

    assert "ENOBUFS" == unsendable(seen, UDP, BURST.mask)
    assert "" == unsendable(seen, UDP, OUTPUT_MASK)
    assert "" == unsendable(seen, TCP, BURST.mask)
    assert () == refusals(seen, UDP, BURST.mask)


def test_refusals_are_told_loudest_first_and_of_the_attempts_asked_about() -> None:
    """
    The same words of the same speaker are one refusal.
    """
    seen = seen_of(UDP, attempts=FIRST.mask | OUTPUT_MASK)
    for attempt, by in ((0, B), (1, ROUTER), (2, ROUTER), (53, "192.0.2.9")):
        seen.heard("a", UDP.number, 1 << attempt, icmp(by=by))

    assert [(ROUTER, 2), (B, 1)] == [(each.by, each.count) for each in refusals(seen, UDP, ARRIVALS_MASK)]
    assert [("192.0.2.9", 1)] == [(each.by, each.count) for each in refusals(seen, UDP, OUTPUT_MASK)]
    assert () == refusals(seen, TCP, ARRIVALS_MASK)


# What was seen of a SYN, in the words of somebody who knows which firewall did it, and what must come of it.
STORIES: Final = {
    "nothing is in the way": (seen_of(TCP, *GOES, *COMES), "open", ""),
    "nothing listens": (seen_of(TCP, *GOES, *RESETS), "closed", ""),
    "the source's OUTPUT drops": (seen_of(TCP, errno="EPERM"), "filtered @ source-egress", ""),
    "the source's OUTPUT resets": (seen_of(TCP, *RESETS[1:]), "rejected @ source-egress", A),
    "the source's route prohibits": (seen_of(TCP, errno="EACCES"), "rejected @ source-egress", A),
    "the source has no route": (seen_of(TCP, errno="ENETUNREACH"), "unreachable @ source-egress", A),
    "a router drops": (seen_of(TCP, *GOES[:1]), "filtered @ path", ""),
    "a router rejects": (seen_of(TCP, *GOES[:1], quotes=(icmp(),)), "rejected @ path", ROUTER),
    "a router resets": (seen_of(TCP, *GOES[:1], *RESETS[1:]), "rejected @ path", ""),
    "a router resets, and the source's INPUT drops that": (
        seen_of(TCP, *GOES[:1], RESETS[1]),
        "rejected @ path",
        "",
    ),
    "a router has no route": (
        seen_of(TCP, *GOES[:1], quotes=(icmp(Word.UNREACHABLE),)),
        "unreachable @ path",
        ROUTER,
    ),
    "a proxy answers": (seen_of(TCP, *GOES[:1], *COMES[1:]), "intercepted @ path", ""),
    "the source itself answers": (seen_of(TCP, *COMES[1:]), "intercepted @ source-egress", ""),
    "the destination's INPUT drops": (seen_of(TCP, *GOES[:2]), "filtered @ destination-ingress", ""),
    "the destination's INPUT rejects": (
        seen_of(TCP, *GOES[:2], quotes=(icmp(by=B),)),
        "rejected @ destination-ingress",
        B,
    ),
    "the destination's INPUT resets": (
        seen_of(TCP, *GOES[:2], *RESETS),
        "rejected @ destination-ingress",
        B,
    ),
    "the destination's INPUT resets, and the answer is lost": (
        seen_of(TCP, *GOES[:2], RESETS[0]),
        "rejected @ destination-ingress",
        B,
    ),
    "something in front of the destination's INPUT answers": (
        seen_of(TCP, *GOES[:2], *COMES),
        "intercepted @ destination-ingress",
        "",
    ),
    "the destination's OUTPUT drops the answer": (seen_of(TCP, *GOES), "filtered @ destination-egress", ""),
    "the destination's OUTPUT rejects the answer": (
        seen_of(TCP, *GOES, quotes=(icmp(by=B),)),
        "rejected @ destination-egress",
        B,
    ),
    "the destination's OUTPUT resets the answer": (
        # The RST is sent to the destination itself, by way of its loopback interface.
        seen_of(TCP, *GOES, ("b", INTERFACE, RESET)),
        "rejected @ destination-egress",
        B,
    ),
    "a router drops the answer": (seen_of(TCP, *GOES, COMES[0]), "filtered @ return-path", ""),
    "a router rejects the answer": (
        seen_of(TCP, *GOES, COMES[0], quotes=(icmp(),)),
        "rejected @ return-path",
        ROUTER,
    ),
    "a router resets the answer": (
        seen_of(TCP, *GOES, COMES[0], ("b", INTERFACE, RESET)),
        "rejected @ return-path",
        "",
    ),
    "a middlebox resets both ends": (
        seen_of(TCP, *GOES, COMES[0], *RESETS[1:], ("b", INTERFACE, RESET)),
        "rejected @ return-path",
        "",
    ),
    "a router drops the refusal of a port where nothing listens": (
        # The destination's kernel refused, which is no firewall's word about the loss.
        seen_of(TCP, *GOES, RESETS[0]),
        "filtered @ return-path",
        "",
    ),
    "the source's INPUT drops the answer": (
        seen_of(TCP, *GOES, *COMES[:2]),
        "filtered @ source-ingress",
        "",
    ),
    "the source's INPUT drops the refusal of a port where nothing listens": (
        seen_of(TCP, *GOES, *RESETS[:2]),
        "filtered @ source-ingress",
        "",
    ),
    "the source's INPUT rejects the answer": (
        seen_of(TCP, *GOES, *COMES[:2], quotes=(icmp(by=A),)),
        "rejected @ source-ingress",
        A,
    ),
    "the source's INPUT resets the answer": (
        seen_of(TCP, *GOES, *COMES[:2], ("b", INTERFACE, RESET)),
        "rejected @ source-ingress",
        A,
    ),
    "the source's kernel ends the half-open connection": (
        seen_of(TCP, *GOES, *COMES, ("b", INTERFACE, RESET)),
        "open",
        "",
    ),
}


@pytest.mark.parametrize(("seen", "expected", "by"), STORIES.values(), ids=STORIES)
def test_a_syn_is_lost_where_and_by_whom_it_was(seen: Observations, expected: str, by: str) -> None:
    """
    From what the taps see of one cause to the verdict that names it.
    """
    found = judgement(TCP, seen)
    segment = f" @ {found.segment.value}" if found.segment else ""

    assert expected == f"{found.verdict.value}{segment}"
    assert by == found.by


def test_that_nobody_holds_a_port_is_no_word_about_what_was_lost() -> None:
    """
    A destination's kernel says it of what passed its firewall, and half of the others were lost before.
    """
    seen = seen_of(UDP, *GOES[:1], quotes=(icmp(by=B),))

    assert icmp(by=B) in [msgspec.structs.replace(each, count=1) for each in refusals(seen, UDP, BURST.mask)]
    for host, point, kind in GOES[1:]:
        seen.saw(host, point, kind, [(UDP.number, BURST.mask)])
    assert () == refusals(seen, UDP, BURST.mask)


def test_a_port_that_is_used_again_brings_resets_of_what_was_half_open() -> None:
    """
    They are the kernels' own; a firewall's would come for other ports as well.
    """
    for sighting in (("b", INTERFACE, RESET), ("b", LEFT, ACCEPT)):
        seen = seen_of(TCP, *GOES, sighting, ("b", INTERFACE, RESET), attempts=PATTERN.mask)

        assert () == refusals(seen, TCP, ARRIVALS_MASK)


def test_the_stories_tell_every_segment() -> None:
    """
    Each of them dropped, and refused.
    """
    told = {expected for _seen, expected, _by in STORIES.values()}

    for segment in Segment:
        assert {f"filtered @ {segment.value}", f"rejected @ {segment.value}"} <= told


def test_a_reset_by_somebody_unknown_tells_its_ttl() -> None:
    """
    That is all there is to tell a router's RST from the destination's.
    """
    seen = seen_of(TCP, *GOES[:1], *RESETS[1:])
    seen.came_from("a", RST, B, 62, 0, [TCP.number])
    (refusal,) = refusals(seen, TCP, ARRIVALS_MASK)

    assert "TCP reset in the destination's name (TTL 62 on arrival)" == refusal.reason


def test_a_closed_port_behind_a_lossy_path_has_no_refuser() -> None:
    """
    Nothing is known of who drops some, and the destination's kernel is not the one.
    """
    seen = Observations(FLOWS)
    seen.sent[TCP.number] = FIRST.mask | BURST.mask
    seen.saw("a", LEFT, PROBE, [(TCP.number, BURST.mask)])
    for host, point, kind in (*GOES[1:], *RESETS):
        seen.saw(host, point, kind, [(TCP.number, 0b0101 | 0b0101 << BURST.first)])
    found = judgement(TCP, seen)

    assert (Verdict.DEGRADED, Segment.PATH, "") == (found.verdict, found.segment, found.by)


def test_a_destination_that_resets_some_is_named_although_it_accepts_others() -> None:
    """
    Each attempt is looked at for itself.
    """
    seen = Observations(FLOWS)
    seen.sent[TCP.number] = FIRST.mask | BURST.mask
    half, rest = 0b0101010101 << BURST.first, 0b1010101010 << BURST.first
    for host, point, kind in (*GOES, *COMES):
        seen.saw(host, point, kind, [(TCP.number, half)])
    for host, point, kind in (*GOES[:2], *RESETS):
        seen.saw(host, point, kind, [(TCP.number, rest)])
    found = judgement(TCP, seen)

    assert (Verdict.DEGRADED, Segment.DESTINATION_INGRESS, B) == (found.verdict, found.segment, found.by)


# The stages of the sessions of one flow, and what its taps see of the payloads.
REQUEST, ANSWER = Kind.REQUEST, Kind.ANSWER
TELLS: Final[tuple[Sighting, ...]] = (("a", LEFT, REQUEST), ("b", INTERFACE, REQUEST))
REPLIES: Final[tuple[Sighting, ...]] = (("b", LEFT, ANSWER), ("a", INTERFACE, ANSWER))


def sessions(
    stage: int, *sightings: Sighting, served: bool = False, error: str = "", tapped: bool = True
) -> Observations:
    """Three sessions that ended alike."""
    seen = Observations(FLOWS)
    seen.sessions[TCP.number] = [
        SessionResult(attempt, stage, error, 100, 0, tapped) for attempt in (1, 2, 3)
    ]
    for host, point, kind in sightings:
        seen.saw(host, point, kind, [(TCP.number, 0b1110)])
    seen.served[TCP.number] = 0b1110 if served else 0
    return seen


@pytest.mark.parametrize(
    ("seen", "fate"),
    [
        (sessions(CONNECTED), Fate(Seen.SENT)),
        (sessions(CONNECTED, *TELLS[:1]), Fate(Seen.LEFT)),
        (sessions(CONNECTED, *TELLS), Fate(Seen.AT_INTERFACE)),
        (sessions(CONNECTED, *TELLS, served=True), Fate(Seen.AT_SOCKET)),
        (
            sessions(CONNECTED, *TELLS, *REPLIES[:1], served=True),
            Fate(Seen.AT_SOCKET, Answer.ACCEPT_LEFT),
        ),
        (
            sessions(CONNECTED, *TELLS, *REPLIES, served=True),
            Fate(Seen.AT_SOCKET, Answer.ACCEPT_AT_INTERFACE),
        ),
        (sessions(ANSWERED, *TELLS, *REPLIES, served=True), Fate(Seen.AT_SOCKET, Answer.ACCEPT)),
        (
            sessions(CONNECTED, *TELLS[:1], error="ECONNRESET"),
            Fate(Seen.LEFT, word=Word.PROHIBITED),
        ),
        (sessions(CONNECTED, *TELLS[:1], error="ETIMEDOUT"), Fate(Seen.LEFT)),
    ],
)
def test_a_payload_is_lost_where_its_taps_last_saw_it(seen: Observations, fate: Fate) -> None:
    """
    A session's request stands for the SYN, its answer for the SYN-ACK, and a reset for a refusal.
    """
    assert ((fate, 3),) == session_fates(seen, TCP)


@pytest.mark.parametrize("seen", [sessions(NOTHING), sessions(CONNECTED, tapped=False), Observations(FLOWS)])
def test_sessions_without_a_payload_or_without_taps_have_no_fates(seen: Observations) -> None:
    """
    What was not sent or not watched was lost nowhere.
    """
    assert () == session_fates(seen, TCP)


def test_a_firewall_that_drops_the_application_is_found_by_its_payload() -> None:
    """
    The handshake passes, the request does not get to the destination.
    """
    first, missed = first_look(seen_of(TCP, *GOES, *COMES), TCP, FIRST.mask)
    session = Session(fates=session_fates(sessions(CONNECTED, *TELLS[:1]), TCP), stage="request")
    found = judge(Evidence(protocol=Protocol.TCP, first=first, missed=missed, session=session))

    assert (Verdict.FILTERED, Segment.PATH) == (found.verdict, found.segment)


@pytest.mark.parametrize(
    ("steps", "verdict", "segment"),
    [
        (0, Verdict.FILTERED, Segment.SOURCE_EGRESS),
        (1, Verdict.FILTERED, Segment.PATH),
        (2, Verdict.OPEN, None),
    ],
)
def test_what_hosts_forward_is_open_where_it_comes_to_the_destinations_interface(
    steps: int, verdict: Verdict, segment: Segment | None
) -> None:
    """
    No rule of either host about its own traffic is asked; the same datagram of its own would be filtered.
    """
    found = judgement(POD, seen_of(POD, *GOES[:steps]))

    assert (verdict, segment) == (found.verdict, found.segment)
    assert Verdict.FILTERED is judgement(UDP, seen_of(UDP, *GOES[:steps])).verdict


def test_the_first_look_at_what_hosts_forward_is_at_the_interface() -> None:
    """
    What came there in the first round is evidence as it is.
    """
    seen = Observations(FLOWS)
    seen.sent[POD.number] = FIRST.mask
    seen.saw("b", INTERFACE, PROBE, [(POD.number, FIRST.mask & ~0b1)])

    assert (((Fate(Seen.AT_INTERFACE), 7),), 1) == first_look(seen, POD, FIRST.mask)
