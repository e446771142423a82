"""What there is to know of the host: kernel, privileges, addresses, routes, and who holds which port."""

import contextlib
import errno
import os
import socket
import struct
import sys
import time

from netprobe.agent import netlink, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = (
    ("tcp", 6, socket.AF_INET),
    ("tcp6", 6, socket.AF_INET6),
    ("udp", 17, socket.AF_INET),
    ("udp6", 17, socket.AF_INET6),
)
_TUNNELS = ("vxlan", "wireguard", "geneve", "gtp", "bareudp")
"""Kinds of devices for which the kernel itself holds a UDP port."""
_TCP_SYN_RECV, _TCP_LISTEN = "03", "0A"  # linux/include/net/tcp_states.h
_MAPPED = "::ffff:"  # RFC 4291 §2.5.5.2
_MAX_PROCESSES = 20000


def facts(request: "dict[str, object]") -> "dict[str, object]":
    """
    All of it, with the routes to `peers` and the holders of `ports` ([protocol, port]).

    It says which `connections` there are, by number: TCP's, as [address, port, peer's address, peer's port].
    """
    peers = [wire.text(each, "peers") for each in wire.items(request.get("peers", []), "peers")]
    held = wanted(request.get("ports", []))
    connections = [_connection(each) for each in wire.items(request.get("connections", []), "connections")]
    handle = netlink.Netlink(netlink.NETLINK_ROUTE)
    try:
        links = netlink.links(handle)
        addresses = [
            [
                str(links.get(index, {}).get("name", "")),
                wire.address_text(packed),
                length,
            ]
            for index, packed, length in netlink.addresses(handle)
        ]
        routes = {peer: _route(handle, peer, links) for peer in peers}
    finally:
        handle.close()
    uname = os.uname()
    return {
        "kernel": uname.release,
        "machine": uname.machine,
        "hostname": uname.nodename,
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "uid": os.geteuid(),
        "capabilities": capabilities(),
        "time": time.time(),
        "addresses": addresses,
        "links": [[link["name"], link["mtu"], link["kind"]] for link in links.values()],
        "xdp": [link["name"] for link in links.values() if link["xdp"]],
        "routes": routes,
        "ports": ports(held, [str(link["name"]) for link in links.values() if link["kind"] in _TUNNELS]),
        "connections": _present(connections),
    }


def capabilities() -> int:
    """The effective capabilities as a bit mask."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _route(handle: netlink.Netlink, peer: str, links: "dict[int, dict[str, object]]") -> "dict[str, object]":
    try:
        found = netlink.route(handle, wire.address(peer, "peers"))
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, str(error))}
    link = links.get(found.interface, {})
    next_hop = wire.address_text(found.next_hop)
    return {
        "interface": link.get("name", ""),
        "gateway": None if next_hop == peer else next_hop,
        "source": None if found.source is None else wire.address_text(found.source),
        "mtu": link.get("mtu", 0),
    }


def wanted(values: object) -> "set[tuple[int, int]]":
    """Ports of a request, as [protocol, port]."""
    found = set()
    for each in wire.items(values, "ports"):
        protocol, port = wire.items(each, "ports", 2)
        found.add((wire.integer(protocol, "ports", 0, 255), wire.integer(port, "ports", 0, 65535)))
    return found


def ports(asked: "set[tuple[int, int]]", tunnels: "list[str]") -> "list[list[object]]":
    """
    Who holds each wanted port: [protocol, address, port, program or "" where that cannot be told].

    A UDP port that no process holds is the kernel's own, if there are tunnel devices.
    """
    held = []
    # The kernel walks all its connections for each of these tables.
    for table, protocol, family in _TABLES if asked else ():
        for address, port, inode in _sockets(table, protocol, family):
            if (protocol, port) in asked:
                held.append((protocol, address, port, inode))
    programs = _programs({inode for _protocol, _address, _port, inode in held if inode})
    nobody = {17: f"the kernel ({', '.join(sorted(tunnels))})"} if tunnels else {}
    return [
        [protocol, address, port, programs.get(inode, nobody.get(protocol, ""))]
        for protocol, address, port, inode in held
    ]


def _sockets(table: str, protocol: int, family: int) -> "list[tuple[str, int, int]]":
    """Address, port and inode of each listening (or unconnected UDP) socket."""
    return [
        (*_end(parts[1], family), int(parts[9]))
        for parts in _rows(table)
        if protocol != 6 or parts[3] == _TCP_LISTEN
    ]


def _connection(values: object) -> "tuple[str, int, str, int]":
    address, port, peer, peer_port = wire.items(values, "connections", 4)
    return (
        wire.address_text(wire.address(address, "connections")),
        wire.integer(port, "connections", 0, 65535),
        wire.address_text(wire.address(peer, "connections")),
        wire.integer(peer_port, "connections", 0, 65535),
    )


def _present(wanted: "list[tuple[str, int, str, int]]") -> "list[int]":
    """Which of these connections there are, in any state but those of no connection yet."""
    ports = {f"{port:04X}" for _address, port, _peer, _peer_port in wanted}
    found = set()
    for table, protocol, family in _TABLES if wanted else ():
        for parts in _rows(table) if protocol == 6 else ():
            if parts[1][-4:] in ports and parts[3] not in (_TCP_LISTEN, _TCP_SYN_RECV):
                found.add((*_end(parts[1], family), *_end(parts[2], family)))
    return [number for number, each in enumerate(wanted) if each in found]


def _rows(table: str) -> "Iterator[list[str]]":
    """The columns of a table of sockets in /proc/net (proc(5)); none where the kernel has no IPv6."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/net/" + table) as lines:
        next(lines)
        for line in lines:
            yield line.split()


def _end(column: str, family: int) -> "tuple[str, int]":
    """Address and port; an IPv4 address that an IPv6 socket has is an IPv4 address."""
    digits, _colon, port = column.partition(":")
    address = _unhex(digits, family)
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) else address, int(port, 16)


def _unhex(digits: str, family: int) -> str:
    # The kernel prints each 32-bit word of the address in the machine's byte order.
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _programs(inodes: "set[int]") -> "dict[int, str]":
    """The names of the programs that own these sockets; those of other users are visible to root only."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    if not wanted:
        return found
    own = str(os.getpid())
    for pid in [name for name in os.listdir("/proc") if name.isdigit() and name != own][:_MAX_PROCESSES]:
        for target in _descriptors(pid):
            if target in wanted:
                found[wanted[target]] = f"{_name(pid)} (pid {pid})"
    return found


def _descriptors(pid: str) -> "Iterator[str]":
    """What the descriptors of a process are."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        # It has ended meanwhile, or is not ours to look at.
        return
    for number in numbers:
        # A busy program closes some of them while we look.
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{number}")


def _name(pid: str) -> str:
    """What a program calls itself: any bytes."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "a program that ended"
