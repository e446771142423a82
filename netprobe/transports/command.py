"""Any command that runs its operands on the host with stdin and stdout connected: `podman exec -i node-c`."""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.model import Host
from netprobe.transports.base import Transport, as_root


def _argv(host: Host, remote: Sequence[str]) -> list[str]:
    return [*host.connection.argv, *as_root(host, remote)]


TRANSPORT = Transport(name="command", argv=_argv)
