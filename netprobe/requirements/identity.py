"""Who the hosts are: names that Kubernetes and Calico take, and nothing that two of them have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final

from netprobe.questions import Failed, Files, System
from netprobe.requirements._hosts import NETWORK, probed, underlay
from netprobe.requirements.base import (
    Context,
    Evidence,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_SYSTEM: Final = System()
_MACHINE_ID: Final = Files(patterns=("/etc/machine-id", "/var/lib/dbus/machine-id"), most=64)
_UNINITIALISED: Final = "uninitialized"

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
"""RFC 1123, as Kubernetes has it for the names of nodes (apimachinery, IsDNS1123Subdomain)."""
_MAX_CHARACTERS: Final = 253
_MAX_LABEL_VALUE: Final = 63
_LOCALHOST: Final = ("localhost", "localhost.localdomain", "(none)")


def _hostname(context: Context) -> Judgement:
    found = context.need(_SYSTEM)
    name = found.hostname
    lower = name.lower()
    if lower in _LOCALHOST:
        return failed(f"{name!r}, which every host is called that has no name of its own")
    if not _SUBDOMAIN.fullmatch(lower) or len(name) > _MAX_CHARACTERS:
        return failed(f"{name!r} is no name of RFC 1123 (letters, digits, - and .)")
    if name != lower:
        return warned(f"{name!r}: the node is {lower!r} to kubelet and Calico, which have no upper case")
    if len(name) > _MAX_LABEL_VALUE:
        return warned(f"{name!r} has {len(name)} characters: the label kubernetes.io/hostname takes 63")
    return passed(name)


def _names(evidence: Evidence) -> list[str] | Failed:
    found = evidence.of(_SYSTEM)
    return found if isinstance(found, Failed) else [found.hostname.lower()]


def _machine_ids(evidence: Evidence) -> list[str] | Failed:
    found = evidence.of(_MACHINE_ID)
    if isinstance(found, Failed):
        return found
    texts = [file.text.strip() for file in found.files if not file.error]
    # It is nobody else's business as a whole: machine-id(5).
    return [f"{text[:8]}…" for text in texts if text and text != _UNINITIALISED][:1]


def _macs(evidence: Evidence) -> list[str] | Failed:
    """Those of the interfaces that carry the cluster: others, as bridges, may well be alike."""
    facts = evidence.of(NETWORK)
    if isinstance(facts, Failed):
        return facts
    return sorted({link.mac for link in underlay(evidence.host, facts).values() if link.mac.strip("0")})


def _shared(values: Callable[[Evidence], list[str] | Failed], nothing: str, context: Context) -> Judgement:
    """Whether another host has one of this host's values."""
    own = values(context.own)
    if isinstance(own, Failed):
        return unknown(own)
    if not own:
        return unknown(nothing)
    if len(context.fleet) == 1:
        return not_applicable(f"{', '.join(own)}; there is no other host to compare with")
    twins: dict[str, list[str]] = {}
    silent = 0
    for name, evidence in context.fleet.items():
        if name == context.own.host.name:
            continue
        theirs = values(evidence)
        if isinstance(theirs, Failed):
            silent += 1
            continue
        for value in set(own) & set(theirs):
            twins.setdefault(value, []).append(name)
    if twins:
        return failed("; ".join(f"{value} is also {_some(names)}'s" for value, names in twins.items()))
    of_all = f", of the {len(context.fleet) - silent} that tell" if silent else ""
    return passed(f"no two hosts have the same{of_all}")


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)


def _judge_names(context: Context) -> Judgement:
    return _shared(_names, "no hostname", context)


def _judge_machine_ids(context: Context) -> Judgement:
    return _shared(_machine_ids, "no /etc/machine-id, or an empty one", context)


def _judge_macs(context: Context) -> Judgement:
    if not context.own.host.addresses:
        return not_applicable("the inventory has no addresses for it")
    return _shared(_macs, "no interface with a MAC address has the inventory's addresses", context)


def _addresses(context: Context) -> Judgement:
    facts = context.need(NETWORK)
    wanted = probed(context.own.host)
    if not wanted:
        return not_applicable("the inventory has no addresses for it")
    twins = list(_holders(context, wanted))
    if twins:
        return failed("; ".join(twins))
    missing = [address for address in wanted if facts.holder(address) is None]
    if missing:
        return warned(
            f"{', '.join(missing)}: on none of its interfaces",
            "Write the address into the inventory that the host's own interface has, not that of a NAT.",
        )
    return passed(f"{', '.join(wanted)}: on this host, and on no other")


def _holders(context: Context, wanted: list[str]) -> Iterator[str]:
    packed = {ip_address(address) for address in wanted}
    for name, evidence in context.fleet.items():
        facts = evidence.of(NETWORK)
        if name == context.own.host.name or isinstance(facts, Failed):
            continue
        for held in facts.addresses:
            if ip_address(held.address) in packed:
                yield f"{held.address} is on {name} as well ({facts.link(held.index) or '-'})"


GROUP: Final = Group(
    name="Identity",
    rank=140,
    requirements=(
        Requirement(
            id="hostname",
            title="A name that a node can have",
            source="A node's name is a DNS subdomain name of RFC 1123, in lower case (Kubernetes, Nodes)",
            method="uname(2): the node name",
            fix="Give the host a name of lower-case letters, digits and hyphens: hostnamectl set-hostname.",
            asks=(_SYSTEM,),
            judge=_hostname,
        ),
        Requirement(
            id="hostname-unique",
            title="A name of its own",
            source="Unique hostname, MAC address, and product_uuid for every node (Kubernetes, kubeadm)",
            method="uname(2): the node name, in lower case, compared between all hosts",
            fix="Give each host a name of its own: hostnamectl set-hostname; two of one name are one node.",
            asks=(_SYSTEM,),
            judge=_judge_names,
        ),
        Requirement(
            id="machine-id-unique",
            title="A machine-id of its own",
            level=Level.RECOMMENDED,
            source="systemd makes the MAC addresses of vxlan.calico and cali* from it (systemd.link(5))",
            method="/etc/machine-id, compared between all hosts",
            fix="On the copies: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup.",
            asks=(_MACHINE_ID,),
            judge=_judge_machine_ids,
        ),
        Requirement(
            id="mac-unique",
            title="MAC addresses of its own",
            source="Unique hostname, MAC address, and product_uuid for every node (Kubernetes, kubeadm)",
            method="The MAC addresses of the interfaces that have the inventory's addresses, compared",
            fix="Give the copy of the virtual machine another MAC address.",
            asks=(NETWORK,),
            judge=_judge_macs,
        ),
        Requirement(
            id="address-unique",
            title="Addresses of its own",
            source="The range from which host IPs are allocated",
            method="The inventory's addresses, looked for on the interfaces of all hosts",
            fix="Take the address away from the other host; for a virtual one, write the host's own.",
            asks=(NETWORK,),
            judge=_addresses,
        ),
    ),
)
