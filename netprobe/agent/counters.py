"""What the host's kernel counts, of the packets that it discards among others (proc(5), /proc/net)."""

import contextlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def counters() -> "dict[str, object]":
    """
    All counters that are above zero, by name: `TcpExt.ListenDrops`, `nf_conntrack.drop`.

    A file that this kernel does not have has none. (Some are settings: `Tcp.MaxConn` is -1.)
    """
    found: dict[str, int] = {}
    for name, read in _READERS.items():
        with contextlib.suppress(FileNotFoundError), open("/proc/self/net/" + name) as lines:
            for key, number in read(lines):
                if number > 0:
                    found[key] = found.get(key, 0) + number
    return {"counters": found}


def _two_lines(lines: "Iterable[str]") -> "Iterator[tuple[str, int]]":
    """A line of names and a line of numbers in turns, with the group in front of both."""
    names: list[str] = []
    for line in lines:
        group, *words = line.split()
        if not names:
            names = words
            continue
        for name, number in zip(names, words):
            yield group.rstrip(":") + "." + name, int(number)
        names = []


def _one_line(lines: "Iterable[str]") -> "Iterator[tuple[str, int]]":
    """A name and a number in each line."""
    for line in lines:
        name, number = line.split()
        yield name, int(number)


def _conntrack(lines: "Iterable[str]") -> "Iterator[tuple[str, int]]":
    """A line of names, and one of hexadecimal numbers for each CPU."""
    rows = iter(lines)
    names = next(rows, "").split()
    for row in rows:
        for name, number in zip(names, row.split()):
            yield "nf_conntrack." + name, int(number, 16)


# What is in stat/rt_cache counts for the whole machine, all its containers, and not for this namespace.
_READERS = {
    "netstat": _two_lines,
    "snmp": _two_lines,
    "snmp6": _one_line,
    "stat/nf_conntrack": _conntrack,
}
