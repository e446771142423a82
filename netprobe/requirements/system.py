"""Architecture, kernel and distribution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from netprobe.questions import Files, System
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    passed,
    unknown,
    warned,
)

_SYSTEM: Final = System()

_ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "x86-64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
"""The page's names, by the kernel's."""

_OLDEST: Final = (3, 10)
_LATER: Final = (5, 10)
"""What later releases of Calico ask for, and the eBPF dataplane on the distributions of today."""

_VERSION: Final = re.compile(r"(\d{1,6})\.(\d{1,6})")


def kernel_version(release: str) -> tuple[int, int] | None:
    """The first two numbers of a kernel's release, None where there are none."""
    match = _VERSION.match(release)
    return None if match is None else (int(match[1]), int(match[2]))


def _architecture(context: Context) -> Judgement:
    found = context.need(_SYSTEM)
    if found.machine in _ARCHITECTURES:
        return passed(f"{found.machine} ({_ARCHITECTURES[found.machine]})")
    return failed(f"{found.machine!r}")


def _kernel(context: Context) -> Judgement:
    found = context.need(_SYSTEM)
    version = kernel_version(found.release)
    if version is None:
        return unknown(f"a kernel of release {found.release!r}, which is no version")
    if version < _OLDEST:
        return failed(found.release)
    if version < _LATER:
        return warned(
            f"{found.release}: enough for Calico 3.28; its later releases, and eBPF on most distributions, "
            "want 5.10"
        )
    return passed(found.release)


_OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release")
_DISTRIBUTION: Final = Files(patterns=(*_OS_RELEASE, "/etc/redhat-release", "/etc/debian_version"))

_LISTED: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "rhel": ("RedHat Linux 7", (7,)),
    "centos": ("CentOS 7", (7,)),
    "flatcar": ("Flatcar Container Linux", (0,)),
    "ubuntu": ("Ubuntu 18.04", (18, 4)),
    "debian": ("Debian 8", (8,)),
}
"""The page's distributions by the ID of os-release(5), and the first version that it names."""
_COREOS: Final = "Fedora CoreOS"
_FAMILIES: Final = frozenset({"rhel", "centos", "fedora", "debian", "ubuntu", "flatcar"})
"""What successors and derivatives call themselves like (ID_LIKE)."""


def os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release(5) file, without quotes; what is none is left out."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[key] = re.sub(r"\\([\\\"$`'])", r"\1", value)
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,6}", version)[:2])


def _distribution(context: Context) -> Judgement:
    found = context.need(_DISTRIBUTION)
    text = next((text for path in _OS_RELEASE if (text := found.text(path)) is not None), None)
    if text is None:
        older = next((file.text.strip() for file in found.files if not file.error), "")
        return unknown(f"no os-release(5) file; {older!r}" if older else "no os-release(5) file")
    return _by_os_release(os_release(text))


def _by_os_release(fields: Mapping[str, str]) -> Judgement:
    name, version = fields.get("ID", "").lower(), fields.get("VERSION_ID", "")
    shown = fields.get("PRETTY_NAME") or f"{name} {version}".strip() or "an os-release(5) file without a name"
    if name == "fedora" and fields.get("VARIANT_ID") == "coreos":
        return passed(f"{shown}: {_COREOS} is on the page's list")
    if name in _LISTED:
        page, first = _LISTED[name]
        if not version or _numbers(version) >= first:
            return passed(f"{shown}: the page names {page}, and it is no older")
        return failed(f"{shown} is older than the page's {page}")
    family = _FAMILIES.intersection([name, *fields.get("ID_LIKE", "").lower().split()])
    if family:
        return passed(f"{shown}: of the family of {', '.join(sorted(family))}")
    return warned(
        f"{shown} is not on the page's list, nor of its families: the kernel's own answers count",
    )


GROUP: Final = Group(
    name="Node",
    rank=10,
    requirements=(
        Requirement(
            id="arch",
            title="Processor architecture",
            source="x86-64, arm64, ppc64le, or s390x processor",
            method="uname(2): the machine",
            fix="Calico has no images for this processor: use other nodes.",
            asks=(_SYSTEM,),
            judge=_architecture,
        ),
        Requirement(
            id="kernel",
            title="Kernel version",
            source="Linux kernel 3.10 or later with required dependencies.",
            method="uname(2): the release",
            fix="Install the distribution's current kernel, or a newer release of the distribution.",
            asks=(_SYSTEM,),
            judge=_kernel,
        ),
        Requirement(
            id="distribution",
            title="Distribution",
            level=Level.RECOMMENDED,
            source=(
                "The following distributions have the required kernel, its dependencies, and are known to "
                "work well with Calico and Kubernetes."
            ),
            method="os-release(5): the page's distributions, their later versions, and what is like them",
            fix="Use a distribution of the list; on any other, what the kernel answers below counts.",
            asks=(_DISTRIBUTION,),
            judge=_distribution,
        ),
    ),
)
