"""What a kernel's counters say between two looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netprobe import counters

NAMES = st.sampled_from([*counters.MEANINGS, "TcpExt.TCPHPHits", "Ip.InReceives"])
COUNTS = st.dictionaries(NAMES, st.integers(1, 1 << 40))


@given(before=COUNTS, after=COUNTS)
def test_only_what_grew_and_is_about_discarded_packets_is_told(
    before: dict[str, int], after: dict[str, int]
) -> None:
    """
    Counters that are zero are not sent; one that went back (a module was loaded again) has not grown.
    """
    grown = counters.growth(before, after)

    assert all(number == after[name] - before.get(name, 0) > 0 for name, number in grown.items())
    assert set(grown) == {name for name in counters.MEANINGS if after.get(name, 0) > before.get(name, 0)}


def test_the_more_telling_counter_comes_first() -> None:
    """
    Several may grow for one packet: conntrack calls one with a wrong checksum invalid.
    """
    grown = counters.growth({}, {"nf_conntrack.invalid": 3, "Udp.InCsumErrors": 3, "TcpExt.TCPMinTTLDrop": 3})

    assert ["TcpExt.TCPMinTTLDrop", "Udp.InCsumErrors", "nf_conntrack.invalid"] == list(grown)


def test_a_counter_is_called_as_people_look_for_it() -> None:
    """
    Without the group that no tool shows, and with it where the name alone says too little.
    """
    assert "IPReversePathFilter" == counters.short("TcpExt.IPReversePathFilter")
    assert "Tcp.InCsumErrors" == counters.short("Tcp.InCsumErrors")
    assert "Ip6InNoRoutes" == counters.short("Ip6InNoRoutes")
