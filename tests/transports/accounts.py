"""
A user who may do nothing but sudo, with the real sudo, in a mount namespace of its own.

`/etc/passwd` and the like are covered there by copies that have the user, `/run` by an empty directory;
nothing of the machine is changed, and all of it goes with the last process in the namespace.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

USER: Final = "netprobe-ops"
USER_ID: Final = 54321

_COVER: Final = """
set -e
directory=$1; shift
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd /run/sudo
for each in passwd group shadow sudoers; do
    cp "$directory/$each" "/run/$each"
    mount --bind "/run/$each" "/etc/$each"
done
chmod 644 /run/passwd /run/group
chmod 440 /run/sudoers
chmod 600 /run/shadow
exec "$@"
"""


def obstacle() -> str:
    """Why that is not possible here; "" where it is."""
    missing = [name for name in ("sudo", "unshare", "setpriv") if shutil.which(name) is None]
    return f"no {', '.join(missing)}" if missing else ""


def write(directory: Path) -> None:
    """Write the files that cover the machine's."""
    lines = {
        "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::/run:/bin/sh\n",
        "group": f"{USER}:x:{USER_ID}:\n",
        "shadow": f"{USER}:*:20000:0:99999:7:::\n",
    }
    for name, line in lines.items():
        (directory / name).write_text(Path("/etc", name).read_text(encoding="utf-8") + line)
    rules = f"Defaults !lecture, !syslog\nroot ALL=(ALL) ALL\n{USER} ALL=(root) NOPASSWD: ALL\n"
    (directory / "sudoers").write_text(rules)


def covered(directory: Path, argv: Sequence[str]) -> list[str]:
    """A command line that runs another one, as root, where the user is known."""
    return ["unshare", "--mount", "--", "sh", "-c", _COVER, "sh", str(directory), *argv]


def as_user(argv: Sequence[str]) -> list[str]:
    """A command line that runs another one as the user."""
    identity = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--"]
    # setpriv's own exec still has root's capabilities; only that of the shell is the user's.
    return [*identity, "/bin/sh", "-c", 'exec "$@"', "sh", *argv]
