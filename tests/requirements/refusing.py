"""
Run a command whose system calls are refused, by a rule, with the errno that a lacking kernel would answer.

    python refusing.py unshare=EPERM sendto~77697265=EOPNOTSUPP -- command …

A rule is a system call, then `~` and bytes in hexadecimal with which the buffer that it is given must begin
(which it must contain, if it is sent), or `@` and arguments that it must have (`*`: any), then the errno.
What no rule is about goes on. It is the kernel that refuses: a seccomp filter hands these calls to this
process (seccomp_unotify(2)), which decides and never carries one out.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

_NUMBERS: Final = {
    "x86_64": {
        "socket": 41,
        "sendto": 44,
        "setsockopt": 54,
        "getsockopt": 55,
        "mount": 165,
        "unshare": 272,
        "seccomp": 317,
        "bpf": 321,
    },
    "aarch64": {
        "mount": 40,
        "unshare": 97,
        "socket": 198,
        "sendto": 206,
        "setsockopt": 208,
        "getsockopt": 209,
        "seccomp": 277,
        "bpf": 280,
    },
}
"""By machine: asm-generic/unistd.h, and x86's syscall_64.tbl."""
_BUFFERS: Final = {"sendto": (1, 2), "bpf": (1, 2), "getsockopt": (3, 4)}
"""Which arguments are the buffer and its length; getsockopt's length is behind a pointer."""
_MOST: Final = 1 << 16

_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_USER_NOTIF, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECV, _SEND = 0xC0502100, 0xC0182101
_CONTINUE: Final = 1
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_RESPONSE: Final = struct.Struct("=QqiI")


class Rule(NamedTuple):
    """A system call that is refused: with which bytes or arguments, and what it answers."""

    call: str
    needle: bytes
    arguments: tuple[str, ...]
    error: int


def parse(text: str) -> Rule:
    """A rule out of a command line."""
    what, _equals, error = text.partition("=")
    call, _tilde, needle = what.partition("~")
    call, _at, arguments = call.partition("@")
    given = tuple(arguments.split(",")) if arguments else ()
    return Rule(call, bytes.fromhex(needle), given, getattr(errno, error))


def _filter(numbers: Sequence[int]) -> bytes:
    """A program that hands these system calls over, and lets all others go on (linux/filter.h)."""
    lines = [struct.pack("=HBBI", 0x20, 0, 0, 0)]  # the call's number
    left = len(numbers)
    for number in numbers:
        lines.append(struct.pack("=HBBI", 0x15, left, 0, number))
        left -= 1
    lines.append(struct.pack("=HBBI", 0x06, 0, 0, _ALLOW))
    lines.append(struct.pack("=HBBI", 0x06, 0, 0, _USER_NOTIF))
    return b"".join(lines)


def _become(command: Sequence[str], numbers: Sequence[int], there: socket.socket) -> NoReturn:
    """Install the filter, hand over what listens to it, and run the command."""
    library = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(_filter(numbers))
    program = struct.pack("@HP", (len(code) - 1) // 8, ctypes.addressof(code))
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = library.syscall(
        _NUMBERS[platform.machine()]["seccomp"], _SET_MODE_FILTER, _NEW_LISTENER, program
    )
    if listener < 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    socket.send_fds(there, [b"x"], [listener])
    os.close(listener)
    os.execvp(command[0], list(command))  # noqa: S606


def _bytes(pid: int, address: int, length: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(min(length, _MOST))


def _holds(rule: Rule, pid: int, arguments: Sequence[int]) -> bool:
    if any(want not in ("*", str(got)) for want, got in zip(rule.arguments, arguments, strict=False)):
        return False
    if not rule.needle:
        return True
    at, length_at = _BUFFERS[rule.call]
    length = arguments[length_at]
    if rule.call == "getsockopt":
        length = int.from_bytes(_bytes(pid, length, 4), sys.byteorder)
    found = _bytes(pid, arguments[at], length)
    return rule.needle in found if rule.call == "sendto" else found.startswith(rule.needle)


def _decide(listener: int, rules: Sequence[Rule]) -> None:
    """Take one call, and say what becomes of it; whoever called may have gone meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECV, buffer)
        number, pid, _flags, call, _arch, _at, *arguments = _NOTIFICATION.unpack(buffer)
        names = _NUMBERS[platform.machine()]
        about = (rule for rule in rules if names[rule.call] == call)
        error = next((rule.error for rule in about if _holds(rule, pid, arguments)), 0)
        answer = _RESPONSE.pack(number, 0, -error, 0 if error else _CONTINUE)
        fcntl.ioctl(listener, _SEND, answer)
    except OSError as gone:
        if gone.errno not in (errno.ENOENT, errno.ESRCH):
            raise


def main() -> None:
    """Run the command to its end, and end with its status."""
    at = sys.argv.index("--")
    rules = [parse(each) for each in sys.argv[1:at]]
    numbers = sorted({_NUMBERS[platform.machine()][rule.call] for rule in rules})
    here, there = socket.socketpair()
    pid = os.fork()
    if not pid:
        here.close()
        _become(sys.argv[at + 1 :], numbers, there)
    there.close()
    # The command's own input and output are none of this process's business.
    for standard in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)
    _data, (listener,), _flags, _address = socket.recv_fds(here, 1, 1)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        ((_listener, events),) = poll.poll()
        if events & select.POLLHUP:
            break
        _decide(listener, rules)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


if __name__ == "__main__":
    main()
