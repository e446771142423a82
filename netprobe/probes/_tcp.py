"""
The TCP probes have one packet in common: a SYN that is never acknowledged.

The source's kernel knows nothing of the connection and answers a SYN-ACK with a RST, which ends the half-open
connection at the destination before the program that listens there hears of it (design trap 3).
"""

from __future__ import annotations

from typing import Final

import msgspec

from netprobe.model import Family, Protocol
from netprobe.probes._outer import packet
from netprobe.template import Key, Kind, Match, Sight, Template

_SEQUENCE, _ACKNOWLEDGEMENT, _FLAGS, _WINDOW, _OPTIONS = 4, 8, 13, 14, 20  # RFC 9293 §3.1
_OFFSET: Final = 12
_END, _NO_OPERATION = 0, 1  # options without a length, RFC 9293 §3.1
_MAXIMUM_SEGMENT_SIZE: Final = 0x0204  # its kind and length, RFC 9293 §3.2
_MSS_BYTES: Final = 4
# Where Linux's options have the timestamp and its echo, behind MSS and SACK permitted (RFC 7323 §3.2).
_TIMESTAMP_KIND, _TIMESTAMP, _ECHO = 26, 28, 32
_TIMESTAMPS: Final = Match(_TIMESTAMP_KIND, 2, 0xFFFF, 0x080A)
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_STATE_FLAGS: Final = _FIN | _SYN | _RST | _ACK


def syn(family: Family, port: int | None, key: Key) -> Template:
    """
    `Probe.packet` of every TCP probe: a SYN with the options that Linux sends.

    Its sequence number is the tag, its window the run's mark. Some firewalls change sequence numbers on their
    way (and acknowledgements on theirs back), so its timestamp is the tag as well, which is echoed.
    """
    from scapy.layers.inet import TCP

    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    segment = TCP(sport=1, dport=port, seq=0, flags="S", window=key.window, options=options)
    return packet(family, Protocol.TCP, segment, tags=(_SEQUENCE, _TIMESTAMP), source_port=True)


def announced_mss(segment: bytes) -> int | None:
    """The maximum segment size that a SYN announces, None where it has none (RFC 9293 §3.2)."""
    options = segment[_OPTIONS : (segment[_OFFSET] >> 4) * 4] if len(segment) > _OFFSET else b""
    while len(options) >= _MSS_BYTES and options[0] != _END:
        if options[:2] == _MAXIMUM_SEGMENT_SIZE.to_bytes(2, "big"):
            return int.from_bytes(options[2:_MSS_BYTES], "big")
        options = options[1 if options[0] == _NO_OPERATION else max(2, options[1]) :]
    return None


def withdrawal(family: Family, port: int | None, key: Key) -> Template:
    """
    `Probe.withdrawal` of every TCP probe: the RST that takes a SYN back (RFC 9293 §3.10.7.4).

    A SYN-ACK that got lost is not answered by the source's kernel, and would be sent again for a minute.
    """
    from scapy.layers.inet import TCP

    segment = TCP(sport=1, dport=port, seq=0, flags="R", window=key.window)
    template = packet(family, Protocol.TCP, segment, tags=(_SEQUENCE,), source_port=True)
    return msgspec.structs.replace(template, plus=1)


def _flags(mask: int, value: int) -> Match:
    return Match(_FLAGS, 1, mask, value)


def sights(key: Key) -> tuple[Sight, ...]:
    """
    The SYN, its SYN-ACK, the RST that refuses it, and the RSTs, ours and a kernel's, that end it half open.

    A SYN-ACK of our own listener is known by its maximum segment size, which Linux writes first. Only then is
    it sure that a session would be held with it: the port may lead to another service.

    A RST that answers a SYN acknowledges its sequence number plus one; one that answers a SYN-ACK carries
    that number as its own (RFC 9293 §3.5.2).
    """
    tcp = Protocol.TCP
    return (
        Sight(
            kind=Kind.PROBE,
            protocol=tcp,
            matches=(_flags(_STATE_FLAGS, _SYN), Match(_WINDOW, 2, 0xFFFF, key.window)),
            tag=_SEQUENCE,
        ),
        Sight(
            kind=Kind.OURS,
            protocol=tcp,
            matches=(
                _flags(_STATE_FLAGS, _SYN | _ACK),
                Match(_OPTIONS, 4, 0xFFFFFFFF, _MAXIMUM_SEGMENT_SIZE << 16 | key.mss),
            ),
            tag=_ACKNOWLEDGEMENT,
            minus=1,
            answers=True,
        ),
        Sight(
            kind=Kind.ACCEPT,
            protocol=tcp,
            matches=(_flags(_STATE_FLAGS, _SYN | _ACK),),
            tag=_ACKNOWLEDGEMENT,
            minus=1,
            answers=True,
        ),
        Sight(
            kind=Kind.PROBE,
            protocol=tcp,
            matches=(_flags(_STATE_FLAGS, _SYN), Match(_WINDOW, 2, 0xFFFF, key.window), _TIMESTAMPS),
            tag=_TIMESTAMP,
        ),
        Sight(
            kind=Kind.ACCEPT,
            protocol=tcp,
            matches=(_flags(_STATE_FLAGS, _SYN | _ACK), _TIMESTAMPS),
            tag=_ECHO,
            answers=True,
        ),
        Sight(
            kind=Kind.RST,
            protocol=tcp,
            matches=(_flags(_RST | _ACK, _RST | _ACK),),
            tag=_ACKNOWLEDGEMENT,
            minus=1,
            answers=True,
        ),
        Sight(
            kind=Kind.WITHDRAWAL,
            protocol=tcp,
            matches=(_flags(_RST | _ACK, _RST), Match(_WINDOW, 2, 0xFFFF, key.window)),
            tag=_SEQUENCE,
            minus=1,
        ),
        Sight(
            kind=Kind.RESET,
            protocol=tcp,
            matches=(_flags(_RST | _ACK, _RST),),
            tag=_SEQUENCE,
            minus=1,
        ),
    )
