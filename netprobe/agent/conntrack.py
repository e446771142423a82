"""
Conntrack entries of exactly given tuples: look them up, and delete those that a run made.

A table that is not there (no nf_conntrack in the kernel) holds no state; asking for it would load modules, so
that is looked at first. Numbers: linux/include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import contextlib
import errno
import os
import struct
import time

from netprobe.agent import netlink, wire

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP = {4: (1, 2), 16: (3, 4)}  # source and destination, by the length of the packed address
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"


class Entries:
    """
    The entries that a run is about.

    Those that were not there when they were looked up are the run's own; `forget` deletes them at its end.
    """

    def __init__(self) -> None:
        self._ours: dict[bytes, None] = {}

    def conntrack(self, request: "dict[str, object]") -> "dict[str, object]":
        """
        Which of `tuples` ([protocol, source, destination, source port, destination port]) have an entry.

        An entry is found by either of its directions. With `delete` those of the run's own are deleted, and
        `found` are these. `tracking` is whether this kernel tracks connections at all.
        """
        tuples = [
            _tuple(wire.items(each, "tuples", 5)) for each in wire.items(request.get("tuples"), "tuples")
        ]
        delete = wire.flag(request.get("delete", False), "delete")
        tracking = os.path.exists(_COUNT)
        asked = [number for number, each in enumerate(tuples) if not delete or each in self._ours]
        there = _find([tuples[number] for number in asked], delete) if tracking and _entries() else []
        found = [asked[place] for place in there]
        if not delete:
            before = set(found)
            self._ours.update((each, None) for number, each in enumerate(tuples) if number not in before)
        return {"tracking": tracking, "found": found}

    def forget(self, after_s: float = 0) -> None:
        """Delete the run's own entries, after so many seconds."""
        ours, self._ours = list(self._ours), {}
        # What cannot be deleted goes by itself in some minutes: no reason for a run to fail at its end.
        with contextlib.suppress(OSError):
            if ours and os.path.exists(_COUNT):
                time.sleep(after_s)
                if _entries():
                    _find(ours, delete=True)


def _find(tuples: "list[bytes]", delete: bool) -> "list[int]":  # noqa: FBT001 - as the request has it
    """The numbers of those tuples that have an entry; with `delete`, had one."""
    found = []
    handle = netlink.Netlink(netlink.NETLINK_NETFILTER)
    try:
        for number, body in enumerate(tuples):
            try:
                handle.get(_SUBSYSTEM | (_DELETE if delete else _GET), body)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                found.append(number)
    finally:
        handle.close()
    return found


def _entries() -> int:
    """How many entries the host has in all."""
    with open(_COUNT) as count:
        return int(count.read())


def _tuple(values: "list[object]") -> bytes:
    protocol = wire.integer(values[0], "tuples.protocol", 0, 255)
    source, destination = (wire.address(value, "tuples") for value in values[1:3])
    ports = [wire.integer(value, "tuples.port", 0, 65535) for value in values[3:5]]
    if len(source) != len(destination):
        raise wire.RequestError("tuples: both addresses of one family")
    source_at, destination_at = _CTA_IP[len(source)]
    transport = netlink.attribute(_CTA_PROTO_NUM, bytes([protocol]))
    if any(ports):
        transport += netlink.attribute(_CTA_PROTO_SRC_PORT, struct.pack("!H", ports[0]))
        transport += netlink.attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", ports[1]))
    return struct.pack("!BBH", netlink.family_of(source), 0, 0) + netlink.nested(
        _CTA_TUPLE_ORIG,
        netlink.nested(
            _CTA_TUPLE_IP,
            netlink.attribute(source_at, source),
            netlink.attribute(destination_at, destination),
        ),
        netlink.nested(_CTA_TUPLE_PROTO, transport),
    )
