"""Other network providers: real interfaces and sockets in network namespaces, and configurations of CNI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.questions import Failed, FileList, Outcome, Question
from netprobe.requirements import _links
from netprobe.requirements.providers import Found, by_configurations, plugin_types
from tests.requirements.hosts import findings_after, found, process, text_file, tree

DIRECTORY: Final = "/etc/cni/net.d"
NO_LINKS: Final[dict[Question[Any], Any]] = {_links.LINKS: [Outcome("", [])]}
CALICO: Final = json.dumps({"name": "k8s-pod-network", "plugins": [{"type": "calico"}, {"type": "portmap"}]})
FLANNEL: Final = json.dumps({"name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]})
CILIUM: Final = json.dumps({"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]})
WEAVE: Final = json.dumps({"name": "weave", "plugins": [{"type": "weave-net"}, {"type": "portmap"}]})
BRIDGE: Final = json.dumps({"name": "crio", "type": "bridge", "bridge": "cni0"})


@pytest.mark.parametrize(
    ("files", "result", "seen"),
    [
        ({}, Result.PASS, ""),
        ({f"{DIRECTORY}/10-calico.conflist": CALICO}, Result.PASS, ""),
        ({f"{DIRECTORY}/.kept": CILIUM, f"{DIRECTORY}/a.bak": CILIUM}, Result.PASS, ""),
        (
            {f"{DIRECTORY}/05-cilium.conflist": CILIUM},
            Result.FAIL,
            "Cilium: /etc/cni/net.d/05-cilium.conflist",
        ),
        ({f"{DIRECTORY}/10-weave.conflist": WEAVE}, Result.FAIL, "Weave Net"),
        ({f"{DIRECTORY}/10-flannel.conflist": FLANNEL}, Result.WARN, "flannel"),
        ({f"{DIRECTORY}/05-bridge.conf": BRIDGE}, Result.FAIL, "comes before"),
        ({f"{DIRECTORY}/100-crio-bridge.conf": BRIDGE}, Result.WARN, "(type bridge), until"),
        ({f"{DIRECTORY}/87-podman-bridge.conflist": BRIDGE}, Result.WARN, "(type bridge), until"),
        ({f"{DIRECTORY}/99-loopback.conf": '{"type": "loopback"}'}, Result.PASS, ""),
        ({f"{DIRECTORY}/05-x.conf": "{"}, Result.WARN, "05-x.conf is no CNI configuration"),
        ({f"{DIRECTORY}/05-x.conf": "->05-x.conf"}, Result.UNKNOWN, "05-x.conf: ELOOP"),
    ],
)
def test_configurations_of_cni(tmp_path: Path, files: Mapping[str, str], result: Result, seen: str) -> None:
    """
    Another provider's fails; a bridge that comes with a runtime only where the runtime would take it first.
    """
    finding = found("other-provider", tree(tmp_path, files), given=NO_LINKS)

    assert result is finding.result, finding.seen
    assert seen in finding.seen


def test_another_providers_process_fails(tmp_path: Path) -> None:
    """
    What runs in the host's network namespace is at work.
    """
    finding = found("other-provider", tmp_path, process("cilium-agent"), given=NO_LINKS)

    assert (Result.FAIL, "Cilium: cilium-agent (pid 100) runs") == (finding.result, finding.seen)


def test_interfaces_that_the_kernel_does_not_tell_are_unknown(tmp_path: Path) -> None:
    """
    Unless there is another provider anyway.
    """
    silent = {_links.LINKS: Failed("ETIME")}

    assert Result.UNKNOWN is found("other-provider", tmp_path, given=silent).result
    assert Result.FAIL is found("other-provider", tmp_path, process("weaver"), given=silent).result


@given(st.text(), st.text(alphabet='[]{}":, typelugins', max_size=60))
def test_any_configuration_is_read(text: str, nearly: str) -> None:
    """
    A host may have anything there.
    """
    for each in (text, nearly, "[" * 100000, '{"plugins": [1, {"type": []}]}', '{"plugins": {}}', "NaN"):
        assert plugin_types(each) is None or plugin_types(each)
        by_configurations(FileList(files=[text_file(f"{DIRECTORY}/a", each)], more=False), Found())


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.one_of(st.binary().map(bytes.hex), st.text()))))
def test_any_answer_has_interfaces(answers: list[tuple[int, str]]) -> None:
    """
    A host may say anything.
    """
    assert not isinstance(_links.decoded([Outcome("", answers)]), Failed)


VXLAN: Final = "ip link add {} type vxlan id {} dstport {} dev eth0"
HOSTS: Final = {
    "clean": (),
    "cni0": ("ip link add cni0 type bridge",),
    "flannel": (VXLAN.format("flannel.1", 1, 8472), "ip link set flannel.1 up"),
    "cilium": ("ip link add cilium_host type veth peer name cilium_net",),
    "weave": ("ip link add weave type bridge",),
    "proxy": ("ip link add kube-ipvs0 type bridge",),
    "calico": (VXLAN.format("vxlan.calico", 4096, 4789), "ip link set vxlan.calico up"),
    "swarm": ("ip link add docker_gwbridge type bridge",),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Finding]]:
    """A host for each of these, and what an agent in its network namespace finds."""
    return findings_after(HOSTS, tmp_path_factory.mktemp("empty"))


@pytest.mark.lab
@pytest.mark.parametrize(
    ("host", "requirement", "result", "seen"),
    [
        ("clean", "other-provider", Result.PASS, ""),
        ("cni0", "other-provider", Result.WARN, "a bridge of CNI: interface cni0"),
        ("flannel", "other-provider", Result.WARN, "flannel: interface flannel.1"),
        ("cilium", "other-provider", Result.WARN, "Cilium: interface cilium_"),
        ("weave", "other-provider", Result.WARN, "Weave Net: interface weave"),
        ("proxy", "other-provider", Result.PASS, ""),
        ("calico", "other-provider", Result.PASS, ""),
        ("swarm", "other-provider", Result.WARN, "Docker Swarm: interface docker_gwbridge"),
    ],
)
def test_interfaces_of_the_kernel(
    checked: dict[str, dict[str, Finding]], host: str, requirement: str, result: Result, seen: str
) -> None:
    """
    What there is in the host's network namespace is told by the kernel, with no program there.
    """
    finding = checked[host][requirement]

    assert result is finding.result, finding.seen
    assert seen in finding.seen
