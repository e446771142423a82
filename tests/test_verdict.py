"""Evidence to verdict: both tables cell by cell, and what holds for any evidence at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.model import (
    Answer,
    Caveat,
    Evidence,
    Fate,
    Fates,
    Judgement,
    Protocol,
    Refusal,
    Seen,
    Segment,
    Session,
    Verdict,
    Word,
    severity,
)
from netprobe.verdict import DATAGRAM, FORWARDED, SPOKEN, TCP, Outcome, judge, outcome

ROOT: Final = Path(__file__).parents[1]

# Written out by hand from design §2. A letter is a verdict, a digit the segment by its place on the way:
# 1 source-egress, 2 path, 3 destination-ingress, 4 destination-egress, 5 return-path, 6 source-ingress.
EXPECTED_TCP: Final = """
                     UNSENT  SENT  LEFT  AT_INTERFACE  AT_SOCKET
NONE                 F1      F1    F2    F3            F4
ACCEPT_LEFT          I3      I3    I3    I3            F5
ACCEPT_AT_INTERFACE  I1      I1    I2    I3            F6
ACCEPT               I1      I1    I2    I3            open
RST_LEFT             R3      R3    R3    R3            F5
RST_AT_INTERFACE     R1      R1    R2    R3            F6
RST                  R1      R1    R2    R3            closed
RST_INSTEAD          R1      R1    R2    R3            R5
"""
EXPECTED_DATAGRAM: Final = {
    Seen.UNSENT: Outcome(Verdict.FILTERED, Segment.SOURCE_EGRESS),
    Seen.SENT: Outcome(Verdict.FILTERED, Segment.SOURCE_EGRESS),
    Seen.LEFT: Outcome(Verdict.FILTERED, Segment.PATH),
    Seen.AT_INTERFACE: Outcome(Verdict.FILTERED, Segment.DESTINATION_INGRESS),
    Seen.AT_SOCKET: Outcome(Verdict.OPEN),
}
LETTERS: Final = {"F": Verdict.FILTERED, "R": Verdict.REJECTED, "I": Verdict.INTERCEPTED}
LOST_SOMEWHERE: Final = {Verdict.FILTERED, Verdict.REJECTED, Verdict.UNREACHABLE, Verdict.INTERCEPTED}

PASSED: Final = {
    Protocol.TCP: Fate(Seen.AT_SOCKET, Answer.ACCEPT),
    Protocol.UDP: Fate(Seen.AT_SOCKET),
    Protocol.IPIP: Fate(Seen.AT_SOCKET),
}
REFUSED_BY_KERNEL: Final = Fate(Seen.AT_SOCKET, Answer.RST)
ON_THE_PATH: Final = Fate(Seen.LEFT)
AT_THE_DESTINATION: Final = Fate(Seen.AT_INTERFACE)
KEPT_IN: Final = Fate(Seen.SENT)

COUNTS: Final = st.integers(1, 20)
PORTS: Final = st.lists(st.integers(1, 65535), max_size=2).map(tuple)
TEXTS: Final = st.sampled_from(("", "something"))
ANY_FATE: Final = st.builds(Fate, st.sampled_from(Seen), st.sampled_from(Answer), st.sampled_from(Word))


def fates_of(fate: st.SearchStrategy[Fate], at_most: int = 3) -> st.SearchStrategy[Fates]:
    """Histograms of these fates."""
    return st.lists(st.tuples(fate, COUNTS), max_size=at_most).map(tuple)


SESSIONS: Final = st.builds(
    Session,
    fates=fates_of(ANY_FATE),
    stage=st.sampled_from(("", "handshake", "request", "answer")),
    error=st.sampled_from(("", "ECONNRESET")),
    retried=st.booleans(),
)
REFUSALS: Final = st.lists(
    st.builds(Refusal, st.sampled_from(Word), st.sampled_from(("", "192.0.2.1", "10.0.0.1")), TEXTS, COUNTS),
    max_size=3,
).map(tuple)


def evidence(
    protocols: st.SearchStrategy[Protocol] = st.sampled_from(Protocol),  # noqa: B008 - strategies are values
) -> st.SearchStrategy[Evidence]:
    """Evidence of a flow that was tested: any that the type allows, often of a flow without fault."""
    return protocols.flatmap(
        lambda protocol: st.builds(
            Evidence,
            protocol=st.just(protocol),
            forwarded=st.booleans() if protocol is Protocol.UDP else st.just(False),  # noqa: FBT003
            first=fates_of(st.just(PASSED[protocol]), 1) | fates_of(ANY_FATE),
            missed=st.integers(0, 3),
            confirm=fates_of(st.just(PASSED[protocol]), 1) | fates_of(ANY_FATE),
            output=st.just(()) | fates_of(ANY_FATE),
            session=st.none() | SESSIONS,
            refusals=REFUSALS,
            state=TEXTS,
            holder=st.none() | TEXTS,
            nat=TEXTS,
            astray=st.integers(0, 2),
            failing_ports=PORTS,
            passing_ports=PORTS,
        )
    )


def tcp(**fields: object) -> Judgement:
    """The judgement of a TCP flow with this evidence."""
    return judge(msgspec.structs.replace(Evidence(protocol=Protocol.TCP), **fields))


def udp(**fields: object) -> Judgement:
    """The judgement of a UDP flow with this evidence."""
    return judge(msgspec.structs.replace(Evidence(protocol=Protocol.UDP), **fields))


def where(judgement: Judgement) -> tuple[Verdict, Segment | None]:
    """The verdict and the segment."""
    return judgement.verdict, judgement.segment


def by_hand() -> Mapping[tuple[Seen, Answer], Outcome]:
    """The table for TCP as it stands above."""
    heading, *rows = EXPECTED_TCP.strip().splitlines()
    found = {}
    for row in rows:
        answer, *codes = row.split()
        for seen, code in zip(heading.split(), codes, strict=True):
            found[Seen[seen], Answer[answer]] = (
                Outcome(LETTERS[code[0]], list(Segment)[int(code[1]) - 1])
                if code[0] in LETTERS
                else Outcome(Verdict(code))
            )
    return found


def test_the_table_for_tcp_is_total_and_as_designed() -> None:
    """
    Every point at which a SYN can be seen, with every answer, has the outcome that the design says.
    """
    assert len(Seen) * len(Answer) == len(by_hand())
    assert by_hand() == dict(TCP)


def test_the_table_for_datagrams_is_total_and_as_designed() -> None:
    """
    Every point at which a datagram can be seen has the outcome that the design says.
    """
    assert set(Seen) == set(EXPECTED_DATAGRAM)
    assert EXPECTED_DATAGRAM == dict(DATAGRAM)


def test_a_datagram_that_hosts_forward_is_open_from_the_destinations_interface_on() -> None:
    """
    Up to there it has the outcome of any other.
    """
    expected = {**EXPECTED_DATAGRAM, Seen.AT_INTERFACE: Outcome(Verdict.OPEN)}

    assert expected == dict(FORWARDED)
    for seen, (verdict, segment) in expected.items():
        evidence = Evidence(protocol=Protocol.UDP, forwarded=True, confirm=((Fate(seen), 5),))
        assert (verdict, segment) == where(judge(evidence))
        assert (verdict, segment) == where(judge(msgspec.structs.replace(evidence, first=evidence.confirm)))


def test_every_word_has_its_verdict() -> None:
    """
    A lost packet is filtered in silence, rejected where somebody prohibits, unreachable where no way is.
    """
    assert {
        Word.SILENCE: Verdict.FILTERED,
        Word.PROHIBITED: Verdict.REJECTED,
        Word.UNREACHABLE: Verdict.UNREACHABLE,
    } == dict(SPOKEN)


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("seen", Seen)
def test_a_single_fate_is_judged_by_the_tables(protocol: Protocol, seen: Seen) -> None:
    """
    With one kind of fate in a confirmed flow, the verdict is the table's, and a word changes only silence.
    """
    tables = {Protocol.TCP: by_hand()}
    for answer in Answer:
        verdict, segment = tables.get(protocol, {}).get((seen, answer), EXPECTED_DATAGRAM[seen])
        for word in Word:
            expected = SPOKEN[word] if verdict is Verdict.FILTERED else verdict
            fate = Fate(seen, answer, word)

            assert Outcome(expected, segment) == outcome(protocol, fate)
            assert (expected, segment) == where(judge(Evidence(protocol=protocol, confirm=((fate, 5),))))


def test_every_verdict_and_every_segment_is_reached() -> None:
    """
    None of the words is there for nothing.
    """
    single = [outcome(Protocol.TCP, Fate(*key, word)) for key in TCP for word in Word]
    mixed = [tcp(confirm=((PASSED[Protocol.TCP], 1), (ON_THE_PATH, 1))), tcp(untested="no agent")]

    assert set(Verdict) == {each.verdict for each in single} | {each.verdict for each in mixed}
    assert set(Segment) == {each.segment for each in single} - {None}


@given(evidence())
def test_any_evidence_has_one_verdict_with_a_segment_where_something_was_lost(some: Evidence) -> None:
    """
    What was lost was lost somewhere; only a session that is never established is lost nowhere in particular.
    """
    judgement = judge(some)

    if judgement.verdict is Verdict.DEGRADED and judgement.segment is None:
        assert some.session is not None
        assert some.session.stage
    else:
        lost = judgement.verdict in {*LOST_SOMEWHERE, Verdict.DEGRADED}
        assert lost == (judgement.segment is not None)


@given(evidence(st.sampled_from((Protocol.UDP, Protocol.IPIP))).filter(lambda some: some.session is None))
def test_a_datagram_is_never_closed_and_intercepted_only_where_another_host_got_it(some: Evidence) -> None:
    """
    Nobody answers a datagram probe, so nothing can be made of an answer.
    """
    verdict = judge(some).verdict

    assert verdict is not Verdict.CLOSED
    assert some.astray or verdict is not Verdict.INTERCEPTED


@given(evidence())
def test_by_is_the_address_of_somebody_who_refused(some: Evidence) -> None:
    """
    Only a refused flow has a refuser, whose word it was that made the verdict.
    """
    judgement = judge(some)
    words = {
        Verdict.REJECTED: {Word.PROHIBITED},
        Verdict.UNREACHABLE: {Word.UNREACHABLE},
        Verdict.DEGRADED: {Word.PROHIBITED, Word.UNREACHABLE},
    }.get(judgement.verdict, set())

    if judgement.by:
        assert judgement.by in {refusal.by for refusal in some.refusals if refusal.word in words}


@given(evidence(), st.text(min_size=1, max_size=9))
def test_what_could_not_be_tested_is_untested_whatever_was_seen(some: Evidence, reason: str) -> None:
    """
    An agent's failure is never a verdict about the network, and its reason is the detail.
    """
    failed = msgspec.structs.replace(some, untested=reason)

    assert Judgement(verdict=Verdict.UNTESTED, detail=reason) == judge(failed)


@given(evidence())
def test_words_never_make_a_passed_packet_lost(some: Evidence) -> None:
    """
    Without the words the same packets are lost at the same place, and only the name of the loss differs.
    """

    def mute(fates: Fates) -> Fates:
        return tuple((Fate(fate.seen, fate.answer), count) for fate, count in fates)

    session = some.session
    if session is not None:
        session = msgspec.structs.replace(session, fates=mute(session.fates))
    muted = msgspec.structs.replace(
        some,
        first=mute(some.first),
        confirm=mute(some.confirm),
        output=mute(some.output),
        session=session,
        refusals=(),
    )
    spoken, silent = judge(some), judge(muted)

    assert spoken.segment is silent.segment
    assert spoken.verdict is silent.verdict or {spoken.verdict, silent.verdict} <= LOST_SOMEWHERE
    assert spoken.caveats == silent.caveats


@given(evidence(), st.data())
def test_the_order_in_which_fates_were_met_does_not_matter(some: Evidence, data: st.DataObject) -> None:
    """
    Nor does it matter whether packets of one fate are counted together.
    """

    def otherwise(fates: Fates) -> Fates:
        single = [(fate, 1) for fate, count in fates for _ in range(count)]
        return tuple(data.draw(st.permutations(single)))

    shuffled = msgspec.structs.replace(
        some, first=otherwise(some.first), confirm=otherwise(some.confirm), output=otherwise(some.output)
    )

    assert judge(some) == judge(shuffled)


@given(evidence(), COUNTS, st.sampled_from(("first", "confirm", "output")))
def test_more_arrivals_never_make_it_worse(some: Evidence, more: int, which: str) -> None:
    """
    A flow that is open stays open with more packets that pass, and no blocked one gets worse.
    """
    passed = PASSED[some.protocol]
    # As the first look makes it: what did not get through is not in it, but missed.
    first = ((passed, len(some.first)),) if some.first else ()
    # Arrivals beside packets that another host got show that the way changes.
    before = msgspec.structs.replace(some, first=first, astray=0)
    if before.session is not None:
        before = msgspec.structs.replace(before, session=Session(retried=before.session.retried))
    if which == "output" and not before.output:
        before = msgspec.structs.replace(before, output=((passed, 1),))
    after = msgspec.structs.replace(before, **{which: (*getattr(before, which), (passed, more))})

    assert severity(judge(after).verdict) <= severity(judge(before).verdict)
    if judge(before).verdict is Verdict.OPEN:
        assert Verdict.OPEN is judge(after).verdict


@given(evidence())
def test_caveats_are_there_when_they_apply_and_only_then(some: Evidence) -> None:
    """
    Each has one reason in the evidence, and those about a success are not put on a failure.
    """
    judgement = judge(some)
    again = some.missed > 0 or (some.session is not None and some.session.retried)
    again |= any(outcome(some.protocol, fate).verdict in LOST_SOMEWHERE for fate, _count in some.confirm)
    both = bool(some.failing_ports) and bool(some.passing_ports)
    arrives = judgement.verdict in (Verdict.OPEN, Verdict.DEGRADED)
    arrives |= judgement.segment is Segment.DESTINATION_INGRESS

    assert (bool(some.state) and arrives) == (Caveat.STATE_ASSISTED in judgement.caveats)
    assert (some.holder is not None) == (Caveat.PORT_IN_USE in judgement.caveats)
    assert bool(some.nat) == (Caveat.NAT in judgement.caveats)
    assert (again and judgement.verdict is Verdict.OPEN) == (Caveat.RETRIED in judgement.caveats)
    assert (both and judgement.verdict is Verdict.DEGRADED) == (Caveat.ECMP in judgement.caveats)


def test_a_first_look_without_a_miss_is_enough() -> None:
    """
    What came through at once needs no confirmation and no second look.
    """
    assert Judgement(verdict=Verdict.OPEN) == udp(first=((PASSED[Protocol.UDP], 5),))
    assert Judgement(verdict=Verdict.OPEN) == tcp(first=((PASSED[Protocol.TCP], 1),))


def test_a_miss_that_was_not_confirmed_is_no_verdict() -> None:
    """
    One lost probe is not a blocked flow, and one that came is not the whole truth.
    """
    judgement = Judgement(verdict=Verdict.UNTESTED, detail="the run ended before a miss was confirmed")

    assert judgement == udp(missed=5)
    assert judgement == udp(first=((PASSED[Protocol.UDP], 4),), missed=1)


def test_nothing_sent_is_no_verdict() -> None:
    """
    Without a packet there is nothing to be confirmed, and the detail says so.
    """
    assert Judgement(verdict=Verdict.UNTESTED, detail="no packet was sent") == udp()


def test_single_losses_that_a_burst_does_not_repeat_are_retried() -> None:
    """
    Lost in the first round and whole in the burst is open, with a caveat.
    """
    burst = ((PASSED[Protocol.UDP], 10),)

    assert Judgement(verdict=Verdict.OPEN, caveats=(Caveat.RETRIED,)) == udp(missed=3, confirm=burst)
    assert Judgement(verdict=Verdict.OPEN) == udp(first=((PASSED[Protocol.UDP], 3),), confirm=burst)


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(1, Verdict.OPEN), (2, Verdict.OPEN), (3, Verdict.DEGRADED), (17, Verdict.DEGRADED)],
)
def test_a_loss_of_a_hundredth_is_no_verdict(lost: int, verdict: Verdict) -> None:
    """
    Of the 34 packets of a confirmation two may be lost without a word, and none with one.
    """
    passed = (PASSED[Protocol.UDP], 34 - lost)
    refused = msgspec.structs.replace(ON_THE_PATH, word=Word.PROHIBITED)

    assert verdict is udp(confirm=((ON_THE_PATH, lost), passed)).verdict
    assert Verdict.DEGRADED is udp(confirm=((refused, lost), passed)).verdict


def test_what_another_host_got_is_no_single_loss() -> None:
    """
    Others will follow it. Where nothing came through it is the other host's, if nobody is to answer it.
    """
    passed, lost = ((PASSED[Protocol.UDP], 10),), ((ON_THE_PATH, 10),)
    degraded = Judgement(verdict=Verdict.DEGRADED, segment=Segment.PATH)

    assert degraded == udp(missed=3, confirm=passed, astray=3)
    assert degraded == udp(first=passed, astray=1)
    assert Judgement(verdict=Verdict.INTERCEPTED, segment=Segment.PATH) == udp(confirm=lost, astray=10)
    assert Judgement(verdict=Verdict.FILTERED, segment=Segment.PATH) == tcp(confirm=lost, astray=10)


def test_the_detail_has_the_share_of_source_ports_and_some_to_try() -> None:
    """
    Three at most; where the ports are not the reason, none.
    """
    some = ((ON_THE_PATH, 12), (PASSED[Protocol.UDP], 22))
    many, few = (40001, 40002, 40003, 40004), (40005,)

    assert (
        "4 of 5 source ports always fail: 40001, 40002, 40003, …; 40005 passes"
        == udp(confirm=some, failing_ports=many, passing_ports=few).detail
    )
    assert (
        "1 of 5 source ports always fail: 40005; 40001 passes"
        == udp(confirm=some, failing_ports=few, passing_ports=many).detail
    )
    assert not udp(confirm=(some[1],), failing_ports=few, passing_ports=many).detail


def test_a_closed_port_is_not_retried() -> None:
    """
    Its first packets were refused, not lost: the first look takes anything but an answer for a miss.
    """
    assert Judgement(verdict=Verdict.CLOSED) == tcp(missed=3, confirm=((REFUSED_BY_KERNEL, 10),))


def test_a_port_that_is_both_accepted_and_refused_is_open() -> None:
    """
    A listener that came or went in the middle of a burst is not the network's doing.
    """
    fates = ((REFUSED_BY_KERNEL, 9), (PASSED[Protocol.TCP], 1))

    assert Judgement(verdict=Verdict.OPEN) == tcp(confirm=fates)


def test_a_burst_that_loses_some_is_degraded_where_most_are_lost() -> None:
    """
    Of several places the one that loses most is named, of equals the first on the way.
    """
    passed = (PASSED[Protocol.UDP], 1)
    more = (AT_THE_DESTINATION, 6)

    assert (Verdict.DEGRADED, Segment.DESTINATION_INGRESS) == where(
        udp(missed=1, confirm=((ON_THE_PATH, 3), more, passed))
    )
    assert (Verdict.DEGRADED, Segment.PATH) == where(udp(missed=1, confirm=((ON_THE_PATH, 6), more, passed)))


def test_a_burst_that_loses_all_after_a_first_look_that_passed_some_is_degraded() -> None:
    """
    What passed once can pass.
    """
    judgement = udp(first=((PASSED[Protocol.UDP], 1),), missed=4, confirm=((ON_THE_PATH, 10),))

    assert (Verdict.DEGRADED, Segment.PATH) == where(judgement)


def test_a_closed_port_behind_a_lossy_path_is_degraded() -> None:
    """
    A refusal by the destination's kernel is an arrival.
    """
    fates = ((REFUSED_BY_KERNEL, 5), (ON_THE_PATH, 5))

    assert (Verdict.DEGRADED, Segment.PATH) == where(tcp(missed=3, confirm=fates))


def test_what_is_always_lost_is_lost_where_the_furthest_packet_was() -> None:
    """
    All that comes before let at least that one through.
    """
    fates = ((ON_THE_PATH, 9), (AT_THE_DESTINATION, 1))

    assert (Verdict.FILTERED, Segment.DESTINATION_INGRESS) == where(udp(missed=5, confirm=fates))


def test_of_several_words_about_one_place_the_most_telling_wins() -> None:
    """
    Silence says less than a router without a route, that less than a prohibition, that less than an answer.
    """
    told = (
        Fate(Seen.LEFT),
        Fate(Seen.LEFT, word=Word.UNREACHABLE),
        Fate(Seen.LEFT, word=Word.PROHIBITED),
        Fate(Seen.LEFT, Answer.ACCEPT),
    )
    verdicts = [tcp(confirm=tuple((fate, 1) for fate in told[: n + 1])).verdict for n in range(len(told))]

    assert [Verdict.FILTERED, Verdict.UNREACHABLE, Verdict.REJECTED, Verdict.INTERCEPTED] == verdicts


def test_what_the_source_keeps_in_comes_before_all_that_arrived() -> None:
    """
    Packets that were injected below the source's firewall do not excuse what it drops.
    """
    arrived = ((PASSED[Protocol.IPIP], 5),)
    kept = ((KEPT_IN, 4),)

    assert (Verdict.FILTERED, Segment.SOURCE_EGRESS) == where(udp(first=arrived, output=kept))
    assert (Verdict.DEGRADED, Segment.SOURCE_EGRESS) == where(
        udp(first=arrived, output=((KEPT_IN, 2), (ON_THE_PATH, 2)))
    )


@pytest.mark.parametrize("seen", [Seen.LEFT, Seen.AT_INTERFACE, Seen.AT_SOCKET])
def test_what_becomes_outside_of_a_packet_that_tests_the_output_does_not_count(seen: Seen) -> None:
    """
    Once it has left it has shown all that it is for: neither its arrival nor its loss is evidence.
    """
    output = ((Fate(seen, word=Word.PROHIBITED), 4),)

    assert Verdict.OPEN is udp(first=((PASSED[Protocol.UDP], 5),), output=output).verdict
    assert (Verdict.FILTERED, Segment.PATH) == where(
        udp(missed=5, confirm=((ON_THE_PATH, 10),), output=output)
    )
    assert Verdict.UNTESTED is udp(missed=5, output=output).verdict


def test_where_some_packets_leave_the_others_can_still_be_lost_altogether() -> None:
    """
    A source's OUTPUT chain that loses some is the verdict only if anything arrives of those that it lets out.
    """
    output = ((KEPT_IN, 2), (ON_THE_PATH, 2))

    assert (Verdict.FILTERED, Segment.PATH) == where(
        udp(missed=5, confirm=((ON_THE_PATH, 10),), output=output)
    )
    for confirm in (((PASSED[Protocol.UDP], 10),), ((PASSED[Protocol.UDP], 1), (ON_THE_PATH, 9))):
        assert (Verdict.DEGRADED, Segment.SOURCE_EGRESS) == where(
            udp(missed=5, confirm=confirm, output=output)
        )


@pytest.mark.parametrize(
    ("stage", "detail", "fate", "expected"),
    [
        (
            "handshake",
            "a SYN is answered, but no connection is established",
            None,
            (Verdict.DEGRADED, None),
        ),
        (
            "request",
            "the handshake passes, the request after it does not",
            Fate(Seen.LEFT),
            (Verdict.FILTERED, Segment.PATH),
        ),
        (
            "request",
            "the handshake passes, the request after it does not",
            Fate(Seen.AT_INTERFACE, word=Word.PROHIBITED),
            (Verdict.REJECTED, Segment.DESTINATION_INGRESS),
        ),
        (
            "answer",
            "the handshake and the request pass, the answer does not",
            Fate(Seen.AT_SOCKET, Answer.ACCEPT_LEFT),
            (Verdict.FILTERED, Segment.RETURN_PATH),
        ),
    ],
)
def test_a_session_that_fails_outweighs_the_handshake_that_passes(
    stage: str, detail: str, fate: Fate | None, expected: tuple[Verdict, Segment | None]
) -> None:
    """
    It is lost where its payload was, and the detail names the stage.
    """
    fates: Fates = () if fate is None else ((fate, 3),)
    judgement = tcp(first=((PASSED[Protocol.TCP], 1),), session=Session(fates=fates, stage=stage))

    assert expected == where(judgement)
    assert detail == judgement.detail


def test_sessions_of_which_some_succeed_are_degraded() -> None:
    """
    One payload of three got lost.
    """
    fates = ((PASSED[Protocol.TCP], 2), (ON_THE_PATH, 1))
    judgement = tcp(first=((PASSED[Protocol.TCP], 1),), session=Session(fates=fates, stage="request"))

    assert (Verdict.DEGRADED, Segment.PATH) == where(judgement)


def test_the_error_of_a_session_is_in_the_detail() -> None:
    """
    What the kernel called it helps whoever looks for it.
    """
    judgement = tcp(
        first=((PASSED[Protocol.TCP], 1),),
        session=Session(fates=((ON_THE_PATH, 3),), stage="request", error="ECONNRESET"),
    )

    assert "the handshake passes, the request after it does not (ECONNRESET)" == judgement.detail


def test_a_session_that_went_well_changes_nothing() -> None:
    """
    It has no stage at which it failed, and whether it took a second try is a caveat.
    """
    first = ((PASSED[Protocol.TCP], 1),)

    assert Judgement(verdict=Verdict.OPEN) == tcp(first=first, session=Session())
    assert (Caveat.RETRIED,) == tcp(first=first, session=Session(retried=True)).caveats


def test_a_session_does_not_excuse_lost_handshakes() -> None:
    """
    Where SYNs get lost the session is not looked at.
    """
    lossy = ((PASSED[Protocol.TCP], 5), (AT_THE_DESTINATION, 5))

    for stage in ("", "request"):
        assert (Verdict.DEGRADED, Segment.DESTINATION_INGRESS) == where(
            tcp(missed=2, confirm=lossy, session=Session(stage=stage))
        )


def test_the_loudest_refusal_of_the_verdicts_own_word_is_told() -> None:
    """
    `by` and the reason are of one refusal, and refusals in other words do not count.
    """
    judgement = udp(
        missed=5,
        confirm=((Fate(Seen.LEFT, word=Word.PROHIBITED), 10),),
        refusals=(
            Refusal(Word.UNREACHABLE, "192.0.2.9", "ICMP 3/1 host unreachable", 99),
            Refusal(Word.PROHIBITED, "192.0.2.1", "ICMP 3/10 host administratively prohibited", 1),
            Refusal(Word.PROHIBITED, "192.0.2.2", "ICMP 3/13 communication administratively prohibited", 2),
        ),
    )

    assert (Verdict.REJECTED, "192.0.2.2") == (judgement.verdict, judgement.by)
    assert "ICMP 3/13 communication administratively prohibited" == judgement.detail


def test_who_drops_without_a_word_is_not_named() -> None:
    """
    The source's own errno is the reason of a silent loss, and no refuser.
    """
    judgement = udp(
        missed=5,
        confirm=((Fate(Seen.UNSENT), 10),),
        refusals=(Refusal(Word.SILENCE, "10.0.0.1", "the source's own firewall dropped it (EPERM)", 10),),
    )

    assert (Verdict.FILTERED, "") == (judgement.verdict, judgement.by)
    assert "the source's own firewall dropped it (EPERM)" == judgement.detail


def test_an_open_flow_has_no_refuser() -> None:
    """
    A refusal of some other packet, a session's or an early one's, is not the flow's.
    """
    refusals = (Refusal(Word.PROHIBITED, "192.0.2.1", "ICMP 3/13", 3),)
    judgement = udp(missed=1, confirm=((PASSED[Protocol.UDP], 10),), refusals=refusals)

    assert ("", "") == (judgement.by, judgement.detail)


def test_a_degraded_flow_tells_who_refused_some() -> None:
    """
    Of the packets that were lost somebody may have spoken.
    """
    refusals = (Refusal(Word.PROHIBITED, "192.0.2.1", "ICMP 3/13", 3),)
    fates = ((PASSED[Protocol.UDP], 5), (Fate(Seen.LEFT, word=Word.PROHIBITED), 5))

    assert "192.0.2.1" == udp(missed=1, confirm=fates, refusals=refusals).by


def test_the_detail_has_the_reason_the_state_and_the_notes_in_this_order() -> None:
    """
    One line, with what matters most first.
    """
    judgement = udp(
        missed=1,
        confirm=((PASSED[Protocol.UDP], 5), (Fate(Seen.LEFT, word=Word.PROHIBITED), 5)),
        refusals=(Refusal(Word.PROHIBITED, "192.0.2.1", "ICMP 3/13", 3),),
        state="the opposite direction came through first",
        notes=("delivered to c instead", "bird holds the port"),
    )

    assert (
        "ICMP 3/13; the opposite direction came through first; delivered to c instead; bird holds the port"
        == judgement.detail
    )


def test_a_state_that_explains_nothing_is_not_told() -> None:
    """
    Where nothing came through, no state let anything through.
    """
    judgement = udp(missed=5, confirm=((ON_THE_PATH, 5),), state="an entry was there before")

    assert ((), "") == (judgement.caveats, judgement.detail)


def test_the_tables_in_the_documentation_are_those_of_the_code() -> None:
    """
    `scripts/print-verdicts` prints `docs/verdicts.md`.
    """
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "print-verdicts"],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )

    assert printed.stdout == (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
