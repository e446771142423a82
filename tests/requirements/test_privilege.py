"""Privileges: real dropped capabilities, seccomp filters, other users and user namespaces."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

import pytest

from netprobe.findings import Result
from netprobe.model import Inventory
from netprobe.questions import SystemFacts
from netprobe.requirements import Context, Evidence, Failed, registry
from tests.requirements.asking import found, host, refusing, written

pytestmark = pytest.mark.lab

_NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")


_APART: Final = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
"""Where nobody else's processes are to be seen, and where all end with the agent."""


def _beside(*command: str) -> tuple[str, ...]:
    """The words that run a command beside a process, of which the agent sees no other."""
    return (*_APART, "sh", "-c", f'{shlex.join(command)} & exec "$@"', "sh")


def _without(capability: str) -> tuple[str, ...]:
    return ("setpriv", f"--bounding-set=-{capability}")


def test_root_has_them() -> None:
    """As it is here."""
    findings = found()

    assert Result.PASS is findings["cap-sys-admin"].result
    assert Result.PASS is findings["cap-net-admin"].result
    assert Result.PASS is findings["user-namespace"].result


def test_root_without_cap_sys_admin_fails() -> None:
    """Nor can the kernel be asked anything in a namespace, so nothing of that is known."""
    findings = found(*_without("sys_admin"))

    assert Result.FAIL is findings["cap-sys-admin"].result
    assert "unshare(CLONE_NEWNET): EPERM, as root" == findings["cap-sys-admin"].seen
    assert Result.PASS is findings["cap-net-admin"].result
    for name in ("device-veth", "match-set", "target-ACCEPT", "table-nat", "ipset", "ebpf-tc"):
        assert Result.UNKNOWN is findings[name].result
        assert "no throwaway network namespace (EPERM)" in findings[name].seen


def test_root_without_cap_net_admin_fails() -> None:
    """And what the kernel refuses for that reason is not known."""
    findings = found(*_without("net_admin"))

    assert Result.FAIL is findings["cap-net-admin"].result
    assert Result.PASS is findings["cap-sys-admin"].result
    for name in ("device-veth", "match-set", "table-filter", "ipset", "conntrack", "ebpf-tc"):
        assert Result.UNKNOWN is findings[name].result, findings[name].seen


@pytest.mark.parametrize("rule", ["unshare=EPERM", "unshare=ENOSYS", "mount=EPERM"])
def test_a_seccomp_filter_is_named(rule: str) -> None:
    """What root may not do for a filter's sake fails, and the filter is told."""
    finding = found(*refusing(rule))["cap-sys-admin"]

    assert Result.FAIL is finding.result
    assert "under a seccomp filter" in finding.seen


def test_a_seccomp_filter_over_setsockopt_fails_cap_net_admin() -> None:
    """The same for the other privilege."""
    finding = found(*refusing("setsockopt@*,1,33=EPERM"))["cap-net-admin"]

    assert Result.FAIL is finding.result
    assert "under a seccomp filter" in finding.seen


def test_a_python_that_cannot_ask_does_not_know() -> None:
    """Root whose Python has no ctypes: nothing refused it anything."""
    requirement = registry()["cap-sys-admin"]
    system, namespace, mount = requirement.asks
    root = SystemFacts(
        release="6.1",
        machine="x86_64",
        hostname="a",
        python="3.6.0",
        uid=0,
        capabilities=(1 << 41) - 1,
        seccomp=0,
        uid_map=["0", "0", "4294967295"],
        time=0.0,
    )
    lacking = Failed("ENOSYS: this Python has no ctypes", namespace=True)
    answers = {system: root, namespace: lacking, mount: Failed("ENOSYS: No module named '_ctypes'")}
    own = Evidence(host=host("a"), answers=answers)
    finding = requirement.finding(Context(own=own, fleet={"a": own}, inventory=Inventory(hosts=(own.host,))))

    assert Result.UNKNOWN is finding.result
    assert "no ctypes" in finding.seen


def test_another_user_does_not_know() -> None:
    """An agent that is not root says nothing about Calico, which would be."""
    findings = found(*_NOBODY, python="/usr/bin/python3")

    for name in ("cap-sys-admin", "cap-net-admin"):
        assert Result.UNKNOWN is findings[name].result
        assert "uid 65534" in findings[name].seen
    assert Result.PASS is findings["arch"].result


def test_root_of_a_user_namespace_is_told() -> None:
    """It may ask the kernel in namespaces of its own, and is not the machine's root."""
    findings = found("unshare", "--user", "--map-root-user", "--")

    assert Result.WARN is findings["user-namespace"].result
    assert Result.PASS is findings["cap-sys-admin"].result
    assert Result.PASS is findings["device-veth"].result


def test_no_kubelet_is_no_question_of_pods() -> None:
    """Where neither a kubelet nor an API server runs there is nothing to say."""
    assert Result.NOT_APPLICABLE is found(*_APART)["privileged-pods"].result


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("kube-apiserver", ("--allow-privileged=true", "--v=2"), Result.PASS),
        ("kube-apiserver", ("--allow-privileged", "--v=2"), Result.PASS),
        ("kube-apiserver", ("--allow-privileged=false",), Result.FAIL),
        ("kube-apiserver", ("--v=2",), Result.FAIL),
        ("kubelet", ("--v=2",), Result.PASS),
        ("kubelet", ("--allow-privileged=false",), Result.FAIL),
    ],
)
def test_a_command_line_allows_privileged_pods(
    name: str, arguments: tuple[str, ...], wanted: Result, tmp_path: Path
) -> None:
    """By processes that are called so; the API server allows nothing of itself, the kubelet everything."""
    program = tmp_path / name
    program.symlink_to(sys.executable)
    prefix = _beside(str(program), "-c", "import time; time.sleep(60)", *arguments)

    assert wanted is found(*prefix)["privileged-pods"].result


def test_a_manifest_allows_privileged_pods(tmp_path: Path) -> None:
    """A static pod's, before it runs."""
    manifest = "    - kube-apiserver\n    - --allow-privileged={}\n"
    path = "etc/kubernetes/manifests/kube-apiserver.yaml"
    allowed = found(*_APART, root=written(tmp_path / "a", {path: manifest.format("true")}))
    refused = found(*_APART, root=written(tmp_path / "b", {path: manifest.format("false")}))

    assert Result.PASS is allowed["privileged-pods"].result
    assert Result.FAIL is refused["privileged-pods"].result
    assert f"/{path}: --allow-privileged=false" == refused["privileged-pods"].seen
