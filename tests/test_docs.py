"""The documentation against the code: every field of the document, every format, every probe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from netprobe import model, mtus
from netprobe.probes import registry as probes
from netprobe.reports import json as document
from netprobe.reports import registry as reports
from tests.described import SCENARIOS

DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = (DOCS / "output.md").read_text(encoding="utf-8")
SECTIONS: Final[dict[str, tuple[type[msgspec.Struct], ...]]] = {
    "The document": (document.Document,),
    "settings": (model.Settings,),
    "modes": (document.ModeSummary,),
    "inventory": (model.Inventory, model.Host, model.Connection),
    "hosts": (model.HostReport,),
    "interfaces": (model.Interface,),
    "ports_in_use": (model.HeldPort,),
    "cells": (model.Cell,),
    "flow": (model.Flow,),
    "judgement": (model.Judgement,),
    "evidence": (model.Evidence,),
    "fate": (model.Fate,),
    "refusals": (model.Refusal,),
    "session": (model.Session,),
    "traces": (model.Trace,),
    "hop": (model.Hop,),
    "mtus": (model.PathMtu,),
    "too_big": (model.TooBig,),
    "kinds": (model.KindMtu,),
    "calico_mtus": (mtus.CalicoMtu,),
}


def structs(kind: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    """A struct and all those within it."""
    found: set[type[msgspec.Struct]] = set()

    def look(each: object) -> None:
        if isinstance(each, msgspec.inspect.StructType):
            if each.cls not in found:
                found.add(each.cls)
                for field in each.fields:
                    look(field.type)
            return
        inner = [getattr(each, name, ()) for name in ("types", "item_types")]
        inner.append([getattr(each, name, None) for name in ("item_type", "key_type", "value_type")])
        for some in inner:
            for one in some:
                if one is not None:
                    look(one)

    look(msgspec.inspect.type_info(kind))
    return found


def test_every_struct_of_the_document_has_its_section() -> None:
    """A new one must be described."""
    assert structs(document.Document) == {kind for kinds in SECTIONS.values() for kind in kinds}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_of_the_document_is_described(section: str) -> None:
    """And nothing that is not a field, in the first column of its table."""
    _before, text = re.split(rf"^##+ {re.escape(section)}$", PAGE, maxsplit=1, flags=re.MULTILINE)
    text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    fields = {name for kind in SECTIONS[section] for name in kind.__struct_fields__}
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]

    assert set() == fields - set(re.findall(r"`(\w+)`", text))
    assert fields >= {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_format_is_in_the_table() -> None:
    """By its name, its file's extension and what it says of itself."""
    for report in reports().values():
        assert f"| `{report.name}` | `.{report.extension}` | {report.summary} |" in PAGE


def test_every_probe_is_in_the_table_of_the_inventory() -> None:
    """With what it says of itself."""
    page = (DOCS / "inventory.md").read_text(encoding="utf-8")
    for probe in probes().values():
        assert re.search(rf"^\| `{probe.name}` \|.*\| {re.escape(probe.summary)} \|$", page, re.MULTILINE)


TRUTH: Final = (DOCS / "truth.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_is_in_the_table_of_what_is_true(path: Path) -> None:
    """What the tests build, a reader finds there with the reason for what is shown."""
    assert f"[{path.stem}](../tests/scenarios/{path.name})" in TRUTH


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and where it names a section, to one that this file has."""
    for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        there = page if not target else page.parent / target
        assert there.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
