"""The VXLAN packet (RFC 7348) of Calico and of flannel; they differ in VNI and port."""

from __future__ import annotations

from netprobe.model import Family, Protocol
from netprobe.probes import _outer
from netprobe.template import Key, Kind, Sight, Template, mark_matches

_UDP_BYTES, _VXLAN_BYTES, _ETHERNET_BYTES, _INNER_IP_BYTES = 8, 8, 14, 20
_MARK_AT = _UDP_BYTES + _VXLAN_BYTES + _ETHERNET_BYTES + _INNER_IP_BYTES + _UDP_BYTES
_TAG_AT = _MARK_AT + 8


def vxlan(family: Family, port: int | None, key: Key, *, vni: int) -> Template:
    """
    A VXLAN packet whose inner frame is addressed to nobody.

    The inner MAC addresses are locally administered and foreign, the inner IP addresses TEST-NET: a live
    endpoint that unwraps the frame finds that it is not meant for it. Over IPv4 the outer checksum is zero,
    as kernels send it (design trap 7).
    """
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN
    from scapy.packet import Raw

    frame = (
        Ether(src="02:6e:70:00:00:01", dst="02:6e:70:00:00:02")
        / IP(src="192.0.2.4", dst="198.51.100.4", ttl=1, id=0)
        / UDP(sport=9, dport=9, chksum=0)
        / Raw(key.mark + bytes(4))
    )
    outer = UDP(sport=1, dport=port, chksum=0 if family is Family.IPV4 else None)
    return _outer.packet(
        family,
        Protocol.UDP,
        outer / (VXLAN(flags="Instance", vni=vni) / frame),
        tags=(_TAG_AT,),
        source_port=True,
    )


def sights(key: Key) -> tuple[Sight, ...]:
    """The packet, by the run's mark in the innermost payload."""
    return (Sight(kind=Kind.PROBE, protocol=Protocol.UDP, matches=mark_matches(_MARK_AT, key), tag=_TAG_AT),)
