"""
Netlink requests that an agent makes for each of many peers: routes, neighbours, addresses, conntrack entries.

Numbers come from linux/include/uapi/linux/{netlink,rtnetlink,neighbour,if_addr,if_link}.h and
linux/include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_ROOT, _NLM_F_MATCH, _NLM_F_CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED = 0x8000

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE = 18, 22, 26, 34
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 2, 4, 5, 7, 18
_RTA_MULTIPATH, _RTA_TABLE = 9, 15
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24  # linux/fib_rules.h
_FIB_RULE_HEADER_BYTES = 12
# RTN_UNICAST, and those by which packets end: what remains is the host's own addresses and multicast.
_ROUTE_TYPES = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_RTM_F_CLONED = 0x200
_RTNEXTHOP_BYTES = 8
# RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT and the errno that senders get (ip-route(8)).
_ROUTE_ERRORS = {6: errno.EINVAL, 7: errno.EHOSTUNREACH, 8: errno.EACCES}
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_USE = 0x01
NUD_FAILED = 0x20
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1
_IFLA_XDP, _IFLA_XDP_ATTACHED = 43, 2

_BUFFER_BYTES = 1 << 16


class Netlink:
    """A netlink socket; `get` answers one request, `dump` all objects of a kind. Errors are `OSError`."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def get(self, kind: int, body: bytes) -> "bytes | None":
        """The body of the answer to a request, None where it is a bare acknowledgement."""
        self._send(kind, body, _NLM_F_REQUEST | _NLM_F_ACK)
        answer = None
        for kind_back, data in self._receive():
            if kind_back == _NLMSG_ERROR:
                _raise(data)
                return answer
            answer = data
        return answer

    def create(self, kind: int, body: bytes) -> None:
        """Carry out a request that makes something."""
        self._send(kind, body, _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE)
        for kind_back, data in self._receive():
            if kind_back == _NLMSG_ERROR:
                _raise(data)
                return

    def dump(self, kind: int, body: bytes, most: "int | None" = None) -> "list[bytes]":
        """
        The bodies of all objects of a kind; with `most`, of one more than so many at most.

        After a dump that was cut short the socket is of no more use than to be closed.
        """
        self._send(kind, body, _NLM_F_REQUEST | _NLM_F_ROOT | _NLM_F_MATCH)
        found = []
        for kind_back, data in self._receive():
            if kind_back == _NLMSG_ERROR:
                _raise(data)
            elif kind_back == _NLMSG_DONE:
                break
            else:
                found.append(data)
                if most is not None and len(found) > most:
                    break
        return found

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> "Iterator[tuple[int, bytes]]":
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            while len(data) >= 16:
                length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", data)
                if sequence == self._sequence:
                    yield kind, data[16:length]
                data = data[_align(length) :]


def _raise(body: bytes) -> None:
    number = -struct.unpack_from("=i", body)[0]
    if number:
        raise OSError(number, os.strerror(number))


def _align(length: int) -> int:
    return (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def attributes(data: bytes) -> "dict[int, bytes]":
    """The attributes of a message by their kind; the last one of a kind wins."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[4:length]
        data = data[_align(length) :]
    return found


def family_of(packed: bytes) -> int:
    """The address family of a packed address."""
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6


class Route:
    """Where the kernel would send a packet: interface index, next hop (packed), preferred source (packed)."""

    def __init__(self, interface: int, next_hop: bytes, source: "bytes | None") -> None:
        self.interface = interface
        self.next_hop = next_hop
        self.source = source


def route(
    netlink: Netlink,
    destination: bytes,
    source: "bytes | None" = None,
    ports: "tuple[int, int, int]" = (0, 0, 0),
    interface: int = 0,
) -> Route:
    """
    The kernel's own route look-up; `OSError` with the errno that a sender would get.

    `ports` are a protocol and its source and destination port (asked since Linux 4.17), `interface` the index
    of that by which the packet is to leave; zeros for any.
    """
    family = family_of(destination)
    bits = 8 * len(destination)
    body = struct.pack("=BBBBBBBBI", family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, destination)
    if source is not None:
        body += attribute(_RTA_SRC, source)
    if interface:
        body += attribute(_RTA_OIF, struct.pack("=I", interface))
    if ports[0]:
        body += attribute(_RTA_IP_PROTO, bytes(ports[:1]))
        body += attribute(_RTA_SPORT, struct.pack("!H", ports[1]))
        body += attribute(_RTA_DPORT, struct.pack("!H", ports[2]))
    answer = netlink.get(RTM_GETROUTE, body)
    if answer is None:
        raise OSError("the kernel acknowledged a route request without a route")
    error = _ROUTE_ERRORS.get(answer[7])
    if error is not None:
        # IPv4 answers with the error itself, IPv6 with a route of that type.
        raise OSError(error, os.strerror(error))
    found = attributes(answer[12:])
    gateway = found.get(_RTA_GATEWAY)
    if gateway is None and _RTA_VIA in found:
        gateway = found[_RTA_VIA][2:]  # struct rtvia: a gateway of the other family, RFC 5549
    interface = struct.unpack("=I", found[_RTA_OIF])[0] if _RTA_OIF in found else 0
    return Route(interface, gateway or destination, found.get(_RTA_PREFSRC))


def rules(netlink: Netlink, family: int) -> "list[tuple[int, bool]]":
    """The routing policy of a family: by rule, the IP protocol (0: any), and whether it looks at ports."""
    found = []
    for body in netlink.dump(RTM_GETRULE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)):
        values = attributes(body[_FIB_RULE_HEADER_BYTES:])
        by_port = _FRA_SPORT_RANGE in values or _FRA_DPORT_RANGE in values
        found.append((values.get(_FRA_IP_PROTO, b"\0")[0], by_port))
    return found


def _neighbour_body(interface: int, next_hop: bytes, flags: int) -> bytes:
    header = struct.pack("=BxxxiHBB", family_of(next_hop), interface, 0, flags, 0)
    return header + attribute(_NDA_DST, next_hop)


def neighbour(netlink: Netlink, interface: int, next_hop: bytes) -> "tuple[int, bytes | None]":
    """The state (NUD_*) and link-layer address of a neighbour; (0, None) where the kernel has no entry."""
    try:
        answer = netlink.get(RTM_GETNEIGH, _neighbour_body(interface, next_hop, 0))
        entries = [] if answer is None else [answer]
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0, None
        # Kernels before 5.0 cannot be asked for one entry.
        entries = netlink.dump(RTM_GETNEIGH, struct.pack("=BxxxiHBB", family_of(next_hop), 0, 0, 0, 0))
    for entry in entries:
        index, state = struct.unpack_from("=4xiH", entry)
        values = attributes(entry[12:])
        if index == interface and values.get(_NDA_DST) == next_hop:
            return state, values.get(_NDA_LLADDR)
    return 0, None


def resolve(netlink: Netlink, interface: int, next_hop: bytes) -> None:
    """Make the kernel ask for a neighbour's address (ARP, ND) as if a packet were to be sent to it."""
    netlink.create(RTM_NEWNEIGH, _neighbour_body(interface, next_hop, _NTF_USE))


def links(netlink: Netlink) -> "dict[int, dict[str, object]]":
    """
    All interfaces by index: name, MTU in bytes, whether they have no neighbours to look for (`noarp`).

    `kind` is what they were made as (`vxlan`, `veth`, …), "" for hardware; `mac` their link-layer address in
    hexadecimal; `xdp` whether a BPF program gets their packets before the kernel has made any of them.
    """
    found: dict[int, dict[str, object]] = {}
    for body in netlink.dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
        _family, _type, index, flags, _change = struct.unpack_from("=BxHiII", body)
        values = attributes(body[16:])
        made_as = attributes(values.get(_IFLA_LINKINFO, b""))
        found[index] = {
            "name": values.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
            "mtu": struct.unpack("=I", values[_IFLA_MTU])[0] if _IFLA_MTU in values else 0,
            "kind": made_as.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("utf-8", "replace"),
            "noarp": bool(flags & _IFF_NOARP),
            "up": bool(flags & _IFF_UP),
            "mac": values.get(_IFLA_ADDRESS, b"").hex(),
            "xdp": any(attributes(values.get(_IFLA_XDP, b"")).get(_IFLA_XDP_ATTACHED, b"")),
        }
    return found


def addresses(netlink: Netlink) -> "list[tuple[int, bytes, int]]":
    """All addresses: interface index, packed address, prefix length."""
    found = []
    for body in netlink.dump(RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        _family, prefix_length, _flags, _scope, index = struct.unpack_from("=BBBBI", body)
        values = attributes(body[8:])
        # On a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL ours.
        packed = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
        if packed is not None:
            found.append((index, packed, prefix_length))
    return found


def routes(netlink: Netlink, most: int) -> "tuple[list[dict[str, object]], bool]":
    """
    The routes of all tables, `most` of them, and whether there are more.

    Each has `network` (packed) with `length`, `gateway` (packed or None), `interface` (an index), `table`,
    `protocol` (RTPROT_*) and `type`.
    """
    found: list[dict[str, object]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in netlink.dump(
            RTM_GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0), most
        ):
            if len(found) >= most:
                return found, True
            _family, length, _src, _tos, table, protocol, _scope, kind, flags = struct.unpack_from(
                "=BBBBBBBBI", body
            )
            if kind not in _ROUTE_TYPES or flags & _RTM_F_CLONED:
                continue
            values = attributes(body[12:])
            several = values.get(_RTA_MULTIPATH, b"")
            if len(several) >= _RTNEXTHOP_BYTES:
                # struct rtnexthop: one of several ways stands for all.
                size, index = struct.unpack_from("=H2xi", several)
                values.update(attributes(several[_RTNEXTHOP_BYTES:size]))
                values[_RTA_OIF] = struct.pack("=i", index)
            found.append(
                {
                    "network": values.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16)),
                    "length": length,
                    "gateway": values.get(_RTA_GATEWAY) or values.get(_RTA_VIA, b"")[2:] or None,
                    "interface": struct.unpack("=I", values[_RTA_OIF])[0] if _RTA_OIF in values else 0,
                    "table": struct.unpack("=I", values[_RTA_TABLE])[0] if _RTA_TABLE in values else table,
                    "protocol": protocol,
                    "type": _ROUTE_TYPES[kind],
                }
            )
    return found, False
