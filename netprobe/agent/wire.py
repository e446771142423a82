"""Requests come in and answers go out as JSON lines; what is wrong with a request is said, never fatal."""

import base64
import binascii
import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Item = TypeVar("_Item")

MAX_LINE_BYTES = 64 << 20


class BadRequest(Exception):
    """A request that cannot be carried out as it stands; the text says which field, and what was expected."""


class Lines:
    """Bytes in, whole lines out; a line that grows beyond `MAX_LINE_BYTES` is an error, not a memory leak."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> "list[bytes]":
        """The lines that `data` completes, without their newlines."""
        self._pending += data
        if b"\n" not in data:
            if len(self._pending) > MAX_LINE_BYTES:
                self._pending.clear()
                raise BadRequest("a line of over %d bytes" % MAX_LINE_BYTES)
            return []
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest)
        return lines


def send(message: "dict[str, object]") -> None:
    """Write one message; blocks while the coordinator is slow to read, which costs nobody else anything."""
    data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def parse(line: bytes) -> "dict[str, object]":
    """One request; `BadRequest` unless it is a JSON object."""
    try:
        request = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise BadRequest("not JSON: %s" % error) from None
    except RecursionError:
        raise BadRequest("not JSON: nested too deeply") from None
    if not isinstance(request, dict):
        raise BadRequest("a request is an object, not %s" % type(request).__name__)
    return request


def integer(value: object, what: str, low: int = 0, high: int = 0xFFFFFFFF) -> int:
    """`value` as an integer within bounds (JSON's true is not one)."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest("%s: expected an integer from %d to %d" % (what, low, high))
    return value


def number(value: object, what: str, low: float, high: float) -> float:
    """`value` as a number within bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadRequest("%s: expected a number from %g to %g" % (what, low, high))
    return float(value)


def text(value: object, what: str) -> str:
    """`value` as a string."""
    if not isinstance(value, str):
        raise BadRequest("%s: expected a string" % what)
    return value


def items(value: object, what: str, length: "int | None" = None) -> "list[object]":
    """`value` as a list, of a length where one is given."""
    if not isinstance(value, list):
        raise BadRequest("%s: expected a list" % what)
    if length is not None and len(value) != length:
        raise BadRequest("%s: expected %d items, not %d" % (what, length, len(value)))
    return value


def fields(value: object, what: str) -> "dict[str, object]":
    """`value` as an object."""
    if not isinstance(value, dict):
        raise BadRequest("%s: expected an object" % what)
    return value


def octets(value: object, what: str) -> bytes:
    """`value` as bytes, which travel in base64."""
    try:
        return base64.b64decode(text(value, what), validate=True)
    except binascii.Error:
        raise BadRequest("%s: expected base64" % what) from None


def one_of(value: object, what: str, words: "tuple[str, ...]") -> str:
    """`value` as one of a few words."""
    if value not in words:
        raise BadRequest("%s: expected one of %s" % (what, ", ".join(words)))
    return str(value)


def address(value: object, what: str) -> bytes:
    """`value`, an address in text form, as packed bytes."""
    written = text(value, what)
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in written else socket.AF_INET, written)
    except (OSError, ValueError):
        raise BadRequest("%s: %r is no address" % (what, written)) from None


def member(value: object, what: str, sequence: "list[_Item]") -> "_Item":
    """The item of `sequence` that `value` is the number of."""
    return sequence[integer(value, what, 0, len(sequence) - 1)]
