"""Classic BPF programs on sockets (linux/Documentation/networking/filter.rst)."""

import array
import socket
import struct

_SO_ATTACH_FILTER = 26  # linux/include/uapi/asm-generic/socket.h

DROP_ALL = [(0x06, 0, 0, 0)]
"""A program that accepts nothing: `ret #0`."""


def attach(handle: socket.socket, program: "list[tuple[int, int, int, int]]") -> None:
    """Let only packets that `program` accepts into the receive queue of a socket."""
    # The kernel reads the instructions through a pointer (struct sock_fprog), which `array` can tell.
    instructions = array.array("B", b"".join(struct.pack("HBBI", *each) for each in program))
    address, _length = instructions.buffer_info()
    handle.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), address))
