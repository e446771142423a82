"""The reports of a check: text for people, CSV and JSON for programs; and how a check ends."""

from __future__ import annotations

import csv
import io
import json
from xml.etree import ElementTree as ET

import pytest

from netprobe.findings import HostFindings, Result
from netprobe.reports.base import Options
from netprobe.reports.checks import registry
from tests.made_checks import CRITERIA, check, host

PASS, FAIL, WARN, UNKNOWN, NOT = (
    Result.PASS,
    Result.FAIL,
    Result.WARN,
    Result.UNKNOWN,
    Result.NOT_APPLICABLE,
)


def text(*hosts: HostFindings, verbose: bool = False, width: int = 100) -> str:
    """What people get."""
    return registry()["text"].render(check(*hosts), Options(width=width, verbose=verbose))


def test_equal_hosts_are_one_section_and_failures_stand_first() -> None:
    """Names are folded; what passes is only counted; what failed has what was seen, and the fix."""
    hosts = [host(f"node-{n}", PASS, FAIL, WARN) for n in range(1, 41)]

    assert """\
node-[1-40]: 1 pass, 1 fail, 1 warn
  fail device-ipip: Interfaces of kind ipip (required for ipip)
    seen: device-ipip was seen
    fix: Install the module.
  warn distribution: Distribution (recommended)
    seen: distribution was seen
    fix: Use another.

Of 40 hosts 40 do not; counted for all modes.
""" == text(*hosts)


def test_the_worst_hosts_come_first() -> None:
    """Whoever scrolls no further has seen what matters."""
    lines = text(
        host("good", PASS, PASS, PASS),
        host("unclear", PASS, UNKNOWN, PASS),
        host("bad", FAIL, PASS, PASS),
        width=120,
    ).splitlines()

    assert ["bad: 2 pass, 1 fail", "unclear: 2 pass, 1 unknown", "good: 3 pass"] == [
        line for line in lines if line and not line.startswith((" ", "Of"))
    ]
    assert (
        "Of 3 hosts 1 meet all that is required, 1 do not, 1 could not be asked everything; "
        "counted for all modes." == lines[-1]
    )


def test_what_was_seen_where_it_passes_makes_no_difference() -> None:
    """Forty kernels of the same kind differ in their hostnames; what failed differently is told apart."""
    first = host("a", PASS, PASS, PASS, seen={"arch": "x86_64"})
    second = host("b", PASS, PASS, PASS, seen={"arch": "aarch64"})
    third = host("c", FAIL, PASS, PASS, seen={"arch": "i686"})
    fourth = host("d", FAIL, PASS, PASS, seen={"arch": "armv7l"})
    lines = text(first, second, third, fourth).splitlines()

    assert ["c: 2 pass, 1 fail", "d: 2 pass, 1 fail", "a, b: 3 pass"] == [
        line for line in lines if line and not line.startswith((" ", "Of"))
    ]


def test_verbose_tells_what_passes_and_the_source() -> None:
    """With the page's own words."""
    told = text(host("a", PASS, NOT, PASS), verbose=True)

    assert "  pass arch: Processor (required)\n    seen: arch was seen\n    source: x86-64\n" in told
    assert "  not-applicable device-ipip" in told


def test_a_lost_host_says_why_once() -> None:
    """And not for each requirement."""
    told = text(host("a", UNKNOWN, UNKNOWN, UNKNOWN, error="no route to a"))

    assert "a: 3 unknown\n  no route to a\n\n" in told


def test_one_reason_for_many_unknowns_is_told_once() -> None:
    """The requirements stand in one list."""
    same = {each.id: "EPERM" for each in CRITERIA}
    told = text(host("a", UNKNOWN, UNKNOWN, PASS, seen=same))

    assert "  unknown arch, device-ipip\n    seen: EPERM\n" in told


def test_what_a_host_says_is_no_command_to_the_terminal() -> None:
    """Escapes and line breaks are shown as what they are."""
    seen = {"arch": "\x1b[2Ji686\nnode-b: 99 pass"}
    told = text(host("a", FAIL, PASS, PASS, seen=seen))

    assert "\x1b" not in told
    assert "seen: \\x1b[2Ji686 node-b: 99 pass" in told


def test_colours_only_where_they_are_wanted() -> None:
    """The word of a result, in its colour."""
    made = check(host("a", FAIL, PASS, PASS))
    told = registry()["text"].render(made, Options(color=True))

    assert "\x1b[31mfail\x1b[0m arch" in told


def test_csv_has_a_line_for_each_requirement_of_each_host() -> None:
    """With the columns of the contract."""
    made = check(host("a", PASS, FAIL, WARN), host("b", UNKNOWN, NOT, PASS))
    rows = list(csv.reader(io.StringIO(registry()["csv"].render(made, Options()))))

    assert ["host", "id", "title", "level", "result", "seen", "fix", "source"] == rows[0]
    assert [
        ("a", "arch", "required", "pass", ""),
        ("a", "device-ipip", "required for ipip", "fail", "Install the module."),
        ("a", "distribution", "recommended", "warn", "Use another."),
        ("b", "arch", "required", "unknown", ""),
        ("b", "device-ipip", "required for ipip", "not-applicable", ""),
        ("b", "distribution", "recommended", "pass", ""),
    ] == [(row[0], row[1], row[3], row[4], row[6]) for row in rows[1:]]
    assert "When IPIP is enabled" == rows[2][7]


def test_json_has_everything() -> None:
    """Under its schema; each requirement and each host on a line of its own."""
    made = check(host("a", PASS, FAIL, WARN), modes=("ipip",))
    written = registry()["json"].render(made, Options())
    document = json.loads(written)

    assert "netprobe.check/1" == document["schema"]
    assert ["ipip"] == document["modes"]
    assert [each.id for each in CRITERIA] == [each["id"] for each in document["requirements"]]
    assert {
        "id": "device-ipip",
        "result": "fail",
        "seen": "device-ipip was seen",
        "fix": "Install the module.",
    } == document["hosts"][0]["findings"][1]
    assert any(line.startswith('{"name":"a"') for line in written.splitlines())


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ((host("a", PASS, PASS, PASS),), 0),
        ((host("a", PASS, NOT, WARN),), 0),
        ((host("a", WARN, PASS, PASS),), 0),
        ((host("a", PASS, PASS, UNKNOWN),), 0),
        ((host("a", PASS, UNKNOWN, PASS),), 3),
        ((host("a", PASS, FAIL, PASS),), 1),
        ((host("a", UNKNOWN, PASS, PASS), host("b", FAIL, PASS, PASS)), 1),
        ((host("a", UNKNOWN, UNKNOWN, UNKNOWN, error="gone"), host("b", PASS, PASS, PASS)), 3),
    ],
)
def test_how_a_check_ends(hosts: tuple[HostFindings, ...], status: int) -> None:
    """1 where something required fails, 3 where something is unknown; what is recommended does not count."""
    assert status == check(*hosts).exit_status


def test_junit_has_a_case_for_each_requirement() -> None:
    """A failure is one, what is unknown an error where it is required; a warning is told of what passed."""
    suites = ET.fromstring(  # noqa: S314 (it is ours)
        registry()["junit"].render(
            check(host("a", UNKNOWN, FAIL, WARN), host("b\x1b<&", NOT, PASS, UNKNOWN)), Options()
        )
    )
    first, second = suites
    outcomes = [[inner.tag for inner in case] for suite in suites for case in suite]

    assert {"name": "a", "tests": "3", "failures": "1", "errors": "1", "skipped": "0"} == first.attrib
    assert ("b\\x1b<&", "2") == (second.attrib["name"], second.attrib["skipped"])
    assert [["error"], ["failure"], ["system-out"], ["skipped"], [], ["skipped"]] == outcomes
    assert "fix: Install the module." in (first[1][0].text or "")


def test_markdown_folds_hosts_that_are_alike_and_lets_no_host_write_markup() -> None:
    """What fails stands first; a host that could not be asked has its reason below the table."""
    hosts = [host(f"node-{n}", PASS, FAIL, WARN) for n in range(1, 9)]
    said = host("x", PASS, FAIL, PASS, seen={"device-ipip": "a | b\n# <c>"})
    lost = host("y", UNKNOWN, UNKNOWN, UNKNOWN, error="no | route")
    lines = registry()["markdown"].render(check(*hosts, said, lost), Options()).splitlines()
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines if "device-ipip" in line]

    assert [r"node-\[1-8\]", "x"] == [row[2] for row in cells]
    assert r"a \| b # \<c\>" in "\n".join(lines)
    assert r"- y: no \| route" == lines[-1]
    assert not any("distribution" in line and "fail" in line for line in lines)
