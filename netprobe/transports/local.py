"""The machine that netprobe runs on."""

from __future__ import annotations

from netprobe.transports.base import Transport, as_root

TRANSPORT = Transport(name="local", argv=as_root)
