"""WireGuard tunnels between all nodes, one UDP port for each family, the same at both ends."""

from __future__ import annotations

import hashlib
import struct

from netprobe.model import Family, Protocol
from netprobe.probes import _outer
from netprobe.probes.base import Probe
from netprobe.template import Key, Kind, Sight, Template, mark_matches

# The handshake initiation (the WireGuard paper, §5.4.2): type, three reserved bytes, sender index, ephemeral
# …
_INITIATION, _INITIATION_BYTES = 1, 148
_UDP_BYTES = 8
_TAG_AT, _MARK_AT = _UDP_BYTES + 4, _UDP_BYTES + 8


def _packet(family: Family, port: int | None, key: Key) -> Template:
    """
    A handshake initiation that no peer can answer.

    Its mac1 (and all the rest) is noise, and a peer drops a message whose mac1 is not keyed with its own
    public key before it looks at anything else (the paper, §5.3 and §5.4.4).
    """
    from scapy.layers.inet import UDP
    from scapy.packet import Raw

    noise = hashlib.shake_128(key.mark).digest(_INITIATION_BYTES - 16)
    message = struct.pack("<II", _INITIATION, 0) + key.mark + noise
    return _outer.packet(
        family,
        Protocol.UDP,
        UDP(sport=port, dport=port) / Raw(message),
        tags=(_TAG_AT,),
        source_port=False,
    )


def _sights(key: Key) -> tuple[Sight, ...]:
    return (Sight(kind=Kind.PROBE, protocol=Protocol.UDP, matches=mark_matches(_MARK_AT, key), tag=_TAG_AT),)


def _probe(name: str, rank: int, family: Family, port: int) -> Probe:
    return Probe(
        name=name,
        rank=rank,
        summary=f"A handshake initiation over {family.value} that no peer accepts, between the real ports",
        source=f"Calico networking with {family.name[:2]}v{family.value[-1]} WireGuard enabled: "
        f"All, bidirectional, UDP {port}",
        protocol=Protocol.UDP,
        families=(family,),
        ports=(port,),
        packet=_packet,
        sights=_sights,
        fixed_source_port=True,
    )


PROBES = (
    _probe("wireguard", 40, Family.IPV4, 51820),
    _probe("wireguard-v6", 50, Family.IPV6, 51821),
)
