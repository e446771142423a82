"""The interfaces of the host's network namespace, as the kernel tells of them."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from netprobe.questions import Failed, Look, Outcome
from netprobe.requirements import _netlink
from netprobe.requirements.base import Context

_RTM_GETLINK: Final = 18
_IFINFOMSG_BYTES: Final = 16
_IFNAME, _LINKINFO, _EXT_MASK = 3, 18, 29  # linux/include/uapi/linux/if_link.h
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_PORT = 1, 15
_SKIP_STATS: Final = 1 << 3  # RTEXT_FILTER_SKIP_STATS: most of an answer is statistics

LINKS: Final = Look(
    protocol=_netlink.ROUTE,
    steps=(
        _netlink.step(
            _RTM_GETLINK,
            bytes(_IFINFOMSG_BYTES) + struct.pack("=HHI", 8, _EXT_MASK, _SKIP_STATS),
            _netlink.DUMP,
        ),
    ),
)


class Link(msgspec.Struct, frozen=True):
    """An interface; of one of kind `vxlan` its UDP port and VNI, of others None."""

    name: str
    kind: str = ""
    port: int | None = None
    vni: int | None = None


def links(context: Context) -> list[Link] | Failed:
    """All interfaces."""
    found = context.of(LINKS)
    return found if isinstance(found, Failed) else decoded(found)


def decoded(outcomes: list[Outcome]) -> list[Link] | Failed:
    """The interfaces of an answer."""
    if len(outcomes) != 1:
        return Failed(f"EPROTO: {len(outcomes)} answers to one request")
    if outcomes[0].error:
        return Failed(outcomes[0].error)
    return [_link(body[_IFINFOMSG_BYTES:]) for body in outcomes[0].bodies if len(body) >= _IFINFOMSG_BYTES]


def _link(body: bytes) -> Link:
    told = _netlink.attributes(body)
    info = _netlink.attributes(told.get(_LINKINFO, b""))
    name, kind = _text(told.get(_IFNAME, b"")), _text(info.get(_INFO_KIND, b""))
    if kind != "vxlan":
        return Link(name, kind)
    data = _netlink.attributes(info.get(_INFO_DATA, b""))
    port, vni = data.get(_VXLAN_PORT, b""), data.get(_VXLAN_ID, b"")
    return Link(
        name,
        kind,
        int.from_bytes(port, "big") if len(port) == 2 else None,
        int(struct.unpack("=I", vni)[0]) if len(vni) == 4 else None,
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
