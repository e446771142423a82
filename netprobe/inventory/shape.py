"""Walks a YAML tree beside the schema: every wrong key, type and text becomes a problem with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec.inspect as schema
import yaml

from netprobe.inventory import document
from netprobe.inventory.errors import KeyPath, Place, Problems, shown, suggestion
from netprobe.inventory.schema import check_text

WRONG: Final = object()
"""Stands for a value that has a problem already, so that the indices of a list stay what they are."""


class Walker:
    """
    One walk over one document.

    `words` are the words that there are for a kind of text: probes, modes, types of connection. `places` are
    filled on the way: where each key and each element of a list stands.
    """

    def __init__(self, problems: Problems, name: str, words: Mapping[str, Sequence[str]]) -> None:
        self._problems = problems
        self._pairs = document.Pairs(problems, name)
        self._words = words
        self.places: dict[KeyPath, Place] = {}

    def walk(self, node: yaml.Node, type_: schema.Type, path: KeyPath = ()) -> object:
        """The plain value of a node that the schema types so; `WRONG` where it is not of that type."""
        self._pairs.count()
        self.places.setdefault(path, document.place(node))
        extra: Mapping[str, Any] = {}
        if isinstance(type_, schema.Metadata):
            extra, type_ = type_.extra or {}, type_.type
        if isinstance(type_, schema.StructType | schema.DictType):
            return self._mapping(node, type_, path)
        if (
            isinstance(type_, schema.VarTupleType)
            and "may_be_one" in extra
            and isinstance(node, yaml.ScalarNode)
        ):
            value = self.walk(node, type_.item_type, path)
            return value if value is WRONG else [value]
        if isinstance(type_, schema.VarTupleType):
            return self._list(node, type_, path, is_set="unique" in extra)
        return self._scalar(node, type_, path, extra.get("kind", ""))

    def _wrong(self, path: KeyPath, text: str) -> object:
        self._problems.add(self.places[path], path, text)
        return WRONG

    def _mapping(self, node: yaml.Node, type_: schema.StructType | schema.DictType, path: KeyPath) -> object:
        if not isinstance(node, yaml.MappingNode):
            keys = "" if path else ' with the key "hosts"'
            return self._wrong(path, f"expected a mapping{keys}, got {document.got(node)}")
        fields = {f.encode_name: f for f in type_.fields} if isinstance(type_, schema.StructType) else {}
        seen: dict[str, Place] = {}
        values: dict[str, object] = {}
        for key_node, value_node in self._pairs.of(node):
            here = document.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(here, path, f"expected a key, got {document.got(key_node)}")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in seen:
                self._problems.add(here, inner, f"duplicate key; the first is in line {seen[key].line}")
                continue
            seen[key] = self.places[inner] = here
            if isinstance(type_, schema.DictType):
                if self.walk(key_node, type_.key_type, inner) is not WRONG:
                    values[key] = self.walk(value_node, type_.value_type, inner)
            elif key in fields:
                values[key] = self.walk(value_node, fields[key].type, inner)
            else:
                self._problems.add(here, inner, f"unknown key; {suggestion(key, fields)}")
        for key, field in fields.items():
            if field.required and key not in seen:
                self._problems.add(self.places[path], (*path, key), "missing")
        return values

    def _list(self, node: yaml.Node, type_: schema.VarTupleType, path: KeyPath, *, is_set: bool) -> object:
        if not isinstance(node, yaml.SequenceNode):
            hint = f"; write [{document.got(node)}]" if document.kind(node) in ("str", "int") else ""
            return self._wrong(path, f"expected a list, got {document.got(node)}{hint}")
        if type_.min_length and not node.value:
            return self._wrong(path, "expected at least one element, got an empty list")
        values = [self.walk(item, type_.item_type, (*path, index)) for index, item in enumerate(node.value)]
        for index, value in enumerate(values):
            if is_set and value is not WRONG and value in values[:index]:
                self._wrong((*path, index), f"{document.got(node.value[index])} is in the list already")
        return values

    def _scalar(self, node: yaml.Node, type_: schema.Type, path: KeyPath, kind: str) -> object:
        if isinstance(type_, schema.BoolType):
            if document.kind(node) == "bool":
                return document.truth(node)
            return self._wrong(path, f"expected true or false, got {document.got(node)}")
        if isinstance(type_, schema.IntType):
            return self._number(node, type_, path)
        if document.kind(node) != "str":
            return self._wrong(path, f"expected text, got {document.got(node)}{_text_hint(node, path)}")
        problem = self._text_problem(node.value, type_, kind)
        return self._wrong(path, problem) if problem else node.value

    def _text_problem(self, text: str, type_: schema.Type, kind: str) -> str:
        words = self._words.get(kind)
        if isinstance(type_, schema.EnumType):
            kind, words = "role", [member.value for member in type_.cls]
        if words is None:
            return check_text(text, kind)
        return "" if text in words else f"unknown {kind} {shown(text)}; {suggestion(text, words)}"

    def _number(self, node: yaml.Node, type_: schema.IntType, path: KeyPath) -> object:
        is_number = document.kind(node) == "int" and document.is_plain_number(node.value)
        if is_number and (type_.ge or 0) <= int(node.value) <= (type_.le or 0):
            return int(node.value)
        is_quoted = document.kind(node) == "str" and document.is_plain_number(node.value)
        hint = "; remove the quotes" if is_quoted else ""
        expected = f"expected a number from {type_.ge} to {type_.le}"
        return self._wrong(path, f"{expected}, got {document.got(node)}{hint}")


def _text_hint(node: yaml.Node, path: KeyPath) -> str:
    """What to do about something that was meant to be text."""
    if document.kind(node) in ("int", "bool", "float", "timestamp"):
        return f"; quote it: {shown(node.value)}"
    if document.kind(node) == "mapping" and "addresses" in path:
        return "; quote an address that ends with a colon"
    return ""
