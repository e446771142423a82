"""
Sockets that neither follow nor change the host's own path MTUs.

The kernel notes what an ICMP "fragmentation needed" says where a socket accepts it, and raw sockets get those
about everybody's packets of their protocol. What a probe brings back must not make the host's own traffic
smaller (linux/net/ipv4/route.c, ip_sk_accept_pmtu; linux/net/ipv6/udp.c).
"""

import contextlib
import socket

# linux/include/uapi/linux/in.h, in6.h: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, with *_PMTUDISC_INTERFACE.
_MTU_DISCOVER = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_INTERFACE = 4


def of_interface(handle: socket.socket) -> None:
    """
    Let a socket go by the MTU of the interface alone, whatever is known of the path.

    Before Linux 3.15 there is no such choice, and the socket stays as it is.
    """
    with contextlib.suppress(OSError):
        handle.setsockopt(*_MTU_DISCOVER[handle.family], _INTERFACE)
