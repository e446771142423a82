"""What the tests of live services share: real programs on hosts, what they say, and what three runs left."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import pytest

from netprobe.lab import Lab
from netprobe.lab.build import environment
from netprobe.lab.expectations import label
from netprobe.model import Caveat, Run, Segment, Verdict
from tests.lab.probing import Held, evidence, probe

RUNS: Final = 3
TIMEOUT_S: Final = 20.0

IN_USE: Final = Held(Verdict.OPEN, caveats=(Caveat.PORT_IN_USE,))
IGNORED: Final = Held(Verdict.FILTERED, Segment.DESTINATION_INGRESS, caveats=(Caveat.PORT_IN_USE,))

TRACKING: Final = "{on: [%s], nft: 'ct state established,related accept'}"
"""The fault that is none, of a description: hosts that track connections."""


def needs(*programs: str) -> list[pytest.MarkDecorator]:
    """The marks of lab tests that run these programs: where one is missing they are skipped, and say so."""
    missing = [name for name in programs if shutil.which(name, path=environment()["PATH"]) is None]
    reason = f"no {', '.join(missing)} (scripts/test installs them)"
    return [pytest.mark.lab, pytest.mark.skipif(bool(missing), reason=reason)]


class Lines:
    """The lines of a program, each awaited."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self._descriptor = stream.fileno()
        self._rest = b""

    def until(self, pattern: str) -> list[str]:
        """The next lines, to the first that a pattern is found in; fails where none comes in time."""
        lines: list[str] = []
        while not lines or not re.search(pattern, lines[-1]):
            line, end, rest = self._rest.partition(b"\n")
            if end:
                self._rest = rest
                lines.append(line.decode())
                continue
            assert select.select([self._descriptor], [], [], TIMEOUT_S)[0], f"no {pattern!r}, but {lines}"
            more = os.read(self._descriptor, 1 << 16)
            assert more, f"it ended without {pattern!r}, with {[*lines, line.decode()]}"
            self._rest += more
        return lines

    def find(self, pattern: str) -> str:
        """The next line that a pattern is found in; fails where none comes in time."""
        return self.until(pattern)[-1]


class Program:
    """A program on a host, which has said that it is ready; `name` is the kernel's name of it."""

    def __init__(self, lab: Lab, on: str, argv: Sequence[str], *, ready: str, name: str = "") -> None:
        # Its stdin stays open: `openssl s_server` ends with it.
        self.process = lab.popen(
            on, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.name = name or argv[0]
        self.lines = Lines(self.process.stdout)
        self.lines.find(ready)

    @property
    def holds(self) -> str:
        """How a cell says that this program has the port: those before it in its place only executed it."""
        return f"{self.name} (pid {self.process.pid}) holds the port"


HOLD: Final = """
import socket, sys
held = {}
for word in sys.argv[1:]:
    protocol, address, port = word.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    handle = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    handle.bind((address, int(port)))
    if protocol == "tcp":
        handle.listen()
    held[word] = handle
print("ready", flush=True)
"""
"""The beginning of a service: it holds the sockets that its arguments name, `tcp,ADDRESS,PORT`."""


_CONNECT: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    print(connection.getsockname()[1])
    connection.sendall(sys.argv[3].encode())
    connection.settimeout(float(sys.argv[4]))
    try:
        connection.recv(1)
    except ConnectionResetError:
        pass
"""
GREETING: Final = "the test itself"


def connect(lab: Lab, source: str, address: str, port: int) -> int:
    """
    Connect from a host, completely, say who it is, and wait for the other end to close; the source port.

    It is what a probe must never be.
    """
    argv = [sys.executable, "-c", _CONNECT, address, str(port), GREETING, str(TIMEOUT_S)]
    return int(lab.run(source, argv).stdout)


_ECHO: Final = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
    echo.bind(("0.0.0.0", 7))
    print("ready", flush=True)
    while True:
        echo.sendto(*echo.recvfrom(100))
"""
# At least once to each; twenty rounds a second at most, to the end of its stdin.
_TALK: Final = """
import select, socket, sys
sent = answered = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker:
    talker.settimeout(float(sys.argv[1]))
    while not sent or not select.select([sys.stdin], [], [], 0.05)[0]:
        for address in sys.argv[2:]:
            talker.sendto(b"%d" % sent, (address, 7))
            answered += talker.recv(100) == b"%d" % sent
            sent += 1
            if sent == len(sys.argv[2:]):
                print("ready", flush=True)
print("answered", answered, "of", sent, flush=True)
"""


class Traffic:
    """
    Datagrams from a host to addresses of another, which echoes them: one after the other, until `stop`.

    When it is there, each address has answered once. One that does not answer ends it at once.
    """

    def __init__(self, lab: Lab, source: str, destination: str, addresses: Sequence[str]) -> None:
        self._echo = Program(lab, destination, [sys.executable, "-c", _ECHO], ready="^ready$")
        talk = [sys.executable, "-c", _TALK, str(TIMEOUT_S), *addresses]
        self._talker = Program(lab, source, talk, ready="^ready$")

    def stop(self) -> int:
        """End it; how many datagrams there were, each of them answered."""
        assert self._talker.process.stdin is not None
        self._talker.process.stdin.close()
        _word, answered, _of, sent = self._talker.lines.find("^answered").split()
        self._echo.process.terminate()
        self._echo.process.wait(TIMEOUT_S)

        assert answered == sent
        return int(sent)


def three_runs(lab: Lab, *probes: str) -> list[Run]:
    """As many runs as nobody may notice."""
    return [probe(lab, *probes) for _ in range(RUNS)]


def check_open(run: Run, ports: Mapping[tuple[str, int], str]) -> None:
    """
    Every cell is open; the ports (destination, number) that are held are in use, as these words say.

    IP protocol 4 has no port that could be held, and caveats of its own.
    """
    for cell in run.cells:
        words = ports.get((cell.flow.dst, cell.flow.port or 0), "")
        what = f"{label(cell.flow)}: {cell.judgement.detail}\n{evidence(cell)}"

        assert Verdict.OPEN is cell.judgement.verdict, what
        if cell.flow.port is not None:
            assert (IN_USE if words else Held(Verdict.OPEN)) == Held.of(cell), what
            assert words == cell.judgement.detail, what


_UNFINISHED: Final = ("syn-sent", "syn-recv", "fin-wait-1", "close-wait", "last-ack", "closing")


def traces(lab: Lab) -> dict[str, set[str]]:
    """
    What packets may leave behind on each host: TCP connections that are neither up nor ended, and conntrack
    entries, but for those that run out by themselves within 30 s.

    These are TCP's in the state CLOSE and UDP's from a port of its own; an entry between equal ports, as
    WireGuard's are, is one of the opposite direction as well.
    """
    return {host: _unfinished(lab, host) | _tracked(lab, host) for host in lab.hosts}


def _unfinished(lab: Lab, host: str) -> set[str]:
    words = [word for state in _UNFINISHED for word in ("state", state)]
    return set(lab.run(host, ["ss", "--no-header", "-tn", *words]).stdout.splitlines())


def _tracked(lab: Lab, host: str) -> set[str]:
    found = set()
    for family in ("ipv4", "ipv6"):
        for line in lab.run(host, ["conntrack", "-L", "-f", family]).stdout.splitlines():
            protocol, _number, _expires, *words = line.split()
            ports = dict(word.split("=") for word in words if word.startswith(("sport=", "dport=")))
            if protocol == "tcp":
                is_lasting = words[0] not in ("CLOSE", "TIME_WAIT")
            else:
                is_lasting = protocol != "udp" or ports["sport"] == ports["dport"]
            if is_lasting:
                # What follows is the answers', and how often each was seen.
                found.add(" ".join([protocol, *words[: 5 if protocol == "tcp" else 4]]))
    return found


def self_signed(directory: Path) -> tuple[str, str]:
    """A certificate that nobody trusts, and its key: two files."""
    key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-subj", "/CN=netprobe", "-keyout", key, "-out", certificate]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key
