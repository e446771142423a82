"""Which services run here, and which begin with the next boot."""

from __future__ import annotations

import re
from typing import Final

from netprobe.questions import Failed, Files, Process, Processes
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


ENABLED: Final = Files(
    patterns=(
        *(
            f"{top}/*.{kind}/*.service"
            for top in ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")
            for kind in ("wants", "requires")
        ),
        *(f"{top}/*.service" for top in ("/etc/systemd/system", "/run/systemd/system")),
        "/etc/runlevels/*/*",
        "/etc/rc[2-5].d/S[0-9][0-9]*",
    ),
    most=1,
)
"""All that begins at boot: systemd's links and masks, OpenRC's, and SysV's."""

_MASK: Final = re.compile(r"/(?:etc|run)/systemd/system/([^/]+)\.service")
_UNIT: Final = re.compile(r".*/([^/]+)\.service")
_SCRIPT: Final = re.compile(r"/etc/(?:runlevels/[^/]+/|rc\d\.d/S\d\d)([^/]+)")


def enabled(context: Context, *services: str) -> dict[str, str] | Failed:
    """
    Those of the services that begin at boot, each with the path that says so.

    A unit that is empty, or a link to /dev/null, is masked (systemd.unit(5)). Where systemd has a unit, it
    leaves the script of the same name alone.
    """
    found = context.of(ENABLED)
    if isinstance(found, Failed):
        return found
    if found.more:
        return Failed("E2BIG: more services than are read")
    masked = {
        match[1]
        for file in found.files
        if (match := _MASK.fullmatch(file.path)) and (file.error == "EINVAL" or not (file.error or file.text))
    }
    units = {match[1]: file.path for file in found.files if (match := _UNIT.fullmatch(file.path))}
    by_service: dict[str, str] = {}
    for file in found.files:
        script = _SCRIPT.fullmatch(file.path)
        unit = None if script or _MASK.fullmatch(file.path) else _UNIT.fullmatch(file.path)
        if unit and unit[1] not in masked:
            by_service.setdefault(unit[1], file.path)
        elif script and script[1] not in units:
            by_service.setdefault(script[1], file.path)
    return {name: by_service[name] for name in services if name in by_service}
