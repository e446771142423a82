"""
What can be seen of a host without touching it: files, directories, processes, the system's own description.

Paths are those of a root that may be another directory than /; symbolic links lead nowhere out of it.
"""

import contextlib
import errno
import fnmatch
import os
import re
import socket
import stat
import struct
import sys
import time

from netprobe.agent import facts, netlink, throwaway, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_FILES = 2000
_MAX_BYTES = 1 << 20
_MAX_TOTAL_BYTES = 8 << 20
_MAX_LINKS = 40  # as the kernel has it
_MAX_ENTRIES = 20000
_MAX_PROCESSES = 20000
_MAX_ROUTES = 5000
_GETINFO = "=32sI5I5III"
_SO_GET_INFO = 64  # linux/include/uapi/linux/netfilter_ipv4/ip_tables.h, and the same of ip6_tables.h
_MAGIC = re.compile(r"[*?\[]")


class Root:
    """A directory that is taken for /."""

    def __init__(self, path: str) -> None:
        self._top = os.path.realpath(path)

    def real(self, path: str) -> str:
        """
        Where a path leads on this machine, all its links followed inside the root.

        `OSError` where it leads nowhere, in circles, or through what is no directory.
        """
        here: list[str] = []
        left = [each for each in path.split("/") if each not in ("", ".")][::-1]
        links = 0
        while left:
            part = left.pop()
            if part == "..":
                del here[-1:]
                continue
            there = self._join([*here, part])
            try:
                is_link = stat.S_ISLNK(os.lstat(there).st_mode)
            except FileNotFoundError:
                if left:
                    raise
                is_link = False
            # What /proc has for links are doors to objects, not names: they lead out of any root.
            if not is_link:
                here.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(there)
            if target.startswith("/"):
                here = []
            left += [each for each in target.split("/") if each not in ("", ".")][::-1]
        return self._join(here)

    def _join(self, parts: "list[str]") -> str:
        return os.path.join(self._top, *parts)

    def matching(self, pattern: str) -> "Iterator[str]":
        """The paths inside the root that match a pattern of a shell, part by part, in their order."""
        found = [""]
        for part in (each for each in pattern.split("/") if each):
            if not _MAGIC.search(part):
                found = [f"{parent}/{part}" for parent in found]
                continue
            nearer = []
            for parent in found:
                with contextlib.suppress(OSError):
                    names = sorted(os.listdir(self.real(parent)))[:_MAX_ENTRIES]
                    nearer += [f"{parent}/{each}" for each in names if _matches(each, part)]
            found = nearer
        return iter(found)


def _matches(name: str, pattern: str) -> bool:
    """As a shell has it: what begins with a dot is hidden from a pattern that does not."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def files(question: "dict[str, object]", root: Root) -> "dict[str, object]":
    """
    The files that match: [path, errno's name or "", whether there is more of it, its text].

    What is no regular file has EISDIR, or EINVAL, for its error. `more` is whether there are further files.
    """
    patterns = [wire.text(each, "patterns") for each in wire.items(question.get("patterns"), "patterns")]
    most = wire.integer(question.get("most"), "most", 0, _MAX_BYTES)
    found: list[object] = []
    left = _MAX_TOTAL_BYTES
    for pattern in patterns:
        for path in root.matching(pattern):
            if len(found) >= _MAX_FILES or left <= 0:
                return {"files": found, "more": True}
            try:
                data = _read(root.real(path), most)
            except FileNotFoundError:
                continue
            except OSError as error:
                found.append([path, throwaway.name(error.errno or 0), False, ""])
                continue
            left -= len(data)
            found.append([path, "", len(data) > most, data[:most].decode("utf-8", "replace")])
    return {"files": found, "more": False}


def _read(path: str, most: int, links: bool = False) -> bytes:  # noqa: FBT001, FBT002 - open(2)'s
    # A pipe that nobody writes to must not be waited for, nor a terminal become ours.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, os.strerror(number))
        data = b""
        while len(data) <= most:
            more = os.read(descriptor, most + 1 - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def places(question: "dict[str, object]", root: Root) -> "list[object]":
    """
    What is at each path, without making anything to find out.

    [kind (`directory`, `file`, `other`, `none` or an errno's name), the nearest parent that is there, whether
    that (or the directory itself) may be written to, whether its file system is read-only, free bytes,
    whether nothing there can be executed].
    """
    return [_place(root, wire.text(each, "paths")) for each in wire.items(question.get("paths"), "paths")]


def _place(root: Root, path: str) -> "list[object]":
    kind = _kind(root, path)
    here = path
    while kind != "directory" and _kind(root, here) != "directory" and here.strip("/"):
        here = here.rstrip("/").rpartition("/")[0]
    try:
        real = root.real(here)
        system = os.statvfs(real)
        writable = os.access(real, os.W_OK | os.X_OK)
    except OSError as error:
        return [throwaway.name(error.errno or 0), here or "/", False, False, 0, False]
    return [
        kind,
        here or "/",
        writable,
        bool(system.f_flag & os.ST_RDONLY),
        system.f_bavail * system.f_frsize,
        bool(system.f_flag & os.ST_NOEXEC),
    ]


def _kind(root: Root, path: str) -> str:
    try:
        mode = os.stat(root.real(path)).st_mode
    except FileNotFoundError:
        return "none"
    except OSError as error:
        return throwaway.name(error.errno or 0)
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def processes(question: "dict[str, object]") -> "list[object]":
    """
    The processes of which name or program match a pattern: [number, name, user, command line, is it here].

    The last is whether it has this process's network namespace, None where that cannot be seen. `OSError`
    where the processes of others are hidden (the option hidepid of proc(5)).
    """
    return [list(each) for each in _processes(question)]


def _processes(question: "dict[str, object]") -> "list[tuple[int, str, int, list[str], bool | None]]":
    try:
        pattern = re.compile(wire.text(question.get("pattern"), "pattern"))
    except re.error as error:
        raise wire.RequestError(f"pattern: {error}") from None
    # With hidden processes the first one is hidden too, or cannot be read.
    _read("/proc/1/comm", 64)
    own = (str(os.getpid()), str(os.getppid()))
    here = os.readlink("/proc/self/ns/net")
    found = []
    for number in [each for each in os.listdir("/proc") if each.isdigit() and each not in own][
        :_MAX_PROCESSES
    ]:
        # It may have ended meanwhile.
        with contextlib.suppress(OSError):
            comm = _read(f"/proc/{number}/comm", 64).decode("utf-8", "replace").strip()
            words = _read(f"/proc/{number}/cmdline", 1 << 16).decode("utf-8", "replace").split("\0")[:-1]
            if pattern.search(comm) or (words and pattern.search(words[0])):
                uid = os.stat(f"/proc/{number}").st_uid
                found.append((int(number), comm, uid, words, _is_there(number, here)))
    return found


def named(question: "dict[str, object]") -> "list[object]":
    """
    The files that processes are told of by a flag, as they see them: [path, errno's name or "", cut, text].

    A container has its own root directory, from which its paths are meant.
    """
    flag = wire.text(question.get("flag"), "flag")
    most = wire.integer(question.get("most"), "most", 0, _MAX_BYTES)
    found: list[object] = []
    for number, _name, _user, words, is_here in _processes(question):
        path = _value(words, flag)
        if not path or is_here is False or len(found) >= _MAX_FILES:
            continue
        try:
            data = _read(
                f"/proc/{number}/{'root' if path.startswith('/') else 'cwd'}/{path}", most, links=True
            )
        except OSError as error:
            found.append([path, throwaway.name(error.errno or 0), False, ""])
            continue
        found.append([path, "", len(data) > most, data[:most].decode("utf-8", "replace")])
    return found


def _value(words: "list[str]", flag: str) -> str:
    """What a flag of a command line is given, as `--flag value` or `--flag=value`; "" without it."""
    for word, following in zip(words[1:], [*words[2:], ""]):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word[len(flag) + 1 :]
    return ""


def network() -> "dict[str, object]":
    """
    Interfaces [index, name, kind, MTU, MAC in hex, up], addresses [index, address, prefix length] and routes.

    A route is [network, gateway or "", index, table, protocol (RTPROT_*), type].
    """
    handle = netlink.Netlink(netlink.NETLINK_ROUTE)
    try:
        links = [
            [index, link["name"], link["kind"], link["mtu"], link["mac"], link["up"]]
            for index, link in netlink.links(handle).items()
        ]
        addresses = [
            [index, wire.address_text(packed), length] for index, packed, length in netlink.addresses(handle)
        ]
        found, more = netlink.routes(handle, _MAX_ROUTES)
    finally:
        handle.close()
    routes = [
        [
            f"{wire.address_text(route['network'])}/{route['length']}",  # type: ignore[arg-type]
            wire.address_text(route["gateway"]) if route["gateway"] else "",  # type: ignore[arg-type]
            *(route[each] for each in ("interface", "table", "protocol", "type")),
        ]
        for route in found
    ]
    return {"links": links, "addresses": addresses, "routes": routes, "more": more}


def _is_there(number: str, namespace: str) -> "bool | None":
    try:
        return os.readlink(f"/proc/{number}/ns/net") == namespace
    except OSError:
        return None


def holders(question: "dict[str, object]") -> "list[list[object]]":
    """Who holds these ports ([protocol, port]): [protocol, address, port, program or ""]."""
    return facts.ports(facts.wanted(question.get("ports")), [])


def legacy_tables() -> "list[object]":
    """
    The tables of iptables-legacy that are loaded: [IP version, name, entries or None, chains built in].

    Their sizes are asked for only where they are loaded, because asking would load them.
    """
    found: list[object] = []
    for version, family, level, path in (
        (4, socket.AF_INET, socket.IPPROTO_IP, "/proc/self/net/ip_tables_names"),
        (6, socket.AF_INET6, socket.IPPROTO_IPV6, "/proc/self/net/ip6_tables_names"),
    ):
        try:
            # A file of /proc tells no size, and needs root.
            names = _read(path, _MAX_BYTES).decode("ascii", "replace").split()
        except FileNotFoundError:
            continue
        found += [[version, name, *_legacy_size(family, level, name)] for name in names]
    return found


def _legacy_size(family: int, level: int, name: str) -> "tuple[int | None, int]":
    # struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    size = struct.calcsize(_GETINFO)
    request = name.encode("ascii", "replace")[:31].ljust(size, b"\0")
    try:
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as handle:
            answer = throwaway.option_value(handle, level, _SO_GET_INFO, request)
    except OSError:
        return None, 0
    fields = struct.unpack(_GETINFO, answer.ljust(size, b"\0")[:size])
    return int(fields[12]), bin(fields[1]).count("1")


def system() -> "dict[str, object]":
    """The system's own description: kernel, machine, name, user, privileges, whose namespace it is, time."""
    uname = os.uname()
    status = {}
    for line in _read("/proc/self/status", _MAX_BYTES).decode("utf-8", "replace").splitlines():
        key, _colon, value = line.partition(":")
        status[key] = value.strip()
    try:
        uid_map = _read("/proc/self/uid_map", 4096).decode().split()
    except OSError:
        # A kernel without user namespaces.
        uid_map = []
    return {
        "release": uname.release,
        "machine": uname.machine,
        "hostname": uname.nodename,
        "python": ".".join(map(str, sys.version_info[:3])),
        "uid": os.geteuid(),
        "capabilities": int(status.get("CapEff", "0"), 16),
        "seccomp": int(status.get("Seccomp", "0")),
        "uid_map": uid_map[:3],
        "time": time.time(),
    }
