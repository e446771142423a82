"""One line a cell."""

from __future__ import annotations

import csv
import io

from hypothesis import given

from netprobe.model import Caveat, Fate, Inventory, Run, Seen, Segment, Verdict
from netprobe.reports import Options, registry
from tests.golden.made_up import Outcome, hosts, is_, rejected, run, where
from tests.golden.strategies import runs

CONTRACT = (
    "probe,family,protocol,port,src,src_address,dst,dst_address,"
    "verdict,segment,by,caveats,sent,arrived,rtt_ms,detail"
)


def rendered(some_run: Run) -> str:
    """The report."""
    return registry()["csv"].render(some_run, Options())


def test_the_header_is_the_contract() -> None:
    """Scripts take columns by these names and in this order."""
    assert CONTRACT == rendered(run(Inventory(hosts=()))).rstrip("\n")


def test_each_cell_is_one_line_in_flow_order() -> None:
    """What does not apply is empty: the port of protocol 4, the segment of what was not lost."""
    some_run = run(
        Inventory(hosts=hosts("ab"), probes=("ipip", "typha")),
        [where(is_(probe="ipip", src="a"), rejected(Segment.PATH, "10.0.0.1", "ICMP 3/13"))],
    )

    assert [
        CONTRACT,
        "ipip,ipv4,4,,a,10.0.0.10,b,10.0.0.11,rejected,path,10.0.0.1,,15,0,,ICMP 3/13",
        "ipip,ipv4,4,,b,10.0.0.11,a,10.0.0.10,open,,,,5,5,,",
        "typha,ipv4,tcp,5473,a,10.0.0.10,b,10.0.0.11,open,,,,5,5,0.250,",
        "typha,ipv4,tcp,5473,b,10.0.0.11,a,10.0.0.10,open,,,,5,5,0.250,",
    ] == rendered(some_run).splitlines()


def test_caveats_are_joined_with_semicolons() -> None:
    """One field has them all."""
    outcome = Outcome(
        verdict=Verdict.OPEN,
        caveats=(Caveat.STATE_ASSISTED, Caveat.NAT),
        fates=((Fate(Seen.AT_SOCKET), 1),),
    )
    lines = rendered(
        run(Inventory(hosts=hosts("ab"), probes=("ipip",)), [where(is_(), outcome)])
    ).splitlines()

    assert ",state-assisted;nat," in lines[1]


def test_lines_end_in_a_line_feed_alone() -> None:
    """A carriage return would be the last character of the last field for `cut` and `awk`."""
    text = rendered(run(Inventory(hosts=hosts("ab"))))

    assert text.endswith("\n")
    assert "\r" not in text


def test_commas_and_quotes_are_quoted_and_control_characters_are_escaped() -> None:
    """A host's answer can contain anything, and a terminal obeys escape sequences."""
    outcome = Outcome(verdict=Verdict.UNTESTED, untested="x", detail='no, "no"\x1b[2J\nno\u202e')
    some_run = run(Inventory(hosts=hosts("ab"), probes=("ipip",)), [where(is_(), outcome)])

    assert rendered(some_run).splitlines()[1].endswith(r',"no, ""no""\x1b[2J no\u202e"')


@given(runs())
def test_any_run_is_a_table_of_cells(some_run: Run) -> None:
    """Each line has every field, whatever is in them, and nothing that is not printable."""
    text = rendered(some_run)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))

    assert len(some_run.cells) == len(rows) == text.count("\n") - 1
    assert all(None not in row and None not in row.values() for row in rows)
    assert text.replace("\n", "").isprintable()
    assert [cell.judgement.verdict.value for cell in some_run.cells] == [row["verdict"] for row in rows]
