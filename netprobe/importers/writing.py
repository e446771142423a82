"""From what was found to the text of an inventory, with comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from netprobe.importers.found import Imported
from netprobe.inventory import InventoryError, loads
from netprobe.inventory.dump import host_entry, written
from netprobe.inventory.schema import DEFAULT_CONNECTION, DefaultsEntry

_WIDTH: Final = 100
_NAME: Final = "<imported>"
_MIN_ALIKE: Final = 2
_DEFAULTS: Final = DefaultsEntry.__struct_fields__

Entry = dict[str, Any]
"""A mapping of the inventory that is written."""


def write(imported: Imported, source: str, command: str) -> str:
    """
    The text of an inventory that `loads` accepts, which names its source and the command that made it.

    It is the same for the same source; `InventoryError` has what is wrong with the hosts as a whole.
    """
    lines = [*_comment(f"Made from {source} by"), f"#   {_printable(command)}"]
    if imported.remarks:
        lines += ["#", *(line for remark in imported.remarks for line in _comment(remark, "- "))]
    entries = [host_entry(found.host) for found in imported.hosts]
    common = _common(entries)
    lines.append("hosts:")
    for found, entry in zip(imported.hosts, entries, strict=True):
        lines += _entry(found.remarks, _without(entry, common))
    defaults = {key: value for key, value in common.items() if value != {"type": DEFAULT_CONNECTION}}
    text = "\n".join(lines) + "\n" + (written({"defaults": defaults}) if defaults else "")
    try:
        loads(text, _NAME)
    except InventoryError as error:
        names = [found.host.name for found in imported.hosts]
        raise InventoryError(*(_told(line, source, names) for line in error.lines)) from None
    return text


def _common(entries: Sequence[Entry]) -> Entry:
    """What all hosts have alike, as `defaults` has it: none of it is written for each of them."""
    common = {key: value for key, value in _alike(entries).items() if key in _DEFAULTS}
    connection = _alike([entry["connection"] for entry in entries])
    # Options are for hosts of the type of connection that the defaults have.
    return {**({"connection": connection} if "type" in connection else {}), **common}


def _alike(entries: Sequence[Entry]) -> Entry:
    if len(entries) < _MIN_ALIKE:
        return {}
    first, *others = entries
    return {
        key: value
        for key, value in first.items()
        if key != "connection" and all(other.get(key) == value for other in others)
    }


def _without(entry: Entry, common: Entry) -> Entry:
    """An entry without what the defaults have."""
    usual = common.get("connection", {})
    own = {key: value for key, value in entry["connection"].items() if key not in usual}
    rest = {key: own if key == "connection" else value for key, value in entry.items()}
    return {key: value for key, value in rest.items() if key not in common or (key == "connection" and own)}


def _entry(remarks: Sequence[str], entry: Entry) -> Iterator[str]:
    for remark in remarks:
        yield from (f"  {line}" for line in _comment(remark))
    yield from (f"  {line}" for line in written([entry]).splitlines())


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
