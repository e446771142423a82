"""The outer headers of probe packets: crafted by scapy, with the offsets that agents patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from netprobe.model import Family, Protocol
from netprobe.template import Checksum, Template

if TYPE_CHECKING:
    from scapy.packet import Packet

# Addresses are patched by the agents; documentation prefixes stand in for them (RFC 5737, RFC 3849).
_PLACEHOLDERS: Final = {Family.IPV4: ("192.0.2.1", "192.0.2.2"), Family.IPV6: ("2001:db8::1", "2001:db8::2")}
_HEADER_BYTES: Final = {Family.IPV4: 20, Family.IPV6: 40}
_CHECKSUM_AT: Final = {Protocol.TCP: 16, Protocol.UDP: 6}  # RFC 9293 §3.1, RFC 768
_IPV4_IDENTIFICATION, _IPV4_CHECKSUM = 4, 10  # RFC 791 §3.1
_TTL: Final = 64


def packet(
    family: Family,
    protocol: Protocol,
    inner: Packet,
    *,
    tags: Sequence[int],
    source_port: bool,
    checksums: Sequence[Checksum] = (),
) -> Template:
    """
    A template of `inner` behind an IP header.

    Offsets count from the transport header. DF stays clear, as on packets of kernel tunnels (design trap 7).
    A transport checksum that scapy left at zero (VXLAN over IPv4) stays zero; any other one is patched.
    """
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    source, destination = _PLACEHOLDERS[family]
    header = _HEADER_BYTES[family]
    if family is Family.IPV4:
        data = bytes(IP(src=source, dst=destination, proto=protocol, ttl=_TTL, id=0) / inner)
    else:
        data = bytes(IPv6(src=source, dst=destination, nh=protocol, hlim=_TTL) / inner)
    patches = [Checksum(c.at + header, c.start + header, c.end + header, c.pseudo) for c in checksums]
    at = _CHECKSUM_AT.get(protocol)
    if at is not None and any(data[header + at : header + at + 2]):
        patches.append(Checksum(header + at, header, len(data), pseudo=True))
    if family is Family.IPV4:
        patches.append(Checksum(_IPV4_CHECKSUM, 0, header, pseudo=False))
    return Template(
        data=data,
        tags=tuple(header + offset for offset in tags),
        idents=(_IPV4_IDENTIFICATION,) if family is Family.IPV4 else (),
        source_port=header if source_port else None,
        checksums=tuple(patches),
    )
