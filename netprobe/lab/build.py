"""
What is done inside the namespaces of a lab; each function runs in the one that it is about.

Each host makes its own link, whose other end is born in the router's namespace: no interface is ever moved or
renamed. A namespace is entered twice, with one netlink socket each time; a hundred hosts take about a second.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute

from netprobe.lab import changes
from netprobe.lab.errors import LabError
from netprobe.lab.namespaces import DIRECTORY
from netprobe.lab.topology import INTERFACE, Station, Subnet, Topology, bridge_mac
from netprobe.model import Family

_READY_TIMEOUT_S: Final = 10.0
_READY_POLL_S: Final = 0.001

_LOOPBACK: Final = 1
# Indices far above those of devices that the kernel may put into every namespace (tunl0, ip6tnl0, …).
_HOST_INDEX, _BRIDGE_INDEX = 1000, 2000

_NODAD: Final = 0x02  # IFA_F_NODAD, linux/if_addr.h
_TENTATIVE: Final = 0x40  # IFA_F_TENTATIVE
_LINK_SCOPE: Final = 253  # RT_SCOPE_LINK
_PERMANENT: Final = 0x80  # NUD_PERMANENT, linux/neighbour.h
_FORWARDING: Final = 3  # BR_STATE_FORWARDING, linux/if_bridge.h
_PREFIX_LENGTH: Final = {Family.IPV4: 24, Family.IPV6: 64}
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

# A new namespace has some settings of the machine's own, and a lab must not depend on those.
_IPV4_DEFAULTS: Final = {"rp_filter": 0, "send_redirects": 0, "accept_redirects": 0, "log_martians": 0}
# No address may be tentative when the first packet goes out, and nothing is sent that nobody asked for.
_IPV6_DEFAULTS: Final = {
    "accept_dad": 0,
    "dad_transmits": 0,
    "accept_ra": 0,
    "autoconf": 0,
    "router_solicitations": 0,
    "accept_redirects": 0,
}
# Where br_netfilter is loaded, bridged packets would meet the router's rules for routed ones.
_BRIDGE_DEFAULTS: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


def environment() -> dict[str, str]:
    """The environment of this process, with a PATH that has the system's own programs."""
    return {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"}


def settings(topology: Topology, *, is_router: bool) -> None:
    """Set what new interfaces inherit; comes first."""
    forwarding = int(is_router)
    # Changing ip_forward resets other settings, so it goes first.
    _write_sysctls({"net.ipv4.ip_forward": forwarding})
    places = ("all", "default")
    _write_sysctls({f"net.ipv4.conf.{at}.{key}": v for at in places for key, v in _IPV4_DEFAULTS.items()})
    if Family.IPV6 in topology.families:
        wanted = {"disable_ipv6": 0, **_IPV6_DEFAULTS, "forwarding": forwarding}
    else:
        wanted = {"disable_ipv6": 1} if Path("/proc/sys/net/ipv6").exists() else {}
    _write_sysctls({f"net.ipv6.conf.{at}.{key}": v for at in places for key, v in wanted.items()})
    for key in _BRIDGE_DEFAULTS:
        if Path(f"/proc/sys/net/bridge/{key}").exists():
            _write_sysctls({f"net.bridge.{key}": 0})


def _write_sysctls(values: Mapping[str, int | str]) -> None:
    for key, value in values.items():
        # A sysctl of the network is that of the namespace of the thread that opens it.
        try:
            Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")
        except OSError as error:
            raise LabError(f"sysctl {key}={value}: {error.strerror}") from error


def router(topology: Topology) -> None:
    """Prepare the router: its settings and its bridges."""
    settings(topology, is_router=True)
    with IPRoute() as ipr:
        ipr.link("set", index=_LOOPBACK, state="up")
        for subnet in topology.subnets:
            if subnet.bridge:
                # Up before it has a port: a bridge that comes up with a carrier is ready only a second later.
                ipr.link(
                    "add",
                    state="up",
                    index=_BRIDGE_INDEX + subnet.number,
                    ifname=subnet.bridge,
                    kind="bridge",
                    address=bridge_mac(subnet),
                    br_mcast_snooping=0,  # it would have to hear queries, which nobody here sends
                )


def host(station: Station, topology: Topology, router_namespace: str) -> None:
    """Make a host: its settings, its link, addresses and default routes."""
    settings(topology, is_router=False)
    router_fd = os.open(DIRECTORY / router_namespace, os.O_RDONLY)
    try:
        with IPRoute() as ipr:
            ipr.link("set", index=_LOOPBACK, state="up")
            ipr.link(
                "add",
                index=_HOST_INDEX,
                ifname=INTERFACE,
                kind="veth",
                address=station.mac,
                peer={"ifname": station.name, "address": station.port_mac, "net_ns_fd": router_fd},
            )
            for family, address in station.addresses.items():
                _add_address(ipr, _HOST_INDEX, family, address)
            ipr.link("set", index=_HOST_INDEX, state="up")
            for family in station.addresses:
                ipr.route("add", family=_AF[family], dst="default", gateway=station.subnet.gateway(family))
    finally:
        os.close(router_fd)


def _add_address(ipr: IPRoute, index: int, family: Family, address: str) -> None:
    flags = {"flags": _NODAD} if family is Family.IPV6 else {}
    ipr.addr("add", index=index, address=address, prefixlen=_PREFIX_LENGTH[family], **flags)


def ports(topology: Topology) -> None:
    """Finish the router, whose ports the hosts have made: addresses, neighbours; wait until it is ready."""
    with IPRoute() as ipr:
        index = {link.get("ifname"): link["index"] for link in ipr.get_links()}
        for subnet in topology.subnets:
            for name in subnet.hosts:
                master = {"master": index[subnet.bridge]} if subnet.bridge else {}
                if subnet.bridge and Family.IPV6 in topology.families:
                    # A port of a bridge is no interface of the router.
                    _write_sysctls({f"net.ipv6.conf.{name}.disable_ipv6": 1})
                ipr.link("set", index=index[name], state="up", **master)
            for family in topology.families:
                _add_address(ipr, index[subnet.interface], family, subnet.gateway(family))
            _add_neighbours(ipr, index[subnet.interface], topology, subnet, "")
        bearers = {index[name] for subnet in topology.subnets for name in (subnet.interface, *subnet.hosts)}
        addressed = {index[subnet.interface] for subnet in topology.subnets}
        _wait_until_ready(ipr, bearers, addressed if Family.IPV6 in topology.families else set())


def finish(station: Station, topology: Topology) -> None:
    """Finish a host whose link has its other end: neighbours; wait until it is ready."""
    with IPRoute() as ipr:
        _add_neighbours(ipr, _HOST_INDEX, topology, station.subnet, station.name)
        _wait_until_ready(ipr, {_HOST_INDEX}, {_HOST_INDEX} if Family.IPV6 in topology.families else set())


def _add_neighbours(ipr: IPRoute, index: int, topology: Topology, subnet: Subnet, on: str) -> None:
    if topology.is_crowded:
        for address, mac in topology.neighbours(subnet, on).items():
            ipr.neigh("add", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)


def _wait_until_ready(ipr: IPRoute, bearers: AbstractSet[int], addressed: AbstractSet[int]) -> None:
    """
    Wait until the links `bearers` carry packets, and those `addressed` have their link-local IPv6 addresses.

    The kernel turns a link on a moment after both of its ends are up, and drops what is sent before that.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not (bearers <= _carrying(ipr) and addressed <= _link_local(ipr)):
        if time.monotonic() > deadline:
            raise LabError(f"links did not come up within {_READY_TIMEOUT_S:g} s")
        time.sleep(_READY_POLL_S)


def _carrying(ipr: IPRoute) -> set[int]:
    return {
        link["index"]
        for link in ipr.get_links()
        if link.get("operstate") == "UP"
        and link.get(("linkinfo", "slave_data", "state")) in (None, _FORWARDING)
    }


def _link_local(ipr: IPRoute) -> set[int]:
    """The interfaces with a link-local IPv6 address; empty while any address is tentative."""
    addresses: list[Any] = list(ipr.get_addr(family=socket.AF_INET6))
    if any(address["flags"] & _TENTATIVE for address in addresses):
        return set()
    return {address["index"] for address in addresses if address["scope"] == _LINK_SCOPE}


def apply(todo: changes.Changes) -> None:
    """Plant faults."""
    _write_sysctls(dict(todo.sysctls))
    if todo.routes:
        with IPRoute() as ipr:
            for route in todo.routes:
                gateway = {"gateway": route.gateway} if route.gateway else {}
                family = _AF[changes.family(route)]
                ipr.route("replace", family=family, dst=route.prefix, type=route.type, **gateway)
    if todo.ruleset:
        _run(("nft", "-f", "-"), todo.ruleset)
    for argv in todo.runs:
        _run(argv)


def _run(argv: tuple[str, ...], text: str = "") -> None:
    """Run a program, which is in the namespace of the thread that starts it."""
    try:
        done = subprocess.run(  # noqa: S603
            argv, input=text, capture_output=True, text=True, check=False, env=environment()
        )
    except OSError as error:
        raise LabError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}: {output}")
