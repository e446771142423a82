"""
The inventory as it is written: the keys, their types, and what each text must be (design §5).

These structs are the schema: `shape` walks a document beside them, and a key is added here and nowhere else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from netprobe.inventory.errors import shown
from netprobe.model import MIN_NETWORK, Role


class ConnectionKind(msgspec.Struct, frozen=True):
    """
    The options that a type of connection takes, the one that it cannot do without, and what that is.

    `apart` are pairs of options of which a host has one at most. `as_root`: whether the agent can be run by
    another command there, to be root.
    """

    options: tuple[str, ...] = ()
    needs: str = ""
    need: str = ""
    apart: tuple[tuple[str, str], ...] = ()
    as_root: bool = True


CONNECTIONS: Final[Mapping[str, ConnectionKind]] = MappingProxyType(
    {
        "ssh": ConnectionKind(("host", "user", "port", "identity", "options")),
        "netns": ConnectionKind(("name",), "name", "the name of a network namespace"),
        "command": ConnectionKind(("argv",), "argv", "the command to run the interpreter with"),
        "local": ConnectionKind(),
        "kubectl": ConnectionKind(
            ("pod", "node", "container", "namespace", "context", "kubeconfig", "image", "options"),
            apart=(("pod", "node"), ("pod", "image"), ("node", "container")),
            as_root=False,
        ),
    }
)
"""Every type of connection; a test holds it against the transports."""

DEFAULT_CONNECTION: Final = "ssh"

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_KUBERNETES_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
"""A DNS subdomain, RFC 1123, as the API server wants it of every name here."""
_MAX_CHARACTERS: Final = 4096


def _check_host_name(text: str) -> str:
    # It stands in tables, in CSV and in the names of files.
    if _HOST_NAME.fullmatch(text):
        return ""
    expected = 'expected a name of letters, digits, "_", "." and "-" that does not begin with "." or "-"'
    return f"{expected}, got {shown(text)}"


def _check_kubernetes_name(text: str) -> str:
    if _KUBERNETES_NAME.fullmatch(text):
        return ""
    return f'expected a name that Kubernetes takes (lower case letters, digits, "-", "."), got {shown(text)}'


def _check_ssh_word(text: str) -> str:
    # ssh takes what begins with a dash for an option, and some options run commands.
    if text.startswith("-"):
        return f'must not begin with "-", got {shown(text)}'
    return f"must not have blanks, got {shown(text)}" if re.search(r"\s", text) else ""


def _check_netns_name(text: str) -> str:
    if text.startswith("-") or text in (".", "..") or re.search(r"[\s/]", text):
        return f"expected the name of a network namespace (as in `ip netns list`), got {shown(text)}"
    return ""


def _check_address(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return _not_an_address(text)
    reason = _unusable(address)
    return f"{shown(text)} {reason}" if reason else ""


def _check_network(text: str) -> str:
    try:
        interface = ip_interface(text)
    except ValueError:
        return _not_a_network(text)
    network = interface.network
    if "/" not in text:
        return _not_a_network(text)
    if interface.ip != network.network_address:
        return f"{shown(text)} has bits set behind its prefix; write {network}"
    if network.num_addresses < MIN_NETWORK:
        return f"{shown(text)} has no address to send from; expected at least {MIN_NETWORK} addresses"
    reason = next(filter(None, map(_unusable, (network[1], network[-2]))), "")
    return f"{shown(text)} {reason}" if reason else ""


def _not_a_network(text: str) -> str:
    return f"expected a network, as 10.244.0.0/16 or fd00:10:244::/56, got {shown(text)}"


def _not_an_address(text: str) -> str:
    alone, slash, _ = text.partition("/")
    if slash and not _check_address(alone):
        return f"{shown(text)} has a prefix length; write the host's address alone: {shown(alone)}"
    return f"expected an IPv4 or IPv6 address, got {shown(text)}"


def _unusable(address: IPv4Address | IPv6Address) -> str:
    """Why no other host can send to an address; "" where one can."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return f"is an IPv4 address in IPv6 form; write {address.ipv4_mapped}"
        if address.scope_id and not address.is_link_local:
            return "has a zone, which only a link-local address can have"
    return next((reason for is_so, reason in _UNUSABLE if is_so(address)), "")


_UNUSABLE: Final[tuple[tuple[Callable[[IPv4Address | IPv6Address], bool], str], ...]] = (
    (lambda address: address.is_unspecified, "is the unspecified address, which no host has"),
    (lambda address: address.is_loopback, "is a loopback address, which no other host can reach"),
    (lambda address: address.is_multicast, "is a multicast address; a flow ends at one host"),
    (lambda address: address.is_link_local, "is a link-local address; write one that is routed"),
    # 0.0.0.0/8 and 240.0.0.0/4, which has the broadcast address; RFC 6890. In IPv6 it would be too much.
    (lambda address: address.version == 4 and address.packed[0] == 0, "is in 0.0.0.0/8, which no host has"),
    (lambda address: address.version == 4 and address.is_reserved, "is in 240.0.0.0/4, which no host has"),
)


_CHECKS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "address": _check_address,
        "host name": _check_host_name,
        "kubernetes name": _check_kubernetes_name,
        "netns name": _check_netns_name,
        "network": _check_network,
        "ssh word": _check_ssh_word,
    }
)


def check_text(text: str, kind: str) -> str:
    """What is wrong with a text of a kind (as in the annotations below), or ""."""
    if not text and kind != "argument":
        return "must not be empty"
    if len(text) > _MAX_CHARACTERS:
        return f"longer than {_MAX_CHARACTERS:,} characters"
    # No program takes them in an argument or a name, but for the two that are layout.
    bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"), None)
    if bad is not None:
        return f"must not have the character U+{ord(bad):04X}"
    return _CHECKS[kind](text) if kind in _CHECKS else ""


_HostName = Annotated[str, Meta(extra={"kind": "host name"})]
_SshWord = Annotated[str, Meta(extra={"kind": "ssh word"})]
_NetnsName = Annotated[str, Meta(extra={"kind": "netns name"})]
_KubernetesName = Annotated[str, Meta(extra={"kind": "kubernetes name"})]
_Text = Annotated[str, Meta(extra={"kind": "text"})]
_Network = Annotated[str, Meta(extra={"kind": "network"})]
_Address = Annotated[str, Meta(extra={"kind": "address"})]
_Argument = Annotated[str, Meta(extra={"kind": "argument"})]
_Command = Annotated[tuple[_Argument, ...], Meta(min_length=1)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_ProbeName = Annotated[str, Meta(extra={"kind": "probe"})]
_ModeName = Annotated[str, Meta(extra={"kind": "mode"})]
_ConnectionType = Annotated[str, Meta(extra={"kind": "connection type"})]

_SET: Final = {"unique": True}
_ONE_OR_MORE: Final = {"may_be_one": True}
_Networks = Annotated[tuple[_Network, ...], Meta(min_length=1, extra=_ONE_OR_MORE)]


class ConnectionEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`connection:` of a host or of the defaults."""

    type: _ConnectionType = DEFAULT_CONNECTION
    name: _NetnsName = ""
    host: _SshWord = ""
    user: _SshWord = ""
    port: _Port = 22
    identity: _Text = ""
    options: tuple[_Argument, ...] = ()
    argv: _Command = ()
    pod: _KubernetesName = ""
    node: _KubernetesName = ""
    container: _KubernetesName = ""
    namespace: _KubernetesName = ""
    context: _Text = ""
    kubeconfig: _Text = ""
    image: _SshWord = ""


class HostEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One entry of `hosts:`."""

    name: _HostName
    addresses: Annotated[tuple[_Address, ...], Meta(min_length=1)]
    roles: Annotated[tuple[Role, ...], Meta(min_length=1, extra=_SET)] = (Role.NODE,)
    connection: ConnectionEntry = msgspec.field(default_factory=ConnectionEntry)
    sudo: bool = False
    become: _Command = ()
    python: _Command = ()


class DefaultsEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`defaults:`, merged under each host's own."""

    connection: ConnectionEntry = msgspec.field(default_factory=ConnectionEntry)
    sudo: bool = False
    become: _Command = ()
    python: _Command = ()


class Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A whole inventory."""

    hosts: tuple[HostEntry, ...]
    defaults: DefaultsEntry = msgspec.field(default_factory=DefaultsEntry)
    probes: Annotated[tuple[_ProbeName, ...], Meta(min_length=1, extra=_SET)] = ()
    modes: Annotated[tuple[_ModeName, ...], Meta(min_length=1, extra=_SET)] = ()
    ports: dict[_ProbeName, Annotated[tuple[_Port, ...], Meta(min_length=1, extra=_SET)]] = {}
    pod_cidr: _Networks = ()
    service_cidr: _Networks = ()
