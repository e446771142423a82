"""
What netprobe must find in a lab: cells by pattern, and the comparison with what it did find.

A pattern is `SRC -> DST PROBE[:PORT][/FAMILY]`; `SRC` and `DST` are a host, a network (all of its hosts) or
`*`, and `PROBE` may be `*` as well. What it holds is `VERDICT[ @ SEGMENT][ by WHOM][ +CAVEAT …][ (DETAIL)]`:
`by` names a host, or `HOST.gateway`, one of whose addresses it is; the detail has these words among others.
What is left out is not compared. Of several patterns that fit a flow the last one counts, and a flow that
none fits is expected open.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, TypeVar

import msgspec

from netprobe import mesh
from netprobe.lab.description import Description, unknown
from netprobe.lab.errors import DescriptionError
from netprobe.model import Caveat, Cell, Family, Flow, Inventory, Judgement, Segment, Verdict
from netprobe.probes import registry

_ANY: Final = "*"
_FAMILIES: Final = tuple(f".{family.value}" for family in Family)
_PATTERN: Final = re.compile(
    r"(?P<src>\S+)\s+->\s+(?P<dst>\S+)\s+(?P<probe>[^\s:/]+)(?::(?P<port>\d+))?(?:/(?P<family>\S+))?"
)
_FOUND: Final = re.compile(
    r"(?P<verdict>[^@+(]*?)\s*(?:@\s*(?P<segment>[^+( ]+))?(?:\s+by\s+(?P<by>[^+( ]+))?"
    r"(?P<caveats>(?:\s+\+[^+( ]+)*)(?:\s+\((?P<detail>.+)\))?"
)
_Word = TypeVar("_Word", bound=Enum)


class Expected(msgspec.Struct, frozen=True):
    """
    What a cell must hold; a `segment` of None, and what is empty, is not compared.

    `by` are the addresses of the refuser, by whichever it is known; `detail` is a part of the detail.
    """

    verdict: Verdict
    segment: Segment | None = None
    by: tuple[str, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    detail: str = ""

    def fits(self, judgement: Judgement) -> bool:
        """Whether a judgement is what is expected."""
        return (
            self.verdict is judgement.verdict
            and self.segment in (None, judgement.segment)
            and (not self.by or judgement.by in self.by)
            and set(self.caveats) <= set(judgement.caveats)
            and self.detail in judgement.detail
        )

    def __str__(self) -> str:
        """As a description has it."""
        by = f" by {' or '.join(self.by)}" if self.by else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{_words(self.verdict, self.segment)}{by}{_caveats(self.caveats)}{detail}"


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the flows between some hosts; None stands for all probes, ports or families."""

    text: str
    sources: frozenset[str]
    destinations: frozenset[str]
    probe: str | None
    port: int | None
    family: Family | None

    def fits(self, flow: Flow) -> bool:
        """Whether a flow is one of these."""
        return (
            flow.src in self.sources
            and flow.dst in self.destinations
            and self.probe in (None, flow.probe)
            and self.port in (None, flow.port)
            and self.family in (None, flow.family)
        )


class Mismatch(msgspec.Struct, frozen=True):
    """A cell that is not as expected; a `cell` of None where no flow fits the pattern `what`."""

    what: str
    expected: Expected
    cell: Cell | None = None

    def __str__(self) -> str:
        """One line for a person."""
        found = "no such flow"
        if self.cell is not None:
            judgement = self.cell.judgement
            by = f" by {judgement.by}" if self.expected.by and judgement.by else ""
            caveats = _caveats(judgement.caveats) if self.expected.caveats else ""
            detail = f" ({judgement.detail})" if judgement.detail else ""
            found = _words(judgement.verdict, judgement.segment) + by + caveats + detail
        return f"{self.what}: expected {self.expected}, found {found}"


class Planted(msgspec.Struct, frozen=True):
    """A fault as a person is told of it, and the flows that show it."""

    says: str
    on: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    def shows_in(self, flow: Flow) -> bool:
        """Whether the fault is meant to show in the cell of this flow."""
        return any(pattern.fits(flow) for pattern in self.patterns)


class Expectations:
    """What every cell of a lab must hold."""

    def __init__(self, rules: Sequence[tuple[Pattern, Expected]]) -> None:
        self._rules = tuple(rules)

    def expected(self, flow: Flow) -> Expected:
        """What the cell of a flow must hold."""
        return next((found for pattern, found in reversed(self._rules) if pattern.fits(flow)), _OPEN)

    def of(self, flow: Flow) -> tuple[Verdict, Segment | None]:
        """The same as a pair."""
        expected = self.expected(flow)
        return expected.verdict, expected.segment

    def compare(self, cells: Iterable[Cell], *, is_partial: bool = False) -> list[Mismatch]:
        """
        The cells that are not as expected, in their order, and then the patterns that fit none of them.

        With `is_partial` the cells are those of a run that was asked for some of the flows only, and a
        pattern that fits none of them is no mismatch.
        """
        cells = list(cells)
        found = []
        for cell in cells:
            expected = self.expected(cell.flow)
            if not expected.fits(cell.judgement):
                found.append(Mismatch(label(cell.flow), expected, cell))
        if not is_partial:
            found += [
                Mismatch(pattern.text, expected)
                for pattern, expected in self._rules
                if not any(pattern.fits(cell.flow) for cell in cells)
            ]
        return found


_OPEN: Final = Expected(Verdict.OPEN)


def label(flow: Flow) -> str:
    """A flow as a pattern that fits no other one."""
    port = f":{flow.port}" if flow.port is not None else ""
    return f"{flow.src} -> {flow.dst} {flow.probe}{port}/{flow.family.value}"


def _words(verdict: Verdict, segment: Segment | None) -> str:
    return verdict.value if segment is None else f"{verdict.value} @ {segment.value}"


def _caveats(caveats: Iterable[Caveat]) -> str:
    return "".join(f" +{caveat.value}" for caveat in caveats)


def expectations(description: Description, values: Mapping[str, str]) -> Expectations:
    """
    Those of the faults in their order, and then the description's own, which therefore count more.

    `values` are the addresses of hosts and gateways, as the topology has them.
    """
    rules = []
    for index, fault in enumerate(description.faults):
        rules += _rules(fault.expect, description, values, f"faults[{index}].expect")
    return Expectations([*rules, *_rules(description.expect, description, values, "expect")])


def planted(description: Description) -> tuple[Planted, ...]:
    """The faults that say what they are."""
    return tuple(
        Planted(fault.says, fault.targets, tuple(_pattern(text, description) for text in fault.expect))
        for fault in description.faults
        if fault.says
    )


def _rules(
    expect: Mapping[str, str], description: Description, values: Mapping[str, str], key: str
) -> list[tuple[Pattern, Expected]]:
    rules = []
    for text, value in expect.items():
        try:
            rules.append((_pattern(text, description), _expected(value, values)))
        except DescriptionError as error:
            raise DescriptionError(f"{key}: {text!r}: {error}") from None
    return rules


def _expected(text: str, values: Mapping[str, str]) -> Expected:
    found = _FOUND.fullmatch(text.strip())
    if found is None:
        raise DescriptionError("expected VERDICT[ @ SEGMENT][ by WHOM][ +CAVEAT ...][ (DETAIL)]")
    segment, caveats = found["segment"], found["caveats"].replace("+", "").split()
    return Expected(
        verdict=_word(Verdict, found["verdict"], "verdict"),
        segment=_word(Segment, segment, "segment") if segment else None,
        by=_addresses(found["by"], values) if found["by"] else (),
        caveats=tuple(_word(Caveat, caveat, "caveat") for caveat in caveats),
        detail=found["detail"] or "",
    )


def _addresses(name: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses of a host, or of the gateway of one."""
    found = tuple(values[f"{name}.{family.value}"] for family in Family if f"{name}.{family.value}" in values)
    if not found or any("/" in address for address in found):
        raise DescriptionError(
            unknown("host", name, [each for each in values if not each.endswith(_FAMILIES)])
        )
    return found


def _word(words: type[_Word], text: str, kind: str) -> _Word:
    try:
        return words(text)
    except ValueError:
        raise DescriptionError(unknown(kind, text, [member.value for member in words])) from None


def _pattern(text: str, description: Description) -> Pattern:
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        raise DescriptionError("expected SRC -> DST PROBE[:PORT][/FAMILY]")
    probe = found["probe"] if found["probe"] != _ANY else None
    if probe is not None and probe not in registry():
        raise DescriptionError(unknown("probe", probe, list(registry())))
    pattern = Pattern(
        text=text,
        sources=_hosts(found["src"], description),
        destinations=_hosts(found["dst"], description),
        probe=probe,
        port=int(found["port"]) if found["port"] else None,
        family=_word(Family, found["family"], "family") if found["family"] else None,
    )
    if not _exists(pattern, description):
        problem = "these hosts have no such roles, or the probe no such port or family"
        raise DescriptionError(f"no flow fits: {problem}")
    return pattern


def _hosts(word: str, description: Description) -> frozenset[str]:
    groups: dict[str, Collection[str]] = {name: (name,) for name in description.roles}
    groups |= {network.name: network.hosts for network in description.networks}
    groups[_ANY] = list(description.roles)
    if word not in groups:
        raise DescriptionError(unknown("host", word, list(groups)))
    return frozenset(groups[word])


def _exists(pattern: Pattern, description: Description) -> bool:
    """Whether any flow with the default ports fits: a pattern that cannot is a slip of the pen."""
    for probe in mesh.probes(Inventory(hosts=(), pod_cidr=description.pod_ranges)).values():
        if pattern.probe not in (None, probe.name) or pattern.port not in (None, *probe.ports):
            continue
        families = set(probe.families) & set(description.families)
        if pattern.family is not None:
            families &= {pattern.family}
        source, destination = probe.between
        from_, to = (
            {host for host in hosts if role in description.roles[host]}
            for hosts, role in ((pattern.sources, source), (pattern.destinations, destination))
        )
        if families and from_ and to and len(from_ | to) > 1:
            return True
    return False
