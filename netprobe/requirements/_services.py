"""Which services run here, and which begin with the next boot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from netprobe.questions import Failed, FileList, Files, Process, Processes
from netprobe.requirements.base import Context

_NAMES: Final = (
    "NetworkManager",
    "systemd-networkd",
    "firewalld",
    "lfd",
    "kubelet",
    "kube-apiserver",
    "hyperkube",
    "k3s",
    "rke2",
    "containerd",
    "crio",
    "dockerd",
    "cri-dockerd",
    "flanneld",
    "cilium-agent",
    "weaver",
    "kube-router",
    "aws-k8s-agent",
    "antrea-agent",
    "kube-ovn-daemon",
    "ovnkube",
)
_COMM_LENGTH: Final = 15  # TASK_COMM_LEN, linux/include/linux/sched.h

DAEMONS: Final = Processes(
    pattern="^({})$|/({})$".format("|".join(name[:_COMM_LENGTH] for name in _NAMES), "|".join(_NAMES))
)
"""One question about all of them, because each reads all of /proc."""


def is_called(process: Process, name: str) -> bool:
    """Whether a process is the program of this name."""
    return process.name == name[:_COMM_LENGTH] or (
        bool(process.argv) and process.argv[0].rpartition("/")[2] == name
    )


def running(context: Context, *names: str) -> list[Process] | Failed:
    """
    The processes of these names in the host's network namespace, those of containers of their own left out.

    No answer where there are some, and nobody knows whether here.
    """
    found = context.of(DAEMONS)
    if isinstance(found, Failed):
        return found
    called = [each for each in found if any(is_called(each, name) for name in names)]
    here = [each for each in called if each.is_here]
    hidden = next((each for each in called if each.is_here is None), None)
    if hidden and not here:
        return Failed(f"EACCES: the network namespace of {hidden.label}")
    return here


def enabling(*services: str) -> Files:
    """What is there if these services begin at boot: systemd's links and masks, OpenRC's, and SysV's."""
    patterns: list[str] = []
    for service in services:
        for top in ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"):
            patterns += [f"{top}/*.{kind}/{service}.service" for kind in ("wants", "requires")]
        patterns += [f"{top}/{service}.service" for top in ("/etc/systemd/system", "/run/systemd/system")]
        patterns += [f"/etc/runlevels/*/{service}", f"/etc/rc[2-5].d/S[0-9][0-9]{service}"]
    return Files(patterns=tuple(patterns), most=1)


_MASK: Final = re.compile(r"/(?:etc|run)/systemd/system/([^/]+)\.service$")


def enabled(found: FileList, services: Sequence[str]) -> dict[str, str]:
    """
    The services that begin at boot, each with the path that says so.

    A unit that is empty, or a link to /dev/null, is masked (systemd.unit(5)).
    """
    masked = {
        match[1]
        for file in found.files
        if (match := _MASK.match(file.path)) and (file.error == "EINVAL" or not (file.error or file.text))
    }
    by_service: dict[str, str] = {}
    systemd = {match[1] for file in found.files if (match := re.search(r"/([^/]+)\.service$", file.path))}
    for file in found.files:
        if _MASK.match(file.path):
            continue
        name = re.sub(r"^S\d\d", "", file.path.rpartition("/")[2]).removesuffix(".service")
        # Where systemd has a unit, it leaves the script of the same name alone.
        by_script = not file.path.endswith(".service")
        if name in services and name not in masked and not (by_script and name in systemd):
            by_service.setdefault(name, file.path)
    return by_service
