"""Options of `netprobe check` for what the inventory does not say: versions, certificates, a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from netprobe.cli.errors import Refused

if TYPE_CHECKING:
    from netprobe.requirements.given import Cluster, Credentials, Given

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Entry = Mapping[str, Any]

_MAX_BYTES: Final = 1 << 15
"""Of a certificate with its chain, or a key: what an agent takes."""
_FILE: Final = click.Path(path_type=Path)
_VERSION: Final = re.compile(r"v?\d{1,3}\.\d{1,4}(?!\d)")


def _check_version(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    if value and not _VERSION.match(value):
        raise click.BadParameter(f"{value!r} is no version; write it as 1.29 or v1.29.3.")
    return value or ""


_OPTIONS: Final = (
    click.option(
        "--kubeconfig",
        metavar="FILE",
        type=_FILE,
        help="Ask the API as this file's current context may, for versions and kube-proxy's mode.",
    ),
    click.option("--etcd-ca", type=_FILE, metavar="PEM", help="Who signs the certificates of etcd."),
    click.option("--etcd-cert", type=_FILE, metavar="PEM", help="The client certificate for etcd."),
    click.option("--etcd-key", type=_FILE, metavar="PEM", help="Its key; it stays in the agents' memory."),
    click.option(
        "--kubernetes", metavar="VERSION", callback=_check_version, help="The version of Kubernetes."
    ),
    click.option("--istio", metavar="VERSION", callback=_check_version, help="The version of Istio."),
)


def given_options(command: _Command) -> _Command:
    """Add the options to a command; `given` makes of them what the requirements take."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(
    *,
    kubeconfig: Path | None,
    etcd_ca: Path | None,
    etcd_cert: Path | None,
    etcd_key: Path | None,
    kubernetes: str,
    istio: str,
) -> Given:
    """What was given; `Refused` where a file cannot be read, or is not what it should be."""
    from netprobe.requirements.given import Given

    return Given(
        kubernetes=kubernetes,
        istio=istio,
        etcd=_etcd(etcd_ca, etcd_cert, etcd_key),
        cluster=None if kubeconfig is None else _cluster(kubeconfig),
    )


def _etcd(authority: Path | None, certificate: Path | None, key: Path | None) -> Credentials | None:
    from netprobe.access import Secret
    from netprobe.requirements.given import Credentials

    if (certificate is None) is not (key is None):
        raise Refused("--etcd-cert and --etcd-key belong together: give both")
    if authority is None and certificate is None:
        return None
    return Credentials(
        ca=_pem(authority, "--etcd-ca", "CERTIFICATE"),
        certificate=_pem(certificate, "--etcd-cert", "CERTIFICATE"),
        key=Secret(_pem(key, "--etcd-key", "PRIVATE KEY")),
        verify=authority is not None,
    )


def _pem(path: Path | None, what: str, kind: str) -> str:
    """The text of a PEM file, "" for none."""
    return "" if path is None else _checked(_text(path, what), f"{what} {path}", kind)


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES * 8 + 1)
    except OSError as error:
        raise Refused(f"{what} {path}: {error.strerror}") from None
    if len(data) > _MAX_BYTES * 8:
        raise Refused(f"{what} {path}: longer than {_MAX_BYTES * 8:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(f"{what} {path}: expected text, in UTF-8") from None


def _checked(text: str, what: str, kind: str) -> str:
    if not re.search(rf"-----BEGIN [A-Z ]*{kind}-----", text):
        raise Refused(f"{what}: expected a {kind.lower()} in PEM (-----BEGIN …{kind}-----)")
    if "ENCRYPTED" in text:
        raise Refused(f"{what}: the key has a password; give one without")
    if len(text.encode()) > _MAX_BYTES:
        raise Refused(f"{what}: longer than {_MAX_BYTES:,} bytes")
    return text


# https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/


def _cluster(path: Path) -> Cluster:
    from netprobe.requirements.given import Cluster
    from netprobe.requirements.texts import yaml_texts

    document = yaml_texts(_text(path, "--kubeconfig"))
    config = _Config(path, document if isinstance(document, dict) else {})
    name = config.document.get("current-context")
    if not isinstance(name, str) or not name:
        raise Refused(
            f"--kubeconfig {path}: has no current-context; choose one with kubectl config use-context"
        )
    context = config.entry("contexts", "context", name)
    cluster = config.entry("clusters", "cluster", config.word(context, "cluster"))
    user = config.entry("users", "user", config.word(context, "user")) if context.get("user") else {}
    url = urlsplit(config.word(cluster, "server"))
    try:
        port = url.port or 443
    except ValueError:
        port = 0
    if url.scheme != "https" or not url.hostname or not port:
        raise Refused(f"--kubeconfig {path}: server: expected a URL, as https://10.0.0.11:6443")
    return Cluster(
        host=url.hostname,
        port=port,
        name=config.word(cluster, "tls-server-name") or url.hostname,
        credentials=config.credentials(cluster, user),
    )


class _Config:
    """A kubeconfig, of which every part may be missing or something else."""

    def __init__(self, path: Path, document: _Entry) -> None:
        self.path = path
        self.document = document

    def entry(self, kind: str, key: str, name: str) -> _Entry:
        """The entry of a name in one of the three lists."""
        entries = self.document.get(kind)
        for each in entries if isinstance(entries, list) else []:
            if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(key), dict):
                found: _Entry = each[key]
                return found
        raise Refused(f"--kubeconfig {self.path}: {kind} has no {name!r}")

    @staticmethod
    def word(entry: _Entry, key: str) -> str:
        """A text of an entry, "" where it is not there."""
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    def credentials(self, cluster: _Entry, user: _Entry) -> Credentials:
        """How to talk to the cluster, without what a program would have to be run for."""
        from netprobe.access import Secret
        from netprobe.requirements.given import Credentials

        certificate = self._pem(user, "client-certificate", "CERTIFICATE")
        key = self._pem(user, "client-key", "PRIVATE KEY")
        token = self.word(user, "token")
        if not token and (file := self.word(user, "tokenFile")):
            token = _text(self._beside(file), f"--kubeconfig {self.path}: tokenFile").strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise Refused(f"--kubeconfig {self.path}: token: expected visible ASCII characters")
        return Credentials(
            ca=self._pem(cluster, "certificate-authority", "CERTIFICATE"),
            certificate=certificate if key else "",
            key=Secret(key if certificate else ""),
            token=Secret(token),
            verify=self.word(cluster, "insecure-skip-tls-verify") != "true",
        )

    def _pem(self, entry: _Entry, key: str, kind: str) -> str:
        what = f"--kubeconfig {self.path}: {key}"
        if data := self.word(entry, f"{key}-data"):
            try:
                text = base64.b64decode(data, validate=True).decode()
            except (binascii.Error, ValueError):
                raise Refused(f"{what}-data: expected base64") from None
            return _checked(text, f"{what}-data", kind)
        file = self.word(entry, key)
        return _checked(_text(self._beside(file), what), what, kind) if file else ""

    def _beside(self, file: str) -> Path:
        return self.path.parent / file
