"""
Questions to the kernel in a network namespace that is thrown away with the process that made it.

What is created there, no other process sees. The requests themselves come as bytes. Where a module would
have to be loaded first, the kernel does so by itself, as it would for whoever uses it later. The C library is
called by way of ctypes for what Python lacks: `unshare` (before 3.12), `getsockopt` with a value in its
buffer, `mount`, `bpf`.
"""

import errno
import fcntl
import os
import socket
import struct

from netprobe.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from typing import NoReturn

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/include/uapi/linux/sched.h

_MS_REC_PRIVATE = 0x4000 | 1 << 18  # linux/include/uapi/linux/mount.h
_SIOCGIFINDEX = 0x8933
_SO_RCVBUFFORCE = 33
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BPF_PROG_LOAD = 5  # linux/include/uapi/linux/bpf.h
_BPF_NUMBERS = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "ppc64": 361, "s390x": 351, "riscv64": 280}
"""The number of the system call (linux/arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h)."""
_ANSWER_S = 2.0
_BUFFER_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 4 << 20
_MAX_VALUE_BYTES = 4096

# What may be asked in the host's own namespace: what only reads, by protocol and type of the message.
_NETLINK_ROUTE, _NETLINK_NETFILTER, _NETLINK_GENERIC = 0, 12, 16
_RTM_BASE, _RTM_KIND_MASK, _RTM_KIND_GET = 16, 3, 2  # linux/net/core/rtnetlink.c
_NETFILTER_GETS = frozenset(
    subsystem << 8 | kind
    for subsystem, kinds in (
        (1, (1, 4, 5)),  # ctnetlink: entries, counters
        (6, (1, 7, 12, 13)),  # ipset: protocol, list, header, type
        (10, (1, 4, 7, 10, 13, 16, 19, 23)),  # nf_tables: tables, chains, rules, sets, elements, …
        (11, (0,)),  # what nf_tables has of iptables' extensions
    )
    for kind in kinds
)
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 16, b"\3"  # linux/include/uapi/linux/genetlink.h


def name(number: int) -> str:
    """An errno's name; of two for one number, the kernel's own."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def _c_library() -> "ctypes.CDLL":
    # Not every Python has it, and no run needs it.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _raise_last() -> "NoReturn":
    import ctypes

    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones; `OSError` where that is refused."""
    if _c_library().unshare(flags):
        _raise_last()


def act(question: "dict[str, object]") -> str:
    """
    Do something that needs a privilege and changes nothing outside this process; "".

    `net-admin`: grow the buffer of an own socket beyond the limit. `mount`: a mount namespace of its own, and
    a file system in it.
    """
    return _ACTS[wire.one_of(question.get("act"), "act", tuple(_ACTS))]()


def _net_admin() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4096)
    return ""


def _mount() -> str:
    import ctypes

    unshare(CLONE_NEWNS)
    library = _c_library()
    for arguments in (
        # Nothing of what follows is to be seen in the namespace that it came from.
        (b"none", b"/", None, _MS_REC_PRIVATE, None),
        (b"netprobe", b"/proc", b"tmpfs", 0, None),
    ):
        source, target, kind, flags, data = arguments
        if library.mount(source, target, kind, ctypes.c_ulong(flags), data):
            _raise_last()
    return ""


_ACTS: "dict[str, Callable[[], str]]" = {"net-admin": _net_admin, "mount": _mount}


def socket_opens(question: "dict[str, object]") -> str:
    """Open a socket of a family, a type and a protocol, and close it; ""."""
    numbers = [wire.integer(question.get(each), each, 0, 0xFFFF) for each in ("family", "type", "protocol")]
    socket.socket(*numbers).close()
    return ""


def getsockopt(question: "dict[str, object]") -> str:
    """
    The value of a socket's option, whose buffer says what is asked; in hexadecimal.

    Where the option is nobody's, and a `module` is given, the kernel is asked to load that first.
    """
    numbers = [wire.integer(question.get(each), each, 0, 0xFFFF) for each in ("family", "type", "protocol")]
    level, option = (wire.integer(question.get(each), each, 0, 0xFFFF) for each in ("level", "option"))
    value = wire.octets(question.get("value"), "value")[:_MAX_VALUE_BYTES]
    module = wire.text(question.get("module"), "module").encode()[:15]
    with socket.socket(*numbers) as handle:
        try:
            return option_value(handle, level, option, value).hex()
        except OSError as error:
            if not module or error.errno != errno.ENOPROTOOPT:
                raise
        # For an interface that is not there the kernel looks for a module (linux/net/core/dev_ioctl.c).
        try:
            fcntl.ioctl(handle, _SIOCGIFINDEX, struct.pack("16s24x", module))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return option_value(handle, level, option, value).hex()


def option_value(handle: socket.socket, level: int, option: int, value: bytes) -> bytes:
    """The value of a socket's option, whose buffer says what is asked."""
    import ctypes

    buffer = ctypes.create_string_buffer(value, len(value))
    length = ctypes.c_uint32(len(value))
    if _c_library().getsockopt(handle.fileno(), level, option, buffer, ctypes.byref(length)):
        _raise_last()
    return buffer.raw[: length.value]


def conversation(question: "dict[str, object]", may_change: bool) -> "list[object]":  # noqa: FBT001 - a verb's
    """
    Steps, one after the other, whatever comes of each: [errno's name or "", [[type, body in hex], …]].

    A step is a BPF `program` to load ([type, instructions]), or netlink `messages` ([type, flags, body]) that
    are sent at once; the descriptor of the last program goes to `program_at` in the body of the first one.
    """
    protocol = wire.integer(question.get("protocol"), "protocol", 0, 31)
    results: list[object] = []
    program = -1
    talk = _Talk(protocol)
    try:
        for each in wire.items(question.get("steps"), "steps"):
            step = wire.fields(each, "steps")
            try:
                if step.get("program") is not None:
                    program = _load(step)
                    results.append(["", []])
                    continue
                messages = _messages(step, program)
                if not may_change:
                    _check_reads(protocol, messages)
                results.append(["", talk.ask(messages)])
            except OSError as error:
                results.append([name(error.errno or 0), []])
    finally:
        talk.close()
        if program >= 0:
            os.close(program)
    return results


def _messages(step: "dict[str, object]", program: int) -> "list[tuple[int, int, bytearray]]":
    found = []
    for each in wire.items(step.get("messages"), "steps.messages"):
        kind, flags, body = wire.items(each, "steps.messages", 3)
        found.append(
            (
                wire.integer(kind, "steps.type", 0, 0xFFFF),
                wire.integer(flags, "steps.flags", 0, 0xFFFF),
                bytearray(wire.octets(body, "steps.body")),
            )
        )
    if not found:
        raise wire.RequestError("steps: a step without messages")
    at = step.get("program_at")
    if at is not None:
        body = found[0][2]
        at = wire.integer(at, "steps.program_at", 0, max(0, len(body) - 4))
        if program < 0:
            raise OSError(errno.EBADF, "the program was not loaded")
        struct.pack_into("=i", body, at, program)
    return found


def _check_reads(protocol: int, messages: "list[tuple[int, int, bytearray]]") -> None:
    """Refuse what could change something in the host's own namespace."""
    for kind, _flags, body in messages:
        if protocol == _NETLINK_ROUTE:
            reads = kind >= _RTM_BASE and kind & _RTM_KIND_MASK == _RTM_KIND_GET
        elif protocol == _NETLINK_NETFILTER:
            reads = kind in _NETFILTER_GETS
        else:
            reads = protocol == _NETLINK_GENERIC and kind == _GENL_ID_CTRL and body[:1] == _CTRL_CMD_GETFAMILY
        if not reads:
            raise wire.RequestError(f"steps: message {kind} of protocol {protocol} may change the host")


class _Talk:
    """A netlink socket on which any message is sent as it is."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_S)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, messages: "list[tuple[int, int, bytearray]]") -> "list[object]":
        """
        The answers to messages that are sent as one datagram.

        A single one that is no dump is acknowledged; of several those that ask for it. `OSError` where the
        kernel answers one of them with an error, or not in time.
        """
        data = b""
        waiting = {}
        for kind, given, body in messages:
            self._sequence += 1
            is_dump = given & _NLM_F_DUMP == _NLM_F_DUMP and len(messages) == 1
            flags = given | _NLM_F_REQUEST | (_NLM_F_ACK if len(messages) == 1 and not is_dump else 0)
            data += struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body
            data += bytes(-len(body) % 4)
            waiting[self._sequence] = is_dump or bool(flags & _NLM_F_ACK)
        self._socket.send(data)
        found: list[object] = []
        size = 0
        while any(waiting.values()):
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except socket.timeout:
                raise OSError(errno.ETIMEDOUT, "no answer") from None
            size += len(data)
            if size > _MAX_ANSWER_BYTES:
                raise OSError(errno.E2BIG, "too long an answer")
            while len(data) >= 16:
                length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", data)
                answer, data = data[16:length], data[max(16, length + 3 & ~3) :]
                if sequence not in waiting:
                    continue
                if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                    found.append([kind, answer.hex()])
                    continue
                error = -struct.unpack_from("=i", answer)[0] if kind == _NLMSG_ERROR else 0
                if error:
                    raise OSError(error, os.strerror(error))
                waiting[sequence] = False
        return found


def _load(step: "dict[str, object]") -> int:
    """The descriptor of a program that was loaded."""
    import ctypes

    kind, instructions = wire.items(step.get("program"), "steps.program", 2)
    code = ctypes.create_string_buffer(wire.octets(instructions, "steps.program"))
    licence = ctypes.create_string_buffer(b"GPL")
    count = (len(code) - 1) // 8
    # The beginning of union bpf_attr for BPF_PROG_LOAD; the kernel takes what follows for zeros.
    attributes = struct.pack(
        "=IIQQIIQII",
        wire.integer(kind, "steps.program", 0, 0xFFFF),
        count,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
    )
    number = _BPF_NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "no number of the system call is known")
    library = _c_library()
    descriptor = int(
        library.syscall(
            ctypes.c_long(number), ctypes.c_long(_BPF_PROG_LOAD), attributes, ctypes.c_long(len(attributes))
        )
    )
    if descriptor < 0:
        _raise_last()
    return descriptor
