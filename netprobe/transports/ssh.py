"""A host behind the `ssh` program, with the user's own configuration, keys and known hosts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from netprobe.model import Host
from netprobe.transports.base import Transport, as_root

_CONNECT_TIMEOUT_S: Final = 10
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 5, 3


def _argv(host: Host, remote: Sequence[str]) -> list[str]:
    connection = host.connection
    argv = [
        "ssh",
        # BatchMode: nobody is there to answer a question, so it must fail instead of asking.
        "-oBatchMode=yes",
        f"-oConnectTimeout={_CONNECT_TIMEOUT_S}",
        f"-oServerAliveInterval={_ALIVE_INTERVAL_S}",
        f"-oServerAliveCountMax={_ALIVE_COUNT}",
        "-T",
    ]
    if connection.user:
        argv += ["-l", connection.user]
    if connection.port:
        argv += ["-p", str(connection.port)]
    if connection.identity:
        argv += ["-i", connection.identity]
    argv += connection.options
    # ssh joins its operands with spaces and hands them to the login shell: quote each.
    command = shlex.join(as_root(host, remote))
    return [*argv, "--", connection.host or host.name, command]


TRANSPORT = Transport(name="ssh", argv=_argv)
