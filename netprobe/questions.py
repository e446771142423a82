"""
What an agent can be asked about its host, as values; and the forms of its answers.

A question is the same for every host, compares by value, and is asked once, however many requirements want to
know. `Netlink`, `Getsockopt`, `Socket` and `Namespace` are asked in a network namespace that is thrown away
afterwards, all others of the host itself, where nothing is changed.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Number = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


class Question(msgspec.Struct, Generic[T], frozen=True, kw_only=True, tag_field="kind"):
    """Any question; `T` is the form of its answer, which `answer` has for the decoder."""

    answer: ClassVar[Any] = None


class Failed(msgspec.Struct, frozen=True):
    """
    A question without an answer.

    `error` begins with an errno's name, or with that of the signal by which the question ended the process.
    With `namespace` it is that no throwaway namespace could be made, so the question itself was not asked;
    with `host` it is why the host has said nothing at all.
    """

    error: str
    namespace: bool = False
    host: bool = False

    @property
    def name(self) -> str:
        """The errno's name alone."""
        return self.error.partition(":")[0]


class SystemFacts(msgspec.Struct, frozen=True):
    """
    The system's own description.

    `seccomp` is 2 where a filter is at work, `uid_map` the first line of the user namespace's (inside,
    outside, count), `time` the host's clock in seconds since 1970.
    """

    release: str
    machine: str
    hostname: str
    python: str
    uid: Number
    capabilities: Annotated[int, Meta(ge=0)]
    seccomp: Number
    uid_map: list[str]
    time: float


class System(Question[SystemFacts], frozen=True, tag="system"):
    """What the system says of itself."""

    answer = SystemFacts


class File(msgspec.Struct, frozen=True, array_like=True):
    """A file that is there: `error` is why it has no text (EISDIR: a directory), `cut` that there is more."""

    path: str
    error: str
    cut: bool
    text: str


class FileList(msgspec.Struct, frozen=True):
    """Those that match, in the order of the patterns; `more`: there are too many to tell."""

    files: list[File]
    more: bool

    def text(self, path: str) -> str | None:
        """The text of a file, None where it is not there or cannot be read."""
        return next((file.text for file in self.files if file.path == path and not file.error), None)


class Files(Question[FileList], frozen=True, tag="files"):
    """
    The files that match patterns of a shell, below the root; of each at most so many bytes.

    A pattern without wildcards is a path. Directories match as well, and have EISDIR for their error.
    """

    patterns: tuple[str, ...]
    most: int = 1 << 16
    answer = FileList


class Place(msgspec.Struct, frozen=True, array_like=True):
    """
    What is at a path: `directory`, `file`, `other`, `none`, or an errno's name.

    `parent` is the nearest directory there, or the path itself; `writable` whether the agent may write to it,
    `read_only` and `no_exec` whether its file system is mounted so, `free` bytes for others than root.
    """

    kind: str
    parent: str
    writable: bool
    read_only: bool
    free: Annotated[int, Meta(ge=0)]
    no_exec: bool

    @property
    def can_be_made(self) -> bool:
        """Whether a directory is there, or nothing is, and could be."""
        return self.kind in ("directory", "none") and self.writable and not self.read_only


class Places(Question[list[Place]], frozen=True, tag="places"):
    """What is at these paths, below the root; an answer for each."""

    paths: tuple[str, ...]
    answer = list[Place]


class Process(msgspec.Struct, frozen=True, array_like=True):
    """
    A process: its number, what it is called, whose it is, its command line.

    `is_here` is whether it has the agent's network namespace, None where that cannot be seen.
    """

    pid: Number
    name: str
    uid: Number
    argv: list[str]
    is_here: bool | None

    @property
    def label(self) -> str:
        """The process as it is told of."""
        return f"{self.name} (pid {self.pid})"


class Processes(Question[list[Process]], frozen=True, tag="processes"):
    """
    The processes whose name, or the first word of whose command line, a regular expression finds.

    Where those of other users are hidden from the agent, there is no answer.
    """

    pattern: str
    answer = list[Process]


class Named(Question[list[File]], frozen=True, tag="named"):
    """
    The files that processes' command lines name with a flag (`--config`), as the processes see them.

    `pattern` chooses the processes, as in `Processes`.
    """

    pattern: str
    flag: str
    most: int = 1 << 16
    answer = list[File]


class Link(msgspec.Struct, frozen=True, array_like=True):
    """An interface: `kind` is what it was made as, "" for hardware; `mac` is in hexadecimal."""

    index: Number
    name: str
    kind: str
    mtu: Number
    mac: str
    up: bool


class HeldAddress(msgspec.Struct, frozen=True, array_like=True):
    """An address with its prefix length, and the index of its interface."""

    index: Number
    address: str
    length: Annotated[int, Meta(ge=0, le=128)]

    def __post_init__(self) -> None:
        """Refuse what is no address, as `ValueError`."""
        ip_interface(self.text)

    @property
    def text(self) -> str:
        """`address/length`."""
        return f"{self.address}/{self.length}"


class RouteEntry(msgspec.Struct, frozen=True, array_like=True):
    """A route; `protocol` is who made it (RTPROT_*), `type` unicast or how packets end there."""

    network: str
    gateway: str
    index: Number
    table: Number
    protocol: Annotated[int, Meta(ge=0, le=255)]
    type: str

    def __post_init__(self) -> None:
        """Refuse what is no network or no address, as `ValueError`."""
        ip_interface(self.network)
        if self.gateway:
            ip_address(self.gateway)


class NetworkFacts(msgspec.Struct, frozen=True):
    """The host's interfaces, addresses and routes of all tables; `more`: there are too many to tell."""

    links: list[Link]
    addresses: list[HeldAddress]
    routes: list[RouteEntry]
    more: bool = False

    def link(self, index: int) -> str:
        """The name of an interface, "" for none."""
        return next((each.name for each in self.links if each.index == index), "")

    def holder(self, address: str) -> Link | None:
        """The interface that has an address; None where none has."""
        wanted = ip_address(address)
        index = next((each.index for each in self.addresses if ip_address(each.address) == wanted), None)
        return next((each for each in self.links if each.index == index), None)


class Network(Question[NetworkFacts], frozen=True, tag="network"):
    """Interfaces, addresses and routes of the host's own network namespace."""

    answer = NetworkFacts


class Target(msgspec.Struct, frozen=True, array_like=True):
    """A server: `name` is what its certificate must be for ("": its host), `paths` what it is asked for."""

    host: str
    port: int
    name: str
    paths: tuple[str, ...]

    @property
    def label(self) -> str:
        """As people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Page(msgspec.Struct, frozen=True, array_like=True):
    """An answer: its status, whether its body was cut short, and the body."""

    status: Number
    cut: bool
    body: str


class Visit(msgspec.Struct, frozen=True, array_like=True):
    """
    What came of a server: a page for each path, or fewer and an `error`.

    That is an errno's name, `tls: …` or `http: …`. `met` is whether TCP connected, `expires` until when the
    certificate is good, where that was verified.
    """

    error: str
    met: bool
    expires: str
    pages: list[Page]


class Fetch(Question[list[Visit]], frozen=True, tag="fetch"):
    """
    HTTP GET from several servers at once; a visit for each target, in their order.

    With `verify` a server's certificate must be one of `ca` ("": of the host's own authorities).
    `certificate` and `key` are the client's, all in PEM; `token` is told to verified servers only. What is
    secret of it is in no text that this is turned into.
    """

    targets: tuple[Target, ...]
    tls: bool = True
    verify: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    accept: str = "application/json"
    most: int = 1 << 16
    within: float = 2.0
    answer = list[Visit]

    def __repr__(self) -> str:
        return f"Fetch(targets={self.targets!r}, tls={self.tls}, verify={self.verify})"


class Holder(msgspec.Struct, frozen=True, array_like=True):
    """
    Who holds a port: the socket's protocol, address and port.

    `program` is "" where none has it: the kernel's own, or of a process that the agent may not look at.
    """

    protocol: Number
    address: str
    port: Number
    program: str


class Holders(Question[list[Holder]], frozen=True, tag="holders"):
    """The sockets of the host's network namespace that hold these ports, as (protocol, port)."""

    ports: tuple[tuple[int, int], ...]
    answer = list[Holder]


class LegacyTable(msgspec.Struct, frozen=True, array_like=True):
    """
    A table of iptables-legacy that is loaded: IP version, name, how many entries it has, and chains built in.

    `entries` is None where its size is not told. Without any rule a table has one entry for each of its
    built-in chains, and one at its end.
    """

    version: Number
    name: str
    entries: Number | None
    chains: Number

    @property
    def rules(self) -> int | None:
        """How many rules it has, with the headers of its own chains; None where that is not told."""
        return None if self.entries is None else max(0, self.entries - self.chains - 1)


class LegacyTables(Question[list[LegacyTable]], frozen=True, tag="legacy-tables"):
    """The tables of iptables-legacy that are loaded in the host's network namespace; to ask loads none."""

    answer = list[LegacyTable]


class Act(Question[str], frozen=True, tag="act"):
    """
    Do what needs a privilege and changes nothing: `net-admin`, `mount`.

    The answer is empty where that was allowed.
    """

    act: str
    answer = str


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Netlink `messages` (type, flags, body) that are sent as one datagram; or a BPF program to load.

    The flags for a request, and of a single message that for an acknowledgement, are added. `program` is its
    type (enum bpf_prog_type) and instructions; its descriptor is put into the body of the first message of a
    later step, at `program_at`.
    """

    messages: tuple[tuple[int, int, bytes], ...] = ()
    program: tuple[int, bytes] | None = None
    program_at: int | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What came of a step: the errno's name or "", and the answers (type, body in hexadecimal)."""

    error: str
    answers: list[tuple[Number, str]]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the answers; those that are no bytes are left out."""
        return [body for body in (_unhex(text) for _type, text in self.answers) if body is not None]


def _unhex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


class Netlink(Question[list[Outcome]], frozen=True, tag="netlink"):
    """Netlink messages in the throwaway namespace, one after the other, whatever comes of each."""

    protocol: int
    steps: tuple[Step, ...]
    answer = list[Outcome]


class Look(Question[list[Outcome]], frozen=True, tag="look"):
    """Netlink messages in the host's own namespace; agents refuse those that do more than read."""

    protocol: int
    steps: tuple[Step, ...]
    answer = list[Outcome]


class Getsockopt(Question[str], frozen=True, tag="getsockopt"):
    """
    An option of a socket in the throwaway namespace, with a value in the buffer; its value in hexadecimal.

    Where the kernel does not know the option (ENOPROTOOPT) it is asked to load `module`, and asked again.
    """

    family: int
    type: int
    protocol: int
    level: int
    option: int
    value: bytes
    module: str = ""
    answer = str


class Socket(Question[str], frozen=True, tag="socket"):
    """A socket to open in the throwaway namespace; the answer is empty where that was possible."""

    family: int
    type: int
    protocol: int
    answer = str


class Namespace(Question[str], frozen=True, tag="namespace"):
    """A throwaway network namespace; the answer is empty where there is one."""

    answer = str
