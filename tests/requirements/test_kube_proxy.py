"""How kube-proxy carries services: processes, files and rules, each as there are on hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.lab import Lab
from netprobe.requirements.given import Given
from netprobe.requirements.kube_proxy import mode_of_arguments, mode_of_configuration
from tests.requirements.asking import checked, host, of, written

NAME: Final = "kube-proxy-mode"
CONFIGURATION: Final = (
    "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {}\n"
)
VOLUME: Final = "/var/lib/kubelet/pods/1-2-3/volumes/kubernetes.io~configmap/kube-proxy/config.conf"


ALONE: Final = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""The words that run a command where there are no other processes."""
_SLEEP: Final = "import signal; print(flush=True); signal.pause()"
_START: Final = """
cd "$1"; exec 9< <(exec -a kube-proxy "$2" -c "$3" $4); read -r -u 9; shift 4; exec "$@"
"""


def with_process(directory: Path, *arguments: str) -> tuple[str, ...]:
    """The words that run a command beside one that is called kube-proxy, and no others."""
    return (
        *(*ALONE, "bash", "-c", _START, "bash"),
        *(str(directory), sys.executable, _SLEEP, " ".join(arguments)),
    )


def here(root: Path, *prefix: str, given: Given | None = None) -> Finding:
    """What came of it on this machine, whose files are those of a tree."""
    return of(checked(host("here", *(prefix or ALONE)), root=root, given=given), "here", NAME)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("argument", "result", "seen"),
    [
        ("--proxy-mode=ipvs", Result.PASS, "ipvs (kube-proxy's arguments"),
        ("--proxy-mode=iptables", Result.PASS, "iptables (kube-proxy's arguments"),
        ("--proxy-mode=nftables", Result.FAIL, "Calico 3.28 supports iptables and ipvs"),
        ("--proxy-mode=userspace", Result.FAIL, "userspace"),
        ("--v=2", Result.PASS, "iptables"),
    ],
)
def test_the_arguments_of_a_process(tmp_path: Path, argument: str, result: Result, seen: str) -> None:
    """Without a file they are what counts; the default is iptables."""
    finding = here(tmp_path, *with_process(tmp_path, argument))

    assert (result, True) == (finding.result, seen in finding.seen), finding.seen


@pytest.mark.lab
@pytest.mark.parametrize(("mode", "result"), [("nftables", Result.FAIL), ("ipvs", Result.PASS)])
def test_the_file_of_a_process_beats_its_arguments(tmp_path: Path, mode: str, result: Result) -> None:
    """As the process sees it, wherever that is."""
    (tmp_path / "own.conf").write_text(CONFIGURATION.format(mode))
    path = str(tmp_path / "own.conf")
    absolute = here(tmp_path, *with_process(tmp_path, "--proxy-mode=iptables", "--config", path))
    relative = here(tmp_path, *with_process(tmp_path, "--config=own.conf"))

    assert [result] * 2 == [absolute.result, relative.result]
    assert absolute.seen.startswith(f"{mode} ({tmp_path}/own.conf)")


@pytest.mark.lab
@pytest.mark.parametrize(
    ("mode", "result", "seen"),
    [("ipvs", Result.PASS, "ipvs"), ('""', Result.PASS, "iptables"), ("nftables", Result.FAIL, "nftables")],
)
def test_the_volume_of_a_pod(tmp_path: Path, mode: str, result: Result, seen: str) -> None:
    """Where kubeadm's kube-proxy has its configuration from, on the host's own disk."""
    finding = here(written(tmp_path, {VOLUME: CONFIGURATION.format(mode)}))

    assert result is finding.result
    assert finding.seen.startswith(seen)


@pytest.mark.lab
def test_ipvs_needs_kubernetes_1_9_3(tmp_path: Path) -> None:
    """With an older one it fails, and the fix is another."""
    root = written(tmp_path, {VOLUME: CONFIGURATION.format("ipvs")})

    assert Result.FAIL is here(root, given=Given(kubernetes="v1.9.2")).result
    assert "Upgrade Kubernetes." == here(root, given=Given(kubernetes="v1.8")).fix
    assert Result.PASS is here(root, given=Given(kubernetes="v1.9.3")).result


@pytest.mark.lab
def test_without_a_kube_proxy_there_is_nothing_to_say(tmp_path: Path) -> None:
    """Neither a process nor a file nor a rule."""
    assert Result.NOT_APPLICABLE is here(tmp_path).result


@pytest.mark.lab
@pytest.mark.parametrize(
    ("commands", "result", "seen"),
    [
        (["nft add table ip kube-proxy"], Result.FAIL, "the table kube-proxy of nftables"),
        (["iptables-nft -t nat -N KUBE-SERVICES"], Result.PASS, "iptables-nft"),
        (
            ["ip link add kube-ipvs0 type bridge", "iptables-nft -t nat -N KUBE-SERVICES"],
            Result.PASS,
            "the interface kube-ipvs0",
        ),
    ],
)
def test_what_is_in_the_kernel(commands: list[str], result: Result, seen: str) -> None:
    """Where no process and no file says it."""
    with Lab.mesh(2) as lab:
        for command in commands:
            lab.run("n1", command.split())
        hosts = (
            host(name, "ip", "netns", "exec", each.namespace, *ALONE) for name, each in lab.hosts.items()
        )
        check = checked(*hosts, root="/nowhere")

    assert (result, True) == (of(check, "n1", NAME).result, seen in of(check, "n1", NAME).seen)
    assert Result.NOT_APPLICABLE is of(check, "n2", NAME).result


@given(st.lists(st.text() | st.sampled_from(["--proxy-mode", "--proxy-mode=", "ipvs"])))
def test_arguments_may_be_anything(argv: list[str]) -> None:
    """There is always a mode."""
    assert mode_of_arguments(argv)


@given(st.text() | st.text().map(CONFIGURATION.format))
def test_a_configuration_may_be_anything(text: str) -> None:
    """A mode or none, and no traceback."""
    assert mode_of_configuration(text) != ""
