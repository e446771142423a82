"""
The CNI directories that a host's container runtimes are configured for.

containerd: docs/cri/config.md and docs/man/containerd-config.toml.5.md, versions 1 to 3 of its configuration.
CRI-O: crio.conf(5), crio.conf.d(5). cri-dockerd, and the kubelet with dockershim: their flags.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from netprobe.questions import Failed, File, FileList, Files, Process
from netprobe.requirements import _services
from netprobe.requirements._settings import unreadable
from netprobe.requirements.base import Context

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONF_DIR, BIN_DIR = "/etc/cni/net.d", "/opt/cni/bin"

_CONTAINERD: Final = "/etc/containerd/config.toml"
_CONTAINERD_FILES: Final = (
    _CONTAINERD,
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
)
_IMPORTED: Final = ("/etc/containerd/*.toml", "/etc/containerd/*.d/*.toml")
"""Where imports are found; others are not read, and said to be unknown."""
_CRIO: Final = "/etc/crio/crio.conf"
_CRIO_FILES: Final = (_CRIO, "/etc/crio/crio.conf.d/*")
FILES: Final = Files(patterns=(*_CONTAINERD_FILES, *_IMPORTED, *_CRIO_FILES), most=1 << 18)

_CRI_PLUGINS: Final = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""What the plugin is called in versions 1, 2, and 3."""
_MAX_IMPORTS: Final = 100


class Directory(msgspec.Struct, frozen=True):
    """A directory, or several, that a runtime has been told to use; `where` is by whom and where."""

    paths: tuple[str, ...]
    where: str


class Runtimes(msgspec.Struct, frozen=True):
    """
    What the runtimes are configured for: their directories of configuration, and of plugins.

    `names` are the runtimes that are seen at all, `without_cri` those that offer Kubernetes nothing.
    """

    names: tuple[str, ...]
    configurations: tuple[Directory, ...]
    programs: tuple[Directory, ...]
    without_cri: str = ""


class UnreadError(Exception):
    """A configuration that cannot be known; the text is why."""


def runtimes(context: Context) -> Runtimes | Failed:
    """The runtimes that run, or have a configuration."""
    found = context.of(FILES)
    running = _services.running(context, "containerd", "crio", "cri-dockerd", "kubelet", "dockerd")
    if isinstance(found, Failed):
        return found
    if isinstance(running, Failed):
        return running
    try:
        return read(found, running)
    except UnreadError as error:
        return Failed(str(error))


def read(found: FileList, running: Sequence[Process]) -> Runtimes:
    """What files and command lines say together; `UnreadError` where that cannot be known."""
    if hole := unreadable(found):
        raise UnreadError(hole)
    files = {file.path: file for file in found.files if not file.error}
    names: list[str] = []
    configurations: list[Directory] = []
    programs: list[Directory] = []
    without_cri = ""
    for path in _containerds(files, running):
        names.append("containerd")
        document = _with_imports(path, files)
        if (refusal := _disables_cri(document)) is not None:
            without_cri = f"{path}: disabled_plugins has {refusal!r}"
            continue
        _add(configurations, document, ("conf_dir",), _CRI_PLUGINS)
        _add(programs, document, ("bin_dirs", "bin_dir"), _CRI_PLUGINS)
    if any(path.startswith("/etc/crio/") for path in files) or _called(running, "crio"):
        names.append("CRI-O")
        document = _crio(files)
        _add(configurations, document, ("network_dir",), ())
        _add(programs, document, ("plugin_dirs", "plugin_dir"), ())
    for process in running:
        if _services.is_called(process, "cri-dockerd"):
            names.append("cri-dockerd")
        for flag, directories in (("--cni-conf-dir", configurations), ("--cni-bin-dir", programs)):
            value = flag_of(process.argv, flag)
            if value and not _services.is_called(process, "containerd"):
                paths = tuple(each.strip() for each in value.split(","))
                directories.append(Directory(_normal(paths), f"{process.label} {flag}={value}"))
    return Runtimes(tuple(dict.fromkeys(names)), tuple(configurations), tuple(programs), without_cri)


def flag_of(argv: Sequence[str], *flags: str) -> str | None:
    """The value of a flag of a command line, the last one; `--flag=value` and `--flag value`."""
    value = None
    for at, word in enumerate(argv):
        name, equals, rest = word.partition("=")
        if name in flags:
            value = rest if equals else argv[at + 1] if at + 1 < len(argv) else ""
    return value


def _called(running: Iterable[Process], name: str) -> bool:
    return any(_services.is_called(each, name) for each in running)


def _containerds(files: Mapping[str, File], running: Sequence[Process]) -> list[str]:
    """The configurations of containerd that count; a process that runs says which."""
    said = [
        flag_of(each.argv, "--config", "-config", "-c") or _CONTAINERD
        for each in running
        if _services.is_called(each, "containerd")
    ]
    # Docker's own, which has no part for Kubernetes.
    said = [path for path in said if not path.startswith(("/run/docker/", "/var/run/docker/"))]
    for path in said:
        if path != _CONTAINERD and path not in files:
            raise UnreadError(f"containerd runs with --config {path}, which is not read")
    return list(dict.fromkeys(said)) or [path for path in _CONTAINERD_FILES if path in files]


def _with_imports(path: str, files: Mapping[str, File]) -> dict[str, tuple[Any, str]]:
    """All that a configuration of containerd sets, flat: the path of its keys, its value, and the file."""
    merged: dict[str, tuple[Any, str]] = {}
    pending = [path]
    done: set[str] = set()
    while pending and len(done) < _MAX_IMPORTS:
        here = pending.pop(0)
        if here in done or here not in files:
            # Without a file containerd has its defaults.
            continue
        done.add(here)
        document = _toml(files[here])
        merged.update(_flat(document, here))
        imports = document.get("imports", [])
        for each in imports if isinstance(imports, list) else []:
            pending += _imported(posixpath.join(posixpath.dirname(here), str(each)), here, files)
    return merged


def _imported(pattern: str, by: str, files: Mapping[str, File]) -> list[str]:
    pattern = posixpath.normpath(pattern)
    if not any(fnmatch.fnmatchcase(pattern, each) for each in (*_IMPORTED, *_CONTAINERD_FILES)):
        raise UnreadError(f"{by} imports {pattern}, which is not read")
    return sorted(path for path in files if fnmatch.fnmatchcase(path, pattern))


def _crio(files: Mapping[str, File]) -> dict[str, tuple[Any, str]]:
    """All that CRI-O is told: its file, then those beside it in the order of their names."""
    merged: dict[str, tuple[Any, str]] = {}
    beside = sorted(path for path in files if path.startswith(f"{_CRIO}.d/"))
    for path in (_CRIO, *beside):
        if path in files:
            document = _toml(files[path])
            network = document.get("crio", {})
            network = network.get("network", {}) if isinstance(network, dict) else {}
            if isinstance(network, dict):
                merged.update({f"/cni/{key}": (value, path) for key, value in network.items()})
    return merged


def _toml(file: File) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(file.text))
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UnreadError(f"{file.path}: no TOML: {str(error)[:80]}") from None


def _flat(document: Mapping[str, Any], path: str) -> dict[str, tuple[Any, str]]:
    """The settings that matter: `disabled_plugins`, and each plugin's `cni`."""
    found: dict[str, tuple[Any, str]] = {}
    if "disabled_plugins" in document:
        found["disabled_plugins"] = (document["disabled_plugins"], path)
    plugins = document.get("plugins", {})
    for name, plugin in plugins.items() if isinstance(plugins, dict) else ():
        cni = plugin.get("cni", {}) if isinstance(plugin, dict) else {}
        for key, value in cni.items() if isinstance(cni, dict) else ():
            found[f"{name}/cni/{key}"] = (value, path)
    return found


def _disables_cri(document: Mapping[str, tuple[Any, str]]) -> str | None:
    disabled, _path = document.get("disabled_plugins", ([], ""))
    names = [each for each in disabled if isinstance(each, str)] if isinstance(disabled, list) else []
    return next((each for each in names if each in _CRI_PLUGINS), None)


def _add(
    directories: list[Directory],
    document: Mapping[str, tuple[Any, str]],
    keys: Sequence[str],
    plugins: Sequence[str],
) -> None:
    """Add what the first of these keys says that is set."""
    for plugin in plugins or ("",):
        for key in keys:
            value, path = document.get(f"{plugin}/cni/{key}", (None, ""))
            paths = [value] if isinstance(value, str) else value
            if isinstance(paths, list) and all(isinstance(each, str) for each in paths) and any(paths):
                told = re.sub(r"[\[\]']", "", str(paths))
                directories.append(Directory(_normal(paths), f"{path} {key} = {told}"))
                break


def _normal(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(posixpath.normpath(path) for path in paths if path)
