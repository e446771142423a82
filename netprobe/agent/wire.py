"""Requests come in and answers go out as JSON lines; what is wrong with a request is said, never fatal."""

import base64
import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Item = TypeVar("_Item")

MAX_LINE_BYTES = 64 << 20


class RequestError(Exception):
    """A request that cannot be carried out as it stands; the text says which field, and what was expected."""


class Lines:
    """Bytes in, whole lines out; a line beyond `MAX_LINE_BYTES` is one error, and no memory leak."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> "list[bytes]":
        """The lines that `data` completes, without their newlines."""
        self._pending += data
        if b"\n" not in data:
            if len(self._pending) > MAX_LINE_BYTES:
                self._pending.clear()
                if not self._overlong:
                    self._overlong = True
                    raise RequestError(f"a line of over {MAX_LINE_BYTES} bytes")
            return []
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest)
        if self._overlong:
            # The end of a line that has had its answer.
            self._overlong = False
            return lines[1:]
        return lines


def send(message: "dict[str, object]") -> None:
    """Write one message; blocks while the coordinator is slow to read, which costs nobody else anything."""
    data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def parse(line: bytes) -> "dict[str, object]":
    """One request; `RequestError` unless it is a JSON object."""
    try:
        request = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise RequestError(f"not JSON: {error}") from None
    except RecursionError:
        raise RequestError("not JSON: nested too deeply") from None
    if not isinstance(request, dict):
        raise RequestError(f"a request is an object, not {type(request).__name__}")
    return request


def integer(value: object, what: str, low: int = 0, high: int = 0xFFFFFFFF) -> int:
    """`value` as an integer within bounds (JSON's true is not one)."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{what}: expected an integer from {low} to {high}")
    return value


def number(value: object, what: str, low: float, high: float) -> float:
    """`value` as a number within bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"{what}: expected a number from {low:g} to {high:g}")
    return float(value)


def flag(value: object, what: str) -> bool:
    """`value` as true or false."""
    if not isinstance(value, bool):
        raise RequestError(f"{what}: expected true or false")
    return value


def text(value: object, what: str) -> str:
    """`value` as a string."""
    if not isinstance(value, str):
        raise RequestError(f"{what}: expected a string")
    return value


def items(value: object, what: str, length: "int | None" = None) -> "list[object]":
    """`value` as a list, of a length where one is given."""
    if not isinstance(value, list):
        raise RequestError(f"{what}: expected a list")
    if length is not None and len(value) != length:
        raise RequestError(f"{what}: expected {length} items, not {len(value)}")
    return value


def fields(value: object, what: str) -> "dict[str, object]":
    """`value` as an object."""
    if not isinstance(value, dict):
        raise RequestError(f"{what}: expected an object")
    return value


def octets(value: object, what: str) -> bytes:
    """`value` as bytes, which travel in base64."""
    try:
        return base64.b64decode(text(value, what), validate=True)
    except ValueError:
        raise RequestError(f"{what}: expected base64") from None


def one_of(value: object, what: str, words: "tuple[str, ...]") -> str:
    """`value` as one of a few words."""
    if value not in words:
        raise RequestError(f"{what}: expected one of {', '.join(words)}")
    return str(value)


def address(value: object, what: str) -> bytes:
    """`value`, an address in text form, as packed bytes."""
    written = text(value, what)
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in written else socket.AF_INET, written)
    except (OSError, ValueError):
        raise RequestError(f"{what}: {written!r} is no address") from None


def address_text(packed: bytes) -> str:
    """A packed address in text form."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def member(value: object, what: str, sequence: "list[_Item]") -> "_Item":
    """The item of `sequence` that `value` is the number of."""
    return sequence[integer(value, what, 0, len(sequence) - 1)]
