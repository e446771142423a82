"""A host behind the `ssh` program, with the user's own configuration, keys and known hosts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from netprobe.access import Access
from netprobe.model import Host
from netprobe.transports.base import Transport

CONNECT_TIMEOUT_S: Final = 10
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 5, 3

_CONFIG: Final = str(files(__package__).joinpath("ssh_config"))
# ssh hands its path on to a shell, unquoted and with %-tokens: what is not plain there it cannot be given.
_CONFIG_IS_PLAIN: Final = shlex.quote(_CONFIG) == _CONFIG and "%" not in _CONFIG


def _argv(host: Host, remote: Sequence[str], access: Access) -> list[str]:
    connection = host.connection
    # ssh takes the first value of an option, but the last -F: the inventory's own count before ours.
    argv = ["ssh", *connection.options]
    if _CONFIG_IS_PLAIN and not any(option.startswith("-F") for option in connection.options):
        argv += ["-F", _CONFIG]
    if access.accept_new_host_keys:
        argv.append("-oStrictHostKeyChecking=accept-new")
    argv += [
        # BatchMode: nobody is there to answer a question, so it must fail instead of asking.
        "-oBatchMode=yes",
        f"-oConnectTimeout={CONNECT_TIMEOUT_S}",
        f"-oServerAliveInterval={_ALIVE_INTERVAL_S}",
        f"-oServerAliveCountMax={_ALIVE_COUNT}",
        # A master that is there is used; one that we began would stay, and hold our stderr.
        "-oControlMaster=no",
        # What the user's configuration has for work at a terminal: a command, forwardings, a display.
        "-oRemoteCommand=none",
        "-oClearAllForwardings=yes",
        "-x",
        "-T",
        # Which keys it offers, how far it comes: without that a refusal cannot be explained. Jump hosts' too.
        "-v",
    ]
    if connection.user:
        argv += ["-l", connection.user]
    if connection.port:
        argv += ["-p", str(connection.port)]
    if connection.identity:
        argv += ["-i", connection.identity]
    # ssh joins its operands with spaces and hands them to the login shell, whichever that is: exec, so that
    # it does not stay, and each word quoted.
    return [*argv, "--", connection.host or host.name, shlex.join(["exec", *remote])]


TRANSPORT = Transport(name="ssh", argv=_argv)
