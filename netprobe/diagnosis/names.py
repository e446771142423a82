"""Host names for people: many of them in few characters, and without what they all have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_interface
from typing import Final

from netprobe.model import Run

FEW: Final = 4
"""So many names are read faster one by one than folded."""

_EXCEPTIONS: Final = 3
"""A set is still best described by what it lacks when it lacks so many."""

_LAST_NUMBER: Final = re.compile(r"(?P<head>.*?)(?P<digits>[0-9]{1,18})(?P<tail>[^0-9]*)", re.DOTALL)
_PREFIX_END: Final = re.compile(r".*[-._]", re.DOTALL)


class Names:
    """
    The host names of a run, as a reader gets them.

    `domain` is what all of them end in, and `short` has them without it.
    """

    def __init__(self, run: Run) -> None:
        hosts = [host.name for host in run.inventory.hosts]
        self.hosts: Final = tuple(hosts)
        self.domain: Final = common_domain(hosts)
        self.short: Final[Mapping[str, str]] = {host: host.removesuffix(self.domain) for host in hosts}
        self._subnets = _subnets(run)

    def all_of(self, hosts: Sequence[str], limit: int) -> str:
        """
        Every one of some hosts in so many characters; "" where that cannot be.

        By their names, folded where there are many, or by subnets, where they are all that some have and
        that is shorter.
        """
        by_name = ", ".join(fold(self.short.get(host, host) for host in hosts))
        by_subnet = self._by_subnet(set(hosts)) if len(hosts) > FEW else ""
        text = by_subnet if by_subnet and len(by_subnet) < len(by_name) else by_name
        return text if len(text) <= limit else ""

    def listed(self, hosts: Sequence[str], limit: int) -> str:
        """Some hosts in about so many characters: all of them, or the first few and a count."""
        if text := self.all_of(hosts, limit):
            return text
        short = [self.short.get(host, host) for host in hosts]
        if len(short) == 1:
            return short[0]
        count = f" and {len(short) - 1:,} more"
        while len(short) > 1 and len(", ".join(short)) + len(count) > limit:
            short = short[: min(FEW, len(short)) - 1]
            count = f" and {len(hosts) - len(short):,} more"
        return ", ".join(short) + count

    def _by_subnet(self, hosts: set[str]) -> str:
        """The hosts as whole subnets, but for a few that are named; "" where they are not."""
        subnets: list[str] = []
        missing: list[str] = []
        found: set[str] = set()
        for subnet, members in self._subnets.items():
            lacking = [host for host in members if host not in hosts]
            if len(lacking) < len(members) and len(lacking) <= _EXCEPTIONS:
                subnets.append(subnet)
                missing += lacking
                found |= set(members)
        if not subnets or hosts - found or len(missing) > _EXCEPTIONS:
            return ""
        but = f" but {', '.join(self.short[host] for host in missing)}" if missing else ""
        return f"{', '.join(subnets)}{but} ({len(hosts):,} hosts)"


def _subnets(run: Run) -> dict[str, list[str]]:
    """The hosts of each subnet: of the first network that each host reports."""
    subnets: dict[str, list[str]] = {}
    known = {host.name for host in run.inventory.hosts}
    for report in run.hosts:
        if report.networks and report.name in known:
            try:
                network = str(ip_interface(report.networks[0]).network)
            except ValueError:  # what an agent says is not trusted, and names will do
                continue
            subnets.setdefault(network, []).append(report.name)
    return subnets


def fold(names: Iterable[str]) -> list[str]:
    """
    Names with their last numbers as ranges: `node-[1-4,7]`.

    Zero-padded numbers only join numbers of the same width, so that each range can be read back. A short list
    (`FEW`) comes back as it is. The order is that of the first name of each range.
    """
    names = list(dict.fromkeys(names))
    if len(names) <= FEW:
        return names
    parts: dict[tuple[str, str | None], list[str]] = {}
    for name in names:
        if match := _LAST_NUMBER.fullmatch(name):
            parts.setdefault((match["head"], match["tail"]), []).append(match["digits"])
        else:
            parts.setdefault((name, None), [])
    folded: list[str] = []
    for (head, tail), digits in parts.items():
        if tail is None:
            folded.append(head)
            continue
        padded = any(text.startswith("0") and text != "0" for text in digits)
        widths = sorted({len(text) for text in digits}) if padded else [0]
        for width in widths:
            numbers = sorted(int(text) for text in digits if width in (0, len(text)))
            ranges = ",".join(_range(first, last, width) for first, last in _runs(numbers))
            folded.append(f"{head}{ranges}{tail}" if len(numbers) == 1 else f"{head}[{ranges}]{tail}")
    return folded


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _range(first: int, last: int, width: int) -> str:
    if first == last:
        return f"{first:0{width}}"
    return f"{first:0{width}}-{last:0{width}}"


def common_domain(names: Sequence[str]) -> str:
    """
    The domain that all names end in, with its leading dot, "" where there is none.

    Without a letter it is no domain, but the end of addresses that are used as names.
    """
    if len(names) < 2:
        return ""
    common = _common_suffix(names)
    dot = common.find(".")
    domain = common[dot:] if dot >= 0 else ""
    if not any(character.isalpha() for character in domain) or any(
        len(name) == len(domain) for name in names
    ):
        return ""
    return domain


def common_prefix(names: Sequence[str]) -> str:
    """What all names start with, up to a `-`, `.` or `_` and never a whole name; "" where there is none."""
    if len(names) < 2:
        return ""
    common = _common_suffix([name[::-1] for name in names])[::-1]
    match = _PREFIX_END.match(common)
    if match is None or any(len(name) == len(match[0]) for name in names):
        return ""
    return match[0]


def _common_suffix(names: Sequence[str]) -> str:
    shortest = min(names, key=len)
    length = 0
    while length < len(shortest) and all(name[-1 - length] == shortest[-1 - length] for name in names):
        length += 1
    return shortest[len(shortest) - length :]
