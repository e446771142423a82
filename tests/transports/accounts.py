"""
Users of the real sudo, in a mount namespace of their own: one who may do nothing else, and others as asked.

`/etc/passwd` and the like are covered there by copies that have the user, `/run` by an empty directory;
nothing of the machine is changed, and all of it goes with the last process in the namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

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
[ ! -e "$directory/home" ] || cp -a "$directory/home" /run/home
chmod 644 /run/passwd /run/group
chmod 440 /run/sudoers
chmod 600 /run/shadow
exec "$@"
"""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """
    One more user.

    `rule` is what sudoers says of the user, `defaults` its Defaults; `files` lie in the home directory, with
    the public key for `{key}`; `changed` and `expires` are days since 1970, as shadow(5) has them.
    """

    name: str
    shell: str = "/bin/sh"
    rule: str = "NOPASSWD: ALL"
    defaults: str = ""
    password: str = ""
    files: Mapping[str, str] = {}
    changed: str = "20000"
    expires: str = ""


def obstacle() -> str:
    """Why that is not possible here; "" where it is."""
    missing = [name for name in ("sudo", "unshare", "setpriv") if shutil.which(name) is None]
    return f"no {', '.join(missing)}" if missing else ""


def write(directory: Path, accounts: Sequence[Account] = ()) -> None:
    """Write the files that cover the machine's."""
    lines = {
        "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::/run:/bin/sh\n",
        "group": f"{USER}:x:{USER_ID}:\n",
        "shadow": f"{USER}:*:20000:0:99999:7:::\n",
    }
    rules = f"Defaults !lecture, !syslog\nroot ALL=(ALL) ALL\n{USER} ALL=(root) NOPASSWD: ALL\n"
    key = (directory / "key.pub").read_text() if accounts else ""
    for number, each in enumerate(accounts, USER_ID + 1):
        lines["passwd"] += f"{each.name}:x:{number}:{number}::/run/home/{each.name}:{each.shell}\n"
        lines["group"] += f"{each.name}:x:{number}:\n"
        password = _hashed(each.password) if each.password else "*"
        lines["shadow"] += f"{each.name}:{password}:{each.changed}:0:99999:7::{each.expires}:\n"
        rules += f"Defaults:{each.name} {each.defaults}\n" if each.defaults else ""
        rules += f"{each.name} ALL=(root) {each.rule}\n" if each.rule else ""
        _make_home(directory / "home" / each.name, each.files, number, key)
    for name, text in lines.items():
        (directory / name).write_text(Path("/etc", name).read_text(encoding="utf-8") + text)
    (directory / "sudoers").write_text(rules)


def _hashed(password: str) -> str:
    argv = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(argv, input=password, capture_output=True, text=True, check=True).stdout.strip()


def _make_home(home: Path, files: Mapping[str, str], number: int, key: str) -> None:
    home.mkdir(parents=True)
    for name, text in files.items():
        (home / name).write_text(text.replace("{key}", key))
        os.chown(home / name, number, number)
    os.chown(home, number, number)


def covered(directory: Path, argv: Sequence[str]) -> list[str]:
    """A command line that runs another one, as root, where the user is known."""
    return ["unshare", "--mount", "--", "sh", "-c", _COVER, "sh", str(directory), *argv]


def as_user(argv: Sequence[str]) -> list[str]:
    """A command line that runs another one as the user."""
    identity = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--"]
    # setpriv's own exec still has root's capabilities; only that of the shell is the user's.
    return [*identity, "/bin/sh", "-c", 'exec "$@"', "sh", *argv]
