"""A network namespace of this machine, by the name that `ip netns` knows it by."""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.access import Access
from netprobe.model import Host
from netprobe.transports.base import Transport


def _argv(_host: Host, remote: Sequence[str], _access: Access) -> list[str]:
    return list(remote)


def _within(host: Host) -> list[str]:
    # nsenter rather than `ip netns exec`, which mounts a new /sys each time; the agent looks at nothing
    # there.
    return ["nsenter", f"--net=/run/netns/{host.connection.name}", "--"]


TRANSPORT = Transport(name="netns", argv=_argv, within=_within)
