"""What Felix needs of iptables: tables, matches and targets, in the legacy variant or in that of nft."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from netprobe.model import Family
from netprobe.questions import Failed, Question
from netprobe.requirements import _xtables
from netprobe.requirements._xtables import Kind, Presence, Variant
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_BOTH: Final = (Family.IPV4, Family.IPV6)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """
    A table, a match or a target, called `what` in a sentence.

    `ask` gives the question for a variant and a family; `families` are those that have it.
    """

    id: str
    what: str
    ask: Callable[[Variant, Family], Question[Any]]
    source: str
    families: tuple[Family, ...] = _BOTH
    level: Level = Level.REQUIRED
    modes: tuple[str, ...] = ()
    module: str = ""

    @property
    def questions(self) -> tuple[Question[Any], ...]:
        """Every question about it."""
        each = (self.ask(variant, family) for variant in Variant for family in self.families)
        return (_xtables.SYSTEM, _xtables.IPV6, *each)


_TABLES_LINE: Final = "The “base” modules (including the IPv6 versions if IPv6 is enabled in your cluster)."
_MATCHES_LINE: Final = (
    "At least the following match criteria: set,rpfilter, addrtype, comment,conntrack, icmp, tcp,udp, ipvs, "
    "icmpv6 (if IPv6 is enabled in your kernel), mark, multiport,rpfilter, sctp, ipvs (if usingkube-proxy in "
    "IPVS mode)."
)
_TARGETS_LINE: Final = "At least the following actions: REJECT,ACCEPT, DROP, LOG."
_FELIX: Final = "Felix's rules (projectcalico/calico: felix/iptables/actions.go)"
_CHECKSYSTEM: Final = "calicoctl node checksystem looks for the module"


def _match(name: str, kernel: str = "", **more: Any) -> Part:  # noqa: ANN401 - fields of the part
    return Part(
        id=f"match-{name}",
        what=f"match {name}",
        ask=partial(_ask_extension, Kind.MATCH, kernel or name),
        source=more.pop("source", _MATCHES_LINE),
        module=f"xt_{kernel or name}",
        **more,
    )


def _target(name: str, **more: Any) -> Part:  # noqa: ANN401
    return Part(
        id=f"target-{name}",
        what=f"target {name}",
        ask=partial(_ask_extension, Kind.TARGET, name),
        source=more.pop("source", _TARGETS_LINE),
        module=f"xt_{name}, ipt_{name} and ip6t_{name}",
        **more,
    )


def _ask_extension(kind: Kind, name: str, variant: Variant, family: Family) -> Question[Any]:
    return _xtables.extension(variant, family, kind, name)


def _ask_table(name: str, variant: Variant, family: Family) -> Question[Any]:
    return _xtables.table(variant, family, name)


PARTS: Final = (
    *(
        Part(
            id=f"table-{name}",
            what=f"table {name}",
            ask=partial(_ask_table, name),
            source=_TABLES_LINE,
            module=f"nf_tables, nft_compat, or iptable_{name} and ip6table_{name}",
        )
        for name in ("filter", "nat", "mangle", "raw")
    ),
    _match("set"),
    _match("rpfilter"),
    _match("addrtype"),
    _match("comment"),
    _match("conntrack"),
    _match("icmp", families=(Family.IPV4,)),
    _match("tcp"),
    _match("udp"),
    _match("ipvs", modes=("ipvs",)),
    _match("icmpv6", kernel="icmp6", families=(Family.IPV6,)),
    _match("mark"),
    _match("multiport"),
    _match("sctp"),
    _match("u32", level=Level.RECOMMENDED, source=f"{_CHECKSYSTEM} xt_u32"),
    _match("bpf", level=Level.RECOMMENDED, source=f"{_CHECKSYSTEM} xt_bpf"),
    _target("REJECT"),
    *(
        Part(
            id=f"target-{name}",
            what=f"target {name}",
            ask=_xtables.verdict,
            source=_TARGETS_LINE,
            module="nf_tables, or ip_tables and ip6_tables",
        )
        for name in ("ACCEPT", "DROP")
    ),
    _target("LOG"),
    *(
        _target(name, level=Level.RECOMMENDED, source=_FELIX)
        for name in ("MARK", "MASQUERADE", "DNAT", "NFLOG")
    ),
)


class _Variant(msgspec.Struct, frozen=True):
    """What one variant has of a part: by family, whether it is there and what the kernel said."""

    variant: Variant
    families: dict[Family, tuple[Presence, str]]

    def is_complete(self, families: Iterable[Family]) -> bool:
        """Whether all of these families have it."""
        return all(self.families[family][0] is Presence.PRESENT for family in families)

    @property
    def is_unclear(self) -> bool:
        """Whether it may be complete for all that is known."""
        found = {presence for presence, _said in self.families.values()}
        return Presence.UNCLEAR in found and Presence.ABSENT not in found

    @property
    def shown(self) -> str:
        """`nft: IPv4 and IPv6`, or which family has what."""
        words = [
            f"{family.label} {said or presence.value}" if presence is not Presence.PRESENT else family.label
            for family, (presence, said) in self.families.items()
        ]
        return f"{self.variant.value}: {', '.join(words)}"


def _families(context: Context, part: Part) -> tuple[Family, ...]:
    """Those that the kernel speaks, of those that the part is for."""
    found = context.of(_xtables.IPV6)
    if isinstance(found, Failed) and found.name == "EAFNOSUPPORT":
        return tuple(family for family in part.families if family is not Family.IPV6)
    return part.families


def _variants(context: Context, part: Part, families: tuple[Family, ...]) -> list[_Variant]:
    return [
        _Variant(
            variant,
            {family: _xtables.presence(context, part.ask(variant, family)) for family in families},
        )
        for variant in Variant
    ]


def _has_ipv6(context: Context) -> bool:
    """Whether the cluster has IPv6 addresses."""
    return any(host.address(Family.IPV6) for host in context.inventory.hosts)


def _judge(part: Part, context: Context) -> Judgement:
    families = _families(context, part)
    if not families:
        return not_applicable("the kernel has no IPv6")
    variants = _variants(context, part, families)
    seen = "; ".join(each.shown for each in variants)
    if any(each.is_complete(families) for each in variants):
        return passed(seen)
    if any(each.is_unclear for each in variants):
        return _unclear(context, seen)
    without = tuple(family for family in families if family is not Family.IPV6)
    if without and not _has_ipv6(context) and any(each.is_complete(without) for each in variants):
        return warned(f"{seen}; no host of the inventory has an IPv6 address, where it would be needed")
    return failed(seen)


def _unclear(context: Context, seen: str) -> Judgement:
    """Why nothing can be said: the reason for all, or what the variants answered."""
    asked = context.of(_xtables.IPV6)
    return unknown(asked) if isinstance(asked, Failed) and asked.namespace else unknown(seen)


def _needed(context: Context) -> Iterator[Part]:
    """The parts that are required for the chosen modes."""
    for part in PARTS:
        if part.level is Level.REQUIRED and (
            not part.modes or (context.modes is not None and not set(part.modes).isdisjoint(context.modes))
        ):
            yield part


def _one_variant(context: Context) -> Judgement:
    """Felix uses one variant for everything: what is missing in each."""
    lacking: dict[Variant, list[str]] = {variant: [] for variant in Variant}
    unclear: dict[Variant, list[str]] = {variant: [] for variant in Variant}
    ipv6 = _has_ipv6(context)
    for part in _needed(context):
        families = tuple(family for family in _families(context, part) if ipv6 or family is not Family.IPV6)
        for each in _variants(context, part, families):
            found = {presence for presence, _said in each.families.values()}
            if Presence.ABSENT in found:
                lacking[each.variant].append(part.what)
            elif Presence.UNCLEAR in found:
                unclear[each.variant].append(part.what)
    complete = [each for each in Variant if not lacking[each] and not unclear[each]]
    seen = "; ".join(_has(each, lacking[each], unclear[each]) for each in Variant)
    if complete:
        return passed(seen)
    if any(not some for some in lacking.values()):
        return _unclear(context, seen)
    return failed(seen)


def _has(variant: Variant, lacking: list[str], unclear: list[str]) -> str:
    if lacking:
        return f"{variant.value} lacks {', '.join(lacking)}"
    return (
        f"{variant.value} did not answer for {', '.join(unclear)}" if unclear else f"{variant.value} has all"
    )


def _requirement(part: Part) -> Requirement:
    return Requirement(
        id=part.id,
        title=f"iptables: {part.what}",
        source=part.source,
        method=(
            "The kernel is asked as iptables asks, legacy (getsockopt) and nft (nfnetlink), IPv4 and IPv6; "
            "one variant is enough"
        ),
        fix=f"Install the kernel's modules ({part.module}), or the package that has them.",
        level=part.level,
        modes=part.modes,
        asks=part.questions,
        judge=partial(_judge, part),
    )


GROUP: Final = Group(
    name="Kernel dependencies",
    rank=110,
    requirements=(
        Requirement(
            id="iptables",
            title="iptables: one variant that has all of it",
            source="The iptables modules (both the “legacy” and “nft” variants are supported).",
            method="What is required below, in one variant: Felix uses the same for everything",
            fix="Install what is missing in one of the variants: that with less, or the one that is in use.",
            asks=tuple(dict.fromkeys(question for part in PARTS for question in part.questions)),
            judge=_one_variant,
        ),
        *map(_requirement, PARTS),
    ),
)
