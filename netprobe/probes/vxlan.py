"""Calico's VXLAN between all nodes: UDP 4789, VNI 4096."""

from __future__ import annotations

from functools import partial

from netprobe.model import Protocol
from netprobe.probes import _vxlan
from netprobe.probes.base import Probe

PROBE = Probe(
    name="vxlan",
    rank=30,
    summary="A VXLAN packet with VNI 4096, Calico's, whose inner frame is addressed to nobody",
    source="Calico networking with VXLAN enabled: All, bidirectional, UDP 4789; RFC 7348 §5",
    protocol=Protocol.UDP,
    ports=(4789,),
    packet=partial(_vxlan.vxlan, vni=4096),
    sights=_vxlan.sights,
)
