"""
From the nodes of a running cluster, as `kubectl get nodes -o json` writes them, to hosts.

Source: the Kubernetes API, v1 `Node`: `status.addresses` of the type InternalIP, `spec.podCIDRs`; "Well-Known
Labels, Annotations and Taints" of the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from netprobe.importers import programs
from netprobe.importers.found import Found, Imported, in_order, is_address, listed, refuse, without_sudo
from netprobe.inventory.errors import InventoryError, shown, suggestion
from netprobe.model import Connection, Host, Role

ConnectTo = Literal["address", "name"]

_ROLE_LABEL: Final = "node-role.kubernetes.io/"
_CONTROL: Final = ("control-plane", "master", "controlplane")  # as of 1.20, before, and RKE's own
_OLD_ROLE_LABEL: Final = "kubernetes.io/role"
_OS_LABEL: Final = "kubernetes.io/os"
_FIX: Final = "--context and --kubeconfig choose the cluster"
_TIMEOUT: Final = "--request-timeout=30s"


class _Metadata(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct):
    # Go's `omitempty` leaves them out; some servers write null.
    podCIDR: str | None = None  # noqa: N815 (the API's name)
    podCIDRs: list[str] | None = None  # noqa: N815


class _Address(msgspec.Struct):
    type: str
    address: str


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None
    conditions: list[_Condition] | None = None


class _Node(msgspec.Struct):
    metadata: _Metadata
    kind: str = "Node"  # left out in a NodeList
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _NodeList(msgspec.Struct):
    items: list[_Node]


class _Kind(msgspec.Struct):
    kind: str = ""
    items: list[_Kind] = []


def argv(context: str, kubeconfig: str) -> list[str]:
    """The command that lists the nodes."""
    chosen = {"--kubeconfig": kubeconfig, "--context": context}
    given = [f"{option}={value}" for option, value in chosen.items() if value]
    return ["kubectl", *given, "get", "nodes", "-o", "json", _TIMEOUT]


def ask(context: str, kubeconfig: str) -> str:
    """The node list of the cluster that kubectl is set up for, in JSON."""
    return programs.run(argv(context, kubeconfig), package="kubectl", fix=_FIX)[0]


def read(
    text: str,
    source: str,
    *,
    connect_to: ConnectTo = "address",
    user: str = "",
    sudo: bool = False,
    stacked_etcd: bool = False,
    roles: Mapping[str, tuple[Role, ...]] = MappingProxyType({}),
) -> Imported:
    """
    The hosts of a node list, which errors call `source`.

    They are reached by ssh at their first InternalIP or at their name; with `stacked_etcd` etcd runs on the
    control plane, and `roles` are those of nodes, instead of what their labels say. `InventoryError` says
    what is no node list, and has a line for each node that cannot be probed.
    """
    nodes = _nodes(text, source)
    names = [node.metadata.name for node in nodes]
    for name in roles:
        if name not in names:
            raise InventoryError(f"{source}: no node {shown(name)}; {suggestion(name, names)}")
    left_out = [name for name, own in roles.items() if not own]
    windows = [node.metadata.name for node in nodes if node.metadata.labels.get(_OS_LABEL) == "windows"]
    problems: list[str] = []
    found = []
    for node in nodes:
        name = node.metadata.name
        if name in windows or name in left_out:
            continue
        addresses = tuple(each.address for each in node.status.addresses or () if each.type == "InternalIP")
        wrong = [address for address in addresses if not is_address(address)]
        if not addresses:
            problems.append(f"{name}: it has no InternalIP")
        problems += [f"{name}: its InternalIP {shown(address)} is none to probe" for address in wrong]
        host = Host(
            name=name,
            addresses=addresses,
            roles=roles.get(name) or _roles(node.metadata.labels, stacked_etcd=stacked_etcd),
            connection=Connection(
                type="ssh", host=addresses[0] if connect_to == "address" and addresses else "", user=user
            ),
            sudo=sudo,
        )
        found.append(Found(host, tuple(_on_state(node))))
    refuse(source, problems)
    remarks = [f"Left out, as said by --role: {listed(left_out)}."] if left_out else []
    if windows:
        remarks.append(f"Left out, because the agent runs on Linux: {listed(windows)} (Windows).")
    remarks += _on_all([each.host for each in found], nodes)
    return Imported(hosts=tuple(found), remarks=tuple(remarks))


def _nodes(text: str, source: str) -> list[_Node]:
    """The nodes of a list; kubectl writes a `List`, the API itself a `NodeList`."""
    try:
        what = msgspec.json.decode(text, type=_Kind)
        kinds = {item.kind or "Node" for item in what.items} or {"Node"}
        if what.kind not in ("List", "NodeList") or kinds != {"Node"}:
            got = (
                f"a {what.kind} of {listed(sorted(kinds))}"
                if what.kind == "List"
                else f"the kind {shown(what.kind)}"
                if what.kind
                else "no kind"
            )
            raise InventoryError(
                f"{source}: expected a list of nodes (`kubectl get nodes -o json`), got {got}"
            )
        nodes = msgspec.json.decode(text, type=_NodeList).items
    except (msgspec.DecodeError, RecursionError) as error:
        expected = "expected a list of nodes (`kubectl get nodes -o json`)"
        raise InventoryError(f"{source}: {expected}: {error}") from None
    if not nodes:
        raise InventoryError(f"{source}: it has no nodes")
    return nodes


def _roles(labels: Mapping[str, str], *, stacked_etcd: bool) -> tuple[Role, ...]:
    """The roles that a node's labels say it has: every one is a node."""
    said = {label.removeprefix(_ROLE_LABEL) for label in labels if label.startswith(_ROLE_LABEL)}
    said.add(labels.get(_OLD_ROLE_LABEL, ""))
    roles = {Role.NODE}
    if said & set(_CONTROL):
        roles |= {Role.APISERVER, Role.ETCD} if stacked_etcd else {Role.APISERVER}
    if "etcd" in said:
        roles.add(Role.ETCD)
    return in_order(roles)


def _on_state(node: _Node) -> Iterator[str]:
    ready = next((each.status for each in node.status.conditions or () if each.type == "Ready"), "True")
    if ready != "True":
        yield f"Kubernetes says that it is not ready (Ready: {ready})."


def _on_all(hosts: Sequence[Host], nodes: Sequence[_Node]) -> Iterator[str]:
    has = {role for host in hosts for role in host.roles}
    yield "The roles are those of the labels node-role.kubernetes.io/…; --role NODE=ROLE replaces them."
    if Role.APISERVER not in has:
        yield "None of these nodes is of the control plane: the API server is not probed."
    elif Role.ETCD not in has:
        yield "No label says where etcd is; kubeadm has it on the control plane: --stacked-etcd."
    if Role.TYPHA not in has:
        yield "Where Typha runs is not in a list of nodes: --role NODE=node,typha says so."
    if not any(host.connection.user for host in hosts):
        yield "Who logs in is not in a list of nodes: ssh decides, as set up, or --user."
    yield from without_sudo(hosts)
    ranges = [one for node in nodes for one in node.spec.podCIDRs or filter(None, [node.spec.podCIDR])]
    if ranges:
        yield (
            f"The nodes' own ranges for pods are {listed(ranges)}. Where pods go without encapsulation, "
            "pod_cidr is the range of the whole cluster."
        )
