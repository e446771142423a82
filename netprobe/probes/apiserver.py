"""The Kubernetes API: every node connects to it."""

from __future__ import annotations

from netprobe.model import Protocol, Role
from netprobe.probes import _tcp
from netprobe.probes._tls import tls
from netprobe.probes.base import Probe

PROBE = Probe(
    name="apiserver",
    rank=70,
    summary="A SYN, then a TLS ClientHello in the session, from every node to every kube-apiserver host",
    source="All: kube-apiserver host, incoming, often TCP 443 or 6443",
    protocol=Protocol.TCP,
    between=(Role.NODE, Role.APISERVER),
    ports=(6443, 443),
    any_port=True,
    packet=_tcp.syn,
    sights=_tcp.sights,
    withdrawal=_tcp.withdrawal,
    application=tls("h2", "http/1.1"),
)
