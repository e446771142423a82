"""
The agent as a stream of bytes, and the short command that starts it.

The command reads a length and that many bytes from stdin, unpacks and runs them; stdin stays open for the
requests that follow. Nothing is written to the host's disk.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

LENGTH_DIGITS: Final = 8

AT_INTERPRETER: Final = "netprobe:interpreter"
"""Said on stdout when the interpreter runs."""

TOO_OLD: Final = "netprobe: Python"
"""Said on stderr, before the version, where the agent cannot run by it."""

# The syntax of any Python; as the text of a string literal it is one line, whatever shell it goes through.
_STAGE_ONE: Final = (
    "import os,sys,zlib\n"
    f"if sys.version_info<(3,6):raise SystemExit('{TOO_OLD} '+sys.version.split()[0]+' is too old')\n"
    f"os.write(1,b'\\n{AT_INTERPRETER}\\n')\n"
    "def r(n):\n"
    " b=b''\n"
    " while len(b)<n:\n"
    "  c=os.read(0,n-len(b))\n"
    "  if not c:raise SystemExit(3)\n"
    "  b+=c\n"
    " return b\n"
    f"exec(zlib.decompress(r(int(r({LENGTH_DIGITS})))))"
)

# By program the modules in the order of their imports: each finds those before it in sys.modules. The last
# one is what runs.
_PROGRAMS: Final = {
    "main": (
        "wire",
        "filters",
        "pathmtu",
        "loop",
        "conversation",
        "templates",
        "taps",
        "netlink",
        "conntrack",
        "counters",
        "facts",
        "ways",
        "unfinished",
        "fire",
        "listeners",
        "connect",
        "main",
    ),
    "inspector": (
        "wire",
        "loop",
        "conversation",
        "netlink",
        "facts",
        "throwaway",
        "sights",
        "fetch",
        "inspection",
        "inspector",
    ),
}

_OFFLINE: Final = ("clocks", "offline")
"""What only a programme has that nobody talks to."""

_LOADER: Final = """\
import sys, types
package = types.ModuleType("netprobe.agent")
sys.modules["netprobe"] = types.ModuleType("netprobe")
sys.modules["netprobe.agent"] = package
for name, source in SOURCES:
    module = types.ModuleType("netprobe.agent." + name)
    sys.modules[module.__name__] = module
    setattr(package, name, module)
    exec(compile(source, "netprobe/agent/%s.py" % name, "exec"), module.__dict__)
"""

_PROGRAMME: Final = """\
#!/usr/bin/env python3
\"\"\"{title}\"\"\"
import sys
if sys.version_info < (3, 6):
    sys.exit("netprobe: Python 3.6 or newer is needed; this is %d.%d" % sys.version_info[:2])
import base64, json, zlib
def unpack(text):
    return zlib.decompress(base64.b64decode(text)).decode()
exec(unpack({loader!r}))
package.offline.main(json.loads(unpack({schedule!r})))
"""


def command(python: Sequence[str]) -> list[str]:
    """The argument vector that starts an agent; -I and -S keep the host's own Python settings out."""
    return [*python, "-I", "-S", "-c", f"exec({_STAGE_ONE!r})"]


@cache
def stream(program: str = "main") -> bytes:
    """
    What goes to the started command's stdin: the length, then the compressed program.

    `main` is the agent of a run, `inspector` that of a check.
    """
    text = f"{_loaded(_PROGRAMS[program])}package.{program}.main()\n"
    packed = zlib.compress(text.encode(), level=9)
    return str(len(packed)).zfill(LENGTH_DIGITS).encode() + packed


def _loaded(modules: Sequence[str]) -> str:
    """The program that loads these modules."""
    package = files("netprobe.agent")
    sources = [(name, package.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in modules]
    return f"SOURCES = {sources!r}\n{_LOADER}"


def programme(title: str, schedule: bytes) -> str:
    """A program of its own that carries out a schedule (JSON, as netprobe/agent/offline.py reads it)."""
    return _PROGRAMME.format(title=title, loader=_offline(), schedule=_packed(schedule))


@cache
def _offline() -> str:
    return _packed(_loaded((*_PROGRAMS["main"], *_OFFLINE)).encode())


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, level=9)).decode()
