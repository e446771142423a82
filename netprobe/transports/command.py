"""Any command that runs its operands on the host with stdin and stdout connected: `podman exec -i node-c`."""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.access import Access
from netprobe.model import Host
from netprobe.transports.base import Transport


def _argv(host: Host, remote: Sequence[str], _access: Access) -> list[str]:
    return [*host.connection.argv, *remote]


TRANSPORT = Transport(name="command", argv=_argv)
