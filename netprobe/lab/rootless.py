"""
A lab without root: the command starts again as root of a user namespace of its own.

So it does where root may not build one, as in most containers. In there it has all capabilities over the
network namespaces that it makes, and none over the machine. It needs a directory for their names that it may
write to, so the one that `ip netns` uses is covered with a tmpfs, which nobody else sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from netprobe.lab.build import environment
from netprobe.lab.errors import LabError
from netprobe.lab.namespaces import DIRECTORY

_UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--")

# Where the directory of names is not there, /run cannot be written to either; what else is in it (a
# resolver's files, sockets of the session) a lab can do without.
_PREPARE: Final = f"""
if [ -d {DIRECTORY} ]; then
  mount -t tmpfs -o mode=755 netns {DIRECTORY}
else
  mount -t tmpfs -o mode=755 run {DIRECTORY.parent}
  mkdir {DIRECTORY}
fi
exec "$@"
"""

_CAPABILITIES: Final = 1 << 12 | 1 << 21
"""CAP_NET_ADMIN and CAP_SYS_ADMIN, linux/include/uapi/linux/capability.h."""
_AGAIN: Final = "NETPROBE_IN_USER_NAMESPACE"
"""Set for the second start, so that there is no third one."""

_HELP: Final = (
    "run this as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN), or allow user namespaces "
    "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns)"
)


def in_user_namespace(argv: Sequence[str]) -> list[str]:
    """The argument vector that runs `argv` as root of a new user namespace, prepared for a lab."""
    return [*_UNSHARE, "/bin/sh", "-ec", _PREPARE, "sh", *argv]


def reexec_in_user_namespace() -> None:
    """
    Start the running command again, from its beginning, where it may build a lab; does nothing where it may.

    It returns only for root with the capabilities that a lab needs. Call it early: what the process did so
    far it does twice. `LabError` says why a user namespace cannot be had.
    """
    if os.geteuid() == 0 and _effective_capabilities() & _CAPABILITIES == _CAPABILITIES:
        return
    lacking = "a root without CAP_SYS_ADMIN or CAP_NET_ADMIN" if os.geteuid() == 0 else "no root"
    env = {**environment(), _AGAIN: "1"}
    if _AGAIN in os.environ:
        raise LabError(f"{lacking}, even in a user namespace; {_HELP}")
    if shutil.which(_UNSHARE[0], path=env["PATH"]) is None:
        raise LabError(f"{lacking}, and no program {_UNSHARE[0]!r} (util-linux) to do without; {_HELP}")
    # Tried first: afterwards there is no way back, and the reason would be unshare's alone to tell.
    trial = subprocess.run(  # noqa: S603
        in_user_namespace(["true"]), capture_output=True, text=True, check=False, env=env
    )
    if trial.returncode != 0:
        reason = " ".join(trial.stderr.split()) or f"exit status {trial.returncode}"
        raise LabError(f"{lacking}, and no user namespace: {reason}; {_HELP}")
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execvpe(_UNSHARE[0], in_user_namespace(command), env)  # noqa: S606


def _effective_capabilities() -> int:
    """As a bit mask; all where /proc does not tell, so that the kernel itself will."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return -1
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1], 16) for words in lines if words[:1] == ["CapEff:"]), -1)
