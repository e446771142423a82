"""
What may stand in a host's `python:` and is no agent, or not for long.

Each is an argument vector that the agent's own arguments follow. They end when their stdin closes, however
they came to be started, unless they say otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

HELLO: Final = '{"hello":"netprobe","protocol":1,"pid":1}'

_REAL: Final = 'exec "$0" "$@"'
_CLOSE_STDOUT: Final = "exec cat >/dev/null"
_FOR_EVER: Final = f"exec 3>&1; {_CLOSE_STDOUT}"


def shell(script: str) -> tuple[str, ...]:
    """A shell script; `$0` is an interpreter, `$@` what makes an agent of it."""
    return ("sh", "-c", script, sys.executable)


NOT_FOUND: Final = ("/nonexistent/python3",)
EXITS_AT_ONCE: Final = shell("echo first >&2; echo sorry >&2; exit 7")
PRINTS_FOR_EVER: Final = shell("echo 'no agent here' >&2; exec yes")
PRINTS_BYTES: Final = shell(f"head -c 300000 /dev/urandom; {_FOR_EVER}")
PRINTS_A_BANNER: Final = shell(f"echo Welcome; echo; printf 'no newline'; {_REAL}")
HANGS_BEFORE_HELLO: Final = shell(f"echo 'Last login: never'; echo 'Password?' >&2; {_FOR_EVER}")
HANGS_AFTER_HELLO: Final = shell(f"echo '{HELLO}'; echo 'waiting' >&2; {_FOR_EVER}")
ANOTHER_PROTOCOL: Final = shell(f"echo '{HELLO.replace(':1,', ':2,')}'; {_FOR_EVER}")
TALKS_GARBAGE: Final = shell(f"echo '{HELLO}'; echo 'about to' >&2; echo 'kernel: oops'; {_FOR_EVER}")
DIES_AFTER_HELLO: Final = shell(f"echo '{HELLO}'; echo first >&2; printf 'out of memory' >&2; exit 9")
CLOSES_STDOUT: Final = shell(f"echo '{HELLO}'; {_CLOSE_STDOUT}")

_SLOW_READER: Final = """
import os, subprocess, sys, time
agent = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
while True:
    data = os.read(0, 4096)
    if not data:
        break
    time.sleep(0.001)
    agent.stdin.write(data)
    agent.stdin.flush()
agent.stdin.close()
agent.wait()
"""
READS_SLOWLY: Final = (sys.executable, "-I", "-S", "-c", _SLOW_READER, sys.executable)


def with_number_in(path: Path) -> tuple[str, ...]:
    """A good agent that leaves its process number in a file."""
    return shell(f"echo $$ >'{path}'; {_REAL}")
