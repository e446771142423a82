"""Which packet of a run an ICMP error is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from netprobe.icmp import Quote
from netprobe.model import Flow, Protocol
from netprobe.template import ATTEMPT_BITS, Base, Key, Kind, Sight

_ENDINGS: Final = (Kind.RESET, Kind.WITHDRAWAL)
"""Packets that end a connection: that somebody refuses them says nothing about the probe that began it."""


class Recogniser:
    """Ties quoted packets to flows and attempts."""

    def __init__(self, key: Key, sights: Sequence[Sight], flows: Sequence[Flow]) -> None:
        self._key = key
        self._sights = sights
        self._flows = flows
        self._by_addresses: dict[tuple[int, str, str, int | None], list[Flow]] = defaultdict(list)
        for flow in flows:
            self._by_addresses[flow.protocol, flow.bears, flow.dst_address, flow.port].append(flow)

    def find(self, quote: Quote) -> tuple[Flow, int] | None:
        """The flow of a quoted packet and its attempts (as a mask), None where it is not ours."""
        ends_early = False
        for sight in self._sights:
            if (
                sight.protocol != quote.protocol
                or sight.base is not Base.TRANSPORT
                or not _fits(quote, sight)
            ):
                continue
            if len(quote.transport) < sight.tag + 4:
                # The whole packet may be as short: then it is none of these.
                ends_early |= sight.kind is Kind.PROBE and quote.size >= sight.tag + 4
                continue
            found = self._tagged(quote, sight)
            if found is not None:
                return None if sight.kind in _ENDINGS else found
        return self._identified(quote) if ends_early else None

    def _tagged(self, quote: Quote, sight: Sight) -> tuple[Flow, int] | None:
        at = quote.transport[sight.tag : sight.tag + 4]
        number = (int.from_bytes(at, "big") - sight.minus & 0xFFFFFFFF) ^ self._key.nonce
        if number >> ATTEMPT_BITS >= len(self._flows):
            return None
        flow = self._flows[number >> ATTEMPT_BITS]
        addresses = {flow.bears, flow.dst_address}
        # With NAT on the way one of the two addresses may be another, not both.
        if not {quote.source, quote.destination} & addresses:
            return None
        return flow, 1 << (number & (1 << ATTEMPT_BITS) - 1)

    def _identified(self, quote: Quote) -> tuple[Flow, int] | None:
        """By addresses, port and IPv4 identification, where the quote ends before the tag."""
        if quote.identification is None:
            return None
        port = None if quote.protocol == Protocol.IPIP else quote.destination_port()
        for flow in self._by_addresses.get((quote.protocol, quote.source, quote.destination, port), ()):
            for attempt in range(1 << ATTEMPT_BITS):
                if self._key.tag(flow.number, attempt) & 0xFFFF == quote.identification:
                    return flow, 1 << attempt
        return None


def _fits(quote: Quote, sight: Sight) -> bool:
    """Whether a quoted packet may be of this kind; conditions on what is no longer quoted are left out."""
    for match in sight.matches:
        there = quote.transport[match.offset : match.offset + match.width]
        if len(there) == match.width and int.from_bytes(there, "big") & match.mask != match.value:
            return False
    return True
