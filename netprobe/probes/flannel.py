"""flannel's VXLAN between all nodes: VNI 1, on the page's port and on flannel's own default for Linux."""

from __future__ import annotations

from functools import partial

from netprobe.model import Protocol
from netprobe.probes import _vxlan
from netprobe.probes.base import Probe

PROBE = Probe(
    name="flannel",
    rank=60,
    summary="A VXLAN packet with VNI 1, flannel's, whose inner frame is addressed to nobody",
    source="flannel networking (VXLAN): All, bidirectional, UDP 4789; flannel's backend default is UDP 8472",
    protocol=Protocol.UDP,
    ports=(4789, 8472),
    packet=partial(_vxlan.vxlan, vni=1),
    sights=_vxlan.sights,
)
