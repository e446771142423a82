"""
Which way a packet takes out of a host: interface and next hop, asked of the kernel's own tables.

A raw socket's packet is routed by its addresses alone, and so is what enters below netfilter by our own
look-up. Where a host's rules (`ip rule … dport`), or the hash over its equal-cost routes, look at ports as
well, real traffic may take another way. There each packet is looked up with its ports, and sent that way.
"""

import contextlib
import errno
import os
import socket
import struct
import time

from netprobe.agent import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from netprobe.agent.loop import Loop

    Selector = tuple[bytes, int, int, int]

_NEIGHBOUR_WAIT_S = (
    3.5  # three requests, one a second (net.ipv4.neigh.default.mcast_solicit, retrans_time_ms)
)
_NEIGHBOUR_POLL_S = 0.02
_HASH_POLICY = "/proc/sys/net/ipv%d/fib_multipath_hash_policy"
_WITH_PORTS = (6, 17)
_TRANSPORT_AT = {4: 20, 6: 40}
_PROTOCOL_AT = {4: 9, 6: 6}


class Ways:
    """
    The ways out of a host, for as long as the agent lives.

    What is looked up is a selector: both addresses (packed, in one), and where the tables look at them,
    protocol, source and destination port, else zeros. Neighbours that the kernel has looked for in vain, by
    interface and address, are `given_up`.
    """

    def __init__(self) -> None:
        self.given_up: set[tuple[int, bytes]] = set()
        self._by_ports: dict[int, bool] = {}
        self._protocols: dict[int, set[int]] = {}
        self._pins: dict[Selector, int] = {}

    def look_at_ports(self, version: int) -> bool:
        """Whether the tables of an IP version look at more of a packet than its addresses."""
        if version not in self._by_ports:
            handle = netlink.Netlink(netlink.NETLINK_ROUTE)
            try:
                rules = netlink.rules(handle, socket.AF_INET if version == 4 else socket.AF_INET6)
            finally:
                handle.close()
            self._protocols[version] = {protocol for protocol, _by_port in rules if protocol}
            self._by_ports[version] = any(protocol or by_port for protocol, by_port in rules) or _hashes(
                version
            )
        return self._by_ports[version]

    def selector(self, addresses: bytes, packet: memoryview) -> "Selector":
        """What the tables look at of a packet, which begins with its IP header."""
        version = packet[0] >> 4
        if not self.look_at_ports(version):
            return addresses, 0, 0, 0
        protocol = packet[_PROTOCOL_AT[version]]
        if protocol in _WITH_PORTS:
            return (addresses, protocol, *struct.unpack_from("!HH", packet, _TRANSPORT_AT[version]))
        if protocol in self._protocols[version]:
            # The kernel cannot be asked for the route of such a packet (linux/net/ipv4/ip_output_core.c,
            # rtm_getroute_parse_ip_proto).
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        return addresses, 0, 0, 0

    def pin(self, selector: "Selector") -> int:
        """
        The interface by which a raw packet must leave to go the way of a real one; 0 for any.

        `OSError` with the errno that a real sender gets, or with ENOTSUP where no interface tells the way.
        """
        if selector not in self._pins:
            handle = netlink.Netlink(netlink.NETLINK_ROUTE)
            try:
                self._pins[selector] = _pin(handle, selector)
            finally:
                handle.close()
        return self._pins[selector]


def _hashes(version: int) -> bool:
    try:
        with open(_HASH_POLICY % version) as policy:
            return policy.read().strip() != "0"
    except FileNotFoundError:
        return False


def _pin(handle: netlink.Netlink, selector: "Selector") -> int:
    addresses = selector[0]
    source, destination = addresses[: len(addresses) // 2], addresses[len(addresses) // 2 :]
    real = netlink.route(handle, destination, source, selector[1:])
    for interface in (0, real.interface):
        # Without ports there may be no route at all.
        with contextlib.suppress(OSError):
            raw = netlink.route(handle, destination, source, interface=interface)
            if (raw.interface, raw.next_hop) == (real.interface, real.next_hop):
                return interface
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


class Neighbours:
    """
    The interface and link-layer address for each of many selectors, asked of the kernel.

    `ready` gets them, and the errno's name for each selector that has none. Unknown neighbours are resolved
    by the kernel itself, all at once. One that was given up before is not waited for again.
    """

    def __init__(
        self,
        loop: "Loop",
        ways: Ways,
        selectors: "Iterable[Selector]",
        ready: "Callable[[dict[Selector, tuple[str, bytes]], dict[Selector, str]], None]",
    ) -> None:
        self._loop = loop
        self._given_up = ways.given_up
        self._ready = ready
        self._netlink = netlink.Netlink(netlink.NETLINK_ROUTE)
        self._found: dict[Selector, tuple[str, bytes]] = {}
        self._errors: dict[Selector, str] = {}
        self._waiting: dict[tuple[int, bytes], list[Selector]] = {}
        self._names: dict[int, str] = {}
        self._deadline = time.monotonic() + _NEIGHBOUR_WAIT_S
        links = netlink.links(self._netlink)
        for selector in selectors:
            addresses = selector[0]
            half = len(addresses) // 2
            try:
                way = netlink.route(self._netlink, addresses[half:], addresses[:half], selector[1:])
            except OSError as error:
                self._errors[selector] = errno.errorcode.get(error.errno or 0, "EIO")
                continue
            link = links.get(way.interface, {})
            self._names[way.interface] = str(link.get("name", ""))
            if link.get("noarp"):
                self._found[selector] = (self._names[way.interface], b"")
            else:
                self._waiting.setdefault((way.interface, way.next_hop), []).append(selector)
        for interface, next_hop in list(self._waiting):
            try:
                if netlink.neighbour(self._netlink, interface, next_hop)[1] is None:
                    netlink.resolve(self._netlink, interface, next_hop)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "EIO")
                self._errors.update((each, name) for each in self._waiting.pop((interface, next_hop)))
        loop.later(0, self._look)

    def _look(self) -> None:
        for (interface, next_hop), selectors in list(self._waiting.items()):
            try:
                state, lladdr = netlink.neighbour(self._netlink, interface, next_hop)
            except OSError:
                # The interface has gone.
                state, lladdr = netlink.NUD_FAILED, None
            if lladdr is not None and not state & netlink.NUD_FAILED:
                self._found.update((each, (self._names[interface], lladdr)) for each in selectors)
            elif (
                state & netlink.NUD_FAILED
                or (interface, next_hop) in self._given_up
                or time.monotonic() > self._deadline
            ):
                self._given_up.add((interface, next_hop))
                self._errors.update((each, "EHOSTUNREACH") for each in selectors)
            else:
                continue
            del self._waiting[interface, next_hop]
        if self._waiting:
            self._loop.later(_NEIGHBOUR_POLL_S, self._look)
            return
        self._netlink.close()
        self._ready(self._found, self._errors)
