"""
The packets of a flow are numbered, and the range of its number says what a packet is for.

The number travels in the tag. A packet that tests the source's OUTPUT, or another source port, can therefore
never be counted as an arrival (design trap 2).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Attempts(NamedTuple):
    """Numbers of attempts: the first, and how many."""

    first: int
    total: int

    @property
    def mask(self) -> int:
        """The bits of these attempts."""
        return ((1 << self.total) - 1) << self.first


FIRST: Final = Attempts(0, 8)
"""The first round, of which `--count` says how many are used."""
BURST: Final = Attempts(8, 10)
"""A miss is confirmed before it is called one (design trap 10)."""
PATTERN: Final = Attempts(18, 24)
"""Some came and some did not: three packets from each of eight source ports tell loss from a dead link."""
SAME_PORT: Final = 3
SLOW: Final = Attempts(42, 6)
"""Asked again when refusals have tokens again (design trap 11)."""
FRESH_PORT: Final = Attempts(48, 2)
"""From another source port: does a packet get through to which no earlier packet can have opened the way?"""
FRESH_PORT_WATCHED: Final = Attempts(50, 1)
"""The same again, with the interfaces watched, where the first ones did not come to the socket."""
FRESH_PORT_OUTPUT: Final = Attempts(51, 1)
"""The same through the source's own OUTPUT chain: does it let out what no entry of its table knows?"""
OUTPUT: Final = Attempts(52, 4)
"""Sent through the source's own OUTPUT chain only to see whether it lets them out."""
OUTPUT_WATCHED: Final = Attempts(56, 7)
"""The same again, with the source's interfaces watched, where some of the first were not seen outside."""
COUNTED: Final = Attempts(63, 1)
"""Asked again, as often as needed, while the kernel that may have discarded it is looked at."""
LATE_MASK: Final = SLOW.mask | COUNTED.mask
"""By then the opposite of a flow has been through."""
OUTPUT_MASK: Final = OUTPUT.mask | OUTPUT_WATCHED.mask
FRESH_MASK: Final = FRESH_PORT.mask | FRESH_PORT_WATCHED.mask
CONFIRM_MASK: Final = BURST.mask | PATTERN.mask | LATE_MASK
ARRIVALS_MASK: Final = FIRST.mask | CONFIRM_MASK

MAX_HOPS: Final = 32
HOPS: Final = Attempts(0, MAX_HOPS)
"""A trace has a key of its own, and numbers its packets by their TTL, from 1 on."""
HOPS_AGAIN: Final = Attempts(MAX_HOPS, MAX_HOPS)
"""The same, asked again: an answer to one of these is none to the first question, that came late."""
ALL_OF_A_PORT: Final = HOPS.total + HOPS_AGAIN.total
"""They leave from one source port: equal-cost paths are chosen by it, and a trace must not mix them."""

SOURCE_PORTS: Final = (32768, 19000)
"""
The first, and how many: some that real traffic has (net.ipv4.ip_local_port_range, VXLAN's as well).

Filters without a memory let answers back to these, and not always to others. They end below WireGuard's
51820: a rule about that port must not meet another probe.
"""
