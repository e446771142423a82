"""Packets of pods, as they are without encapsulation: from an address that no host has."""

from __future__ import annotations

from netprobe.model import Family, Protocol
from netprobe.probes import _outer
from netprobe.probes.base import Probe
from netprobe.template import Key, Kind, Sight, Template, mark_matches

_DISCARD = 9  # RFC 863: a service that answers nothing
_UDP_BYTES = 8
_TAG_AT, _MARK_AT = _UDP_BYTES, _UDP_BYTES + 4


def _packet(family: Family, port: int | None, key: Key) -> Template:
    from scapy.layers.inet import UDP
    from scapy.packet import Raw

    datagram = UDP(sport=1, dport=port) / Raw(bytes(4) + key.mark)
    return _outer.packet(family, Protocol.UDP, datagram, tags=(_TAG_AT,), source_port=True)


def _sights(key: Key) -> tuple[Sight, ...]:
    return (Sight(kind=Kind.PROBE, protocol=Protocol.UDP, matches=mark_matches(_MARK_AT, key), tag=_TAG_AT),)


PROBE = Probe(
    name="pod-route",
    rank=32,
    summary="A datagram to the discard port from the last usable address of `pod_cidr`, as if from a pod",
    source="Calico on Amazon Web Services, no overlays: source/destination checks must be off; RFC 863",
    protocol=Protocol.UDP,
    ports=(_DISCARD,),
    packet=_packet,
    sights=_sights,
    forwarded=True,
    hint="It bears a pod's address: clouds drop that by a source/destination check, hypervisors, switches "
    "and routers by anti-spoofing or reverse-path filters. Turn that off for these hosts, or encapsulate. "
    "Whoever refuses it tells the pod, and is not heard here.",
)
