"""firewalld, other managers of iptables rules, and rules beside Calico's: configured, and in the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from netprobe.questions import Failed, FileList, Files, LegacyTables
from netprobe.requirements import _nftables, _services
from netprobe.requirements._settings import unreadable
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    passed,
    unknown,
    warned,
)

_PAGE: Final = (
    "If your Linux distribution comes with installed Firewalld or another iptables manager it should be "
    "disabled. These may interfere with rules added by Calico and result in unexpected behavior."
)
_FIREWALLD: Final = "firewalld"


def _firewalld(context: Context) -> Judgement:
    running = _services.running(context, _FIREWALLD)
    if not isinstance(running, Failed) and running:
        return failed(f"{running[0].label} runs")
    chains = _nftables.chains(context)
    if not isinstance(chains, Failed):
        tables = sorted({f"{each.family} {each.table}" for each in chains if each.table == _FIREWALLD})
        if tables:
            return failed(f"its tables are in the kernel: {', '.join(tables)}")
    if isinstance(running, Failed):
        return unknown(running)
    enabled = _services.enabled(context, _FIREWALLD)
    if isinstance(enabled, Failed):
        return unknown(enabled)
    if path := enabled.get(_FIREWALLD):
        return failed(f"it does not run, and begins with the next boot ({path})")
    return passed("no firewalld runs, nor begins with the next boot")


class Manager(msgspec.Struct, frozen=True, kw_only=True):
    """
    A program that manages iptables or nftables rules.

    It begins at boot by `services`. With `file`, it does something only where a line there is like `on`.
    With `rules` it does so only where one of these files is there.
    """

    name: str
    services: tuple[str, ...]
    file: str = ""
    on: str = ""
    rules: tuple[str, ...] = ()


_MANAGERS: Final = (
    Manager(name="ufw", services=("ufw",), file="/etc/ufw/ufw.conf", on=r'ENABLED="?yes"?\s*(#.*)?'),
    Manager(name="shorewall", services=("shorewall", "shorewall6", "shorewall-lite", "shorewall6-lite")),
    Manager(name="ferm", services=("ferm",)),
    Manager(name="firehol", services=("firehol",)),
    Manager(name="csf", services=("csf", "lfd")),
    Manager(name="apf", services=("apf", "apf-firewall")),
    Manager(name="arno-iptables-firewall", services=("arno-iptables-firewall",)),
    Manager(name="SuSEfirewall2", services=("SuSEfirewall2", "SuSEfirewall2_init")),
    Manager(
        name="netfilter-persistent",
        services=("netfilter-persistent", "iptables-persistent"),
        rules=("/etc/iptables/rules.v4", "/etc/iptables/rules.v6"),
    ),
    Manager(
        name="iptables-services",
        services=("iptables", "ip6tables"),
        rules=(
            "/etc/sysconfig/iptables",
            "/etc/sysconfig/ip6tables",
            "/var/lib/iptables/rules-save",
            "/var/lib/ip6tables/rules-save",
            "/etc/iptables/rules-save",
            "/etc/iptables/iptables.rules",
        ),
    ),
)
_NFTABLES: Final = "nftables"
_SERVICES: Final = (*(service for manager in _MANAGERS for service in manager.services), _NFTABLES)
_NFTABLES_FILES: Final = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.rules")
_FILES: Final = Files(
    patterns=(
        *(manager.file for manager in _MANAGERS if manager.file),
        *(path for manager in _MANAGERS for path in manager.rules),
        *_NFTABLES_FILES,
    )
)
_FLUSH: Final = re.compile(r"^\s*flush\s+ruleset\b", re.MULTILINE)
_UFW_CHAIN: Final = "ufw-"


def _managers(context: Context) -> Judgement:
    enabled, files = _services.enabled(context, *_SERVICES), context.of(_FILES)
    if isinstance(enabled, Failed):
        return unknown(enabled)
    if isinstance(files, Failed):
        return unknown(files)
    if hole := unreadable(files):
        return unknown(hole)
    found = {
        **{manager.name: where for manager in _MANAGERS if (where := _active(manager, enabled, files))},
        **_at_work(context),
    }
    flushes, loads = _nftables_service(enabled, files)
    if flushes:
        found[_NFTABLES] = flushes
    if found:
        names = ", ".join(f"{name} ({where})" for name, where in found.items())
        return failed(names, f"{_disable(found)}; protect hosts by Calico's HostEndpoint and policies.")
    if loads:
        return warned(loads)
    return passed(f"none of {', '.join(manager.name for manager in _MANAGERS)}")


def _at_work(context: Context) -> dict[str, str]:
    """The managers that are seen at work, whatever begins at boot: a process, or chains in the kernel."""
    found = {}
    running = _services.running(context, "lfd")
    if not isinstance(running, Failed) and running:
        found["csf"] = f"{running[0].label} runs"
    chains = _nftables.chains(context)
    if not isinstance(chains, Failed):
        own = next((each for each in chains if each.name.startswith(_UFW_CHAIN) and each.uses), None)
        if own is not None:
            found["ufw"] = f"its chains are in the kernel: {own}"
    return found


def _disable(names: Iterable[str]) -> str:
    """The command that ends these, and keeps them from the next boot."""
    words = ["ufw disable" if name == "ufw" else f"systemctl disable --now {name}" for name in names]
    return " && ".join(words)


def _active(manager: Manager, enabled: Mapping[str, str], files: FileList) -> str:
    """What says that a manager works on this host, or ""."""
    if manager.file:
        for number, line in enumerate((files.text(manager.file) or "").split("\n"), 1):
            if re.fullmatch(manager.on, line.strip()):
                return f"{manager.file}:{number} {line.strip()}"
        return ""
    path = next((enabled[each] for each in manager.services if each in enabled), "")
    if not path or not manager.rules:
        return path
    rules = next((each for each in manager.rules if files.text(each) is not None), "")
    return f"{path}, with {rules}" if rules else ""


def _nftables_service(enabled: Mapping[str, str], files: FileList) -> tuple[str, str]:
    """What is wrong with nftables.service: it flushes the rules of others; or it has rules of its own."""
    path = enabled.get(_NFTABLES, "")
    if not path:
        return "", ""
    for name in _NFTABLES_FILES:
        text = files.text(name)
        if text is None:
            continue
        if match := _FLUSH.search(text):
            line = text.count("\n", 0, match.end()) + 1
            return f"{path}: {name}:{line} flush ruleset, which takes Calico's rules with it", ""
        return "", f"nftables.service begins with the boot ({path}), and loads {name}"
    return "", ""


_OWN_TABLES: Final = frozenset({"calico", "kube-proxy"})
_BESIDE: Final = ("inet", "ip", "ip6", "netdev")
"""Families that a pod's packets come by."""


def _tables(context: Context) -> Judgement:
    chains = _nftables.chains(context)
    if isinstance(chains, Failed):
        return unknown(chains)
    based = [each for each in chains if each.hook and each.type == "filter" and each.family in _BESIDE]
    foreign = [each for each in based if not _nftables.is_iptables(each) and each.table not in _OWN_TABLES]
    dropping = [f"{each} (hook {each.hook})" for each in foreign if each.drops]
    if dropping:
        return failed(f"policy drop, whatever Calico accepts: {', '.join(dropping)}")
    hosts = [
        str(each) for each in based if _nftables.is_iptables(each) and each.drops and each.hook == "input"
    ]
    if hosts:
        return warned(
            f"policy drop: {', '.join(hosts)}; what Calico's nodes send each other must be accepted there"
        )
    if used := [str(each) for each in foreign if each.uses]:
        return warned(f"their rules count beside Calico's: {', '.join(used)}")
    return passed(f"no chains of other tables filter ({len(chains)} chains)")


_LEGACY: Final = LegacyTables()


def _variants(context: Context) -> Judgement:
    legacy, chains = context.of(_LEGACY), _nftables.chains(context)
    if isinstance(legacy, Failed):
        return unknown(legacy)
    if isinstance(chains, Failed):
        return unknown(chains)
    unsure = [each for each in legacy if each.rules is None]
    with_rules = [f"{_program(each.version)} {each.name}" for each in legacy if each.rules]
    nft = sorted(
        {f"{each.family} {each.table}" for each in chains if _nftables.is_iptables(each) and each.uses}
    )
    if with_rules and nft:
        return failed(f"rules of iptables-legacy: {', '.join(with_rules)}; of iptables-nft: {', '.join(nft)}")
    if unsure and nft:
        return unknown(f"whether the legacy table {unsure[0].name} has rules is not told; iptables-nft has")
    if with_rules:
        return passed(f"rules of iptables-legacy only: {', '.join(with_rules)}")
    return passed(f"rules of iptables-nft only: {', '.join(nft)}" if nft else "no rules of either")


def _program(version: int) -> str:
    return "iptables-legacy" if version == 4 else "ip6tables-legacy"


GROUP: Final = Group(
    name="Other managers of iptables",
    rank=30,
    requirements=(
        Requirement(
            id="firewalld",
            title="No firewalld",
            source=_PAGE,
            method=(
                "Whether firewalld runs in the host's network namespace, begins at boot, or has tables in "
                "the kernel (a dump of nf_tables' chains)"
            ),
            fix="systemctl disable --now firewalld; protect hosts by Calico's HostEndpoint and policies.",
            asks=(_services.DAEMONS, _services.ENABLED, _nftables.CHAINS),
            judge=_firewalld,
        ),
        Requirement(
            id="iptables-managers",
            title="No other manager of iptables",
            source=_PAGE,
            method=(
                "The services of ufw, shorewall, ferm, firehol, csf and others that begin at boot, with "
                "their configuration; nftables.service; chains in the kernel"
            ),
            fix="systemctl disable --now nftables, or let its file load no rules of its own.",
            asks=(_services.DAEMONS, _services.ENABLED, _FILES, _nftables.CHAINS),
            judge=_managers,
        ),
        Requirement(
            id="nft-tables",
            title="No nftables chains drop beside Calico's",
            source=_PAGE,
            method="A dump of nf_tables' chains: those that filter, in tables of others, and their policies",
            fix=(
                "nft list ruleset: remove the table, and what loads it; a chain's accept does not keep "
                "another table's chain from dropping (nft(8))."
            ),
            asks=(_nftables.CHAINS,),
            judge=_tables,
        ),
        Requirement(
            id="iptables-variants",
            title="Rules of one variant of iptables only",
            level=Level.RECOMMENDED,
            source='The iptables modules (both the "legacy" and "nft" variants are supported).',
            method=(
                "/proc/net/ip_tables_names and the sizes of these tables, and a dump of nf_tables' chains: "
                "which variants have rules"
            ),
            fix=(
                "Find out which rules are left over (iptables-legacy-save, iptables-nft-save), remove them, "
                "and choose one variant for all: update-alternatives --set iptables …"
            ),
            asks=(_LEGACY, _nftables.CHAINS),
            judge=_variants,
        ),
    ),
)
