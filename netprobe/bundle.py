"""
The agent as a stream of bytes, and the short command that starts it.

The command reads a length and that many bytes from stdin, unpacks and runs them; stdin stays open for the
requests that follow. Nothing is written to the host's disk.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

LENGTH_DIGITS: Final = 8

AT_INTERPRETER: Final = "netprobe:interpreter"
"""Said on stdout when the interpreter runs."""

# The syntax of any Python; as the text of a string literal it is one line, whatever shell it goes through.
_STAGE_ONE: Final = (
    "import os,sys,zlib\n"
    "if sys.version_info<(3,6):raise SystemExit('netprobe: Python '+sys.version.split()[0]+' is too old')\n"
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

_STAGE_TWO: Final = """\
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


def command(python: Sequence[str]) -> list[str]:
    """The argument vector that starts an agent; -I and -S keep the host's own Python settings out."""
    return [*python, "-I", "-S", "-c", f"exec({_STAGE_ONE!r})"]


@cache
def stream(program: str = "main") -> bytes:
    """
    What goes to the started command's stdin: the length, then the compressed program.

    `main` is the agent of a run, `inspector` that of a check.
    """
    package = files("netprobe.agent")
    sources = [
        (name, package.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in _PROGRAMS[program]
    ]
    text = f"SOURCES = {sources!r}\n{_STAGE_TWO}package.{program}.main()\n"
    packed = zlib.compress(text.encode(), level=9)
    return str(len(packed)).zfill(LENGTH_DIGITS).encode() + packed
