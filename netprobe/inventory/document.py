"""
From bytes to a tree of YAML nodes, and from a node to what its line says.

The tree is read by hand instead of by YAML's own construction, because only the nodes know their lines, and
because construction forgets what matters here: a duplicate key, and that `no` was a word before it was false.
Everything is bounded: an inventory can be a program's output, and a few lines of YAML can mean gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from netprobe.inventory.errors import InventoryError, Place, Problems, shown

MAX_BYTES: Final = 1 << 20
"""A thousand hosts are some 130 kB."""

MAX_DEPTH: Final = 32
"""An inventory is four levels deep; YAML itself would exhaust the interpreter's stack."""

MAX_VALUES: Final = 200_000
"""Aliases count each time: nine of them, nested, are a billion values in nine lines."""

_STANDARD: Final = "tag:yaml.org,2002:"
_AS_WRITTEN: Final = ("str", "value", "merge")
_READ_AS: Final = {"int": "another number", "float": "a number", "timestamp": "a date"}


class _Loader(yaml.SafeLoader):
    """
    The safe loader, with a bound on nesting.

    It is the one in Python: the one in C overflows the stack on deep nesting, and has other words for errors.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node; called for each child in turn."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = parent.start_mark if parent else None
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def read(path: Path, name: str) -> bytes:
    """The bytes of a file, at most `MAX_BYTES`; what is no regular file (a pipe) may be read as well."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InventoryError(f"{name}: cannot read it: {reason}") from None
    return content


def compose(content: bytes, problems: Problems, name: str) -> yaml.Node:
    """The tree of a document, or `InventoryError` where it is no YAML."""
    if len(content) > MAX_BYTES:
        raise InventoryError(f"{name}: larger than {MAX_BYTES >> 20} MiB, which no inventory is")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(Place(line), (), f"not UTF-8: byte 0x{content[error.start]:02x}")
        raise problems.error() from None
    try:
        node: yaml.Node | None = yaml.compose(text, _Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(Place(line), (), f"not YAML: it has the character U+{ord(text[error.position]):04X}")
        raise problems.error() from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        # `[::1]` and `fd00::` are not the text that they look like.
        is_address = any("::" in written for written in text.split("\n")[line - 1 : line])
        hint = "; quote an address that begins or ends with a colon" if is_address else ""
        what = str(error.problem or error.context)
        if what.startswith("but "):
            what = f"{error.context}, {what}"
        problems.add(Place(line), (), f"not YAML: {what}{hint}")
        raise problems.error() from None
    if node is None:
        problems.add(Place(1), (), 'it is empty; expected a mapping with the key "hosts"')
        raise problems.error()
    return node


def place(node: yaml.Node) -> Place:
    """Where a node begins."""
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def kind(node: yaml.Node) -> str:
    """`list`, `mapping`, or what YAML takes a scalar for: `str`, `int`, `bool`, `null` and so on."""
    if isinstance(node, yaml.SequenceNode):
        return "list"
    if isinstance(node, yaml.MappingNode):
        return "mapping"
    return str(node.tag).removeprefix(_STANDARD)


def truth(node: yaml.Node) -> bool:
    """The value of a node of the kind `bool`."""
    return str(node.value).lower() in ("true", "yes", "on")


def got(node: yaml.Node) -> str:
    """What stands there, for an error: as written, and as YAML reads it where that is a surprise."""
    what, value = kind(node), shown(str(node.value))
    if what in ("list", "mapping"):
        return f"a {what}"
    if what in _AS_WRITTEN:
        return value
    if what == "int" and is_plain_number(node.value):
        return str(node.value)
    if what == "bool":
        meaning = str(truth(node)).lower()
        return meaning if str(node.value).lower() == meaning else f"{value}, which YAML reads as {meaning}"
    if what == "null":
        return "nothing"
    return f"{value}, which YAML reads as {_READ_AS.get(what) or shown(what)}"


def is_plain_number(value: str) -> bool:
    """Whether digits mean what they say; YAML also has octal (022), base 60 (1:20) and 1_000."""
    return re.fullmatch(r"-?(0|[1-9][0-9]{0,9})", value) is not None


class Pairs:
    """The keys and values of mappings, counted, with merge keys (`<<`) resolved as YAML 1.1 has them."""

    def __init__(self, problems: Problems, name: str) -> None:
        self._problems = problems
        self._name = name
        self._values = 0

    def count(self) -> None:
        """Count one more value; `InventoryError` when it is one too many."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise InventoryError(
                f"{self._name}: more than {MAX_VALUES:,} values, with each alias counted whenever it is used"
            )

    def of(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """The pairs of one mapping: its own, duplicates and all, then what it merges and does not have."""
        yield from self._own(node)
        seen = {key.value for key, _ in self._own(node) if isinstance(key, yaml.ScalarNode)}
        for merged in self._merged(node, frozenset()):
            for key, value in self._own(merged):
                if isinstance(key, yaml.ScalarNode) and key.value not in seen:
                    seen.add(key.value)
                    yield key, value

    def _own(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        return ((key, value) for key, value in node.value if kind(key) != "merge")

    def _merged(self, node: yaml.MappingNode, above: frozenset[int]) -> Iterator[yaml.MappingNode]:
        """The mappings that a mapping merges, nearest first; what merges itself is passed over."""
        for key, value in node.value:
            if kind(key) != "merge":
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self.count()
                if not isinstance(source, yaml.MappingNode):
                    self._problems.add(place(key), (), f'"<<" merges mappings, got {got(source)}')
                elif id(source) not in above:
                    yield source
                    yield from self._merged(source, above | {id(source)})
