"""A host without an interpreter, whose agent runs in a container: with the real podman, over ssh."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from netprobe import coordinator
from netprobe.coordinator import Settings
from netprobe.model import Inventory, Verdict
from tests.ssh.site import WITHOUT_PROGRAMS, Site
from tests.transports.sshd import obstacle

PODMAN: Final = "podman"
# A store that goes with the server.
STORED: Final = (
    *(PODMAN, "--root", "/run/podman", "--runroot", "/run/podman-run", "--storage-driver", "vfs"),
    *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
)
# The limits and cgroups that a lab in a container may not set.
WITHIN: Final = ("--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
IMAGE: Final = "localhost/netprobe-python:test"
PORT: Final = 2601
# What a container has of this machine's Python: no registry is asked for an image.
TREE: Final = """
mkdir -p "$0/usr/bin" "$0/proc" "$0/sys" "$0/dev" "$0/tmp" "$0/run" "$0/etc"
cp -L /usr/bin/python3 "$0/usr/bin/python3"
set -- $(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__))')
mkdir -p "$0$1"
cp -r "$1"/*.py "$1/encodings" "$1/collections" "$1/importlib" "$1/json" "$1/re" "$1/lib-dynload" "$0$1"
for each in $(ldd /usr/bin/python3 "$1"/lib-dynload/*.so | grep -o '/[^ ]*\\.so[^ :]*' | sort -u); do
    case $each in *lib-dynload*) continue;; esac
    mkdir -p "$0${each%/*}"
    cp -L "$each" "$0$each"
done
tar -C "$0" -c .
"""
# podman needs a cgroup filesystem of one version, where this machine may have both.
PREPARE: Final = "mount -t cgroup2 none /sys/fs/cgroup; {podman} import - {image} <{tar};"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(obstacle()), reason=obstacle()),
    pytest.mark.skipif(shutil.which(PODMAN) is None, reason=f"no {PODMAN}"),
]


@pytest.fixture
def server(site: Site, tmp_path: Path) -> Iterator[int]:
    """A server on a host whose own interpreters are gone, and which has an image with one; its process."""
    with (tmp_path / "image.tar").open("wb") as tar:
        subprocess.run(["sh", "-e", "-c", TREE, str(tmp_path / "tree")], stdout=tar, check=True)
    prepare = PREPARE.format(podman=" ".join(STORED), image=IMAGE, tar=tmp_path / "image.tar")
    gone = f"{WITHOUT_PROGRAMS} rm /run/bin/python*; mount --bind /run/bin /usr/bin;"
    with site.another("n1", PORT, prepare=f"{prepare} {gone}") as process:
        yield process.pid


def test_an_agent_runs_in_a_container(site: Site, server: int) -> None:
    """It sees what one on the host sees, and no container stays."""
    container = [*STORED, "run", "--rm", "-i", "--network=host", "--privileged", *WITHIN, IMAGE, "python3"]
    addresses = tuple(site.lab.hosts["n1"].addresses.values())
    first = site.user("root", port=PORT, python=tuple(container), addresses=addresses)
    second = next(host for host in site.inventory().hosts if host.name == "n2")
    run = trio.run(coordinator.run, Inventory(hosts=(first, second)), Settings())

    assert {Verdict.OPEN} == {cell.judgement.verdict for cell in run.cells}
    there = ["nsenter", f"--target={server}", "--mount", *STORED, "ps", "--all", "--quiet"]
    assert "" == subprocess.run(there, capture_output=True, text=True, check=True).stdout
