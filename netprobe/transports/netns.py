"""A network namespace of this machine, by the name that `ip netns` knows it by."""

from __future__ import annotations

from collections.abc import Sequence

from netprobe.model import Host
from netprobe.transports.base import Transport, as_root


def _argv(host: Host, remote: Sequence[str]) -> list[str]:
    # nsenter rather than `ip netns exec`, which mounts a new /sys each time; the agent looks at nothing
    # there.
    return as_root(host, ["nsenter", f"--net=/run/netns/{host.connection.name}", "--", *remote])


TRANSPORT = Transport(name="netns", argv=_argv)
