"""The machine that netprobe runs on."""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.access import Access
from netprobe.model import Host
from netprobe.transports.base import Transport


def _argv(_host: Host, remote: Sequence[str], _access: Access) -> list[str]:
    return list(remote)


TRANSPORT = Transport(name="local", argv=_argv)
