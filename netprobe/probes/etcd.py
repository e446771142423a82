"""The etcd datastore: every node connects to it."""

from __future__ import annotations

from netprobe.model import Protocol, Role
from netprobe.probes import _tcp
from netprobe.probes._tls import tls
from netprobe.probes.base import Probe

PROBE = Probe(
    name="etcd",
    rank=80,
    summary="A SYN, then a TLS ClientHello in the session, from every node to every etcd host",
    source="etcd datastore: etcd hosts, incoming, officially TCP 2379 but can vary",
    protocol=Protocol.TCP,
    between=(Role.NODE, Role.ETCD),
    ports=(2379,),
    packet=_tcp.syn,
    sights=_tcp.sights,
    withdrawal=_tcp.withdrawal,
    application=tls("h2"),
)
