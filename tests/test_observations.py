"""What hosts saw, by flow: whose sightings count, what is missing, and what may still come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.attempts import FIRST, OUTPUT, OUTPUT_MASK, OUTPUT_WATCHED
from netprobe.model import Family, Flow, Protocol, Refusal, Word
from netprobe.observations import (
    ANSWERED,
    DAMAGED,
    INTERFACE,
    LEFT,
    SOCKET,
    Observations,
    SessionResult,
)
from netprobe.template import ATTEMPT_BITS, Kind

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def flow(number: int, protocol: Protocol, src: str = "a", dst: str = "b") -> Flow:
    """A flow between hosts that are called by one letter each."""
    addresses = {"a": A, "b": B, "c": C}
    port = None if protocol is Protocol.IPIP else 179
    return Flow(number, "some", Family.IPV4, protocol, port, src, addresses[src], dst, addresses[dst])


TCP: Final = flow(0, Protocol.TCP)
UDP: Final = flow(1, Protocol.UDP)
IPIP: Final = flow(2, Protocol.IPIP)
BACK: Final = flow(3, Protocol.TCP, "b", "a")
FLOWS: Final = (TCP, UDP, IPIP, BACK)
POD: Final = msgspec.structs.replace(UDP, pod_address="10.244.255.254")

FROM_SOURCE: Final = (Kind.PROBE, Kind.RESET, Kind.WITHDRAWAL, Kind.REQUEST)
FROM_DESTINATION: Final = (Kind.ACCEPT, Kind.OURS, Kind.RST, Kind.ANSWER)
MASKS: Final = st.integers(0, (1 << 57) - 1)


def sent(mask: int, flows: Iterable[Flow] = FLOWS) -> Observations:
    """Nothing seen, after these attempts of these flows."""
    seen = Observations(FLOWS)
    for each in flows:
        seen.sent[each.number] = mask
    return seen


def refusal() -> Refusal:
    """Somebody's word."""
    return Refusal(Word.PROHIBITED, "192.0.2.1", "ICMP 3/13")


def test_each_kind_of_packet_comes_from_one_end() -> None:
    """
    The tests below know every kind there is.
    """
    assert set(Kind) == {*FROM_SOURCE, *FROM_DESTINATION}


@pytest.mark.parametrize("point", [LEFT, INTERFACE, SOCKET])
@pytest.mark.parametrize("kind", Kind)
def test_a_packet_counts_where_its_end_of_the_flow_saw_it(point: str, kind: Kind) -> None:
    """
    What leaves must leave the end that it comes from, and what arrives must arrive at the other.
    """
    leaves_source = (point == LEFT) == (kind in FROM_SOURCE)
    right, wrong = ("a", "b") if leaves_source else ("b", "a")
    seen = sent(0b111)
    seen.saw(right, point, kind, [(TCP.number, 0b001)])
    seen.saw(right, point, kind, [(TCP.number, 0b100)])
    seen.saw(wrong, point, kind, [(TCP.number, 0b010)])
    seen.saw("c", point, kind, [(TCP.number, 0b010)])

    assert 0b101 == seen.at(point, kind)[TCP.number]
    assert [0, 0, 0] == seen.at(point, kind)[1:]


def test_a_probe_that_another_host_got_was_delivered_elsewhere() -> None:
    """
    Only past a firewall: routers that are hosts forward what they see at their interfaces.
    """
    seen = sent(1)
    seen.saw("c", INTERFACE, Kind.PROBE, [(UDP.number, 1)])
    seen.saw("c", SOCKET, Kind.ACCEPT, [(UDP.number, 1)])
    seen.saw("b", SOCKET, Kind.PROBE, [(UDP.number, 1)])

    assert {} == seen.elsewhere

    seen.saw("c", SOCKET, Kind.PROBE, [(UDP.number, 1)])

    assert {UDP.number: {"c": 1}} == seen.elsewhere
    assert 0 == seen.astray(UDP.number)


def test_what_another_host_got_in_its_destinations_place_is_astray() -> None:
    """
    Not what both got; attempts of all other hosts count, but of one that got what was never sent.
    """
    seen = sent(0b1111)
    seen.saw("b", SOCKET, Kind.PROBE, [(UDP.number, 0b0001)])
    seen.saw("c", SOCKET, Kind.PROBE, [(UDP.number, 0b0011)])
    seen.saw("a", SOCKET, Kind.PROBE, [(UDP.number, 0b0100)])

    assert 0b0110 == seen.astray(UDP.number)
    assert 0 == seen.astray(TCP.number)

    seen.saw("c", SOCKET, Kind.PROBE, [(UDP.number, 0b10000)])

    assert 0b0100 == seen.astray(UDP.number)


def test_who_answers_in_front_of_a_host_is_no_program_of_it() -> None:
    """
    An answer tells of another listener than ours only where the SYN came to the destination.
    """
    seen = sent(0b11)
    seen.saw("a", SOCKET, Kind.ACCEPT, [(TCP.number, 0b11)])

    assert 0 == seen.answered_by_another(TCP.number)

    seen.saw("b", SOCKET, Kind.PROBE, [(TCP.number, 0b11)])
    seen.saw("a", SOCKET, Kind.OURS, [(TCP.number, 0b10)])

    assert 0b01 == seen.answered_by_another(TCP.number)


def test_what_comes_damaged_is_not_waited_for_and_has_not_passed() -> None:
    """
    A raw socket has seen it; the kernel drops it.
    """
    seen = sent(0b11)
    seen.saw("b", DAMAGED, Kind.PROBE, [(UDP.number, 0b01)])

    assert 0 == seen.passed(UDP, 0b11)
    assert 0b10 == seen.pending(UDP, 0b11)


def test_an_answer_after_a_second_measures_nothing() -> None:
    """
    The first one may have been lost: Linux sends a SYN-ACK again after a second.
    """
    seen = sent(1)
    seen.took("a", [(TCP.number, 1_000_000)])

    assert {} == seen.rtt_us

    seen.took("a", [(TCP.number, 999_999)])

    assert {TCP.number: 999_999} == seen.rtt_us


def _says_everything(seen: Observations, host: str, numbers: Iterable[int]) -> None:
    """A host says whatever can be said, about flows of these numbers."""
    numbers = tuple(numbers)
    masks = [(number, 1) for number in numbers]
    for point in (LEFT, INTERFACE, SOCKET):
        for kind in Kind:
            seen.saw(host, point, kind, masks)
    for kind in Kind:
        seen.came_from(host, kind, "192.0.2.9", 7, 9, numbers)
    seen.took(host, [(number, 5) for number in numbers])
    seen.failed(host, "EPERM", masks)
    seen.serve(host, masks, numbers)
    for number in numbers:
        seen.held(host, number, SessionResult(0, ANSWERED, "", 5, 0, tapped=False))
        seen.heard(host, number, 1, refusal())


def _said(seen: Observations) -> list[object]:
    """All that is evidence of anything."""
    masks = [list(seen.at(point, kind)) for point in (LEFT, INTERFACE, SOCKET) for kind in Kind]
    more = (seen.served, seen.errors, seen.refused, seen.sessions, seen.nat, seen.rst_ttl, seen.rtt_us)
    return [masks, *more, seen.redirected, seen.resent, dict(seen.words)]


def test_a_host_is_not_heard_about_the_flows_of_others() -> None:
    """
    Whatever it says of them, nor about flows that there are not.
    """
    seen = sent(1)
    before = _said(seen)
    _says_everything(seen, "c", [*(each.number for each in FLOWS), len(FLOWS), 0xFFFFFFFF])

    assert before == _said(seen)


def test_a_host_is_heard_about_its_own_end_only() -> None:
    """
    A source cannot tell what arrived, nor a destination what was sent.
    """
    source, destination = sent(1), sent(1)
    _says_everything(source, "a", [TCP.number])
    _says_everything(destination, "b", [TCP.number])

    assert 0 == source.at(SOCKET, Kind.PROBE)[TCP.number] == source.served[TCP.number]
    assert ({}, set()) == (source.nat, source.resent)
    assert 0 == destination.at(LEFT, Kind.PROBE)[TCP.number]
    assert 0 == destination.at(SOCKET, Kind.ACCEPT)[TCP.number]
    assert ({}, {}, {}, {}) == (
        destination.errors,
        destination.sessions,
        destination.rtt_us,
        destination.rst_ttl,
    )


def test_an_address_that_is_not_the_flows_is_that_of_a_translator() -> None:
    """
    The probe's source address tells; an answer may come from anywhere.
    """
    seen = sent(1)
    seen.came_from("b", Kind.PROBE, "192.0.2.7", 63, 179, [TCP.number])
    seen.came_from("b", Kind.PROBE, A, 63, 4789, [UDP.number])
    seen.came_from("a", Kind.ACCEPT, "192.0.2.8", 63, 0, [IPIP.number])

    assert {TCP.number: "192.0.2.7"} == seen.nat


def test_a_port_that_is_not_the_flows_is_that_of_a_redirection() -> None:
    """
    IP protocol 4 has none, and answers go to other ports anyway.
    """
    seen = sent(1)
    seen.came_from("b", Kind.PROBE, A, 63, 1790, [TCP.number])
    seen.came_from("b", Kind.PROBE, A, 63, UDP.port or 0, [UDP.number])
    seen.came_from("b", Kind.PROBE, A, 63, 0, [IPIP.number])
    seen.came_from("a", Kind.ACCEPT, A, 63, 1790, [UDP.number])

    assert {TCP.number: 1790} == seen.redirected


def test_the_ttl_of_a_reset_is_kept() -> None:
    """
    It tells how far away somebody is who speaks in the destination's name.
    """
    seen = sent(1)
    seen.came_from("a", Kind.RST, B, 63, 0, [TCP.number])
    seen.came_from("b", Kind.PROBE, A, 62, 4789, [UDP.number])

    assert {TCP.number: 63} == seen.rst_ttl


def test_a_datagram_passes_when_it_comes_to_the_socket() -> None:
    """
    Being seen at the interface, in front of the firewall, is not enough.
    """
    seen = sent(0b11)
    seen.saw("b", INTERFACE, Kind.PROBE, [(UDP.number, 0b11)])
    seen.saw("b", SOCKET, Kind.PROBE, [(UDP.number, 0b01)])

    assert 0b01 == seen.passed(UDP, 0b11)
    assert 0b00 == seen.passed(UDP, 0b10)


def test_a_syn_passes_when_its_answer_comes_back_to_the_socket() -> None:
    """
    The same attempt's: an answer to another one proves nothing for this one.
    """
    seen = sent(0b111)
    seen.saw("b", SOCKET, Kind.PROBE, [(TCP.number, 0b011)])
    seen.saw("a", SOCKET, Kind.ACCEPT, [(TCP.number, 0b110)])
    seen.saw("a", SOCKET, Kind.RST, [(TCP.number, 0b001)])

    assert 0b010 == seen.passed(TCP, 0b111)


def test_a_flow_is_missing_with_one_attempt_that_did_not_pass_or_none_made() -> None:
    """
    Attempts that were not asked for do not count.
    """
    seen = sent(0b11, (TCP, UDP))
    seen.saw("b", SOCKET, Kind.PROBE, [(UDP.number, 0b01), (TCP.number, 0b11)])
    seen.saw("a", SOCKET, Kind.ACCEPT, [(TCP.number, 0b11)])

    assert [UDP, IPIP, BACK] == seen.missing(FLOWS, 0b11)
    assert [IPIP, BACK] == seen.missing(FLOWS, 0b01)


def test_nothing_more_is_expected_of_what_was_refused() -> None:
    """
    Whether by the source's kernel or by an ICMP error; only the refused attempts' round is over.
    """
    seen = sent(0b1111)
    seen.failed("a", "EPERM", [(UDP.number, 0b0001)])
    seen.failed("a", "EINVAL", [(UDP.number, 0b0010)])

    assert 0b1100 == seen.pending(UDP, 0b1111)

    seen.heard("a", UDP.number, 0b0100, refusal())

    assert 0 == seen.pending(UDP, 0b0111)
    assert 0b1000 == seen.pending(UDP, 0b1000)


def test_a_packet_that_tests_the_output_is_awaited_until_it_is_seen_outside() -> None:
    """
    It has done its work when it has left, wherever it is lost then.
    """
    made = FIRST.mask | OUTPUT.mask | OUTPUT_WATCHED.mask
    seen = sent(made)

    assert made == seen.pending(IPIP, made)

    seen.saw("a", LEFT, Kind.PROBE, [(IPIP.number, OUTPUT.mask)])
    seen.saw("b", INTERFACE, Kind.PROBE, [(IPIP.number, OUTPUT_WATCHED.mask)])

    assert FIRST.mask == seen.pending(IPIP, made)


@pytest.mark.parametrize(("host", "point"), [("a", LEFT), ("b", INTERFACE), ("b", SOCKET)])
def test_a_packet_has_left_when_it_was_seen_anywhere_outside(host: str, point: str) -> None:
    """
    Leaving its source, or arriving, which it cannot without; all of the attempts must have.
    """
    seen = sent(0b11)
    seen.saw(host, point, Kind.PROBE, [(IPIP.number, 0b01)])

    assert seen.has_left(IPIP.number, 0b01)
    assert not seen.has_left(IPIP.number, 0b11)


def test_what_the_kernel_refused_was_not_sent() -> None:
    """
    Whatever the reason.
    """
    seen = sent(0b111)
    seen.failed("a", "EPERM", [(UDP.number, 0b001)])
    seen.failed("a", "EPERM", [(UDP.number, 0b010)])
    seen.failed("a", "ENOBUFS", [(UDP.number, 0b010)])

    assert 0b011 == seen.unsent(UDP.number)
    assert 0 == seen.unsent(TCP.number)


def test_a_connection_is_half_open_while_its_answer_does_not_come_back() -> None:
    """
    The source's kernel ends those of which it sees the answer, and a datagram opens nothing.
    """
    seen = sent(0b11)
    seen.saw("b", SOCKET, Kind.PROBE, [(TCP.number, 0b11), (UDP.number, 0b11)])
    seen.saw("a", SOCKET, Kind.ACCEPT, [(TCP.number, 0b01)])

    assert seen.is_half_open(TCP)
    assert not seen.is_half_open(UDP)
    assert not seen.is_half_open(BACK)

    seen.saw("a", SOCKET, Kind.ACCEPT, [(TCP.number, 0b10)])

    assert not seen.is_half_open(TCP)


def test_a_connection_waits_at_the_destination_until_it_is_taken_back() -> None:
    """
    By the source's kernel or by the run, as the destination itself sees it.
    """
    seen = sent(0b11)
    seen.saw("b", SOCKET, Kind.PROBE, [(TCP.number, 0b11), (UDP.number, 0b11)])
    seen.saw("b", INTERFACE, Kind.RESET, [(TCP.number, 0b11)])
    seen.saw("b", SOCKET, Kind.RESET, [(TCP.number, 0b01)])

    assert seen.is_waiting(TCP)
    assert not seen.is_waiting(UDP)
    assert not seen.is_waiting(BACK)

    seen.saw("b", SOCKET, Kind.WITHDRAWAL, [(TCP.number, 0b10)])

    assert not seen.is_waiting(TCP)


def test_a_flow_has_arrived_when_a_probe_came_to_any_point_of_its_destination() -> None:
    """
    In front of the firewall is enough to know that there is a way.
    """
    seen = sent(1)
    seen.saw("a", LEFT, Kind.PROBE, [(TCP.number, 1)])
    seen.saw("b", INTERFACE, Kind.PROBE, [(UDP.number, 1)])
    seen.saw("b", SOCKET, Kind.PROBE, [(IPIP.number, 1)])

    assert [UDP, IPIP] == list(seen.arrived())


@given(
    made=MASKS,
    asked=MASKS,
    at_socket=MASKS,
    accepted=MASKS,
    failed=MASKS,
    refused=MASKS | st.just(0),
    one=st.sampled_from(FLOWS[:3]),
)
def test_every_attempt_that_was_made_passed_is_pending_or_is_known_to_be_lost(
    made: int, asked: int, at_socket: int, accepted: int, failed: int, refused: int, one: Flow
) -> None:
    """
    Passed and pending never overlap, lie within what was made and asked for, and a flow of which nothing is
    missing has nothing pending.
    """
    seen = sent(made)
    seen.saw("b", SOCKET, Kind.PROBE, [(one.number, at_socket)])
    seen.saw("a", SOCKET, Kind.ACCEPT, [(one.number, accepted)])
    seen.failed("a", "EPERM", [(one.number, failed)])
    if refused:
        seen.heard("a", one.number, refused, refusal())
    passed, pending = seen.passed(one, made & asked), seen.pending(one, asked)

    assert 0 == passed & pending
    assert 0 == (passed | pending) & ~(made & asked)
    assert 0 == pending & failed
    assert (passed != made & asked or not made & asked) == (one in seen.missing([one], asked))
    given_up = made & asked & ~passed & ~pending & ~(failed | OUTPUT_MASK)
    assert not given_up or refused & made & asked & ~passed


def test_a_packet_that_hosts_forward_has_arrived_at_the_destinations_interface() -> None:
    """
    What came there is neither missing nor pending, whatever the destination does with it.
    """
    for one, through in ((POD, 0b011), (UDP, 0)):
        seen = Observations([TCP, one])
        seen.sent[one.number] = 0b111
        seen.saw("b", INTERFACE, Kind.PROBE, [(one.number, 0b011)])

        assert (through, 0b111 & ~through) == (seen.passed(one, 0b111), seen.pending(one, 0b111))
        assert [one] == seen.missing([one], 0b111)
        assert ([] if through else [one]) == seen.missing([one], 0b011)


def test_a_packet_of_a_pod_that_arrives_with_its_address_was_not_translated() -> None:
    """
    It was where it arrives with any other, be it that of the host that sent it.
    """
    seen = Observations([TCP, POD])
    seen.came_from("b", Kind.PROBE, POD.pod_address, 64, 1, [POD.number])

    assert {} == seen.nat

    seen.came_from("b", Kind.PROBE, POD.src_address, 64, 1, [POD.number])

    assert {POD.number: POD.src_address} == seen.nat


def test_the_time_of_a_word_counts_from_the_packet_that_it_is_about() -> None:
    """
    By the clock of the host that sent the one and heard the other; another host's tells nothing of it.
    """
    seen = sent(0b1111)
    tags = [UDP.number << ATTEMPT_BITS | attempt for attempt in range(4)]
    seen.depart("a", [(tags[0], 100), (tags[1], 200), (tags[1], 300)])
    seen.depart("b", [(tags[2], 100)])
    for attempt in range(4):
        seen.heard("a", UDP.number, 1 << attempt, refusal(), 450)
    seen.heard("b", UDP.number, 1, refusal(), 450)
    seen.heard("a", UDP.number, 1, refusal())

    assert [350, 0, 0, 0, 0, 0] == [each.rtt_us for each in seen.refused[UDP.number]]
