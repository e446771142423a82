"""Messages to the kernel, encoded by pyroute2, as steps of a question."""

from __future__ import annotations

import struct
from typing import Any, Final

from pyroute2.netlink import nlmsg

from netprobe.questions import Step

ROUTE, NETFILTER, GENERIC = 0, 12, 16
"""Netlink's protocols: linux/include/uapi/linux/netlink.h."""

ACK, EXCL, CREATE, DUMP = 0x4, 0x200, 0x400, 0x300
_HEADER_BYTES: Final = 16
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def body(message: Any) -> bytes:  # noqa: ANN401 - pyroute2 has no types
    """What follows the netlink header of a message."""
    message.encode()
    return bytes(message.data[_HEADER_BYTES:])


def filled(kind: type[nlmsg], fields: dict[str, Any], attributes: list[tuple[str, Any]]) -> bytes:
    """The body of a message of a kind, with these fields and attributes."""
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    return body(message)


def attributes(data: bytes) -> dict[int, bytes]:
    """
    The attributes of an answer by their type, the last one of a type; what is cut off or none ends the list.

    A host may say anything, and pyroute2 believes its messages.
    """
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]
    return found


def step(kind: int, content: bytes, flags: int = 0) -> Step:
    """A step of one message."""
    return Step(messages=((kind, flags, content),))
