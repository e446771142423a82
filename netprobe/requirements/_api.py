"""Questions to the API servers and to etcd, from the nodes themselves, and how to read the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from netprobe import mesh
from netprobe.model import Host, Inventory, Role
from netprobe.probes import registry as probes
from netprobe.questions import Failed, Fetch, Page, Target, Visit
from netprobe.requirements.base import Context, Evidence
from netprobe.requirements.given import Credentials, Given

_VERSION: Final = "/version"

NODES: Final = "/api/v1/nodes?limit=500&includeObject=None"
KUBE_PROXY: Final = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
ISTIOD: Final = "/apis/apps/v1/deployments?labelSelector=app%3Distiod&includeObject=None"
_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
"""A list as kubectl shows it: a row of a few words for each object, instead of the objects."""


def servers(role: Role, probe: str, inventory: Inventory) -> Iterator[tuple[str, int]]:
    """Addresses and ports of a role's hosts: of each host the first of its addresses, with every port."""
    for host in inventory.hosts:
        if role in host.roles and host.addresses:
            for port in mesh.ports(probes()[probe], inventory):
                yield host.addresses[0], port or 0


def _credentials(given: Given) -> Credentials:
    return given.cluster.credentials if given.cluster else Credentials()


def _fetch(targets: list[Target], credentials: Credentials | None, accept: str = "application/json") -> Fetch:
    if credentials is None:
        return Fetch(targets=tuple(targets), tls=False)
    return Fetch(
        targets=tuple(targets),
        verify=credentials.verify,
        ca=credentials.ca,
        certificate=credentials.certificate,
        key=credentials.key.encode().decode(errors="surrogateescape"),
        token=credentials.token.encode().decode(errors="surrogateescape"),
        accept=accept,
    )


def api_question(inventory: Inventory, given: Given) -> Fetch | None:
    """Every API server of the inventory, or else the kubeconfig's, for its version; None without any."""
    name = given.cluster.name if given.cluster else ""
    found = [
        Target(address, port, name, (_VERSION,))
        for address, port in servers(Role.APISERVER, "apiserver", inventory)
    ]
    if not found and given.cluster and _is_elsewhere(given.cluster.host):
        found = [Target(given.cluster.host, given.cluster.port, name, (_VERSION,))]
    return _fetch(found, _credentials(given)) if found else None


def _is_elsewhere(host: str) -> bool:
    """Whether a server's host means the same machine to everybody."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def etcd_questions(inventory: Inventory, given: Given) -> tuple[Fetch, ...]:
    """Every etcd host for its version: by TLS and, unless there are credentials, without."""
    found = [
        Target(address, port, "", (_VERSION,)) for address, port in servers(Role.ETCD, "etcd", inventory)
    ]
    if not found:
        return ()
    if given.etcd is not None:
        return (_fetch(found, given.etcd),)
    return _fetch(found, Credentials()), _fetch(found, None)


def spokesman(inventory: Inventory) -> Host:
    """The host that asks for what is the same wherever it is asked: an API server's own, or the first."""
    return next((host for host in inventory.hosts if Role.APISERVER in host.roles), inventory.hosts[0])


def cluster_question(inventory: Inventory, given: Given) -> Fetch | None:
    """Nodes, kube-proxy's configuration and istiod, for who may see them; None without a login."""
    question = api_question(inventory, given)
    if question is None or not _credentials(given).can_log_in:
        return None
    first = question.targets[0]
    targets = [
        Target(each.host, each.port, each.name, (path,))
        for each in question.targets
        if each.host == first.host
        for path in (NODES, KUBE_PROXY, ISTIOD)
    ]
    return _fetch(targets, _credentials(given), _TABLE)


def visits(context: Context, question: Fetch) -> list[tuple[Target, Visit]] | Failed:
    """What came of each target of a question at this host."""
    return _visits(context.own, question)


def _visits(evidence: Evidence, question: Fetch) -> list[tuple[Target, Visit]] | Failed:
    found = evidence.of(question)
    if isinstance(found, Failed):
        return found
    if len(found) != len(question.targets):
        return Failed(f"EPROTO: {len(found)} answers of {len(question.targets)} servers")
    return list(zip(question.targets, found, strict=True))


def cluster_page(context: Context, path: str) -> object | None:
    """What the API answers to one of the paths above, decoded; None where it does not, or nobody may ask."""
    question = cluster_question(context.inventory, context.given)
    if question is None:
        return None
    found = _visits(context.fleet[spokesman(context.inventory).name], question)
    for target, visit in [] if isinstance(found, Failed) else found:
        if path in target.paths and visit.pages and visit.pages[0].status == 200:
            return decoded(visit.pages[0])
    return None


def cells(table: object | None, column: str) -> list[str]:
    """The texts of one column of such a table (meta.k8s.io/v1 Table); what is none is left out."""
    if not isinstance(table, dict):
        return []
    columns, rows = table.get("columnDefinitions"), table.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return []
    names = [each.get("name") if isinstance(each, dict) else None for each in columns]
    if column not in names:
        return []
    place = names.index(column)
    lists = (row.get("cells") for row in rows if isinstance(row, dict))
    return [
        row[place]
        for row in lists
        if isinstance(row, list) and place < len(row) and isinstance(row[place], str)
    ]


def decoded(page: Page) -> object | None:
    """The JSON of a page; None where it is none."""
    try:
        found: object = json.loads(page.body)
    except (ValueError, RecursionError):
        return None
    return found


def about_api(inventory: Inventory, host: Host, given: Given) -> tuple[Fetch, ...]:
    """What a host is asked of the API servers, and of the cluster if it is the one that asks."""
    api, cluster = api_question(inventory, given), cluster_question(inventory, given)
    asks = (api, cluster if host is spokesman(inventory) else None)
    return tuple(question for question in asks if question is not None)
