"""Path MTUs for people: pairs that are alike in one line, then what to give Calico."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from netprobe.diagnosis import Route
from netprobe.diagnosis.names import Names
from netprobe.diagnosis.routes import routes
from netprobe.model import Family, Fragments, Limit, Outcome, PathMtu, Run
from netprobe.mtus import CalicoMtu, calico_mtus
from netprobe.reports._pen import Pen

_MANY: Final = 12
_FEW: Final = 4
_INDENT: Final = "   "

_FRAGMENTS: Final = {
    Fragments.DELIVERED: "larger packets that may be cut arrive",
    Fragments.PARTIAL: "of larger packets that may be cut only the first fragment arrives",
    Fragments.LOST: "larger packets that may be cut do not arrive either",
}


def paragraphs(
    run: Run, names: Names, pen: Pen, words: Callable[[Sequence[Route]], Iterable[str]], *, verbose: bool
) -> Iterator[Iterator[str]]:
    """The paths, then the MTUs for Calico; `words` says which pairs some routes are."""
    if run.mtus:
        told = _Paths(run, names, pen, words, verbose=verbose)
        yield told.paths()
        yield told.calico(calico_mtus(run))


class _Paths:
    """The path MTUs of one run on one terminal."""

    def __init__(
        self,
        run: Run,
        names: Names,
        pen: Pen,
        words: Callable[[Sequence[Route]], Iterable[str]],
        *,
        verbose: bool,
    ) -> None:
        self._run = run
        self._short = names.short
        self._pen = pen
        self._words = words
        self._verbose = verbose
        self._order = {host.name: place for place, host in enumerate(run.inventory.hosts)}

    def paths(self) -> Iterator[str]:
        """The largest packet of each pair that arrives whole."""
        yield self._pen.bold("Path MTU: the largest packet, in bytes, that arrives whole")
        for family in Family:
            theirs = [path for path in self._run.mtus if path.family is family]
            groups: dict[object, list[PathMtu]] = {}
            for path in theirs:
                groups.setdefault(_alike(path), []).append(path)
            ordered = sorted(groups.values(), key=lambda group: (group[0].mtu is None, -len(group)))
            odd = sorted(ordered[1:], key=lambda group: (group[0].mtu is None, group[0].mtu, -len(group)))
            shown = odd if self._verbose else odd[:_MANY]
            for group in [*ordered[:1], *shown]:
                yield from self._group(family, group, theirs, is_rest=group is ordered[0])
            if rest := odd[len(shown) :]:
                pairs = sum(map(len, rest))
                text = f"… and {_pairs(pairs)} more, in {len(rest)} groups (-v shows them)"
                yield from self._pen.wrap(text, _INDENT)

    def _group(
        self, family: Family, group: Sequence[PathMtu], all_: Sequence[PathMtu], *, is_rest: bool
    ) -> Iterator[str]:
        pairs = {(path.src, path.dst) for path in group}
        if is_rest and len(group) == len(all_) > 1:
            where = f"all {_pairs(len(group))}"
        elif is_rest and len(group) > len(all_) / 2 and len(all_) > _FEW:
            where = f"all other {_pairs(len(group))}"
        else:
            found = routes(pairs, self._order, {(path.src, path.dst) for path in all_})
            where = f"{'; '.join(self._words(found))} ({_pairs(len(group))})"
        path = group[0]
        size = "not measured" if path.mtu is None else f"{path.mtu:>5}"
        yield from self._pen.wrap(f"{family.label} {size}  {where}", _INDENT, "  ")
        for text in self._about(group):
            yield from self._pen.wrap(text, _INDENT * 3, "  ")
        if self._verbose:
            for each in group:
                kinds = ", ".join(f"{kind.probe} {kind.mtu or kind.outcome.value}" for kind in each.kinds)
                pair = f"{self._short[each.src]} → {self._short[each.dst]}"
                yield from self._pen.wrap(f"{pair}: {kinds}", _INDENT * 3, "  ")

    def _about(self, group: Sequence[PathMtu]) -> Iterator[str]:
        path = group[0]
        if path.mtu is None:
            yield from _listed(each.untested for each in group)
            return
        if path.limit is Limit.SOURCE_INTERFACE:
            yield "as much as the source's interface takes"
        elif path.limit is Limit.ROUTER:
            yield f"said by {', '.join(_listed((each.by for each in group), 'routers'))}"
        elif path.limit is Limit.CUT:
            yield "larger packets arrive in pieces, although they say that they must not be cut (DF)"
        elif path.limit is Limit.BLACK_HOLE:
            yield "a black hole: larger packets vanish, and nobody tells the sender how large they may be"
            said = (
                f"{each.by} says {each.mtu}" + (", of packets no larger than that" if each.lies else "")
                for one in group
                for each in one.too_big
            )
            yield from _listed(said)
        if path.tcp_mss != path.tcp_mss_sent:
            yield f"TCP's maximum segment size arrives as {path.tcp_mss}, and was {path.tcp_mss_sent}"
        if path.fragments is not None:
            yield _FRAGMENTS[path.fragments]
        yield from _listed(kind.reason for each in group for kind in each.kinds if kind.reason)
        yield from _listed(note for each in group for note in each.notes)

    def calico(self, mtus: Sequence[CalicoMtu]) -> Iterator[str]:
        """A line for each mode and family."""
        if not mtus:
            return
        yield self._pen.bold("The MTU to give Calico")
        width = max(len(each.mode) for each in mtus)
        for each in mtus:
            less = f"path MTU {each.path_mtu}" + (f" less {each.overhead}" if each.overhead else "")
            pair = f"{self._short[each.src]} → {self._short[each.dst]}"
            who = "all pairs alike" if each.alike == each.pairs > 1 else f"{pair} sets it"
            if 1 < each.alike < each.pairs:
                who += f", with {each.alike - 1:,} more"
            text = f"{each.mode:<{width}}  {each.family.label} {each.mtu:>5}  {less}: {who}"
            yield from self._pen.wrap(text, _INDENT, " " * (width + 2))
        if lacking := sum(path.mtu is None for path in self._run.mtus):
            text = f"{_pairs(lacking)} could not be measured, and may have less room."
            yield from self._pen.wrap(text, _INDENT)


def _alike(path: PathMtu) -> object:
    """What pairs have in common that are told in one line; which router speaks differs with the source."""
    return (
        path.mtu,
        path.limit,
        path.tcp_mss,
        path.tcp_mss_sent,
        path.fragments,
        tuple((kind.probe, kind.outcome, kind.mtu) for kind in path.kinds),
        tuple((each.mtu, each.lies) for each in path.too_big) if path.limit is Limit.BLACK_HOLE else (),
        path.notes,
        path.untested if path.mtu is None else "",
        any(kind.outcome is not Outcome.MEASURED for kind in path.kinds),
    )


def _listed(texts: Iterable[str], kind: str = "reasons") -> Iterator[str]:
    """Each text once, and not too many of them."""
    found = list(dict.fromkeys(text for text in texts if text))
    yield from found[:_FEW]
    if len(found) > _FEW:
        yield f"… and {len(found) - _FEW} {kind} more"


def _pairs(count: int) -> str:
    return f"{count:,} {'pair' if count == 1 else 'pairs'}"
