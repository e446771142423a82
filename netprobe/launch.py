"""
How an agent is started on a host, whatever its login shell is and wherever its interpreter lies.

What goes to the host on a command line is always the same, `SHELL`: a shell that runs the first line of its
stdin. It has no quote, backslash, newline or exclamation mark in it, so that csh and fish take it as sh does,
and the line itself is seen by nobody who lists processes. The line becomes root where the inventory says so,
finds an interpreter where it names none, and hands it what `bundle` makes an agent of.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from netprobe import bundle
from netprobe.access import Access
from netprobe.model import Host

KEYWORD: Final = "netprobe:"
"""What begins with it, on stdin or stdout, is ours."""

UNREAD: Final = f"{KEYWORD}unread"
"""Said on stdout where the line did not come, because a profile has read it, say."""

# What is not our line must not be run.
_RUN: Final = (
    f'IFS= read -r line; case $line in "{KEYWORD}"*) eval "${{line#*:}}";; *) echo {UNREAD}; exit 95;; esac'
)

SHELL: Final = ("/bin/sh", "-c", _RUN)
"""What every transport runs on the host."""

AT_SHELL: Final = f"{KEYWORD}shell"
"""Said on stdout when the line runs: whatever fails later, the login was none of it."""

AT_INTERPRETER: Final = bundle.AT_INTERPRETER
"""Said on stdout when the interpreter runs: sudo has let us pass."""

NO_INTERPRETER: Final = f"{KEYWORD}none"
"""Said on stdout where there is none, with what was tried and how that ended."""

CANDIDATES: Final = (
    "python3",
    "/usr/bin/python3",
    "/usr/libexec/platform-python",  # RHEL 8
    "/usr/local/bin/python3",
    "/opt/bin/python3",  # where Flatcar's users put one
    "python3.12",
    "python3.11",
    "python3.9",
    "python3.8",
    "python3.6",
    "python",
)
"""Where an interpreter is looked for, in this order."""

# In the syntax of Python 2 as well; the path rather than the name, because sudo has a PATH of its own.
_VERSION: Final = (
    "import sys;"
    'sys.stdout.write("%d.%d.%d %s\\n" % (tuple(sys.version_info[:3]) + (sys.executable,)));'
    "sys.exit(sys.version_info < (3, 6))"
)

_FIND: Final = (
    "tried=; "
    f"for python in {shlex.join(CANDIDATES)}; do "
    f'found=$({{ "$python" -E -S -c {shlex.quote(_VERSION)}; }} 2>/dev/null); '
    "status=$?; "
    # A wrapper may have printed something before.
    'found=${found##*"$n"}; '
    "[ $status = 0 ] && break; "
    'tried="$tried $python=$status:${found%% *}"; python=; '
    "done; "
    f'[ -n "$python" ] || {{ echo "{NO_INTERPRETER}$tried"; exit 97; }}; '
    '[ -z "${found#* }" ] || python=${found#* }; '
)


def prompt() -> str:
    """What sudo is told to ask with: a text that nothing else on a host can print."""
    return f"netprobe-password-{secrets.token_hex(8)}:"


def line(host: Host, within: Sequence[str] = (), access: Access | None = None, asks: str = "") -> bytes:
    """
    The line for `SHELL` that becomes an agent on the host.

    `within` is the command that an agent must be run by there (`nsenter --net=…`); `asks` is the prompt with
    which sudo is to ask for the password, if there is one.
    """
    become = list(host.become)
    if host.sudo:
        may_ask = access is not None and access.sudo_password is not None
        become = ["sudo", "-S", "-p", asks, "--"] if may_ask else ["sudo", "-n", "--"]
    words = _quoted([*become, *within])
    if host.python:
        find, python = "", _quoted(host.python)
    else:
        find, python = _FIND, '"$python"'
    # A newline is no character of a line: where an argument has one it comes by this.
    newline = 'n=$(printf "\\n."); n=${n%.}; '
    agent = _quoted(bundle.command([]))
    start = f"echo; echo {AT_SHELL}; LC_ALL=C; export LC_ALL; {newline}{find}exec {words} {python} {agent}"
    # A shell that takes it for a script, because a profile has put it in the place of ours, knows no command
    # "netprobe::", and runs nothing of it.
    return f"{KEYWORD}: && {{ {start}; }} || exit 96\n".encode()


def _quoted(words: Iterable[str]) -> str:
    return re.sub("\n", "'\"$n\"'", shlex.join(words))
