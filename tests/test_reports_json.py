"""The run as a document, and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from netprobe.model import Family, Inventory, Run, Segment, Settings
from netprobe.reports import Options, ReportError, registry
from netprobe.reports.json import SCHEMA, load
from tests.golden.made_up import hosts, is_, lost, run, where
from tests.golden.scenes import five_hosts
from tests.golden.strategies import runs


def rendered(some_run: Run) -> str:
    """The report."""
    return registry()["json"].render(some_run, Options())


def small() -> Run:
    """Two hosts, one probe, one fault."""
    inventory = Inventory(hosts=hosts("ab"), probes=("vxlan",))
    return run(inventory, [where(is_(src="a"), lost(Segment.PATH))])


@given(runs())
def test_a_run_comes_back_as_it_was(some_run: Run) -> None:
    """Nothing that a later report could need is lost."""
    assert some_run == load(rendered(some_run).encode())


def test_a_run_comes_back_from_a_file(tmp_path: Path) -> None:
    """A path is read, its bytes are as good as the file."""
    path = tmp_path / "run.json"
    path.write_text(rendered(five_hosts()), encoding="utf-8")

    assert five_hosts() == load(path)


def test_the_document_says_what_it_is() -> None:
    """Schema, versions, UTC times, the inventory, the hosts, every cell and each mode's result."""
    document = json.loads(rendered(small()))

    assert SCHEMA == "netprobe.run/1" == document["schema"]
    assert {
        "schema",
        "versions",
        "started",
        "finished",
        "packets",
        "settings",
        "modes",
        "inventory",
        "hosts",
        "cells",
    } == set(document)
    assert "2024-06-12T03:07:11.250Z" == document["started"]
    assert ["a", "b"] == [host["name"] for host in document["inventory"]["hosts"]]
    assert {
        "mode": "vxlan",
        "usable": False,
        "required": 2,
        "open": 1,
        "blocked": 1,
        "untested": 0,
        "verdicts": {"open": 1, "filtered": 1},
        "not_probed": 0,
        "impossible": 0,
        "left_out": [],
    } == document["modes"][0]
    assert "filtered" == document["cells"][0]["judgement"]["verdict"]


def test_each_cell_is_a_line_of_its_own() -> None:
    """`grep` and `diff` work on the file."""
    assert 2 == len([line for line in rendered(small()).splitlines() if line.startswith('{"flow":')])


def test_defaults_of_the_evidence_are_left_out() -> None:
    """A hundred thousand cells are mostly alike."""
    evidence = json.loads(rendered(small()))["cells"][0]["evidence"]

    assert {"protocol", "first"} == set(evidence)


def test_the_points_of_the_way_are_words() -> None:
    """Numbers would change their meaning with the next point that is added."""
    cells = json.loads(rendered(five_hosts()))["cells"]
    seen = {fate["seen"] for cell in cells for fate, _count in cell["evidence"].get("first", ())}

    assert {"left", "at-interface", "at-socket"} <= seen
    assert seen <= {"unsent", "sent", "left", "at-interface", "at-socket"}


def test_the_document_says_how_it_was_probed() -> None:
    """Who asked for a part of the flows reads it in the document; in an older one the defaults stand."""
    settings = Settings(count=3, rate=10, timeout_s=2, depth="syn", families=(Family.IPV4,), only=("a",))
    asked = msgspec.structs.replace(small(), settings=settings)
    document = json.loads(rendered(asked))

    assert asked == load(json.dumps(document).encode())
    assert {
        "count": 3,
        "rate": 10,
        "timeout_s": 2,
        "depth": "syn",
        "families": ["ipv4"],
        "only": ["a"],
    } == document.pop("settings")
    assert Settings() == load(json.dumps(document).encode()).settings


def test_fields_that_a_newer_netprobe_added_are_skipped() -> None:
    """Within a schema a document only grows."""
    document = json.loads(rendered(small()))
    document["weather"] = "fair"
    document["cells"][0]["evidence"]["weather"] = "fair"

    assert small() == load(json.dumps(document).encode())


def test_hosts_of_an_older_document_say_less() -> None:
    """What an agent did not tell then is empty, and the rest is there."""
    document = json.loads(rendered(small()))
    for host in document["hosts"]:
        for name in ("hostname", "machine", "interpreter", "interfaces", "ports_in_use"):
            host.pop(name, None)

    report = load(json.dumps(document).encode()).hosts[0]

    assert ("6.1.0-18-amd64", "", ()) == (report.kernel, report.hostname, report.interfaces)


def test_a_later_schema_is_refused_by_name() -> None:
    """The message names both versions and what to do."""
    document = rendered(small()).replace(SCHEMA, "netprobe.run/2").encode()

    with pytest.raises(ReportError, match=r"netprobe\.run/2.*netprobe\.run/1.*newer") as caught:
        load(document)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", ["netprobe.run/0", "netprobe.run/x", "netprobe.check/1", "", "x\n" * 99])
def test_another_schema_is_refused(schema: str) -> None:
    """What is not a run is not taken for one."""
    with pytest.raises(ReportError, match="not a netprobe run") as caught:
        load(json.dumps({"schema": schema}).encode())

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"probe,family,protocol",
        b"[]",
        b"{}",
        b"null",
        b'{"schema": 1}',
        b'{"schema": "netprobe.run/1"}',
        b'{"schema": "netprobe.run/1", "cells": ' + b"[" * 100_000,
        rendered(small()).encode()[:-40],
    ],
)
def test_garbage_is_one_line_of_error(garbage: bytes) -> None:
    """Never a traceback, and never a run that is half there."""
    with pytest.raises(ReportError, match="not a netprobe run") as caught:
        load(garbage)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"verdict":"filtered"', '"verdict":"fine"', "fine"),
        ('"number":2', '"number":1', "same number"),
        ('"name":"b"', '"name":"a"', "same name"),
        ('"dst":"b"', '"dst":"c"', "flow 1 is between hosts"),
        ('"dst":"b"', '"dst":"a"', "flow 1 is from a host to itself"),
        ('"dst_address":"10.0.0.11"', '"dst_address":"10.0.0"', "10.0.0"),
        ('"addresses":["10.0.0.10"]', '"addresses":["here"]', "here"),
        ("2024-06-12T03:07:11.250Z", "yesterday", "yesterday"),
        ('"sent":15', '"sent":"many"', "sent"),
        ('"pod_cidr":[]', '"pod_cidr":["10.244.0.0/33"]', "10.244.0.0/33"),
        (
            '"pod_cidr":[]',
            '"pod_cidr":["10.244.0.0/31"]',
            "the range 10.244.0.0/31 has no address to send from",
        ),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(old: str, new: str, complaint: str) -> None:
    """Every report may rely on what a run promises."""
    text = rendered(small())
    assert old in text

    with pytest.raises(ReportError, match=re.escape(complaint)):
        load(text.replace(old, new).encode())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error is the user's, and says which file."""
    with pytest.raises(ReportError, match=r"missing\.json: No such file"):
        load(tmp_path / "missing.json")


def test_errors_name_the_file(tmp_path: Path) -> None:
    """Of several files it must be clear which is broken."""
    path = tmp_path / "old.json"
    path.write_bytes(b"{}")

    with pytest.raises(ReportError, match=r"old\.json: not a netprobe run"):
        load(path)


def test_a_document_with_the_inventory_of_a_newer_release_keeps_its_unknown_modes() -> None:
    """A mode or probe that this release does not know is no reason not to read the cells."""
    some_run = small()
    inventory = msgspec.structs.replace(some_run.inventory, modes=("vxlan", "warp"), probes=("vxlan", "warp"))
    unknown = msgspec.structs.replace(some_run, inventory=inventory)

    assert unknown == load(rendered(unknown).encode())
