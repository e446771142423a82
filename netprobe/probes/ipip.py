"""IP-in-IP tunnels between all nodes (RFC 2003): bare packets of IP protocol 4."""

from __future__ import annotations

from netprobe.model import Family, Protocol
from netprobe.probes import _outer
from netprobe.probes.base import Probe
from netprobe.template import Checksum, Key, Kind, Sight, Template, mark_matches

_INNER_HEADERS_BYTES = 20 + 8
_MARK_AT, _TAG_AT, _FILL_AT = _INNER_HEADERS_BYTES, _INNER_HEADERS_BYTES + 8, _INNER_HEADERS_BYTES + 12
_PAYLOAD_BYTES = _FILL_AT + 2


def _packet(family: Family, _port: int | None, key: Key) -> Template:
    from scapy.layers.inet import ICMP, IP
    from scapy.packet import Raw

    # Nobody's addresses (RFC 5737) and a TTL of 1: a live tunnel endpoint that unwraps it has nowhere to put
    # it. Being an ICMP error itself it is never answered by one (RFC 1122 §3.2.2), and as its checksum does
    # not fit, conntrack makes no entry of it (linux/net/netfilter/nf_conntrack_proto_icmp.c).
    inner = IP(src="192.0.2.4", dst="198.51.100.4", ttl=1, id=0) / ICMP(type=3, code=3, chksum=0)
    # An nft `reject` verifies the "checksum" of a protocol it does not know over the whole IP payload, and
    # stays mute if it does not fit; the last two bytes make it fit (linux/net/netfilter/utils.c,
    # nf_ip_checksum).
    fit = Checksum(at=_FILL_AT, start=0, end=_PAYLOAD_BYTES, pseudo=False)
    return _outer.packet(
        family,
        Protocol.IPIP,
        inner / Raw(key.mark + bytes(6)),
        tags=(_TAG_AT,),
        source_port=False,
        checksums=(fit,),
    )


def _sights(key: Key) -> tuple[Sight, ...]:
    return (Sight(kind=Kind.PROBE, protocol=Protocol.IPIP, matches=mark_matches(_MARK_AT, key), tag=_TAG_AT),)


PROBE = Probe(
    name="ipip",
    rank=20,
    summary="A bare IP-in-IP packet: an ICMP error between TEST-NET addresses inside, inner TTL 1",
    source="Calico networking with IP-in-IP enabled (default): All, bidirectional, protocol 4; RFC 2003 §3.1",
    protocol=Protocol.IPIP,
    families=(Family.IPV4,),
    packet=_packet,
    sights=_sights,
    hint="IP protocol 4 is neither TCP nor UDP: routers, firewalls and cloud security groups need a rule of "
    "its own for it.",
)
