"""The interpreter: which one is found, what is said where there is none, and what the kernel forbids it."""

from __future__ import annotations

import shlex
from typing import Final

import pytest

from tests.ssh.site import ROOT, WITHOUT_PROGRAMS, Site, misfits
from tests.transports.sshd import obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

NONE: Final = r"no Python 3\.6 or later{}: install one, or say where it is with python: \[PATH\]; .*"
PLACES: Final = "mount -t tmpfs -o mode=755 tmpfs /usr/local/bin;"
MOUNT: Final = "mount --bind /run/bin /usr/bin;"
WITHOUT: Final = f"{PLACES} {WITHOUT_PROGRAMS} rm /run/bin/python*;"

# What Python 2.7 and 3.4 do with what they are given; 3.4 knows -I, but not what an agent is written in.
OLD: Final = """#!/bin/sh
case "$1 $VERSION" in "-I 2.7.18") echo "Unknown option: -I" >&2; exit 2;; esac
while [ "$1" != -c ]; do shift; done
exec /run/real/python3 -S -c "
import sys
class V(tuple):
    pass
sys.version_info = tuple(map(int, '$VERSION'.split('.')))
sys.version = '$VERSION (default)'
exec(sys.argv[1])" "$2"
"""


def _old(version: str) -> str:
    return OLD.replace("$VERSION", version)


def _install(text: str, path: str) -> str:
    return f"printf %s {shlex.quote(text)} >{path}; chmod 755 {path};"


async def test_an_interpreter_is_found(site: Site) -> None:
    """Where RHEL 8 has its own, behind one that is broken or too old, in a wrapper that prints something."""
    broken = "#!/bin/sh\nkill -SEGV $$\n"
    prints = '#!/bin/sh\necho The environment is loaded\nexec /usr/bin/python3 "$@"\n'
    libexec = "mkdir /run/libexec; cp -a /usr/libexec/. /run/libexec; mount --bind /run/libexec /usr/libexec;"
    with (
        site.another(
            "n1",
            2301,
            prepare=f"{WITHOUT} {libexec} ln -s /run/real/python3 /usr/libexec/platform-python; {MOUNT}",
        ),
        site.another("n1", 2302, prepare=f"{PLACES} {_install(broken, '/usr/local/bin/python3')}"),
        site.another(
            "n1",
            2303,
            prepare=f"{WITHOUT} {_install(_old('3.5.3'), '/run/bin/python3')} "
            f"ln -s /run/real/python3 /run/bin/python3.11; {MOUNT}",
        ),
        site.another("n1", 2307, prepare=f"{PLACES} {_install(prints, '/usr/local/bin/python3')}"),
    ):
        ports = {"platform-python": 2301, "broken": 2302, "old": 2303, "prints": 2307}

        assert {} == await misfits(
            {name: (site.user("dash", port=port), ROOT) for name, port in ports.items()}
        )


async def test_a_host_without_an_interpreter_is_told(site: Site) -> None:
    """With those that are there and no good."""
    noexec = "mkdir /run/noexec; mount -t tmpfs -o noexec,mode=755 tmpfs /run/noexec;"
    put = "cp -L /usr/bin/python3 /run/noexec/python3; chmod 755 /run/noexec/python3;"
    with (
        site.another("n1", 2304, prepare=f"{WITHOUT} {MOUNT}"),
        site.another(
            "n1",
            2305,
            prepare=f"{WITHOUT} {_install(_old('2.7.18'), '/run/bin/python')} "
            f"{_install(_old('3.4.10'), '/run/bin/python3')} {MOUNT}",
        ),
        site.another(
            "n1",
            2306,
            prepare=f"{noexec} {put} {WITHOUT} ln -s /run/noexec/python3 /run/bin/python3; {MOUNT}",
        ),
    ):
        cases = {
            "none": (site.user("dash", port=2304), NONE.format("")),
            "old": (
                site.user("dash", port=2305),
                NONE.format(r" \(python3 is 3\.4\.10, /usr/bin/python3 is 3\.4\.10, python is 2\.7\.18\)"),
            ),
            "noexec": (
                site.user("dash", port=2306),
                NONE.format(r" \(python3 may not be executed \(.*noexec.*\), /usr/bin/python3 may .*\)"),
            ),
            "named old": (
                site.user("dash", port=2305, python=("python3",)),
                r"Python 3\.4\.10 is too old: 3\.6 or later is needed; .*",
            ),
            "named older": (
                site.user("dash", port=2305, python=("/usr/bin/python",)),
                r"the interpreter is a Python 2: 3\.6 or later is needed; .*",
            ),
            "named noexec": (
                site.user("root", port=2306, python=("/run/noexec/python3",)),
                r"/run/noexec/python3 may not be executed there: its mode, a noexec mount, SELinux, .*",
            ),
            "named noexec by sudo": (
                site.user("dash", port=2306, python=("/run/noexec/python3",)),
                r"/run/noexec/python3 may not be executed there: its mode, a noexec mount, SELinux, .*",
            ),
            "named none": (
                site.user("root", port=2304, python=("/opt/python/bin/python3",)),
                r"/opt/python/bin/python3 is not found on the host: correct python: \[\.\.\.\] .*",
            ),
            "named none by sudo": (
                site.user("dash", port=2304, python=("python3.7",)),
                r"there is no python3\.7 where sudo looks for it \(secure_path\): name its path .*",
            ),
        }

        assert {} == await misfits(cases)
