"""What netprobe must find, and the comparison with what it did find."""

from __future__ import annotations

import msgspec
import pytest

from netprobe import lab
from netprobe.model import Caveat, Cell, Evidence, Family, Flow, Judgement, Protocol, Segment, Verdict
from netprobe.probes import registry

LAB = """
name: three hosts
hosts: [a, b, {name: c, roles: [node, apiserver]}]
networks: [{name: rack-1, hosts: [a, b]}]
"""


def _expectations(expect: str) -> lab.Expectations:
    return lab.Lab(lab.describe(LAB + expect)).expectations


def _flow(src: str, dst: str, probe: str, port: int | None, family: Family = Family.IPV4) -> Flow:
    return Flow(
        number=0,
        probe=probe,
        family=family,
        protocol=registry()[probe].protocol,
        port=port,
        src=src,
        src_address="192.0.2.1",
        dst=dst,
        dst_address="192.0.2.2",
    )


def _cell(flow: Flow, verdict: Verdict, segment: Segment | None = None, detail: str = "") -> Cell:
    return Cell(
        flow=flow,
        judgement=Judgement(verdict=verdict, segment=segment, detail=detail),
        evidence=Evidence(protocol=Protocol.TCP),
        sent=1,
        arrived=0,
    )


BGP = _flow("a", "b", "bgp", 179)


def test_what_is_not_named_is_open() -> None:
    """A lab without faults expects nothing else."""
    assert (Verdict.OPEN, None) == _expectations("").of(BGP)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("a -> b bgp", True),
        ("a -> b bgp:179/ipv4", True),
        ("a -> b bgp/ipv6", False),
        ("b -> a bgp", False),
        ("a -> b ipip", False),
        ('"* -> b bgp"', True),
        ("a -> * bgp", True),
        ("rack-1 -> rack-1 bgp", True),
        ("rack-1 -> c bgp", False),
        ("a -> b *", True),
        ("a -> b */ipv4", True),
        ("a -> b *:179", True),
        ("a -> b *:4789", False),
    ],
)
def test_a_pattern_names_flows(pattern: str, fits: bool) -> None:
    """What it leaves out, it leaves open."""
    found = _expectations(f"expect: {{{pattern}: filtered @ path}}").of(BGP)

    assert ((Verdict.FILTERED, Segment.PATH) if fits else (Verdict.OPEN, None)) == found


def test_a_port_tells_two_flows_of_one_probe_apart() -> None:
    """The API server has two by default."""
    expectations = _expectations("expect: {a -> c apiserver:443: rejected}")

    assert (Verdict.REJECTED, None) == expectations.of(_flow("a", "c", "apiserver", 443))
    assert (Verdict.OPEN, None) == expectations.of(_flow("a", "c", "apiserver", 6443))


def test_the_last_pattern_counts_and_the_lab_overrules_its_faults() -> None:
    """Faults meet in a cell; who describes them knows which is found there."""
    expectations = _expectations("""
faults:
  - {on: b, nft: drop, expect: {"* -> b bgp": filtered @ destination-ingress, c -> b bgp: closed}}
  - {on: a, nft: drop, expect: {a -> b bgp: unreachable @ source-egress}}
expect:
  a -> b bgp/ipv6: degraded @ path
""")

    assert (Verdict.UNREACHABLE, Segment.SOURCE_EGRESS) == expectations.of(BGP)
    assert (Verdict.CLOSED, None) == expectations.of(_flow("c", "b", "bgp", 179))
    assert (Verdict.DEGRADED, Segment.PATH) == expectations.of(_flow("a", "b", "bgp", 179, Family.IPV6))


def test_a_run_that_is_as_expected_has_no_mismatches() -> None:
    """A segment that is left out is not compared."""
    expectations = _expectations("expect: {a -> b bgp: filtered, b -> a bgp: filtered @ path}")
    cells = [
        _cell(BGP, Verdict.FILTERED, Segment.PATH),
        _cell(_flow("b", "a", "bgp", 179), Verdict.FILTERED, Segment.PATH),
        _cell(_flow("a", "b", "ipip", None), Verdict.OPEN),
    ]

    assert [] == expectations.compare(cells)


def test_a_mismatch_is_one_line_that_says_both() -> None:
    """Expected first, then found, with its detail."""
    expectations = _expectations("expect: {a -> b bgp: rejected @ path}")
    cells = [
        _cell(BGP, Verdict.REJECTED, Segment.DESTINATION_INGRESS, "TCP reset by the destination"),
        _cell(_flow("a", "b", "ipip", None), Verdict.FILTERED, Segment.PATH),
    ]

    first, second = expectations.compare(cells)
    found = "rejected @ destination-ingress (TCP reset by the destination)"

    assert f"a -> b bgp:179/ipv4: expected rejected @ path, found {found}" == str(first)
    assert "a -> b ipip/ipv4: expected open, found filtered @ path" == str(second)


def test_who_refused_caveats_and_detail_are_compared_where_they_are_named() -> None:
    """Whoever refused by any of its addresses; the detail may say more, and there may be more caveats."""
    found = Judgement(
        verdict=Verdict.REJECTED,
        segment=Segment.PATH,
        by="fd77:6e70:6c61:2::1",
        caveats=(Caveat.STATE_ASSISTED, Caveat.NAT),
        detail="ICMPv6 1/1 prohibited; arrives from elsewhere",
    )
    texts = {
        "rejected @ path by c.gateway +nat +state-assisted (arrives from)": True,
        "rejected by c.gateway": True,
        "rejected @ path by a": False,
        "rejected @ path +retried": False,
        "rejected @ path (left for)": False,
        "rejected @ return-path by c.gateway": False,
    }
    for text, fits in texts.items():
        expected = _expectations(f"expect: {{a -> b bgp: '{text}'}}").expected(BGP)

        assert fits is expected.fits(found), text


def test_a_mismatch_says_what_is_compared() -> None:
    """Who refused, and the caveats, where they were expected."""
    judgement = Judgement(
        verdict=Verdict.REJECTED, segment=Segment.PATH, by="192.0.2.9", caveats=(Caveat.NAT,)
    )
    cell = msgspec.structs.replace(_cell(BGP, Verdict.OPEN), judgement=judgement)
    expectations = _expectations("expect: {a -> b bgp: rejected @ path by b +nat (TCP reset)}")
    (mismatch,) = expectations.compare([cell])

    assert str(mismatch) == (
        "a -> b bgp:179/ipv4: expected rejected @ path by 10.77.1.12 or fd77:6e70:6c61:1::12 +nat "
        "(TCP reset), found rejected @ path by 192.0.2.9 +nat"
    )


def test_an_expectation_without_a_cell_is_a_mismatch_unless_the_run_was_partial() -> None:
    """A cell that is missing must not pass for one that is as expected."""
    expectations = _expectations("expect: {a -> b bgp: rejected @ path}")
    cells = [_cell(_flow("a", "b", "ipip", None), Verdict.OPEN)]

    assert ["a -> b bgp: expected rejected @ path, found no such flow"] == [
        str(mismatch) for mismatch in expectations.compare(cells)
    ]
    assert [] == expectations.compare(cells, is_partial=True)


def test_planted_faults_are_those_that_say_what_they_are() -> None:
    """Each knows in which cells it is meant to show."""
    planted = lab.Lab(
        lab.describe(
            LAB
            + """
faults:
  - {on: [a, b], nft: drop, says: they drop, expect: {a -> b bgp: filtered, b -> a ipip: filtered}}
  - {on: c, nft: drop}
"""
        )
    ).planted

    assert [("they drop", ("a", "b"))] == [(each.says, each.on) for each in planted]
    assert planted[0].shows_in(BGP)
    assert not planted[0].shows_in(msgspec.structs.replace(BGP, src="c"))
