"""A trace for people."""

from __future__ import annotations

import pytest
from hypothesis import given

from netprobe.model import Run
from netprobe.reports import Options, trace
from tests.golden.scenes import TRACES, traces
from tests.golden.strategies import runs


@pytest.mark.parametrize("name", sorted(path.stem for path in TRACES.glob("*.txt")))
def test_a_golden_trace_is_as_it_was_read_and_found_good(name: str) -> None:
    """`python -m tests.golden.scenes` writes them anew, for a change that is wanted."""
    some_run, options = traces()[name]

    assert (TRACES / f"{name}.txt").read_text(encoding="utf-8") == trace.render(some_run, options)


def test_every_scene_has_its_golden_trace_and_every_trace_its_scene() -> None:
    """A file that nothing writes is compared with nothing."""
    assert {path.stem for path in TRACES.glob("*.txt")} == set(traces())


@given(runs())
def test_any_trace_can_be_told(some_run: Run) -> None:
    """Also one out of a document that makes no sense, and in characters that every terminal has."""
    text = trace.render(some_run, Options(unicode=False))

    assert text.isascii()
    assert text.replace("\n", "").isprintable()
