"""Geneve tunnels between all nodes (RFC 8926), as OVN-Kubernetes and Antrea use them: UDP 6081."""

from __future__ import annotations

from netprobe.model import Family, Protocol
from netprobe.probes import _outer
from netprobe.probes.base import Probe
from netprobe.template import Key, Kind, Sight, Template, mark_matches

_MARK_AT = 8 + 8 + 14  # behind the UDP, the Geneve and the inner Ethernet header
_TAG_AT = _MARK_AT + 8


def _packet(family: Family, port: int | None, key: Key) -> Template:
    """A Geneve packet whose inner frame is addressed to nobody: a live endpoint has no use for it."""
    from scapy.contrib.geneve import GENEVE
    from scapy.layers.inet import UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    frame = Ether(src="02:6e:70:00:00:01", dst="02:6e:70:00:00:02", type=0x88B5)  # local experiments' type
    datagram = UDP(sport=1, dport=port) / GENEVE(vni=0xFFFFFF) / frame / Raw(key.mark + bytes(4))
    return _outer.packet(family, Protocol.UDP, datagram, tags=(_TAG_AT,), source_port=True)


def _sights(key: Key) -> tuple[Sight, ...]:
    """How a tap tells it from all other traffic, and where the tag is: beside the run's mark."""
    return (Sight(kind=Kind.PROBE, protocol=Protocol.UDP, matches=mark_matches(_MARK_AT, key), tag=_TAG_AT),)


PROBE = Probe(
    name="geneve",
    rank=90,
    summary="A Geneve packet whose inner frame is addressed to nobody",
    source="RFC 8926 §3.3: UDP 6081",
    protocol=Protocol.UDP,
    ports=(6081,),
    packet=_packet,
    sights=_sights,
)
