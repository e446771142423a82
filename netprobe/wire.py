"""
What the coordinator and an agent say to each other, as types; and the sans-io core of the conversation.

Requests and answers are JSON lines. A request has an `id` and a `verb`, its answer that `id` and either `ok`
or `error`. Before the agent's hello anything may come (a login banner, a shell profile that prints); after
it, a line that is no answer means that the agent cannot be trusted any more.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from netprobe.bpf import Instruction
from netprobe.questions import Question
from netprobe.template import ATTEMPT_BITS, Kind, Sight, Template

PROTOCOL: Final = 1
MAX_LINE_BYTES: Final = 256 << 20
MAX_NOISE_BYTES: Final = 1 << 20
"""Of one line before the hello; no banner has as much."""
_MAX_NOISE_LINES: Final = 200
_NOISE_CHARACTERS: Final = 300
_SHOWN: Final = 80
# A bug of the other end must not be one of this: what nests too deeply is no answer either.
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What an agent says is believed within bounds: a number that is none of these is garbage.
Number = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Mask = Annotated[int, Meta(ge=0)]  # 64 attempts are one bit more than msgspec can bound
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Clock = Annotated[float, Meta(ge=0, le=1 << 40)]
Point = Literal["left", "interface", "socket", "damaged"]
Masks = list[tuple[Number, Mask]]
"""Flow numbers with a bit for each attempt."""


class ProtocolError(Exception):
    """The other end said something that an agent does not say."""


class AgentError(Exception):
    """The agent's own error answer to one request; an errno's name stands first in it."""


class Tap(msgspec.Struct, omit_defaults=True):
    """
    A socket to open: `packet` (AF_PACKET), `raw` (a raw IP socket) or `keep` (AF_PACKET, packets kept whole).

    `arriving` is for AF_PACKET sockets that need no leaving packets, `awaited` for those whose packets
    `Collect` waits for, as it does for those of all raw sockets.
    """

    kind: str
    point: str
    filter: list[Instruction]
    arriving: bool = False
    awaited: bool = False
    version: int = 0
    protocol: int = 0


class Arm(msgspec.Struct):
    """Open the taps; answers that come `late` (s) after their probes count no more, 0 for any time."""

    nonce: int
    flows: int
    sights: list[Sight]
    taps: list[Tap]
    templates: list[Template]
    late: float = 0


class Armed(msgspec.Struct):
    """How many taps are open."""

    taps: int


class AskFacts(msgspec.Struct):
    """
    Tell about the host; routes to `peers`, holders of `ports` ((protocol, port)), which `connections` it has.

    These are TCP's, as (address, port, peer's address, peer's port).

    A run asks for no routes: 99 of them take a host two milliseconds, and nothing is judged by them yet.
    """

    peers: list[str] = []
    ports: list[tuple[int, int]] = []
    connections: list[tuple[str, int, str, int]] = []


class Route(msgspec.Struct):
    """A route to a peer, or the errno's name that a sender gets."""

    interface: str = ""
    gateway: str | None = None
    source: str | None = None
    mtu: Number = 0
    error: str = ""


class Facts(msgspec.Struct):
    """
    What an agent says of its host.

    `addresses` are (interface, address, prefix length), `links` (interface, MTU, kind), `xdp` the interfaces
    that have an XDP program, `ports` (protocol, address, port, program), `connections` numbers of those that
    were asked for; `time` is the host's clock in seconds since 1970; `alone` is whether no other agent works
    in the same network namespace.
    """

    kernel: str
    machine: str
    hostname: str
    python: str
    executable: str
    uid: Number
    capabilities: Mask
    time: float
    addresses: list[tuple[str, str, int]]
    links: list[tuple[str, Number, str]]
    xdp: list[str]
    routes: dict[str, Route]
    ports: list[tuple[int, str, int, str]]
    connections: list[Number]
    alone: bool

    def __post_init__(self) -> None:
        """Refuse what is no address."""
        for _interface, address, length in self.addresses:
            ip_interface(f"{address}/{length}")


class Listen(msgspec.Struct):
    """
    Hold ports: (protocol, address, port, request template, answer template).

    TCP listeners announce `mss` bytes as their maximum segment size.
    """

    mss: int
    sockets: list[tuple[int, str, int, int | None, int | None]]


class Listening(msgspec.Struct):
    """Which of the sockets could not be held, and the errno's name."""

    failed: list[tuple[Number, str]]


class Volley(msgspec.Struct):
    """
    Many packets by one way out (`kernel`, `link`): `attempts` are the first and their number, for each shot.

    `shots` are (template, source, [(flow, destination), …], undo): what takes a packet back where the
    conversation is cut off, the number of a template or None. `ports` are the lowest source port, how many
    there are, and how many successive attempts share one, in the way of `source_port`.
    """

    way: str
    attempts: tuple[int, int]
    ports: tuple[int, int, int]
    shots: list[tuple[int, str, list[tuple[int, str]], int | None]]


class Fire(msgspec.Struct):
    """
    Send volleys, one after the other; `rate` in packets a second, the first `after` so many seconds.

    `timed`: tell when each packet was sent.
    """

    rate: float
    after: float
    volleys: list[Volley]
    timed: bool = False


def source_port(flow: int, attempt: int, ports: tuple[int, int, int], nonce: int) -> int:
    """
    The source port that an agent gives to an attempt of a flow, where the template leaves it open.

    Neighbouring attempts lie far apart in the range, so that a hash over ports spreads them. Ports that serve
    several attempts are none of those that serve one: they must not find its connection half open. Nor must a
    run find what an earlier one left: its nonce turns the range.
    """
    low, span, same_port = ports
    place = attempt // same_port + (same_port - 1 << ATTEMPT_BITS)
    return low + (flow * 31 + place * 7919 + nonce) % span


class Fired(msgspec.Struct):
    """
    How many packets the kernel took, and which it refused, by errno's name.

    `times` are (tag without nonce, microseconds by the agent's own clock), if they were asked for.
    """

    sent: Count
    errors: list[tuple[str, Masks]]
    times: list[tuple[Number, Count]] = []


class Connect(msgspec.Struct):
    """
    Hold sessions: (source, port, request template, answer template, [(flow, destination), …]).

    At most `parallel` at a time, each for `timeout` seconds, and `rate` begin in a second.
    """

    attempt: int
    timeout: float
    parallel: int
    rate: float
    sessions: list[tuple[str, int, int, int, list[tuple[int, str]]]]


class Connected(msgspec.Struct):
    """Results: (flow, stage, errno's name, round-trip time in microseconds, retransmissions)."""

    results: list[tuple[Number, Literal[0, 1, 2], str, Count, Count]]


class Conntrack(msgspec.Struct):
    """Look up, or delete, entries: (protocol, source, destination, source port, destination port)."""

    tuples: list[tuple[int, str, str, int, int]]
    delete: bool = False


class Tracked(msgspec.Struct):
    """Whether the kernel tracks connections, and the numbers of the tuples that have an entry."""

    tracking: bool
    found: list[Number]


class Counters(msgspec.Struct):
    """What the kernel counts of packets, by name, as far as it is above zero."""

    counters: dict[str, Count]


class Inspect(msgspec.Struct):
    """
    Answer questions about the host, within so many seconds; files are looked for below `root`.

    `order` is the byte order in which messages to the kernel are written (`sys.byteorder`).
    """

    root: str
    within: float
    order: str
    questions: list[Question[Any]]


class Answer(msgspec.Struct):
    """The answer to one question, not yet decoded; or an error, with `namespace` that of making one."""

    ok: msgspec.Raw = msgspec.Raw()
    error: str = ""
    namespace: bool = False


class Inspected(msgspec.Struct):
    """An answer for each question, in their order; the host's clock (s since 1970) before and after."""

    answers: list[Answer]
    began: Clock = 0.0
    ended: Clock = 0.0


class Collect(msgspec.Struct):
    """Tell what was seen, once `expect` packets have come where they are awaited, or after a time (s)."""

    expect: int = 0
    within: float = 0


class Nothing(msgspec.Struct):
    """An empty request or answer."""


class Collected(msgspec.Struct):
    """
    What the taps saw since the last collection.

    `sightings` are (point, kind, masks); `origins` (kind, source address, TTL, destination port of a
    probe or 0, flows) of what arrived; `rtts` (flow, microseconds); `kept` (point, packet from its IP header
    on, time of its coming in microseconds by the agent's own clock); `drops` how many packets each point lost
    for want of room; `served` the sessions whose request came through, `resent` the flows of those whose
    answer had to be sent again.
    """

    sightings: list[tuple[Point, Kind, Masks]]
    origins: list[tuple[Kind, str, Number, Number, list[Number]]]
    rtts: list[tuple[Number, Count]]
    kept: list[tuple[str, bytes, Count]]
    drops: dict[str, Count]
    served: Masks
    resent: list[Number]


class _Hello(msgspec.Struct):
    hello: str
    protocol: int
    pid: int


class Reply(msgspec.Struct):
    """The answer to a request: a result not yet decoded, or an error."""

    id: int | None
    ok: msgspec.Raw = msgspec.Raw()
    error: str = ""


_T = TypeVar("_T")


class Conversation:
    """
    The coordinator's end of a conversation, without I/O.

    `receive` takes bytes as they come and returns the replies they complete; `greeted` turns true with the
    hello, `noise` has what came before it, line by line and shortened. `conceal` takes out of a line what
    must not be shown.
    """

    def __init__(self, conceal: Callable[[bytes], bytes] = bytes) -> None:
        self._conceal = conceal
        self.greeted = False
        self.noise: list[str] = []
        self._pending = bytearray()
        self._requests = 0

    def request(self, verb: str, fields: msgspec.Struct) -> tuple[int, bytes]:
        """The number of a new request, and the bytes to send."""
        self._requests += 1
        message = {"id": self._requests, "verb": verb, **msgspec.structs.asdict(fields)}
        return self._requests, msgspec.json.encode(message) + b"\n"

    def receive(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes; `ProtocolError` for what no agent says."""
        self._pending += data
        if b"\n" not in data:
            self._check_length(len(self._pending))
            return []
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest)
        replies = []
        for line in lines:
            if self.greeted:
                replies.append(self._reply(line))
            else:
                self._greet(line)
        return replies

    def _check_length(self, length: int) -> None:
        most = MAX_LINE_BYTES if self.greeted else MAX_NOISE_BYTES
        if length > most:
            message = f"a line of over {most >> 20} MiB"
            raise ProtocolError(message)

    def _greet(self, line: bytes) -> None:
        try:
            hello = msgspec.json.decode(line, type=_Hello)
        except NOT_JSON:
            text = self._conceal(line).decode("utf-8", "replace").strip()
            if text:
                self.noise.append(text[:_NOISE_CHARACTERS])
            if len(self.noise) > _MAX_NOISE_LINES:
                last = self._quote(line)
                message = f"{_MAX_NOISE_LINES} lines, and none of them an agent's hello; the last: {last}"
                raise ProtocolError(message) from None
            return
        if hello.protocol != PROTOCOL:
            message = f"an agent of protocol {hello.protocol}, not {PROTOCOL}"
            raise ProtocolError(message)
        self.greeted = True

    def _reply(self, line: bytes) -> Reply:
        try:
            return msgspec.json.decode(line, type=Reply)
        except NOT_JSON:
            message = f"not an agent's answer: {self._quote(line)}"
            raise ProtocolError(message) from None

    def _quote(self, line: bytes) -> str:
        shown = self._conceal(line)
        return repr(shown[:_SHOWN].decode("utf-8", "replace")) + (" …" if len(shown) > _SHOWN else "")


def result(reply: Reply, kind: type[_T]) -> _T:
    """The result of a reply; `AgentError` where it is an error, `ProtocolError` where it has another form."""
    if reply.error:
        raise AgentError(reply.error)
    try:
        return msgspec.json.decode(reply.ok, type=kind)
    except NOT_JSON as error:
        message = f"an answer that is no {kind.__name__}: {error}"
        raise ProtocolError(message) from None
