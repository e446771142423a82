"""CNI: the directories for Calico's plugin and its configuration, and the runtime that looks there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from netprobe.questions import Failed, Files, Place, Places, System
from netprobe.requirements import _runtimes, _services
from netprobe.requirements._runtimes import BIN_DIR, CONF_DIR, Directory
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    Result,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_SYSTEM: Final = System()
_PLACES: Final = Places(paths=(CONF_DIR, BIN_DIR))
_PAGE: Final = (
    "This installation must use the Kubernetes default CNI configuration directory (/etc/cni/net.d) and "
    "binary directory (/opt/cni/bin)."
)
_ENOUGH_BYTES: Final = 256 << 20
"""Calico's install-cni puts some 200 MB of plugins there."""


def _judge(context: Context, path: str) -> Judgement:
    found = _runtimes.runtimes(context)
    if isinstance(found, Failed):
        return unknown(found)
    directories = found.configurations if path == CONF_DIR else found.programs
    if wrong := [each for each in directories if path not in each.paths]:
        return failed(
            f"the runtime looks elsewhere: {', '.join(each.where for each in wrong)}",
            f"Set the runtime's directory to {path}, and restart it.",
        )
    judgement = _writable(context, path)
    if found.without_cri and found.names == ("containerd",) and judgement.result is Result.PASS:
        return warned(
            f"containerd offers Kubernetes nothing: {found.without_cri}",
            "containerd config default > /etc/containerd/config.toml && systemctl restart containerd",
        )
    return Judgement(judgement.result, f"{judgement.seen}; {_told(found.names, directories)}", judgement.fix)


def _told(names: Sequence[str], directories: Sequence[Directory]) -> str:
    """What the runtime says of its directory."""
    if directories:
        return ", ".join(each.where for each in directories)
    return f"{', '.join(names)} has its default" if names else "no runtime's configuration says anything else"


def _writable(context: Context, path: str) -> Judgement:
    places, system = context.of(_PLACES), context.of(_SYSTEM)
    if isinstance(places, Failed):
        return unknown(places)
    if isinstance(system, Failed):
        return unknown(system)
    if len(places) != len(_PLACES.paths):
        return unknown(f"{len(places)} answers about {len(_PLACES.paths)} directories")
    place = places[_PLACES.paths.index(path)]
    if place.kind in ("EACCES", "EPERM"):
        return unknown(Failed(f"{place.kind}: {path}"))
    if place.kind not in ("directory", "none"):
        return failed(f"{path} is no directory ({place.kind})", f"Remove what {path} is, or leads to.")
    return _judge_place(place, path, is_root=not system.uid)


def _judge_place(place: Place, path: str, *, is_root: bool) -> Judgement:
    """What there is to say of a directory, or of the one that it would be made in."""
    parent, is_for_programs = place.parent, path == BIN_DIR
    here = f"{path} is there" if place.kind == "directory" else f"{path} is not there, only {parent}"
    if not (place.read_only or place.writable or is_root):
        return unknown(f"{here}, and the agent may not write there: log in as root, or set sudo: true")
    wrong = (
        (place.read_only, "on a file system that is mounted read-only", f"Mount {parent} writable."),
        (not place.writable, "and root may not write there", f"chmod u+rwx {parent}; chattr -i {parent}"),
        (is_for_programs and place.no_exec, "mounted noexec", f"Mount what {parent} is on with exec."),
    )
    for is_so, seen, fix in wrong:
        if is_so:
            return failed(f"{here}, {seen}", fix)
    if is_for_programs and place.free < _ENOUGH_BYTES:
        return warned(f"{here}, with {place.free >> 20} MiB left", f"Make room on what {parent} is on.")
    return passed(here if place.kind == "directory" else f"{path} can be made in {parent}")


_NODENAME: Final = Files(patterns=("/var/lib/calico/nodename",), most=1024)


def _nodename(context: Context) -> Judgement:
    found, system = context.need(_NODENAME), context.need(_SYSTEM)
    if not found.files:
        return not_applicable("no /var/lib/calico/nodename: calico-node has not run here")
    (file, *_) = found.files
    if file.error:
        return unknown(f"{file.path}: {file.error}")
    name, hostname = file.text.strip(), system.hostname.lower()
    running = _services.running(context, "kubelet")
    kubelets = [] if isinstance(running, Failed) else running
    names = [_runtimes.flag_of(each.argv, "--hostname-override") for each in kubelets]
    if name == hostname or name in names:
        return passed(f"{file.path}: {name!r}")
    overridden = "".join(f", the kubelet's --hostname-override is {each!r}" for each in names if each)
    return failed(f"{file.path}: {name!r}, the hostname is {system.hostname!r}{overridden}")


GROUP: Final = Group(
    name="CNI",
    rank=70,
    requirements=(
        Requirement(
            id="cni-conf-dir",
            title=f"{CONF_DIR} is where the runtime looks, and can be written",
            source=_PAGE,
            method=(
                "The configuration of containerd (with imports), CRI-O, cri-dockerd and dockershim; "
                "access(2) and statvfs(3) of the directory, or of the nearest parent"
            ),
            fix=f"Make {CONF_DIR} a writable directory, and let the container runtime look there.",
            asks=(_SYSTEM, _services.DAEMONS, _PLACES, _runtimes.FILES),
            judge=lambda context: _judge(context, CONF_DIR),
        ),
        Requirement(
            id="cni-bin-dir",
            title=f"{BIN_DIR} is where the runtime looks, and can be written and executed",
            source=_PAGE,
            method=(
                "The configuration of containerd (with imports), CRI-O, cri-dockerd and dockershim; "
                "access(2) and statvfs(3) of the directory, or of the nearest parent"
            ),
            fix=f"Make {BIN_DIR} a writable directory, and let the container runtime look there.",
            asks=(_SYSTEM, _services.DAEMONS, _PLACES, _runtimes.FILES),
            judge=lambda context: _judge(context, BIN_DIR),
        ),
        Requirement(
            id="nodename",
            title="The name that Calico knows the node by is the host's",
            level=Level.RECOMMENDED,
            source="Calico, configuring calico/node: NODENAME, and the file /var/lib/calico/nodename",
            method="/var/lib/calico/nodename, the hostname, and the kubelet's --hostname-override",
            fix="rm /var/lib/calico/nodename and let calico-node write it anew, or set NODENAME.",
            asks=(_SYSTEM, _services.DAEMONS, _NODENAME),
            judge=_nodename,
        ),
    ),
)
