"""The privileges that Calico needs, tried out: by doing something that needs them, and changes nothing."""

from __future__ import annotations

import re
from typing import Final

from netprobe.questions import Act, Failed, Files, Namespace, Processes, System
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_SYSTEM: Final = System()
_NAMESPACE: Final = Namespace()
_MOUNT: Final = Act(act="mount")
_NET_ADMIN: Final = Act(act="net-admin")

_REFUSALS: Final = ("EPERM", "EACCES", "ENOSYS", "SIGSYS")
"""What a missing capability, an LSM and a seccomp filter answer with."""
_EVERYBODY: Final = ["0", "0", "4294967295"]
"""The user namespace that all others come from maps every number to itself."""
_SECCOMP_FILTER: Final = 2


def _refused(context: Context, what: str, failure: Failed) -> Judgement:
    """A failure where root is refused; of another user's agent it says nothing."""
    found = context.of(_SYSTEM)
    if isinstance(found, Failed):
        return unknown(found)
    if found.uid:
        return unknown(f"the agent runs as uid {found.uid}, which may not: log in as root, or set sudo: true")
    # With words behind it an error is the agent's own: a Python that cannot ask.
    if failure.error not in _REFUSALS:
        return unknown(failure)
    filtered = ", under a seccomp filter" if found.seccomp == _SECCOMP_FILTER else ""
    return failed(f"{what}: {failure.error}, as root{filtered}")


def _sys_admin(context: Context) -> Judgement:
    made = context.of(_NAMESPACE)
    if isinstance(made, Failed):
        return _refused(context, "unshare(CLONE_NEWNET)", made)
    mounted = context.of(_MOUNT)
    # EINVAL: / is no mount point, as in a chroot, where nothing can be mounted unseen.
    if isinstance(mounted, Failed) and mounted.name != "EINVAL":
        return _refused(context, "mount(2) in a mount namespace of its own", mounted)
    return passed("made a network namespace and a mount namespace, and a file system in it")


def _net_admin(context: Context) -> Judgement:
    grown = context.of(_NET_ADMIN)
    if isinstance(grown, Failed):
        return _refused(context, "setsockopt(SO_RCVBUFFORCE)", grown)
    return passed("grew a socket's buffer beyond the limit, in the host's own network namespace")


def _user_namespace(context: Context) -> Judgement:
    found = context.need(_SYSTEM)
    if not found.uid_map:
        return passed("a kernel without user namespaces")
    if found.uid_map == _EVERYBODY:
        return passed("the first user namespace, whose root is the machine's")
    return warned(
        f"the agent's root is not the machine's: its user namespace maps {' '.join(found.uid_map)}; modules "
        "are not loaded on demand there, and sysctls cannot be set"
    )


_CONTROL_PLANE: Final = Processes(pattern="^(.*/)?(kubelet|kube-apiserver)$")
_MANIFESTS: Final = Files(patterns=("/etc/kubernetes/manifests/*",))
_ALLOWING: Final = re.compile(r"--allow-privileged(?:[= ](\w+))?")


def _allowing(text: str) -> bool | None:
    """Whether a command line or a manifest lets privileged containers run; None where it does not say."""
    said = [match[1] for match in _ALLOWING.finditer(text)]
    return None if not said else said[-1] in (None, "true", "True", "1", "t", "T", "TRUE")


def _privileged_pods(context: Context) -> Judgement:
    running = context.of(_CONTROL_PLANE)
    written = context.of(_MANIFESTS)
    if isinstance(running, Failed):
        return unknown(running)
    said = [(f"{each.name} (pid {each.pid})", " ".join(each.argv)) for each in running]
    if not isinstance(written, Failed):
        said += [(file.path, " ".join(file.text.split())) for file in written.files]
    verdicts = {where: found for where, text in said if (found := _allowing(text)) is not None}
    refusing = [where for where, is_allowed in verdicts.items() if not is_allowed]
    if refusing:
        return failed(f"{', '.join(refusing)}: --allow-privileged=false")
    if verdicts:
        return passed(f"{', '.join(verdicts)}: --allow-privileged=true")
    servers = [f"{each.name} (pid {each.pid})" for each in running if each.name == "kube-apiserver"]
    if servers:
        return failed(f"{', '.join(servers)}: without --allow-privileged, which is false by default")
    if running:
        return passed("the kubelet allows it, as it does by default; the API server runs on other hosts")
    return not_applicable("neither a kubelet nor an API server runs here yet")


_PRIVILEGED: Final = (
    "Run Calico (and the agent) as root or in a privileged container; look for what takes the capability "
    "away: seccomp, AppArmor, SELinux, a bounding set."
)

GROUP: Final = Group(
    name="Privilege",
    rank=50,
    requirements=(
        Requirement(
            id="cap-sys-admin",
            title="CAP_SYS_ADMIN is effective",
            source="Ensure that Calico has the CAP_SYS_ADMIN privilege.",
            method=(
                "A child process makes a network namespace and a mount namespace of its own, and mounts a "
                "tmpfs there"
            ),
            fix=_PRIVILEGED,
            asks=(_SYSTEM, _NAMESPACE, _MOUNT),
            judge=_sys_admin,
        ),
        Requirement(
            id="cap-net-admin",
            title="CAP_NET_ADMIN is effective",
            source=(
                "Calico must be able to manage cali* interfaces on the host. The simplest way to provide the "
                "necessary privilege is to run Calico as root or in a privileged container."
            ),
            method="SO_RCVBUFFORCE, which asks for the capability, on an own socket",
            fix=_PRIVILEGED,
            asks=(_SYSTEM, _NET_ADMIN),
            judge=_net_admin,
        ),
        Requirement(
            id="user-namespace",
            title="Root is the machine's root",
            level=Level.RECOMMENDED,
            source="The simplest way to provide the necessary privilege is to run Calico as root",
            method="/proc/self/uid_map",
            fix="Run Calico (and the agent) outside of a user namespace: no rootless container.",
            asks=(_SYSTEM,),
            judge=_user_namespace,
        ),
        Requirement(
            id="privileged-pods",
            title="Privileged pods are allowed",
            source="This requires that the kubelet be allowed to run privileged containers.",
            method=(
                "--allow-privileged in the command lines of kube-apiserver and kubelet, and in the manifests "
                "of static pods"
            ),
            fix="Start kube-apiserver (and a kubelet before 1.15) with --allow-privileged=true.",
            asks=(_CONTROL_PLANE, _MANIFESTS),
            judge=_privileged_pods,
        ),
    ),
)
