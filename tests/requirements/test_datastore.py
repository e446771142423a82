"""The datastore, Kubernetes and Istio: real servers with real TLS, asked by an agent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from netprobe.access import Secret
from netprobe.findings import Check, Finding, Result
from netprobe.model import Inventory, Role
from netprobe.reports.base import Options
from netprobe.reports.checks import registry as reports
from netprobe.requirements import _api
from netprobe.requirements.given import Cluster, Credentials, Given
from netprobe.requirements.kubernetes import istio_problem, version
from tests.requirements.asking import checked, host, of
from tests.requirements.servers import Authority, Pair, etcd, free_port, serving

LOOPBACK: Final = "127.0.0.1"
KUBERNETES: Final = {"/version": (200, {"major": "1", "minor": "29", "gitVersion": "v1.29.3"})}
TOKEN: Final = "secret-token-of-the-test"  # noqa: S105 - of this test


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    """A server's certificate."""
    return authority.signed("server")


def ask(role: Role, *ports: int, given: Given | None = None) -> Check:
    """The check of this machine as a node that has a server as well, at some ports of its own."""
    here = msgspec.structs.replace(host("here", addresses=(LOOPBACK,)), roles=(Role.NODE, role))
    inventory = Inventory(hosts=(here,), ports={role.value: ports})
    return checked(inventory=inventory, given=given)


def datastore(role: Role, *ports: int, given: Given | None = None) -> Finding:
    """What came of it."""
    return of(ask(role, *ports, given=given), "here", "datastore")


def credentials(authority: Authority, pair: Pair | None = None, token: str = "") -> Credentials:
    """How to talk to a server whose certificate the authority has signed."""
    return Credentials(
        ca=authority.certificate.read_text(),
        verify=True,
        certificate=pair.certificate.read_text() if pair else "",
        key=Secret(pair.key.read_text() if pair else ""),
        token=Secret(token),
    )


def cluster(credentials: Credentials, name: str = LOOPBACK) -> Given:
    """A kubeconfig's cluster."""
    return Given(cluster=Cluster(host=LOOPBACK, port=1, name=name, credentials=credentials))


def test_a_real_etcd_without_tls_passes(tmp_path: Path) -> None:
    """Its version is what it says itself, and both ways are tried."""
    with etcd(tmp_path / "data") as port:
        finding = datastore(Role.ETCD, port)

    assert Result.PASS is finding.result
    assert finding.seen.startswith("etcd: etcd 3.")


def test_a_real_etcd_with_client_certificates(tmp_path: Path, authority: Authority, server: Pair) -> None:
    """With the certificates it passes; without them nobody knows what it is; others' are refused."""
    stranger = Authority(tmp_path / "stranger")
    with etcd(tmp_path / "data", server, authority.certificate) as port:
        given = Given(etcd=credentials(authority, authority.signed("client")))
        right = ask(Role.ETCD, port, given=given)
        bare = datastore(Role.ETCD, port)
        wrong = datastore(Role.ETCD, port, given=Given(etcd=credentials(stranger)))
        others = credentials(authority, stranger.signed("other"))
        refused = datastore(Role.ETCD, port, given=Given(etcd=others))

    assert Result.PASS is of(right, "here", "datastore").result
    assert "its certificate is good until" in of(right, "here", "datastore").seen
    assert Result.UNKNOWN is bare.result
    assert "wants a client certificate" in bare.seen
    assert "--etcd-cert" in bare.fix
    assert Result.FAIL is wrong.result
    assert "issuer certificate" in wrong.seen
    # The refusal itself may be lost with the connection.
    assert Result.UNKNOWN is refused.result
    assert "client certificate" in refused.seen


@pytest.mark.parametrize(
    ("page", "result", "seen"),
    [
        ((200, {"etcdserver": "2.3.8", "etcdcluster": "2.3.0"}), Result.FAIL, "v2 API only"),
        ((200, {"etcdserver": "3.5.9", "etcdcluster": "2.3.0"}), Result.FAIL, "v2 API only"),
        ((200, {"etcdserver": "3.5.9", "etcdcluster": "not_decided"}), Result.FAIL, "not come up"),
        ((200, {"etcdserver": 3}), Result.FAIL, "does not answer as etcd does"),
        ((200, "no json"), Result.FAIL, "does not answer as etcd does"),
        ((500, {}), Result.FAIL, "HTTP 500"),
        ((401, {}), Result.UNKNOWN, "does not let it in"),
        ((200, {"etcdserver": "3.5.9", "etcdcluster": "3.5.0"}), Result.PASS, "etcd 3.5.9"),
    ],
)
def test_what_an_etcd_may_say(page: tuple[int, Any], result: Result, seen: str) -> None:
    """Version 3 of server and cluster, or it is not what Calico needs."""
    with serving({"/version": page}) as served:
        finding = datastore(Role.ETCD, served.port)

    assert result is finding.result
    assert seen in finding.seen


def test_where_nothing_listens_there_is_no_datastore() -> None:
    """A refusal is one, and the fix says what to do."""
    finding = datastore(Role.APISERVER, free_port())

    assert Result.FAIL is finding.result
    assert "ECONNREFUSED" in finding.seen
    assert "Start" in finding.fix


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections, and says nothing on them."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield int(listener.getsockname()[1])


def test_who_says_nothing_is_not_waited_for(mute: int) -> None:
    """The check goes on, and says that there was a connection."""
    finding = datastore(Role.APISERVER, mute)

    assert Result.FAIL is finding.result
    assert "says nothing" in finding.seen


def test_an_api_server_passes_anonymously(server: Pair) -> None:
    """Its certificate is nobody's concern then; one of two ports is enough."""
    with serving(KUBERNETES, server) as served:
        check = ask(Role.APISERVER, free_port(), served.port)

    assert Result.PASS is of(check, "here", "datastore").result
    assert "v1.29.3" in of(check, "here", "datastore").seen
    assert Result.PASS is of(check, "here", "kubernetes-version").result


def test_an_api_server_that_wants_users_is_one(server: Pair) -> None:
    """That it answers is known, its version is not."""
    with serving({"/version": (401, {"kind": "Status", "code": 401})}, server) as served:
        check = ask(Role.APISERVER, served.port)

    assert Result.PASS is of(check, "here", "datastore").result
    assert Result.UNKNOWN is of(check, "here", "kubernetes-version").result


def test_a_token_goes_to_nobody_but_the_server(tmp_path: Path, authority: Authority, server: Pair) -> None:
    """Not to one whose certificate another has signed, or that has another name; and to no report."""
    stranger = Authority(tmp_path / "stranger")
    given = cluster(credentials(authority, token=TOKEN))
    with serving(KUBERNETES, server) as right, serving(KUBERNETES, stranger.signed("server")) as wrong:
        good = ask(Role.APISERVER, right.port, given=given)
        bad = ask(Role.APISERVER, wrong.port, given=given)
        named = ask(Role.APISERVER, right.port, given=cluster(given.cluster.credentials, "other.example"))  # type: ignore[union-attr]

    assert Result.PASS is of(good, "here", "datastore").result
    assert ("/version", f"Bearer {TOKEN}") in right.asked
    assert [] == wrong.asked
    assert Result.FAIL is of(bad, "here", "datastore").result
    assert Result.FAIL is of(named, "here", "datastore").result
    for check in (good, bad, named):
        for report in reports().values():
            assert TOKEN not in report.render(check, Options(verbose=True))
    assert TOKEN not in repr(_api.api_question(good.inventory, given))
    assert TOKEN not in repr(given)


def test_a_key_is_in_no_text(authority: Authority) -> None:
    """Neither of what was given nor of the question that carries it."""
    pair = authority.signed("client")
    given = Given(etcd=credentials(authority, pair))
    inventory = Inventory(
        hosts=(msgspec.structs.replace(host("a", addresses=("192.0.2.1",)), roles=(Role.ETCD,)),)
    )
    (question,) = _api.etcd_questions(inventory, given)

    assert pair.key.read_text() == question.key
    assert "PRIVATE" not in repr((given, question))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("v1.20.15", Result.FAIL),
        ("v1.9.3", Result.FAIL),
        ("v1.21.0", Result.WARN),
        ("v1.26.9-gke.100", Result.WARN),
        ("v1.27.0", Result.PASS),
        ("v1.30.4+k3s1", Result.PASS),
        ("v1.31.0", Result.WARN),
        ("v2.0.0", Result.WARN),
    ],
)
def test_versions_of_kubernetes(text: str, result: Result, server: Pair) -> None:
    """As the page has them; what an API server says."""
    with serving({"/version": (200, {"gitVersion": text})}, server) as served:
        finding = of(ask(Role.APISERVER, served.port), "here", "kubernetes-version")

    assert result is finding.result
    assert text in finding.seen


def test_the_version_of_a_static_pod(tmp_path: Path) -> None:
    """What kubeadm has written for the kubelet."""
    manifest = tmp_path / "etc/kubernetes/manifests/kube-apiserver.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("spec:\n  containers:\n  - image: registry.k8s.io/kube-apiserver:v1.20.4\n")
    finding = of(checked(host("here"), root=tmp_path), "here", "kubernetes-version")

    assert Result.FAIL is finding.result
    assert "kube-apiserver.yaml" in finding.seen


NODES: Final = {
    "kind": "Table",
    "columnDefinitions": [{"name": "Name"}, {"name": "Version"}],
    "rows": [{"cells": ["a", "v1.29.3"]}, {"cells": ["b", "v1.19.1"]}],
}
ISTIOD: Final = {
    "kind": "Table",
    "columnDefinitions": [{"name": "Name"}, {"name": "Images"}],
    "rows": [{"cells": ["istiod", "docker.io/istio/pilot:1.9.2"]}],
}
KUBE_PROXY: Final = {
    "data": {
        "config.conf": "kind: KubeProxyConfiguration\nmode: nftables\n",
        "kubeconfig.conf": "kind: Config",
    }
}


def test_what_a_kubeconfig_lets_be_seen(authority: Authority, server: Pair) -> None:
    """An old kubelet, an Istio that is not for this Kubernetes, and a kube-proxy of nftables."""
    pages = {
        **KUBERNETES,
        _api.NODES: (200, NODES),
        _api.ISTIOD: (200, ISTIOD),
        _api.KUBE_PROXY: (200, KUBE_PROXY),
    }
    with serving(pages, server) as served:
        check = ask(Role.APISERVER, served.port, given=cluster(credentials(authority, token=TOKEN)))
    found = {name: of(check, "here", name) for name in ("kubernetes-version", "istio", "kube-proxy-mode")}

    assert [Result.FAIL] * 3 == [each.result for each in found.values()]
    assert "v1.19.1 (kubelet)" in found["kubernetes-version"].seen
    assert "Istio 1.9 is for Kubernetes 1.17 to 1.20" in found["istio"].seen
    assert "nftables (the ConfigMap kube-proxy)" in found["kube-proxy-mode"].seen


@pytest.mark.parametrize(
    ("istio", "kubernetes", "fits"),
    [
        ("1.1.9", "1.16", False),
        ("1.2", "1.16", True),
        ("1.1", "1.15", True),
        ("1.9.0", "1.16", False),
        ("1.9", "1.17", True),
        ("1.9", "1.20", True),
        ("1.9", "1.21", False),
        ("1.10.3", "1.17", False),
        ("1.10", "1.18", True),
        ("1.10", "1.22", True),
        ("1.10", "1.23", False),
        ("1.20", "1.29", True),
    ],
)
def test_the_pages_sentences_of_istio(istio: str, kubernetes: str, *, fits: bool) -> None:
    """Each of them at its ends."""
    ours, theirs = version(istio), version(kubernetes)
    assert ours is not None
    assert theirs is not None
    assert fits is not bool(istio_problem(ours, theirs))


def test_given_versions_count() -> None:
    """Without a cluster to ask."""
    both = checked(host("here"), given=Given(istio="1.10", kubernetes="1.21"))
    alone = checked(host("here"), given=Given(istio="1.10"))
    none = checked(host("here"))

    assert Result.PASS is of(both, "here", "istio").result
    assert Result.UNKNOWN is of(alone, "here", "istio").result
    assert Result.NOT_APPLICABLE is of(none, "here", "istio").result
    assert Result.NOT_APPLICABLE is of(none, "here", "datastore").result
