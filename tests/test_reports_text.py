"""The report for people."""

from __future__ import annotations

import itertools
from functools import cache

import click
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe.model import RATIONED, Caveat, Family, Flow, Host, Inventory, Role, Run, Segment, Trace, Verdict
from netprobe.modes import evaluate
from netprobe.reports import Options, registry
from netprobe.reports._squares import GLYPHS, MEANINGS, _fold
from netprobe.reports.base import printable, when
from tests.golden.made_up import Outcome, hosts, is_, lost, rejected, run, untested, where
from tests.golden.scenes import TEXTS, all_open, five_hosts, hundred_hosts, scenes, sixteen_hosts
from tests.golden.strategies import runs

PATH = lost(Segment.PATH)

golden = cache(scenes)


def rendered(
    some_run: Run, *, width: int = 80, color: bool = False, unicode: bool = True, verbose: bool = False
) -> str:
    """The report."""
    options = Options(width=width, color=color, unicode=unicode, verbose=verbose)
    return registry()["text"].render(some_run, options)


@pytest.mark.parametrize("name", sorted(path.stem for path in TEXTS.glob("*.txt")))
def test_a_golden_report_is_as_it_was_read_and_found_good(name: str) -> None:
    """`python -m tests.golden.scenes` writes them anew, for a change that is wanted."""
    some_run, options = golden()[name]

    assert (TEXTS / f"{name}.txt").read_text(encoding="utf-8") == registry()["text"].render(some_run, options)


def test_every_scene_has_its_golden_report_and_every_report_its_scene() -> None:
    """A file that nothing writes is compared with nothing."""
    assert {path.stem for path in TEXTS.glob("*.txt")} == set(golden())


def test_text_is_a_report_like_the_others() -> None:
    """The registry finds all formats by walking the package."""
    assert ["csv", "json", "text"] == [name for name in registry() if name in {"csv", "json", "text"}]
    assert ["csv", "json", "txt"] == [registry()[name].extension for name in ("csv", "json", "text")]


def test_a_flow_that_comes_through_when_it_is_traced_was_lost_all_the_same() -> None:
    """The trace is later than the verdict, and says so."""
    some_run = run(Inventory(hosts=hosts("ab"), probes=("ipip",)), [where(is_(src="a"), PATH)])
    (flow,) = (cell.flow for cell in some_run.cells if cell.flow.src == "a")
    trace = Trace(flow=flow, left=True, arrived_ttl=3, passed=True)

    assert "\n   trace: this time it comes through to b (hop 3)\n" in rendered(
        msgspec.structs.replace(some_run, traces=(trace,))
    )


def test_every_verdict_has_its_own_glyph() -> None:
    """What reads without colour must not be ambiguous."""
    assert len(Verdict) == len(set(GLYPHS.values())) == len(set(GLYPHS))
    assert len(Verdict) + 4 == len(MEANINGS) == len(set(MEANINGS.values()))


def test_the_legend_explains_the_glyphs_in_use_and_no_others() -> None:
    """Once, after the last matrix."""
    text = rendered(run(Inventory(hosts=hosts("ab")), [where(is_(src="a", probe="ipip"), PATH)]))

    assert 1 == text.count("o open")
    assert "\n\no open   F filtered   \\ itself\n\n" in text


def test_a_port_in_use_is_explained_by_what_its_holder_got() -> None:
    """A program that listens hears nothing of a SYN; datagrams are delivered."""
    held = Outcome(verdict=Verdict.OPEN, caveats=(Caveat.PORT_IN_USE,), holder="some (pid 7)")
    text = rendered(
        run(Inventory(hosts=hosts("ab"), probes=("bgp", "vxlan")), [where(is_(dst="b"), held)]), width=160
    )
    caveats = [line.strip() for line in text.split("Caveats\n")[1].split("\n\n")[0].splitlines()]

    assert caveats[0].startswith("port-in-use (bgp 1 flows): a program holds the port there: only SYNs")
    assert caveats[2].endswith("holds the port there: it got datagrams that mean nothing to it")
    assert ["some (pid 7) on b"] * 2 == caveats[1::2]


def test_flows_that_were_probably_refused_as_well_are_counted_beside_the_refused_ones() -> None:
    """Without -v, and with the reason why nobody was heard to refuse them."""
    silent = msgspec.structs.replace(PATH, notes=(RATIONED,))
    faults = [
        where(is_(src="a", dst="b"), silent),
        where(is_(src="b", dst="c"), silent),
        where(is_(), rejected(Segment.PATH, "10.0.0.1")),
    ]
    text = rendered(run(Inventory(hosts=hosts("abc"), probes=("vxlan",)), faults), width=160)

    assert "Blocked: 6 flows, one cause\n" in text
    assert (
        " 1 rejected @ path, vxlan udp/4789: all hosts among themselves (4 flows, and 2 filtered)\n" in text
    )
    assert "Nobody was heard to refuse the filtered ones, but refusals are rationed" in text


def test_the_last_lines_are_the_modes() -> None:
    """What is read first stands where the prompt comes back."""
    last = rendered(sixteen_hosts()).splitlines()[-10:]

    assert "none:                 blocked: 14 of 240 flows, 30 untested" == last[0]
    assert "datastore-etcd:       not known: 3 of 45 flows untested" == last[-1]


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ({}, "vxlan: usable as it is, 6 flows open"),
        ({"a": Verdict.FILTERED}, "vxlan: blocked: 2 of 6 flows"),
        ({"a": Verdict.UNTESTED}, "vxlan: not known: 2 of 6 flows untested"),
        ({"a": Verdict.CLOSED}, "vxlan: nothing listens: 2 closed, of 6 flows"),
        (
            {"a": Verdict.CLOSED, "b": Verdict.UNTESTED},
            "vxlan: nothing listens: 2 closed, 2 untested, of 6 flows",
        ),
        (
            {"a": Verdict.DEGRADED, "b": Verdict.CLOSED, "c": Verdict.UNTESTED},
            "vxlan: blocked: 2 of 6 flows, 2 closed, 2 untested",
        ),
    ],
)
def test_a_mode_s_line_says_what_is_wrong_and_how_often(verdicts: dict[str, Verdict], line: str) -> None:
    """Closed is not blocked, and untested is neither."""
    faults = [where(is_(src=src), Outcome(verdict=verdict)) for src, verdict in verdicts.items()]

    assert line == rendered(run(Inventory(hosts=hosts("abc"), modes=("vxlan",)), faults)).splitlines()[-1]


def test_a_mode_that_was_asked_for_and_not_probed_is_not_passed_over() -> None:
    """It would read as if it were fine."""
    text = rendered(run(Inventory(hosts=hosts("ab"), modes=("ipip", "none"), probes=("bgp",))))

    assert text.endswith(
        "none: usable as far as probed, 2 flows open\nipip: not known: no flow of ipip was probed\n"
    )


def test_a_mode_whose_packets_of_pods_were_not_probed_is_not_usable_as_it_is() -> None:
    """Its line says less, and a paragraph what would have to be given; with the range it is as any other."""
    two = Inventory(hosts=hosts("ab"), modes=("none", "ipip"))
    bare = rendered(run(two), width=200)
    ranged = rendered(run(msgspec.structs.replace(two, pod_cidr=("10.244.0.0/16",))))

    assert (
        "\nNot probed\n   pod-route (none): whether the network carries packets of pods, which go without "
        "encapsulation there; give the range of their addresses as pod_cidr\n"
    ) in bare
    assert bare.endswith(
        "\nnone: usable as far as probed, 2 flows open\nipip: usable as it is, 4 flows open\n"
    )
    assert "Not probed" not in ranged
    assert "\nnone: usable as it is, 4 flows open\n" in ranged


def test_what_a_mode_needs_and_was_not_probed_has_a_glyph_and_a_line() -> None:
    """`--only a`: it is needed, and nobody looked."""
    whole = run(Inventory(hosts=hosts("abc"), modes=("none",)))
    cells = tuple(cell for cell in whole.cells if cell.flow.probe == "bgp" and cell.flow.src == "a")
    text = rendered(msgspec.structs.replace(whole, cells=cells))

    assert "b          -  \\  -\n" in text
    assert "\no open   - needed, not probed   \\ itself\n" in text
    assert text.endswith("\nnone: 2 of 6 needed flows probed, all open\n")


def test_modes_with_the_same_gaps_share_their_matrix_and_others_do_not() -> None:
    """What was not probed is part of the picture, and so is what cannot be."""
    dual = hosts("abc", dual=True)
    some = (*dual[:2], msgspec.structs.replace(dual[2], addresses=dual[2].addresses[1:]))
    whole = run(Inventory(hosts=some))
    cells = tuple(cell for cell in whole.cells if "a" in (cell.flow.src, cell.flow.dst))
    text = rendered(msgspec.structs.replace(whole, cells=cells))

    assert "none, vxlan, wireguard, flannel, typha" in text
    assert "none, ipip" not in text
    assert "ipip: BGP and IP-in-IP between all nodes\n" in text


def test_what_cannot_be_for_lack_of_addresses_is_impossible() -> None:
    """A host without IPv4 has no IP-in-IP, and the mode is not usable as it is."""
    dual = hosts("abc", dual=True)
    some = (*dual[:2], msgspec.structs.replace(dual[2], addresses=dual[2].addresses[1:]))
    text = rendered(run(Inventory(hosts=some, modes=("ipip", "none"))))

    assert "c          X  X  \\\n" in text
    assert "\no open   X impossible   \\ itself\n" in text
    assert "ipip: not usable: 4 of 14 flows impossible (ipip needs IPv4 at both ends)\n" in text
    assert "none: usable as far as probed, 8 flows open\n" in text


def test_the_footer_counts_every_cell() -> None:
    """Whatever the matrices leave out."""
    some_run = five_hosts()
    line = next(line for line in rendered(some_run, width=200).splitlines() if line.startswith("316 flows: "))

    counts = [part.split() for part in line.removeprefix("316 flows: ").split(", ")]
    assert len(some_run.cells) == sum(int(count) for count, _ in counts)
    assert {verdict for _, verdict in counts} == {cell.judgement.verdict.value for cell in some_run.cells}


def test_modes_with_the_same_matrix_share_it() -> None:
    """Six times the same picture hides the one that differs."""
    text = rendered(all_open(5))

    assert 1 == text.count("none, ipip, ipip-crosssubnet, vxlan, wireguard, flannel\n")
    assert 2 == text.count("from / to")


def test_what_is_wholly_open_in_a_large_cluster_is_one_line() -> None:
    """Forty rows of the same letter say nothing."""
    text = rendered(all_open(40))

    assert "from / to" not in text
    assert "Every square is open: none, ipip" in text


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize(
    "name", ["five-hosts-80", "sixteen-hosts-80", "hundred-hosts-80", "hundred-hosts-at-random-100"]
)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    """A wrapped matrix cannot be read."""
    lines = rendered(golden()[name][0], width=width).splitlines()

    assert max(map(len, lines)) <= width


def test_a_matrix_that_is_too_wide_shows_the_hosts_with_faults() -> None:
    """The counts of the rest are enough, and those with fewer faults are counted, too."""
    names = [f"node-{number}" for number in range(30)]
    ring = names[1:29]
    faults = [where(is_(src=src, dst=dst), PATH) for src, dst in zip(ring, (*ring[1:], ring[0]), strict=True)]
    text = rendered(run(Inventory(hosts=hosts(names), modes=("vxlan",)), faults), width=60)

    assert "… and 2 hosts whose squares are all open" in text


def test_hosts_that_fare_alike_are_folded() -> None:
    """Ninety-seven hosts that cannot reach three are a table of two by two."""
    lines = rendered(hundred_hosts()).splitlines()
    at = lines.index("vxlan, wireguard")

    assert [
        "   from / to                     1  2",
        "1  node-[001-040,044-100] (97)   o  F",
        "2  node-041, node-042, node-043  F  o",
    ] == lines[at + 1 : at + 4]


def test_the_domain_that_all_hosts_share_is_said_once() -> None:
    """Names are told apart by what differs."""
    text = rendered(sixteen_hosts())

    assert 1 == text.count("eu-west-1.compute.internal")


def test_flows_that_nothing_needs_are_counted_and_not_explained() -> None:
    """The API server's second port is closed, which is how it should be."""
    closed = Outcome(verdict=Verdict.CLOSED)
    fault = lambda flow: closed if flow.port == 443 else None  # noqa: E731
    text = rendered(run(Inventory(hosts=hosts("ab")), [fault]))

    assert "Not open, and not needed\n   apiserver tcp/443: 2 closed; another port is enough\n" in text
    assert "Blocked" not in text
    assert "Closed" not in text


def test_flows_of_modes_that_were_not_asked_for_are_counted_too() -> None:
    """They were probed, so they are mentioned."""
    inventory = Inventory(hosts=hosts("ab"), modes=("vxlan",))
    text = rendered(run(inventory, [where(is_(probe="ipip"), PATH)]))

    assert "   ipip: 2 filtered; no mode in question needs it\n" in text


def test_many_reasons_and_causes_are_cut_short_unless_all_were_asked_for() -> None:
    """A screen has an end."""
    names = [f"host-{letter}" for letter in "abcdefghijklmnop"]
    faults = [where(is_(src=name), untested(f"{name} is a riddle")) for name in names]
    some_run = run(Inventory(hosts=hosts(names), probes=("bgp",)), faults)

    assert "… and 4 reasons more, 60 flows (-v shows them)" in rendered(some_run)
    assert "reasons more" not in rendered(some_run, verbose=True)
    assert 16 == rendered(some_run, width=200, verbose=True).count("is a riddle (")


def test_all_sources_of_a_host_are_counted_where_others_have_another_role() -> None:
    """Three etcd hosts are no nodes, so `every other host` would be wrong."""
    names = [f"node-{letter}" for letter in "abcdefgh"]
    nodes = tuple(msgspec.structs.replace(host, roles=(Role.NODE,)) for host in hosts(names))
    servers = tuple(
        Host(name=f"etcd-{number}", addresses=(f"10.9.9.{number}",), roles=(Role.ETCD,))
        for number in range(4)
    )
    faults = [where(is_(dst="node-b", probe="bgp"), PATH), where(is_(dst="etcd-1"), PATH)]
    text = rendered(run(Inventory(hosts=(*nodes, *servers)), faults))

    assert "etcd tcp/2379: all 8 sources → etcd-1 (8 flows)" in text
    assert "bgp tcp/179: all 7 sources → node-b (7 flows)" in text


def test_verbose_has_a_line_for_every_flow() -> None:
    """With its verdict, segment, counts, caveats, detail, and the evidence where something is wrong."""
    some_run = five_hosts()
    lines = rendered(some_run, verbose=True).splitlines()

    assert "Every flow" == lines[0]
    assert "  bgp tcp/179 ipv4 node-a → node-b: open 5/5 0.25 ms" == lines[1]
    assert len(some_run.cells) == lines.index("") - 1
    assert any("degraded @ path 7/15 [ecmp] (15 sent, 15 left node-a, 7 reached" in line for line in lines)


def test_colour_changes_no_letter() -> None:
    """What colour says is said without it, too."""
    some_run = five_hosts()
    plain = rendered(some_run)

    assert "\x1b" not in plain
    assert plain == click.unstyle(rendered(some_run, color=True)) != rendered(some_run, color=True)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    """Arrows and dots have their spelling, names their escapes."""
    some_run = run(Inventory(hosts=hosts(["knödel", "brezn"])), [where(is_(src="knödel"), PATH)])
    text = rendered(some_run, unicode=False)

    assert text.isascii()
    assert r"kn\xf6del -> brezn" in text


def test_what_a_host_says_cannot_command_the_terminal() -> None:
    """An agent's last words are printed, not obeyed."""
    reason = "ssh:\x1b]0;gotcha\x07 no\nroute\u202e"
    some_run = run(Inventory(hosts=hosts("ab")), [where(is_(), untested(reason))], errors={"a": reason})

    assert r"a: ssh:\x1b]0;gotcha\x07 no route\u202e" in rendered(some_run, width=120)


@settings(max_examples=60)
@given(runs(), st.integers(20, 200), st.booleans(), st.booleans())
def test_any_run_can_be_printed(some_run: Run, width: int, unicode: bool, verbose: bool) -> None:
    """Whatever is in it, what comes out are lines of characters that can be printed."""
    text = rendered(some_run, width=width, unicode=unicode, verbose=verbose)

    assert text.endswith("\n")
    assert text.replace("\n", "").isprintable()
    assert unicode or text.isascii()
    assert "\n\n\n" not in text


@settings(max_examples=60)
@given(st.data())
def test_folding_loses_nothing(data: st.DataObject) -> None:
    """Every host is in one class, and all pairs of hosts of two classes have the same square."""
    names = list("abcdefghijkl")
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12))
    kind_of = dict(zip(names, kinds, strict=True))
    verdict_of = data.draw(st.lists(st.sampled_from(Verdict), min_size=16, max_size=16))

    def fault(flow: Flow) -> Outcome:
        return Outcome(verdict=verdict_of[kind_of[flow.src] * 4 + kind_of[flow.dst]])

    some_run = run(Inventory(hosts=hosts(names, 2), modes=("vxlan-crosssubnet", "typha")), [fault])

    for result in evaluate(some_run):
        classes = [some.hosts for some in _fold(result.matrix)]
        assert sorted(names) == sorted(itertools.chain.from_iterable(classes))
        for sources, destinations in itertools.product(classes, classes):
            pairs = [(src, dst) for src, dst in itertools.product(sources, destinations) if src != dst]
            assert len({result.matrix.verdict(src, dst) for src, dst in pairs}) <= 1
            assert len({src in result.matrix.sources for src in sources}) == 1
            assert len({dst in result.matrix.destinations for dst in destinations}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n", "two lines"),
        ("tab\there", "tab here"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eback", r"\u202eback"),
        ("del\x7f \x9b", r"del\x7f \x9b"),
        ("žluťoučký → 木", "žluťoučký → 木"),
    ],
)
def test_a_printable_text_is_one_line_of_characters(text: str, expected: str) -> None:
    """Everything else is escaped, so that it is seen."""
    assert expected == printable(text)


@pytest.mark.parametrize(
    "text", ["2024-06-12T03:07:11Z", "2024-06-12T03:07:11+00:00", "2024-06-12T05:07:11+02:00"]
)
def test_times_are_utc(text: str) -> None:
    """However they are written."""
    assert "2024-06-12T03:07:11+00:00" == when(text).isoformat() == when("2024-06-12T03:07:11").isoformat()


def test_families_are_named_only_where_there_are_two() -> None:
    """A cluster without IPv6 need not read of it."""
    fault = where(is_(src="a", dst="b", probe="vxlan"), PATH)
    four = run(Inventory(hosts=hosts("ab")), [fault])
    both = run(Inventory(hosts=hosts("ab", dual=True)), [fault])
    six = msgspec.structs.replace(
        both, cells=tuple(cell for cell in both.cells if cell.flow.family is Family.IPV6)
    )

    assert "vxlan udp/4789: a → b" in rendered(four)
    assert "vxlan udp/4789: a → b" in rendered(six)
    assert "vxlan udp/4789 ipv4+ipv6: a → b" in rendered(both)
