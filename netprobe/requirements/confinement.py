"""What confines programs on the host, and what the host itself is: a container, a machine of a cloud."""

from __future__ import annotations

from typing import Final

from netprobe.questions import FileList, Files, System
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
)

_SYSTEM: Final = System()
_ROOT: Final = (
    "The simplest way to provide the necessary privilege is to run Calico as root or in a privileged "
    "container."
)
_FILTERING: Final = 2  # SECCOMP_MODE_FILTER, linux/include/uapi/linux/seccomp.h


def _seccomp(context: Context) -> Judgement:
    found = context.need(_SYSTEM)
    if found.seccomp != _FILTERING:
        return passed("no filter of system calls")
    return failed("the agent runs under a filter of system calls (Seccomp: 2 in /proc/self/status)")


_ENFORCE: Final = "/sys/fs/selinux/enforce"
_SELINUX: Final = Files(patterns=(_ENFORCE,), most=16)
_POLICIES: Final = Files(
    patterns=(
        "/etc/selinux/*/active/modules/*/container",
        "/var/lib/selinux/*/active/modules/*/container",
        "/usr/share/selinux/*/container.pp*",
    ),
    most=1,
)


def _selinux(context: Context) -> Judgement:
    found, policies, system = context.need(_SELINUX), context.need(_POLICIES), context.need(_SYSTEM)
    if not found.files:
        return not_applicable("no SELinux")
    if found.files[0].error:
        return unknown(f"{_ENFORCE}: {found.files[0].error}")
    return _by_policy(found.files[0].text.strip(), policies, is_root=not system.uid)


def _by_policy(enforce: str, policies: FileList, *, is_root: bool) -> Judgement:
    if enforce == "0":
        return passed("SELinux is permissive")
    if policies.files:
        return passed(f"SELinux enforces, with the policy for containers ({policies.files[0].path})")
    if not is_root:
        return unknown("SELinux enforces; only root can see which policies there are")
    return failed("SELinux enforces, without the policy for containers")


_ENABLED: Final = "/sys/module/apparmor/parameters/enabled"
_LABELS: Final = ("/proc/self/attr/apparmor/current", "/proc/self/attr/current")
_APPARMOR: Final = Files(patterns=(_ENABLED, *_LABELS), most=4096)
_FREE: Final = ("unconfined", "(unconfined)", "(complain)")


def _apparmor(context: Context) -> Judgement:
    found = context.need(_APPARMOR)
    if (found.text(_ENABLED) or "").strip() != "Y":
        return not_applicable("no AppArmor")
    label = next((text for path in _LABELS if (text := found.text(path)) is not None), None)
    if label is None:
        return unknown(f"{_LABELS[1]} cannot be read")
    label = label.strip("\0\n ")
    if label.endswith(_FREE):
        return passed(f"AppArmor leaves the agent alone: {label}")
    return failed(f"the agent runs under AppArmor's {label}")


_MARKS: Final = Files(patterns=("/.dockerenv", "/run/.containerenv", "/run/systemd/container"), most=64)


def _container(context: Context) -> Judgement:
    found = context.need(_MARKS)
    if not found.files:
        return passed(
            "none of the marks of containers (/.dockerenv, /run/.containerenv, /run/systemd/container)"
        )
    kind = (found.text("/run/systemd/container") or "").strip()
    told = f"{found.files[0].path}: {kind}" if kind else found.files[0].path
    return failed(f"the host is a container ({told}): kernel, modules and most sysctls are the machine's")


_DMI: Final = "/sys/class/dmi/id"
_VENDOR, _PRODUCT, _TAG = (f"{_DMI}/{name}" for name in ("sys_vendor", "product_name", "chassis_asset_tag"))
_MACHINE: Final = Files(patterns=(_VENDOR, _PRODUCT, _TAG), most=256)
_AZURE_TAG: Final = "7783-7084-3265-9085-8269-3286-77"
"""Of all virtual machines of Azure, and of no other (cloud-init, DataSourceAzure)."""


def _cloud(context: Context) -> Judgement:
    found = context.need(_MACHINE)
    if (found.text(_TAG) or "").strip() == _AZURE_TAG:
        return failed(f"a virtual machine of Azure ({_TAG}: {_AZURE_TAG})")
    words = [(found.text(path) or "").strip() for path in (_VENDOR, _PRODUCT)]
    name = " ".join(word for word in words if word)
    return passed(f"not one of Azure: {name}" if name else f"no {_DMI}: not one of Azure")


GROUP: Final = Group(
    name="Privilege",
    rank=51,
    requirements=(
        Requirement(
            id="seccomp",
            title="No filter of system calls",
            level=Level.RECOMMENDED,
            source=_ROOT,
            method="Seccomp in /proc/self/status",
            fix="Run Calico (and the agent) in a privileged container, or with seccompProfile: Unconfined.",
            asks=(_SYSTEM,),
            judge=_seccomp,
        ),
        Requirement(
            id="selinux",
            title="SELinux, where it enforces, has a policy for containers",
            level=Level.RECOMMENDED,
            source=_ROOT,
            method=f"{_ENFORCE}, and the module container among SELinux' policies",
            fix="Install the package container-selinux.",
            asks=(_SYSTEM, _SELINUX, _POLICIES),
            judge=_selinux,
        ),
        Requirement(
            id="apparmor",
            title="No profile of AppArmor",
            level=Level.RECOMMENDED,
            source=_ROOT,
            method=f"{_LABELS[1]} of the agent",
            fix="Run Calico (and the agent) in a privileged container, or with appArmorProfile: Unconfined.",
            asks=(_APPARMOR,),
            judge=_apparmor,
        ),
        Requirement(
            id="container",
            title="The host is no container",
            level=Level.RECOMMENDED,
            source="Linux kernel 3.10 or later with required dependencies.",
            method="The marks of Docker, Podman, and systemd (Container Interface)",
            fix="Load modules and set sysctls on the machine that the container runs on; or use a VM.",
            asks=(_MARKS,),
            judge=_container,
        ),
        Requirement(
            id="cloud-ipip",
            title="The cloud carries IP-in-IP",
            level=Level.RECOMMENDED,
            source=(
                'Azure Virtual Network FAQ: "IP-in-IP encapsulated packets … are blocked in virtual networks"'
            ),
            method="The system's vendor, product and tag in /sys/class/dmi/id",
            fix="Use VXLAN: encapsulation: VXLAN in the IP pool; netprobe run shows what passes.",
            modes=("ipip", "ipip-crosssubnet"),
            asks=(_MACHINE,),
            judge=_cloud,
        ),
    ),
)
