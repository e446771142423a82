"""Calico's fan-out datastore proxy: every node connects to it."""

from __future__ import annotations

from netprobe.model import Protocol, Role
from netprobe.probes import _tcp
from netprobe.probes._tls import tls
from netprobe.probes.base import Probe

PROBE = Probe(
    name="typha",
    rank=35,
    summary="A SYN, then a TLS ClientHello in the session, from every node to every Typha host",
    source="Calico networking with Typha enabled: Typha agent hosts, incoming, TCP 5473 (default)",
    protocol=Protocol.TCP,
    between=(Role.NODE, Role.TYPHA),
    ports=(5473,),
    packet=_tcp.syn,
    sights=_tcp.sights,
    withdrawal=_tcp.withdrawal,
    application=tls(),
)
