"""
A matrix of any number of hosts as a table that fits on a screen.

What fits is printed whole. Otherwise hosts that are exchangeable are folded into one row and one column: two
hosts are, when swapping them would leave every square as it is. Nothing is lost by that, and 97 hosts that
cannot reach three dead ones are a table of two by two. Then rows and columns without a fault go, and only if
what is left is still too large, those with fewer faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from tabulate import DataRow, TableFormat, tabulate

from netprobe.diagnosis.names import FEW, Names, common_prefix
from netprobe.gaps import Gap
from netprobe.model import Verdict
from netprobe.modes import Matrix
from netprobe.reports._pen import Pen

GLYPHS: Final[Mapping[Verdict, str]] = {
    # The good one is a quiet letter, so that the others are seen without colour, too.
    Verdict.OPEN: "o",
    Verdict.CLOSED: "C",
    Verdict.UNTESTED: "?",
    Verdict.DEGRADED: "D",
    Verdict.INTERCEPTED: "I",
    Verdict.REJECTED: "R",
    Verdict.UNREACHABLE: "U",
    Verdict.FILTERED: "F",
}
NOT_NEEDED: Final = "·"
NOT_PROBED: Final = "-"
IMPOSSIBLE: Final = "X"
ITSELF: Final = "\\"

MEANINGS: Final[Mapping[str, str]] = {
    **{glyph: verdict.value for verdict, glyph in GLYPHS.items()},
    IMPOSSIBLE: "impossible",
    NOT_PROBED: "needed, not probed",
    NOT_NEEDED: "not needed",
    ITSELF: "itself",
}
"""Every glyph in the order of the legend."""

WHOLE_ROWS: Final = 24
"""What is read at a glance: a terminal of 80 x 24."""

_VERDICTS: Final = {glyph: verdict for verdict, glyph in GLYPHS.items()}
_FINE: Final = frozenset({GLYPHS[Verdict.OPEN], NOT_PROBED, NOT_NEEDED, ITSELF})
_LABEL_WIDTH: Final = 36
_FEW_COLUMNS, _HEAD_WIDTH, _SHORT_HEAD = 10, 10, 4
_CORNER: Final = "from / to"
_GAP: Final = "  "
_FORMAT: Final = TableFormat(
    lineabove=None,
    linebelowheader=None,
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("", _GAP, ""),
    datarow=DataRow("", _GAP, ""),
    padding=0,
    with_header_hide=None,
)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A printed matrix: its lines, what it leaves out in words, and the glyphs that it uses."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    glyphs: frozenset[str]


def draw(matrix: Matrix, names: Names, pen: Pen, *, every_fault: bool = False) -> Table:
    """
    Draw a matrix within the pen's width.

    With `every_fault` no row is left out for being one too many; what is too wide still is.
    """
    return _Drawing(matrix, names, pen).table(every_fault=every_fault)


class _Class(msgspec.Struct, frozen=True):
    """Hosts that are exchangeable."""

    hosts: tuple[str, ...]


class _Drawing:
    """The tables of one matrix for one terminal; rows and columns are classes of hosts throughout."""

    def __init__(self, matrix: Matrix, names: Names, pen: Pen) -> None:
        self._matrix = matrix
        self._names = names
        self._pen = pen
        hosts = dict.fromkeys((*matrix.sources, *matrix.destinations))
        self._order = {host: place for place, host in enumerate(hosts)}

    def table(self, *, every_fault: bool) -> Table:
        """The first of the ways in the module's description that fits."""
        rows = [_Class((host,)) for host in self._matrix.sources]
        columns = [_Class((host,)) for host in self._matrix.destinations]
        if len(rows) <= WHOLE_ROWS and (lines := self._lines(rows, columns)) is not None:
            return Table(lines=tuple(lines), glyphs=self._glyphs(rows, columns))

        classes = _fold(self._matrix)
        sources, destinations = set(self._matrix.sources), set(self._matrix.destinations)
        rows = [some for some in classes if some.hosts[0] in sources]
        columns = [some for some in classes if some.hosts[0] in destinations]
        if len(rows) <= WHOLE_ROWS and (lines := self._lines(rows, columns)) is not None:
            return Table(lines=tuple(lines), glyphs=self._glyphs(rows, columns))

        bad_rows = [row for row in rows if self._faults([row], columns)]
        bad_columns = [column for column in columns if self._faults(rows, [column])]
        left_out = _all_fine(
            {host for row in rows if row not in bad_rows for host in row.hosts},
            {host for column in columns if column not in bad_columns for host in column.hosts},
            "open or not probed" if NOT_PROBED in self._glyphs(rows, columns) else "open",
        )
        if not bad_rows:
            return Table(lines=(), left_out=left_out, glyphs=frozenset())
        rows, columns, lines = self._largest(bad_rows, bad_columns, every_row=every_fault)
        return Table(
            lines=tuple(lines),
            left_out=(*left_out, *_with_faults(len(bad_rows) - len(rows), len(bad_columns) - len(columns))),
            glyphs=self._glyphs(rows, columns),
        )

    def _glyph(self, row: _Class, column: _Class) -> str:
        src = row.hosts[0]
        dst = next((host for host in column.hosts if host != src), None)
        if dst is None:
            return ITSELF
        return _glyph(self._matrix, src, dst)

    def _glyphs(self, rows: Sequence[_Class], columns: Sequence[_Class]) -> frozenset[str]:
        return frozenset(self._glyph(row, column) for row in rows for column in columns)

    def _faults(self, rows: Sequence[_Class], columns: Sequence[_Class]) -> int:
        return sum(self._glyph(row, column) not in _FINE for row in rows for column in columns)

    def _largest(
        self, rows: list[_Class], columns: list[_Class], *, every_row: bool
    ) -> tuple[list[_Class], list[_Class], list[str]]:
        """As many columns as fit and as many rows as are read, those with the most faults."""
        kept_rows = rows
        if not every_row:
            kept_rows = _worst(rows, [self._faults([row], columns) for row in rows], WHOLE_ROWS)
        weights = [self._faults(rows, [column]) for column in columns]
        low, high = 1, len(columns)
        while low < high:  # the largest number of columns that still fits
            middle = (low + high + 1) // 2
            if self._lines(kept_rows, _worst(columns, weights, middle)) is None:
                high = middle - 1
            else:
                low = middle
        kept_columns = _worst(columns, weights, low)
        return kept_rows, kept_columns, self._lines(kept_rows, kept_columns) or []

    def _lines(self, rows: Sequence[_Class], columns: Sequence[_Class]) -> list[str] | None:
        """The lines of a table, None where it is wider than the terminal whatever its columns are called."""
        shown = sorted({*rows, *columns}, key=lambda some: self._order[some.hosts[0]])
        labels = self._labels(shown)
        sides = [labels[row] for row in rows]
        heads = [labels[column] for column in columns]
        if all(len(column.hosts) == 1 for column in columns):
            prefix = common_prefix(heads)
            short = [head.removeprefix(prefix) for head in heads]
            for corner, called in ((_CORNER, heads), (self._pen.text(f"{_CORNER} {prefix}…"), short)):
                # Squares that stand too far apart make no picture.
                is_near = max(map(len, called)) <= (
                    _HEAD_WIDTH if len(called) <= _FEW_COLUMNS else _SHORT_HEAD
                )
                if is_near and _width([*sides, corner], called) <= self._pen.width:
                    return self._tabulated(rows, columns, [[side] for side in sides], [corner, *called])
        place = {some: str(number) for number, some in enumerate(shown, 1)}
        heads = [place[column] for column in columns]
        digits = len(str(len(shown))) + len(_GAP)
        if digits + _width([*sides, _CORNER], heads) > self._pen.width:
            return None
        numbered = [[place[row], side] for row, side in zip(rows, sides, strict=True)]
        lines = self._tabulated(rows, columns, numbered, ["", _CORNER, *heads])
        if keys := [f"{place[column]} {labels[column]}" for column in columns if column not in rows]:
            lines += self._pen.wrap(f"columns: {', '.join(keys)}", hanging=" " * len("columns: "))
        return lines

    def _labels(self, shown: Sequence[_Class]) -> dict[_Class, str]:
        """What each class is called, in no more than its share of the terminal's width."""
        limit = min(_LABEL_WIDTH, self._pen.width // 2)
        labels: dict[_Class, str] = {}
        for some in shown:
            count = f" ({len(some.hosts):,})" if len(some.hosts) > FEW else ""
            text = self._names.all_of(some.hosts, limit - len(count))
            labels[some] = text + count if "[" in text else text  # a subnet has its count already
        too_long = [some for some in shown if not labels[some]]
        is_complete = sum(len(some.hosts) for some in shown) == len(self._order)
        for some in too_long:
            if len(too_long) == 1 and is_complete and len(some.hosts) > 1:
                text = f"{'the other' if len(shown) > 1 else 'all'} {len(some.hosts):,} hosts"
            else:
                text = self._names.listed(some.hosts, limit)
            half = (limit - 1) // 2
            labels[some] = text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
        return {some: self._pen.text(label) for some, label in labels.items()}

    def _tabulated(
        self,
        rows: Sequence[_Class],
        columns: Sequence[_Class],
        sides: Sequence[Sequence[str]],
        heads: Sequence[str],
    ) -> list[str]:
        body = [
            [*side, *(self._colored(self._glyph(row, column)) for column in columns)]
            for row, side in zip(rows, sides, strict=True)
        ]
        align = ["right" if head.isdigit() or not head else "left" for head in heads]
        # The heads are a row like the others, since tabulate makes columns with headers two characters wider.
        table = tabulate([heads, *body], (), _FORMAT, colalign=align, disable_numparse=True)
        return [line.rstrip() for line in table.splitlines()]

    def _colored(self, glyph: str) -> str:
        verdict = Verdict.UNREACHABLE if glyph == IMPOSSIBLE else _VERDICTS.get(glyph)
        if verdict is None:
            return self._pen.faint(self._pen.text(glyph))
        return self._pen.verdict(glyph, verdict)


def _glyph(matrix: Matrix, src: str, dst: str) -> str:
    """What is worst of a pair; what was probed and is not open is worse than what was not probed."""
    verdict, gap = matrix.verdict(src, dst), matrix.gap(src, dst)
    if gap is Gap.IMPOSSIBLE and (verdict is None or not verdict.is_blocked):
        return IMPOSSIBLE
    if gap is not None and verdict in (None, Verdict.OPEN):
        return NOT_PROBED
    return NOT_NEEDED if verdict is None else GLYPHS[verdict]


def _width(sides: Sequence[str], heads: Sequence[str]) -> int:
    return max(map(len, sides)) + sum(len(_GAP) + len(head) for head in heads)


def _fold(matrix: Matrix) -> list[_Class]:
    """The classes of exchangeable hosts, in the order of their first hosts."""
    sources, destinations = set(matrix.sources), set(matrix.destinations)
    hosts = list(dict.fromkeys((*matrix.sources, *matrix.destinations)))

    def letter(src: str, dst: str) -> str:
        if src not in sources or dst not in destinations:
            return " "
        return _glyph(matrix, src, dst)

    # A host's row and its column as strings: two hosts are compared as slices, fast enough for 1,000 of them.
    out = ["".join(letter(src, dst) for dst in hosts) for src in hosts]
    into = ["".join(letter(src, dst) for src in hosts) for dst in hosts]

    def are_exchangeable(one: int, two: int) -> bool:
        return (
            (hosts[one] in sources) == (hosts[two] in sources)
            and (hosts[one] in destinations) == (hosts[two] in destinations)
            and out[one][two] == out[two][one]
            and _without(out[one], one, two) == _without(out[two], one, two)
            and _without(into[one], one, two) == _without(into[two], one, two)
        )

    # Being exchangeable is transitive, so the first of a class speaks for all of it.
    classes: list[list[int]] = []
    for number in range(len(hosts)):
        for some in classes:
            if are_exchangeable(some[0], number):
                some.append(number)
                break
        else:
            classes.append([number])
    return [_Class(tuple(hosts[number] for number in some)) for some in classes]


def _without(text: str, one: int, two: int) -> str:
    return text[:one] + text[one + 1 : two] + text[two + 1 :]


def _worst(classes: Sequence[_Class], weights: Sequence[int], count: int) -> list[_Class]:
    worst = sorted(range(len(classes)), key=lambda at: -weights[at])[:count]
    return [classes[at] for at in sorted(worst)]


def _all_fine(sources: set[str], destinations: set[str], fine: str) -> tuple[str, ...]:
    if sources == destinations:
        return (f"… and {_hosts(sources)} whose squares are all {fine}",) if sources else ()
    said = [
        f"{_hosts(hosts)} as {end}"
        for hosts, end in ((sources, "source"), (destinations, "destination"))
        if hosts
    ]
    return (f"… and {', '.join(said)}, whose squares are all {fine}",)


def _hosts(hosts: set[str]) -> str:
    return f"{len(hosts):,} {'host' if len(hosts) == 1 else 'hosts'}"


def _with_faults(rows: int, columns: int) -> tuple[str, ...]:
    said = [f"{count:,} {what}" for count, what in ((rows, "rows"), (columns, "columns")) if count]
    return (f"… and {' and '.join(said)} more with faults",) if said else ()
