"""What is given besides the inventory: files that cannot be read are told in one line, secrets in none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given as with_any
from hypothesis import strategies as st

from netprobe.cli.errors import Refused
from netprobe.cli.given import given
from netprobe.findings import Check
from netprobe.model import Inventory, Role
from netprobe.requirements.given import Given
from netprobe.requirements.texts import yaml_texts
from tests.agent.driver import VERSIONS, interpreters
from tests.requirements.asking import checked, host, of
from tests.requirements.servers import Authority, serving

CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY: Final = "-----BEGIN EC PRIVATE KEY-----\nsecret\n-----END EC PRIVATE KEY-----\n"


def taken(**options: Any) -> Given:  # noqa: ANN401 - each option has a type of its own
    """What the options are taken for."""
    nothing = dict.fromkeys(("kubeconfig", "etcd_ca", "etcd_cert", "etcd_key"))
    return given(**{**nothing, "kubernetes": "", "istio": "", **options})


def kubeconfig(path: Path, *, cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> Path:  # noqa: ANN401
    """A kubeconfig; JSON is YAML."""
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        **more,
    }
    path.write_text(json.dumps(document))
    return path


def test_a_kubeconfig_with_files_and_with_data(tmp_path: Path) -> None:
    """Paths are beside the file; data is base64."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    data = {
        f"client-{name}-data": base64.b64encode(text.encode()).decode()
        for name, text in (("certificate", CERTIFICATE), ("key", KEY))
    }
    server = {"server": "https://10.0.0.11:6443", "certificate-authority": "ca.pem"}
    cluster = taken(kubeconfig=kubeconfig(tmp_path / "config", cluster=server, user=data)).cluster

    assert cluster is not None
    assert ("10.0.0.11", 6443, "10.0.0.11") == (cluster.host, cluster.port, cluster.name)
    assert (CERTIFICATE, CERTIFICATE) == (cluster.credentials.ca, cluster.credentials.certificate)
    assert cluster.credentials.verify
    assert KEY.encode() == cluster.credentials.key.encode()
    assert "secret" not in repr(cluster)


SERVER: Final = {"server": "https://10.0.0.11:6443"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"current-context": ""}, "has no current-context"),
        ({"contexts": []}, "contexts has no 'c'"),
        ({"clusters": [{"name": "k"}]}, "clusters has no 'k'"),
        ({"clusters": [{"name": "k", "cluster": {"server": "http://a"}}]}, "server: expected a URL"),
        ({"clusters": [{"name": "k", "cluster": {"server": "https://a:99999"}}]}, "server: expected a URL"),
        ({"users": [{"name": "u", "user": {"token": "a\nb"}}]}, "token: expected visible ASCII"),
        ({"users": [{"name": "u", "user": {"client-key-data": "%"}}]}, "client-key-data: expected base64"),
        ({"users": [{"name": "u", "user": {"client-key": "/nowhere"}}]}, "No such file"),
    ],
)
def test_a_wrong_kubeconfig_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Which file it is, and what is wrong with it."""
    path = kubeconfig(tmp_path / "config", cluster=SERVER, user={}, **changes)
    with pytest.raises(Refused) as caught:
        taken(kubeconfig=path)

    (line,) = caught.value.lines
    assert line.startswith(f"--kubeconfig {path}")
    assert words in line


def test_certificates_of_etcd(tmp_path: Path) -> None:
    """Both or none, in PEM, and a key without a password."""
    certificate, key, locked = (tmp_path / name for name in ("cert", "key", "locked"))
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")

    assert taken().etcd is None
    etcd = taken(etcd_cert=certificate, etcd_key=key).etcd
    assert etcd is not None
    assert KEY.encode() == etcd.key.encode()
    for options, words in (
        ({"etcd_cert": certificate}, "belong together"),
        ({"etcd_ca": key}, "expected a certificate in PEM"),
        ({"etcd_cert": certificate, "etcd_key": locked}, "has a password"),
        ({"etcd_ca": tmp_path / "nowhere"}, "No such file"),
    ):
        with pytest.raises(Refused, match=words):
            taken(**options)


@with_any(
    st.text() | st.sampled_from(["!!bool x", "!!timestamp x", '"\\UFFFFFFFF"', "[" * 3000, "? [a]\n: b"])
)
def test_yaml_may_be_anything(text: str) -> None:
    """Texts, or nothing, and no traceback."""
    found = yaml_texts(text)

    assert found is None or isinstance(found, str | list | dict)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_asks_by_tls(tmp_path: Path, version: str) -> None:
    """With a client's certificate, a verified server's, and a name to verify."""
    interpreter = interpreters().get(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} in the PATH or with pyenv")
    authority = Authority(tmp_path / "ca")
    server, client = authority.signed("server"), authority.signed("client")
    data = {"client-certificate": str(client.certificate), "client-key": str(client.key)}
    with serving({"/version": (200, {"gitVersion": "v1.29.1"})}, server, authority.certificate) as served:
        cluster = {
            "server": f"https://127.0.0.1:{served.port}",
            "certificate-authority": str(authority.certificate),
            "tls-server-name": "server",
        }
        known = taken(kubeconfig=kubeconfig(tmp_path / "config", cluster=cluster, user=data))
        check = _check(interpreter, served.port, known)

    assert "v1.29.1" in of(check, "here", "datastore").seen, of(check, "here", "datastore").seen
    assert "pass" == of(check, "here", "datastore").result.value


def _check(interpreter: str, port: int, known: Given) -> Check:
    here = msgspec.structs.replace(
        host("here", addresses=("127.0.0.1",), python=interpreter), roles=(Role.NODE, Role.APISERVER)
    )
    return checked(inventory=Inventory(hosts=(here,), ports={"apiserver": (port,)}), given=known)
