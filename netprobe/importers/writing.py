"""From what was found to the text of an inventory, with comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from netprobe.importers.found import Found, Imported
from netprobe.inventory import InventoryError, loads
from netprobe.inventory.dump import host_entry, written

_WIDTH: Final = 100
_NAME: Final = "<imported>"


def write(imported: Imported, source: str, command: str) -> str:
    """
    The text of an inventory that `loads` accepts, which names its source and the command that made it.

    It is the same for the same source; `InventoryError` has what is wrong with the hosts as a whole.
    """
    lines = [*_comment(f"Made from {source} by"), f"#   {_printable(command)}"]
    if imported.remarks:
        lines += ["#", *(line for remark in imported.remarks for line in _comment(remark, "- "))]
    lines.append("hosts:")
    for found in imported.hosts:
        lines += _entry(found)
    text = "\n".join(lines) + "\n"
    try:
        loads(text, _NAME)
    except InventoryError as error:
        names = [found.host.name for found in imported.hosts]
        raise InventoryError(*(_told(line, source, names) for line in error.lines)) from None
    return text


def _entry(found: Found) -> Iterator[str]:
    for remark in found.remarks:
        yield from (f"  {line}" for line in _comment(remark))
    yield from (f"  {line}" for line in written([host_entry(found.host)]).splitlines())


def _comment(text: str, bullet: str = "") -> Iterable[str]:
    first, others = f"# {bullet}", f"# {' ' * len(bullet)}"
    return textwrap.wrap(
        _printable(text),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    """The text on one line: a comment ends where YAML sees a line break, and it knows more of them."""
    return "".join(character if character.isprintable() else " " for character in text)


def _told(line: str, source: str, names: list[str]) -> str:
    """What is wrong, by the names of hosts: nobody has the file whose lines and numbers it speaks of."""
    what = re.sub(rf"^{re.escape(_NAME)}:[0-9]+: ", "", line)
    what = re.sub(r"\bhosts\[([0-9]+)\](\.(?=\w))?", lambda found: _name(found, names), what)
    return f"{source}: {what}"


def _name(found: re.Match[str], names: list[str]) -> str:
    return names[int(found[1])] + (": " if found[2] else "")
