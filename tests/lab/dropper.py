"""
A host's BPF program that drops UDP at an interface: `dropper.py INTERFACE HOOK`, until its stdin closes.

HOOK is `xdp` (before the kernel has a packet), `ingress` or `egress` (tc's places, as TCX links). Run by
tests inside the namespace of a host; prints `ready` when packets are dropped.
"""

import ctypes
import os
import socket
import struct
import sys

# linux/include/uapi/linux/bpf.h
_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS, _XDP = 3, 6
_HOOKS = {"xdp": (_XDP, 37), "ingress": (_SCHED_CLS, 46), "egress": (_SCHED_CLS, 47)}
_BPF = {"x86_64": 321, "aarch64": 280}  # the number of bpf(2)


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


def _program(kind: int) -> bytes:
    """Drop IPv4 and IPv6 packets whose next protocol is UDP, let all others pass (behind Ethernet)."""
    data, end = (0, 4) if kind == _XDP else (76, 80)  # struct xdp_md, struct __sk_buff
    drop, let_pass = (1, 2) if kind == _XDP else (2, 0)  # XDP_DROP and XDP_PASS, TCX_DROP and TCX_PASS
    load, jump_if_equal, jump = 0x61, 0x15, 0x05
    return b"".join(
        [
            _instruction(load, 2, 1, data),
            _instruction(load, 3, 1, end),
            _instruction(0xBF, 4, 2),  # r4 = r2
            _instruction(0x07, 4, value=24),  # r4 += 24
            _instruction(0x2D, 4, 3, 7),  # if r4 > r3 goto pass
            _instruction(0x69, 5, 2, 12),  # r5 = the EtherType, in the order of the wire
            _instruction(0x71, 6, 2, 23),  # r6 = protocol of IPv4
            _instruction(jump_if_equal, 5, offset=2, value=0x0008),
            _instruction(0x55, 5, offset=3, value=0xDD86),  # if neither, goto pass
            _instruction(0x71, 6, 2, 20),  # r6 = next header of IPv6
            _instruction(0x55, 6, offset=1, value=17),  # if not UDP goto pass
            _instruction(jump, offset=2),
            _instruction(0xB7, 0, value=let_pass),
            _instruction(0x95),
            _instruction(0xB7, 0, value=drop),
            _instruction(0x95),
        ]
    )


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    found = int(libc.syscall(_BPF[os.uname().machine], command, buffer, len(attributes)))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def main() -> None:
    """Attach the program, and hold it."""
    index, hook = socket.if_nametoindex(sys.argv[1]), sys.argv[2]
    kind, place = _HOOKS[hook]
    code = _program(kind)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "<IIQQIIQIIQII",
        *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, 0, 0, place),
    )
    program = _bpf(_PROG_LOAD, load)
    _bpf(_LINK_CREATE, struct.pack("<IIII", program, index, place, 0) + bytes(32))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
