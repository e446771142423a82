"""CNI's directories, and the configurations of container runtimes that say where they look."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.model import Connection, Host, Inventory
from netprobe.questions import FileList, Place, Process, SystemFacts
from netprobe.requirements import _runtimes
from netprobe.requirements.cni import _PLACES, _SYSTEM
from tests.requirements.asking import checked
from tests.requirements.hosts import found, process, text_file, tree

CONTAINERD: Final = "/etc/containerd/config.toml"
CRI: Final = 'plugins."io.containerd.grpc.v1.cri".cni'
DEBIAN: Final = """version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""
"""What Debian 12's package containerd installs."""
DOCKERS: Final = "/var/run/docker/containerd/containerd.toml"
DOCKER: Final = 'disabled_plugins = ["cri"]\n\n#root = "/var/lib/containerd"\n'
"""What Docker's package containerd.io installs, without its comments."""


def place(
    kind: str,
    *,
    writable: bool = True,
    read_only: bool = False,
    free: int = 1 << 40,
    no_exec: bool = False,
) -> Place:
    """What is at a path, as the agent tells it."""
    return Place(kind, "/etc", writable, read_only, free, no_exec)


FINE: Final = place("directory")
SYSTEM: Final = SystemFacts("6.1.0", "x86_64", "Node-1", "3.11.2", 0, 0, 0, [], 0.0)


def judged(
    requirement: str, root: Path, files: Mapping[str, str], *processes: Process, there: Place = FINE
) -> Finding:
    """A host with these files, whose directories are both like `there`."""
    given_ = {_SYSTEM: SYSTEM, _PLACES: [there, there]}
    return found(requirement, tree(root, files), *processes, given=given_)


def test_a_host_without_a_runtime_passes(tmp_path: Path) -> None:
    """
    There is nobody yet who looks elsewhere.
    """
    assert Result.PASS is judged("cni-conf-dir", tmp_path, {}).result
    assert Result.PASS is judged("cni-bin-dir", tmp_path, {}).result


def test_debians_containerd_looks_for_programs_elsewhere(tmp_path: Path) -> None:
    """
    /usr/lib/cni, where Debian's own plugins are: Calico's would not be found.
    """
    finding = judged("cni-bin-dir", tmp_path, {CONTAINERD: DEBIAN})

    assert Result.FAIL is finding.result
    assert f"{CONTAINERD} bin_dir = /usr/lib/cni" in finding.seen
    assert Result.PASS is judged("cni-conf-dir", tmp_path / "b", {CONTAINERD: DEBIAN}).result


def test_dockers_containerd_offers_kubernetes_nothing(tmp_path: Path) -> None:
    """
    Its CRI plugin is disabled; with cri-dockerd beside it that is as it should be.
    """
    alone = judged("cni-conf-dir", tmp_path / "a", {CONTAINERD: DOCKER})
    beside = judged("cni-conf-dir", tmp_path / "b", {CONTAINERD: DOCKER}, process("cri-dockerd"))

    assert Result.WARN is alone.result
    assert f"{CONTAINERD}: disabled_plugins has 'cri'" in alone.seen
    assert Result.PASS is beside.result


@pytest.mark.parametrize(
    ("files", "result"),
    [
        pytest.param({CONTAINERD: ""}, Result.PASS, id="empty"),
        pytest.param({CONTAINERD: '[plugins.cri.cni]\nbin_dir = "/x"\n'}, Result.FAIL, id="version-1"),
        pytest.param({CONTAINERD: f'version = 2\n[{CRI}]\nbin_dir = "/x"\n'}, Result.FAIL, id="version-2"),
        pytest.param(
            {CONTAINERD: "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/x']\n"},
            Result.FAIL,
            id="version-3",
        ),
        pytest.param(
            {
                CONTAINERD: (
                    "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n"
                    "bin_dirs = ['/usr/lib/cni', '/opt/cni/bin/']\n"
                )
            },
            Result.PASS,
            id="one-of-several",
        ),
        pytest.param({CONTAINERD: f'[{CRI}]\nbin_dir = "/opt//cni/bin/"\n'}, Result.PASS, id="normalised"),
        pytest.param(
            {
                CONTAINERD: 'imports = ["conf.d/*.toml"]\n',
                "/etc/containerd/conf.d/a.toml": f'[{CRI}]\nbin_dir = "/x"\n',
            },
            Result.FAIL,
            id="imported",
        ),
        pytest.param(
            {"/etc/containerd/conf.d/a.toml": f'[{CRI}]\nbin_dir = "/x"\n'}, Result.PASS, id="not-imported"
        ),
        pytest.param({CONTAINERD: 'imports = ["/srv/*.toml"]\n'}, Result.UNKNOWN, id="elsewhere"),
        pytest.param({CONTAINERD: "imports = 7\nplugins = 8\n"}, Result.PASS, id="nonsense"),
        pytest.param({CONTAINERD: "version = \n"}, Result.UNKNOWN, id="no-toml"),
        pytest.param(
            {"/etc/crio/crio.conf": '[crio.network]\nplugin_dirs = ["/usr/libexec/cni/"]\n'},
            Result.FAIL,
            id="crio",
        ),
        pytest.param(
            {
                "/etc/crio/crio.conf": '[crio.network]\nplugin_dirs = ["/usr/libexec/cni/"]\n',
                "/etc/crio/crio.conf.d/10-a.conf": '[crio.network]\nplugin_dirs = ["/opt/cni/bin/"]\n',
            },
            Result.PASS,
            id="crio-drop-in",
        ),
    ],
)
def test_where_runtimes_look_for_programs(tmp_path: Path, files: Mapping[str, str], result: Result) -> None:
    """
    Containerd's three versions with imports, and CRI-O's files.
    """
    finding = judged("cni-bin-dir", tmp_path, files)

    assert result is finding.result, finding.seen


@pytest.mark.parametrize(
    ("running", "result"),
    [
        (process("containerd"), Result.FAIL),
        (process("containerd", "containerd", "-c", CONTAINERD), Result.FAIL),
        (process("containerd", "containerd", "--config=/srv/own.toml"), Result.UNKNOWN),
        (process("containerd", "containerd", "--config=/srv/own.toml", is_here=False), Result.FAIL),
        (
            process("containerd", "containerd", "--config", DOCKERS),
            Result.FAIL,
        ),
    ],
)
def test_the_process_says_which_configuration(tmp_path: Path, running: Process, result: Result) -> None:
    """
    One that nobody has read leaves it unknown.
    """
    assert result is judged("cni-bin-dir", tmp_path, {CONTAINERD: DEBIAN}, running).result


@pytest.mark.parametrize(
    ("argv", "result"),
    [
        (["--cni-bin-dir=/opt/cni/bin,/x"], Result.PASS),
        (["--cni-bin-dir", "/x"], Result.FAIL),
        (["--cni-bin-dir"], Result.PASS),
    ],
)
def test_flags_of_cri_dockerd(tmp_path: Path, argv: list[str], result: Result) -> None:
    """
    One of several directories is enough.
    """
    assert result is judged("cni-bin-dir", tmp_path, {}, process("cri-dockerd", "cri-dockerd", *argv)).result


@pytest.mark.parametrize(
    ("there", "conf", "programs"),
    [
        (place("none"), Result.PASS, Result.PASS),
        (place("file"), Result.FAIL, Result.FAIL),
        (place("ENOTDIR"), Result.FAIL, Result.FAIL),
        (place("EACCES", writable=False), Result.UNKNOWN, Result.UNKNOWN),
        (place("directory", writable=False, read_only=True), Result.FAIL, Result.FAIL),
        (place("directory", writable=False), Result.FAIL, Result.FAIL),
        (place("directory", no_exec=True), Result.PASS, Result.FAIL),
        (place("directory", free=1 << 20), Result.PASS, Result.WARN),
    ],
)
def test_what_a_directory_is_like(tmp_path: Path, there: Place, conf: Result, programs: Result) -> None:
    """
    Both have to be written, and what is in one of them executed.
    """
    assert conf is judged("cni-conf-dir", tmp_path, {}, there=there).result
    assert programs is judged("cni-bin-dir", tmp_path, {}, there=there).result


_MOUNTS: Final = {
    "fine": "mount -t tmpfs x {0}",
    "read-only": "mount -t tmpfs x {0} && mkdir -p {0}/opt/cni/bin {0}/etc/cni && mount -o remount,ro {0}",
    "noexec": "mount -t tmpfs -o noexec x {0} && mkdir -p {0}/opt/cni/bin",
    "a-file": "mount -t tmpfs x {0} && mkdir -p {0}/opt && touch {0}/opt/cni",
    "there": "mount -t tmpfs x {0} && mkdir -p {0}/opt/cni/bin {0}/etc/cni/net.d",
}


@pytest.mark.lab
@pytest.mark.parametrize(
    ("case", "conf", "programs"),
    [
        ("fine", Result.PASS, Result.PASS),
        ("there", Result.PASS, Result.PASS),
        ("read-only", Result.FAIL, Result.FAIL),
        ("noexec", Result.PASS, Result.FAIL),
        ("a-file", Result.PASS, Result.FAIL),
    ],
)
def test_real_file_systems(tmp_path: Path, case: str, conf: Result, programs: Result) -> None:
    """
    An agent in a mount namespace of its own looks at what is mounted so, and makes nothing there.
    """
    script = _MOUNTS[case].format(tmp_path) + ' && exec "$@"'
    argv = ("unshare", "--mount", "sh", "-ec", script, "sh")
    host = Host(
        name="a", addresses=(), connection=Connection(type="command", argv=argv), python=(sys.executable,)
    )
    result = checked(host, root=tmp_path, inventory=Inventory(hosts=(host,)))
    findings = {each.id: each for each in result.hosts[0].findings}

    assert conf is findings["cni-conf-dir"].result, findings["cni-conf-dir"].seen
    assert programs is findings["cni-bin-dir"].result, findings["cni-bin-dir"].seen
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "argv", "result"),
    [
        ({}, [], Result.NOT_APPLICABLE),
        ({"/var/lib/calico/nodename": "node-1"}, [], Result.PASS),
        ({"/var/lib/calico/nodename": "node-1\n"}, [], Result.PASS),
        ({"/var/lib/calico/nodename": "node-1.example.org"}, [], Result.WARN),
        ({"/var/lib/calico/nodename": "other"}, ["--hostname-override=other"], Result.PASS),
        ({"/var/lib/calico/nodename": ""}, [], Result.WARN),
        ({"/var/lib/calico/nodename": "->nodename"}, [], Result.UNKNOWN),
    ],
)
def test_the_name_of_the_node(
    tmp_path: Path, files: Mapping[str, str], argv: list[str], result: Result
) -> None:
    """
    It is the hostname in lower case, or what the kubelet is told.
    """
    assert result is judged("nodename", tmp_path, files, process("kubelet", "kubelet", *argv)).result


@given(
    st.text(),
    st.text(alphabet='[]{}"=.,\n #abc0', max_size=60),
    st.sampled_from((CONTAINERD, "/etc/crio/crio.conf", "/etc/crio/crio.conf.d/a")),
)
def test_any_configuration_is_read(text: str, nearly: str, path: str) -> None:
    """
    A host may have anything in these files; it is read, or that it cannot be is said.
    """
    settings = (text, nearly, "[" * 3000, f'{nearly}\n[{CRI}]\nbin_dir = [1]\nconf_dir = ""\n')
    for each in settings:
        with contextlib.suppress(_runtimes.UnreadError):
            _runtimes.read(FileList(files=[text_file(path, each)], more=False), [])
