"""The kernel's settings: those that Calico makes itself, and those that somebody else may have made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from netprobe import mesh
from netprobe.model import Family
from netprobe.questions import Failed, FileList, Files, NetworkFacts
from netprobe.requirements._hosts import NETWORK, underlay
from netprobe.requirements.base import (
    Context,
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

_SYS: Final = "/proc/sys/net/"
_NAMES: Final = (
    "ipv4/ip_forward",
    "ipv4/ip_local_port_range",
    "ipv4/ip_local_reserved_ports",
    "ipv4/ip_unprivileged_port_start",
    "ipv4/conf/*/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv4/conf/*/src_valid_mark",
    "ipv6/conf/*/forwarding",
    "ipv6/conf/*/accept_ra",
    "ipv6/conf/*/disable_ipv6",
    "bridge/bridge-nf-call-*",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
)
_SYSCTLS: Final = Files(patterns=tuple(_SYS + name for name in _NAMES), most=8192)

_STRICT: Final = 1
_RTPROT_RA: Final = 9  # linux/rtnetlink.h
_FULL: Final = 0.8
_BGP: Final = 179
_NODE_PORTS: Final = (30000, 32767)
_TCP_PROBES: Final = ("bgp", "typha", "vxlan", "flannel", "apiserver", "etcd")
_WIREGUARD_PROBES: Final = ("wireguard", "wireguard-v6")
_WIREGUARD: Final = ("wireguard",)


class _Settings:
    """The settings of a host, by their names as sysctl(8) has them, but for the slashes."""

    def __init__(self, found: FileList) -> None:
        self._texts = {file.path: file.text.strip() for file in found.files if not file.error}

    def text(self, name: str) -> str | None:
        """The text of a setting, None where there is none."""
        return self._texts.get(_SYS + name)

    def number(self, name: str) -> int | None:
        """The number that a setting is, None where it is none."""
        text = self.text(name) or ""
        return int(text) if re.fullmatch(r"-?\d{1,15}", text) else None

    def numbers(self, name: str) -> list[int]:
        """The numbers in a setting."""
        return [int(each) for each in re.findall(r"\d{1,15}", self.text(name) or "")]

    def effective(self, family: str, link: str, name: str) -> int | None:
        """The greater one of an interface's setting and everybody's, which is what the kernel goes by."""
        values = [self.number(f"{family}/conf/{each}/{name}") for each in ("all", link)]
        known = [value for value in values if value is not None]
        return max(known) if known else None


def _settings(context: Context) -> _Settings:
    return _Settings(context.need(_SYSCTLS))


def _there_is_none(name: str) -> Judgement:
    return unknown(f"no {_SYS}{name}", "Check with --root / on a Linux host where /proc/sys is mounted.")


def _links(context: Context) -> list[str]:
    """The interfaces that carry the cluster; those with a default route where the inventory names none."""
    facts = context.of(NETWORK)
    if isinstance(facts, Failed):
        return []
    named = {link.name for link in underlay(context.own.host, facts).values()}
    return sorted(named) or sorted(_uplinks(facts))


def _uplinks(facts: NetworkFacts) -> set[str]:
    ways = (route for route in facts.routes if not ip_network(route.network, strict=False).prefixlen)
    return {name for route in ways if (name := facts.link(route.index))}


def _has_ipv6(context: Context) -> bool:
    return context.own.host.address(Family.IPV6) is not None


def _ip_forward(context: Context) -> Judgement:
    settings = _settings(context)
    value = settings.number("ipv4/ip_forward")
    if value is None:
        return _there_is_none("ipv4/ip_forward")
    if not value:
        return warned("net.ipv4.ip_forward = 0; Calico turns it on, sysctl --system may turn it off again")
    off = [link for link in _links(context) if settings.number(f"ipv4/conf/{link}/forwarding") == 0]
    if off:
        return failed(
            f"net.ipv4.ip_forward = 1, but net.ipv4.conf.{off[0]}.forwarding = 0: what arrives there for a "
            "pod is thrown away",
            f"sysctl -w net.ipv4.conf.{off[0]}.forwarding=1, and remove the 0 from /etc/sysctl.d.",
        )
    return passed("net.ipv4.ip_forward = 1")


def _ipv6_forwarding(context: Context) -> Judgement:
    if not _has_ipv6(context):
        return not_applicable("the inventory has no IPv6 address for it")
    settings = _settings(context)
    value = settings.number("ipv6/conf/all/forwarding")
    if value is None:
        return failed("a kernel without IPv6", "Boot without ipv6.disable=1.")
    off = [link for link in _links(context) if settings.number(f"ipv6/conf/{link}/disable_ipv6") == 1]
    if off:
        return failed(
            f"net.ipv6.conf.{off[0]}.disable_ipv6 = 1",
            f"sysctl -w net.ipv6.conf.{off[0]}.disable_ipv6=0, and remove the 1 from /etc/sysctl.d.",
        )
    if not value:
        return warned("net.ipv6.conf.all.forwarding = 0; Calico turns it on where it is set up for IPv6")
    return passed("net.ipv6.conf.all.forwarding = 1")


def _accept_ra(context: Context) -> Judgement:
    settings, facts = _settings(context), context.need(NETWORK)
    learnt = {
        facts.link(route.index)
        for route in facts.routes
        if route.protocol == _RTPROT_RA and ip_network(route.network, strict=False).prefixlen == 0
    }
    if not learnt:
        return not_applicable("no default route that a router has advertised")
    values = {link: settings.number(f"ipv6/conf/{link}/accept_ra") for link in sorted(learnt)}
    shown = ", ".join(f"net.ipv6.conf.{link}.accept_ra = {value}" for link, value in values.items())
    if None in values.values():
        return unknown(shown)
    # 0: a program hears the advertisements in the kernel's place, whatever is forwarded.
    if 1 in values.values():
        return warned(f"{shown}: the default route by {', '.join(learnt)} goes once the host forwards IPv6")
    return passed(shown)


def _rp_filter(context: Context) -> Judgement:
    settings, facts = _settings(context), context.of(NETWORK)
    links = _links(context) or ["default"]
    values = {link: settings.effective("ipv4", link, "rp_filter") for link in links}
    if None in values.values():
        return _there_is_none(f"ipv4/conf/{links[0]}/rp_filter")
    shown = ", ".join(f"{link}: rp_filter = {value}" for link, value in values.items())
    strict = [link for link, value in values.items() if value == _STRICT]
    uplinks = set() if isinstance(facts, Failed) else _uplinks(facts) | set(links)
    if strict and len(uplinks) > 1:
        return warned(f"{shown}, and there are further ways out ({', '.join(sorted(uplinks - {strict[0]}))})")
    # Felix has not looked at it since 3.13, where its own rule (rpfilter) took its place.
    return passed(shown)


def _bridges(context: Context) -> Judgement:
    settings = _settings(context)
    families = ["iptables", *(["ip6tables"] if _has_ipv6(context) else [])]
    values = {each: settings.number(f"bridge/bridge-nf-call-{each}") for each in families}
    if None in values.values():
        return not_applicable("no bridge's packets are shown to iptables: br_netfilter is not loaded")
    shown = ", ".join(f"net.bridge.bridge-nf-call-{name} = {value}" for name, value in values.items())
    return passed(shown) if 0 not in values.values() else warned(shown)


def _conntrack(context: Context) -> Judgement:
    settings = _settings(context)
    count, most = (settings.number(f"netfilter/nf_conntrack_{each}") for each in ("count", "max"))
    if count is None or most is None:
        return not_applicable("conntrack is not loaded")
    shown = f"{count:,} of {most:,} connections"
    if most and count >= most:
        return failed(f"{shown}: the table is full, and packets of new ones are dropped")
    if most and count >= _FULL * most:
        return warned(shown)
    # 0 is no limit.
    return passed(shown if most else f"{count:,} connections, without a limit")


def _taken(context: Context, probes: tuple[str, ...]) -> dict[int, str]:
    """The ports that probes are sent to, which are the cluster's, by the names of the probes."""
    known = mesh.probes(context.inventory)
    return {
        port: name
        for name in probes
        if name in known
        for port in mesh.ports(known[name], context.inventory)
        if port is not None
    }


def reserved(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of net.ipv4.ip_local_reserved_ports: `8080,9000-9010`."""
    for first, last in re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", text):
        yield int(first), int(last or first)


def _local_ports(context: Context, probes: tuple[str, ...]) -> Judgement:
    settings = _settings(context)
    numbers = settings.numbers("ipv4/ip_local_port_range")
    if len(numbers) != 2:
        return _there_is_none("ipv4/ip_local_port_range")
    low, high = numbers
    kept = list(reserved(settings.text("ipv4/ip_local_reserved_ports") or ""))
    shown = f"net.ipv4.ip_local_port_range = {low} {high}"
    wanted = {port: f"{port} ({name})" for port, name in _taken(context, probes).items()}
    inside = [
        words
        for port, words in wanted.items()
        if low <= port <= high and not any(first <= port <= last for first, last in kept)
    ]
    if probes is _TCP_PROBES and low <= _NODE_PORTS[1] and _NODE_PORTS[0] <= high:
        first, last = _NODE_PORTS
        if not any(begin <= max(low, first) and min(high, last) <= end for begin, end in kept):
            inside.append(f"{first}-{last} (node ports)")
    if not inside:
        return passed(shown)
    ports = ",".join(words.partition(" ")[0] for words in inside)
    return warned(
        f"{shown}: any program may be given {', '.join(inside)} for a port of its own",
        f"Put net.ipv4.ip_local_reserved_ports = {ports} (with what is there already) into /etc/sysctl.d.",
    )


def _cluster_ports(context: Context) -> Judgement:
    return _local_ports(context, _TCP_PROBES)


def _wireguard_ports(context: Context) -> Judgement:
    return _local_ports(context, _WIREGUARD_PROBES)


def _unprivileged(context: Context) -> Judgement:
    settings = _settings(context)
    value = settings.number("ipv4/ip_unprivileged_port_start")
    if value is None:
        return passed("a kernel where only root takes ports below 1024")
    shown = f"net.ipv4.ip_unprivileged_port_start = {value}"
    return (
        passed(shown) if value > _BGP else warned(f"{shown}: any user's program may take port {_BGP} (bgp)")
    )


def _mark(context: Context) -> Judgement:
    settings = _settings(context)
    links = _links(context) or ["default"]
    strict = [link for link in links if settings.effective("ipv4", link, "rp_filter") == _STRICT]
    if not strict:
        return passed("rp_filter is nowhere strict where the cluster's packets arrive")
    unmarked = [link for link in strict if not settings.effective("ipv4", link, "src_valid_mark")]
    if not unmarked:
        return passed(f"{', '.join(strict)}: rp_filter = 1, src_valid_mark = 1")
    return warned(
        f"{', '.join(unmarked)}: rp_filter = 1, src_valid_mark = 0; Felix sets it with WireGuard, and "
        "`sysctl --system` may set it back"
    )


_NETWORKING: Final = (
    "Calico must be able to forward packets between the pods and the network (Linux ip-sysctl)"
)

GROUP: Final = Group(
    name="Kernel settings",
    rank=120,
    requirements=(
        Requirement(
            id="sysctl-ip-forward",
            title="IPv4 is forwarded",
            source=_NETWORKING,
            method="net.ipv4.ip_forward, and forwarding of the interfaces that carry the cluster",
            fix="Put net.ipv4.ip_forward = 1 into a file of /etc/sysctl.d, and run sysctl --system.",
            asks=(_SYSCTLS, NETWORK),
            judge=_ip_forward,
        ),
        Requirement(
            id="sysctl-ipv6-forwarding",
            title="IPv6 is forwarded",
            source=_NETWORKING,
            method="net.ipv6.conf.all.forwarding, and disable_ipv6 of the interfaces, where IPv6 is used",
            fix="Put net.ipv6.conf.all.forwarding = 1 into a file of /etc/sysctl.d, and run sysctl --system.",
            asks=(_SYSCTLS, NETWORK),
            judge=_ipv6_forwarding,
        ),
        Requirement(
            id="sysctl-accept-ra",
            title="A router's default route stays",
            level=Level.RECOMMENDED,
            source="accept_ra: 2 overrules forwarding (Linux ip-sysctl)",
            method="accept_ra of the interfaces by which a default route of IPv6 was advertised",
            fix="Put net.ipv6.conf.INTERFACE.accept_ra = 2 into /etc/sysctl.d, for these interfaces.",
            asks=(_SYSCTLS, NETWORK),
            judge=_accept_ra,
        ),
        Requirement(
            id="sysctl-rp-filter",
            title="Reverse-path filtering",
            level=Level.RECOMMENDED,
            source="rp_filter: 1 throws away what would not go back the way it came (Linux ip-sysctl)",
            method="The greater one of all's and the interface's rp_filter; strict, with several ways out",
            fix="Put net.ipv4.conf.all.rp_filter = 2 (loose) into /etc/sysctl.d where ways may differ.",
            asks=(_SYSCTLS, NETWORK),
            judge=_rp_filter,
        ),
        Requirement(
            id="sysctl-bridge-nf",
            title="Bridged packets pass iptables",
            level=Level.RECOMMENDED,
            source="kubeadm: /proc/sys/net/bridge/bridge-nf-call-iptables contents are not set to 1",
            method="net.bridge.bridge-nf-call-iptables, and ip6tables where IPv6 is used",
            fix="Put net.bridge.bridge-nf-call-iptables = 1 (and ip6tables) into a file of /etc/sysctl.d.",
            asks=(_SYSCTLS,),
            judge=_bridges,
        ),
        Requirement(
            id="sysctl-conntrack-size",
            title="Room for connections",
            source="Netfilter Conntrack support compiled in",
            method="net.netfilter.nf_conntrack_count against nf_conntrack_max",
            fix="Put a larger net.netfilter.nf_conntrack_max into /etc/sysctl.d, or kube-proxy's conntrack.",
            asks=(_SYSCTLS,),
            judge=_conntrack,
        ),
        Requirement(
            id="sysctl-local-ports",
            title="The cluster's ports are not given away",
            level=Level.RECOMMENDED,
            source="ip_local_port_range: the ports that programs are given (Linux ip-sysctl)",
            method="net.ipv4.ip_local_port_range without ip_local_reserved_ports, against the ports in use",
            fix="Put the ports into net.ipv4.ip_local_reserved_ports, in /etc/sysctl.d.",
            asks=(_SYSCTLS,),
            judge=_cluster_ports,
        ),
        Requirement(
            id="sysctl-local-ports-wireguard",
            title="WireGuard's ports are not given away",
            level=Level.RECOMMENDED,
            modes=_WIREGUARD,
            source="ip_local_port_range: the ports that programs are given (Linux ip-sysctl)",
            method="net.ipv4.ip_local_port_range without ip_local_reserved_ports, against 51820 and 51821",
            fix="Put the ports into net.ipv4.ip_local_reserved_ports, in /etc/sysctl.d.",
            asks=(_SYSCTLS,),
            judge=_wireguard_ports,
        ),
        Requirement(
            id="sysctl-unprivileged-ports",
            title="BGP's port is root's",
            level=Level.RECOMMENDED,
            source="ip_unprivileged_port_start (Linux ip-sysctl)",
            method="net.ipv4.ip_unprivileged_port_start against TCP port 179",
            fix="Put net.ipv4.ip_unprivileged_port_start = 1024 into /etc/sysctl.d.",
            asks=(_SYSCTLS,),
            judge=_unprivileged,
        ),
        Requirement(
            id="sysctl-src-valid-mark",
            title="WireGuard's packets pass the reverse-path filter",
            level=Level.RECOMMENDED,
            modes=_WIREGUARD,
            source="src_valid_mark: the mark counts for the reverse path (Linux ip-sysctl)",
            method="src_valid_mark, where rp_filter is strict on the interfaces that carry the cluster",
            fix="Put net.ipv4.conf.all.src_valid_mark = 1 into a file of /etc/sysctl.d.",
            asks=(_SYSCTLS, NETWORK),
            judge=_mark,
        ),
    ),
)
