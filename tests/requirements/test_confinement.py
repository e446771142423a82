"""What confines programs on a host, and what the host is: real filters, and files as the kernel has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from netprobe.findings import Result
from netprobe.questions import Question, SystemFacts
from netprobe.requirements.confinement import _SYSTEM
from tests.requirements.asking import found as checked
from tests.requirements.asking import refusing
from tests.requirements.hosts import found, tree


def system(*, uid: int = 0, seccomp: int = 0) -> dict[Question[Any], Any]:
    """What a system says of itself, to this user."""
    return {_SYSTEM: SystemFacts("6.1.0", "x86_64", "a", "3.11.2", uid, 0, seccomp, [], 0.0)}


@pytest.mark.lab
def test_a_filter_of_system_calls_is_a_warning(tmp_path: Path) -> None:
    """
    The kernel says that there is one, whatever it is about.
    """
    finding = checked(*refusing("mount=EPERM"), root=tmp_path)["seccomp"]

    assert Result.WARN is finding.result
    assert "Seccomp: 2" in finding.seen
    assert Result.PASS is found("seccomp", given=system()).result


ENFORCE: Final = "/sys/fs/selinux/enforce"


@pytest.mark.parametrize(
    ("files", "uid", "result"),
    [
        ({}, 0, Result.NOT_APPLICABLE),
        ({ENFORCE: "0"}, 0, Result.PASS),
        ({ENFORCE: "1"}, 0, Result.WARN),
        ({ENFORCE: "1"}, 1000, Result.UNKNOWN),
        ({ENFORCE: "1", "/var/lib/selinux/targeted/active/modules/200/container/cil": ""}, 0, Result.PASS),
        ({ENFORCE: "1", "/etc/selinux/targeted/active/modules/200/container/cil": ""}, 0, Result.PASS),
        ({ENFORCE: "1", "/var/lib/selinux/targeted/active/modules/100/base/cil": ""}, 0, Result.WARN),
        ({ENFORCE: f"->{ENFORCE}"}, 0, Result.UNKNOWN),
    ],
)
def test_selinux_needs_the_policy_for_containers(
    tmp_path: Path, files: Mapping[str, str], uid: int, result: Result
) -> None:
    """
    Where it enforces; which policies there are, only root sees.
    """
    finding = found("selinux", tree(tmp_path, files), given=system(uid=uid))

    assert result is finding.result, finding.seen


ENABLED: Final = "/sys/module/apparmor/parameters/enabled"
LABEL: Final = "/proc/self/attr/current"


@pytest.mark.parametrize(
    ("files", "result"),
    [
        ({}, Result.NOT_APPLICABLE),
        ({ENABLED: "N\n"}, Result.NOT_APPLICABLE),
        ({ENABLED: "Y\n"}, Result.UNKNOWN),
        ({ENABLED: "Y\n", LABEL: "unconfined\n"}, Result.PASS),
        ({ENABLED: "Y\n", LABEL: "podman (unconfined)\n"}, Result.PASS),
        ({ENABLED: "Y\n", LABEL: "docker-default (enforce)\n"}, Result.WARN),
        ({ENABLED: "Y\n", LABEL: "a (complain)\n"}, Result.PASS),
    ],
)
def test_the_profile_of_apparmor(tmp_path: Path, files: Mapping[str, str], result: Result) -> None:
    """
    The agent's own, as the kernel tells it.
    """
    finding = found("apparmor", tree(tmp_path, files))

    assert result is finding.result, finding.seen


@pytest.mark.parametrize(
    ("files", "result", "seen"),
    [
        ({}, Result.PASS, "none of the marks"),
        ({"/.dockerenv": ""}, Result.WARN, "(/.dockerenv)"),
        ({"/run/systemd/container": "lxc\n"}, Result.WARN, "(/run/systemd/container: lxc)"),
    ],
)
def test_a_container_is_recognised(
    tmp_path: Path, files: Mapping[str, str], result: Result, seen: str
) -> None:
    """
    By what its runtime leaves in it.
    """
    finding = found("container", tree(tmp_path, files))

    assert result is finding.result
    assert seen in finding.seen


DMI: Final = "/sys/class/dmi/id"
AZURE: Final = {
    f"{DMI}/sys_vendor": "Microsoft Corporation\n",
    f"{DMI}/product_name": "Virtual Machine\n",
    f"{DMI}/chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n",
}


@pytest.mark.parametrize(
    ("files", "modes", "result"),
    [
        ({}, None, Result.PASS),
        (AZURE, None, Result.WARN),
        (AZURE, ("vxlan",), Result.NOT_APPLICABLE),
        ({**AZURE, f"{DMI}/chassis_asset_tag": "\n"}, None, Result.PASS),
        ({f"{DMI}/sys_vendor": "QEMU\n"}, ("ipip",), Result.PASS),
    ],
)
def test_azure_does_not_carry_ipip(
    tmp_path: Path, files: Mapping[str, str], modes: tuple[str, ...] | None, result: Result
) -> None:
    """
    Hyper-V elsewhere has the same vendor, and another tag.
    """
    assert result is found("cloud-ipip", tree(tmp_path, files), modes=modes).result
