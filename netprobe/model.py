"""
The words of netprobe as plain frozen values: hosts, flows, evidence, verdicts.

Nothing here does I/O, reads a clock or draws a random number; every other module speaks in these types.

The way of a packet, which the segments name, and the taps that see it::

    source process                                          destination process
         | source-egress                     destination-ingress ^
         v                                                       |
    [LEFT] ------------------------ path ---------------> [AT_INTERFACE] -> [AT_SOCKET]
    [AT_INTERFACE] <------------ return-path ------------------ [LEFT]
         | source-ingress                     destination-egress
         v
    [AT_SOCKET]                       (the lower half: the answer, TCP only)
"""

from __future__ import annotations

import enum
from functools import cache, total_ordering
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec


class Symbol(enum.Enum):
    """An enumeration whose members hash by identity, in C: a large run hashes millions of them."""

    __hash__ = object.__hash__


class Family(Symbol):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @classmethod
    @cache
    def of(cls, address: str) -> Family:
        """The family of an address in text form; `ValueError` where it is none."""
        return cls.IPV4 if ip_address(address).version == 4 else cls.IPV6

    @property
    def label(self) -> str:
        """`IPv4` or `IPv6`, as people write it."""
        return "IPv4" if self is Family.IPV4 else "IPv6"


class Protocol(enum.IntEnum):
    """The IP protocol numbers that probes use (IANA)."""

    IPIP = 4
    TCP = 6
    UDP = 17

    @property
    def label(self) -> str:
        """`tcp`, `udp` or `4`, as the CSV contract writes it."""
        return "4" if self is Protocol.IPIP else self.name.lower()


class Role(Symbol):
    """What a host is in the cluster; decides which flows end at it."""

    NODE = "node"
    TYPHA = "typha"
    APISERVER = "apiserver"
    ETCD = "etcd"


class Connection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a host: the transport's name, and that transport's options (unused ones stay empty)."""

    type: str
    name: str = ""
    host: str = ""
    user: str = ""
    port: int = 0
    identity: str = ""
    options: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    pod: str = ""
    node: str = ""
    container: str = ""
    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""
    image: str = ""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """
    A machine of the inventory.

    The agent there is run by sudo, or by the command `become`; `python` is its interpreter, found on the host
    where it is empty.
    """

    name: str
    addresses: tuple[str, ...]
    roles: tuple[Role, ...] = (Role.NODE,)
    connection: Connection = Connection(type="local")
    sudo: bool = False
    become: tuple[str, ...] = ()
    python: tuple[str, ...] = ()

    def address(self, family: Family) -> str | None:
        """The probed address of a family: the first one listed, or None."""
        return next((a for a in self.addresses if Family.of(a) is family), None)


MIN_NETWORK: Final = 4
"""Addresses of a range at least: its first and its last one are none to send from."""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the user asked for: hosts, and which probes, modes and ports (None, absent: the defaults).

    `pod_cidr` are the ranges of the pods' addresses, at most one of each family; `service_cidr` those of the
    services'.
    """

    hosts: tuple[Host, ...]
    probes: tuple[str, ...] | None = None
    modes: tuple[str, ...] | None = None
    ports: dict[str, tuple[int, ...]] = {}
    pod_cidr: tuple[str, ...] = ()
    service_cidr: tuple[str, ...] = ()

    def pod_address(self, family: Family) -> str:
        """
        The address that stands for a pod's: the last but one of the family's range, "" where it has none.

        Whoever hands out addresses begins at the low end; the last one may be a broadcast address.
        """
        networks = map(ip_network, self.pod_cidr)
        version = 4 if family is Family.IPV4 else 6
        return next((str(network[-2]) for network in networks if network.version == version), "")


class Flow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """
    One probe x one family x one port x one ordered pair of hosts. `number` is what the tags carry.

    `pod_address` is the source address that the packets bear, where that is a pod's and not the host's own.
    """

    number: int
    probe: str
    family: Family
    protocol: Protocol
    port: int | None
    src: str
    src_address: str
    dst: str
    dst_address: str
    pod_address: str = ""

    @property
    def forwarded(self) -> bool:
        """Whether its packets are such as both hosts forward: no rule about their own traffic judges them."""
        return bool(self.pod_address)

    @property
    def bears(self) -> str:
        """The source address that its packets bear."""
        return self.pod_address or self.src_address


class Verdict(Symbol):
    """What the evidence of a flow means; declared from best to worst, `severity` relies on it."""

    OPEN = "open"
    CLOSED = "closed"
    UNTESTED = "untested"
    DEGRADED = "degraded"
    INTERCEPTED = "intercepted"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    FILTERED = "filtered"

    @property
    def is_blocked(self) -> bool:
        """Whether the network kept packets of the flow from their destination, or answered in its place."""
        return self not in (Verdict.OPEN, Verdict.CLOSED, Verdict.UNTESTED)


_SEVERITY: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}


def severity(verdict: Verdict) -> int:
    """The rank of a verdict from best (0, open) to worst, for the worst of several flows."""
    return _SEVERITY[verdict]


class Segment(Symbol):
    """Where on the way a flow was lost, in the order of the way."""

    SOURCE_EGRESS = "source-egress"
    PATH = "path"
    DESTINATION_INGRESS = "destination-ingress"
    DESTINATION_EGRESS = "destination-egress"
    RETURN_PATH = "return-path"
    SOURCE_INGRESS = "source-ingress"


class Caveat(Symbol):
    """Why a verdict deserves a second look."""

    STATE_ASSISTED = "state-assisted"
    PORT_IN_USE = "port-in-use"
    NAT = "nat"
    RETRIED = "retried"
    ECMP = "ecmp"


@total_ordering
class Seen(Symbol):
    """
    The furthest point at which a probe packet was seen; declared, and compared, in the order of the way.

    UNSENT: the kernel refused the send call. SENT: it took the packet. LEFT: the source's AF_PACKET tap saw
    it leave (after OUTPUT and POSTROUTING). AT_INTERFACE: the destination's AF_PACKET tap saw it arrive
    (before the host firewall). AT_SOCKET: a raw socket there saw it (after INPUT).
    """

    UNSENT = "unsent"
    SENT = "sent"
    LEFT = "left"
    AT_INTERFACE = "at-interface"
    AT_SOCKET = "at-socket"

    def __lt__(self, other: Seen) -> bool:
        """Whether this point is nearer to the source."""
        return _ORDER[self] < _ORDER[other]


_ORDER: Final = {seen: place for place, seen in enumerate(Seen)}


class Answer(Symbol):
    """
    What came back for one probe packet, and how far on its way to the source.

    ACCEPT is a SYN-ACK, or in a session the peer's payload. RST_INSTEAD: a RST reached the source although
    what the destination sent was an ACCEPT.
    """

    NONE = "none"
    ACCEPT_LEFT = "accept-left"
    ACCEPT_AT_INTERFACE = "accept-at-interface"
    ACCEPT = "accept"
    RST_LEFT = "rst-left"
    RST_AT_INTERFACE = "rst-at-interface"
    RST = "rst"
    RST_INSTEAD = "rst-instead"


class Word(Symbol):
    """Who spoke about a lost packet: nobody, a firewall that prohibits, or a router without a route."""

    SILENCE = "silence"
    PROHIBITED = "prohibited"
    UNREACHABLE = "unreachable"


class Fate(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of one probe packet."""

    seen: Seen
    answer: Answer = Answer.NONE
    word: Word = Word.SILENCE


Fates = tuple[tuple[Fate, int], ...]
"""How many packets of a flow met which fate; the order is that of the first occurrence."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """
    Refusals that were heard: by which address ("" where the packet does not tell), and in which words.

    `word` is what the verdict makes of them, `reason` what was on the wire: `ICMP 3/13 …`, `RST …`, an
    errno's name.
    """

    word: Word
    by: str
    reason: str
    count: int = 1


RATIONED: Final = "refusals may have been rationed, and too many flows were silent to ask each again"
"""The note of a flow that was lost without a word where others were refused, and not asked often enough."""


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The evidence of a TCP session with payload, held after the handshake probe passed.

    `fates` are those of the payloads (request and answer), each session one; `stage` is the first thing that
    did not happen: "" (all well), `handshake`, `request` or `answer`; `retried` whether it took a second try.
    """

    fates: Fates = ()
    stage: str = ""
    error: str = ""
    retried: bool = False


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    All observations of one flow, from both ends.

    `untested` is the reason why the flow could not be tested, and outweighs everything else. `first` are the
    fates of those packets of the first round that got through, `missed` how many did not; `confirm` are the
    fates of the burst that follows a miss, with all points of the way watched. `output` are the fates of the
    separate sends through the source's own OUTPUT chain, for flows whose arrivals are judged on packets
    injected below it. `astray` counts the packets that another host of the run got instead. `state` says
    which state could have let the packets through, "" for none. Packets that are `forwarded` by both hosts
    have arrived where the destination's firewall begins. `counter` is the kernel's counter that grew by each
    of the packets that were lost inside a host.
    """

    protocol: Protocol
    forwarded: bool = False
    untested: str = ""
    first: Fates = ()
    missed: int = 0
    confirm: Fates = ()
    output: Fates = ()
    astray: int = 0
    session: Session | None = None
    refusals: tuple[Refusal, ...] = ()
    state: str = ""
    holder: str | None = None
    nat: str = ""
    counter: str = ""
    failing_ports: tuple[int, ...] = ()
    passing_ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict with where, by whom, and why it deserves a second look; `detail` is one line of text."""

    verdict: Verdict
    segment: Segment | None = None
    by: str = ""
    caveats: tuple[Caveat, ...] = ()
    detail: str = ""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """
    A flow with its verdict: a square of the matrix.

    `sent` and `arrived` count probe packets. Flows that look alike share one evidence.
    """

    flow: Flow
    judgement: Judgement
    evidence: Evidence
    sent: int
    arrived: int
    rtt_ms: float | None = None


class Reply(Symbol):
    """
    What is known of a packet that had so many hops to go.

    NONE: nobody said anything. EXCEEDED: a router let it expire, and has therefore seen it. REFUSED: somebody
    refused it. ANSWERED: somebody answered it in the destination's name. ARRIVED: the destination's interface
    saw it.
    """

    NONE = "none"
    EXCEEDED = "exceeded"
    REFUSED = "refused"
    ANSWERED = "answered"
    ARRIVED = "arrived"


class Hop(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What became of the packets of one TTL (or hop limit) on a way.

    `by` is the address of who spoke about them ("" for nobody, or where it does not tell), `said` the words,
    `rtt_ms` after how long. `is_unsure`: the silence may be want of words, and not of the packet.
    """

    ttl: int
    reply: Reply = Reply.NONE
    by: str = ""
    said: str = ""
    rtt_ms: float | None = None
    is_unsure: bool = False


class Trace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How far the packets of a flow come, hop by hop.

    `error` is why that could not be found out. `left` is whether any was seen to leave the source, `last_ttl`
    and `last_by` the furthest hop that saw one, and its address: 0 and "" for none. `arrived_ttl` is the
    smallest TTL with which one came to the destination's interface, `passed` whether one came to its socket.
    `refusal` is the first that was heard on the way, `lost_ttl` the first hop behind `last_ttl` that saw
    packets of `reference` and none of these: the trace, on the same pair, of a probe that is open there.
    """

    flow: Flow
    error: str = ""
    hops: tuple[Hop, ...] = ()
    left: bool = False
    last_ttl: int = 0
    last_by: str = ""
    arrived_ttl: int | None = None
    passed: bool = False
    refusal: Refusal | None = None
    lost_ttl: int | None = None
    reference: Trace | None = None


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An interface of a host that has probed addresses; its MTU in bytes.

    `kind` is what it was made as (`vxlan`, `bond`, `veth`, …), "" for hardware; `xdp` whether it has an XDP
    program, which may drop packets before any tap.
    """

    name: str
    mtu: int
    kind: str = ""
    xdp: bool = False
    addresses: tuple[str, ...] = ()


class HeldPort(msgspec.Struct, frozen=True, kw_only=True):
    """A probed port that was in use before the run, and what holds it."""

    protocol: Protocol
    address: str
    port: int
    program: str


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What an agent said of its host; `error` is why it said nothing (more), "" where all went well.

    `name` is that of the inventory, `hostname` the host's own. `python` is the version of the interpreter,
    `interpreter` its path. `clock_offset_ms` is by how much its clock is ahead, roughly: all hosts are asked
    at once. `networks` are the connected networks of the probed addresses, `address/prefixlen` as configured
    there.
    """

    name: str
    error: str = ""
    hostname: str = ""
    kernel: str = ""
    machine: str = ""
    python: str = ""
    interpreter: str = ""
    uid: int | None = None
    capabilities: tuple[str, ...] = ()
    clock_offset_ms: float | None = None
    networks: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    ports_in_use: tuple[HeldPort, ...] = ()


DEFAULT_RATE: Final = 5000.0
DEFAULT_TIMEOUT_S: Final = 1.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to probe.

    `count` packets a flow in the first round (None: what is usual for so many flows); `rate` packets a second
    and host at most; `timeout_s` the longest wait for what may still arrive; `depth` `syn` or `session`;
    `families` those to probe; `only` the hosts that every flow must have at one end (empty: any).
    """

    count: int | None = None
    rate: float = DEFAULT_RATE
    timeout_s: float = DEFAULT_TIMEOUT_S
    depth: str = "session"
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    only: tuple[str, ...] = ()


class Limit(Symbol):
    """
    What keeps larger packets from a path.

    ROUTER: one that said so. CUT: larger ones arrive in pieces, although DF is set. BLACK_HOLE: they vanish,
    and nobody says how large they may be.
    """

    SOURCE_INTERFACE = "source-interface"
    ROUTER = "router"
    CUT = "cut"
    BLACK_HOLE = "black-hole"


class Outcome(Symbol):
    """What came of measuring a path with one kind of packet; BLOCKED: not even a small one arrived."""

    MEASURED = "measured"
    BLOCKED = "blocked"
    UNTESTED = "untested"


class Fragments(Symbol):
    """
    What becomes of packets above the path MTU that may be cut (IPv4, DF clear).

    DELIVERED: they come to the socket whole again. PARTIAL: the first fragment arrives, and the socket gets
    nothing. LOST: not even that arrives.
    """

    DELIVERED = "delivered"
    PARTIAL = "partial"
    LOST = "lost"


class TooBig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An ICMP "fragmentation needed" or "packet too big" that was heard: who said which MTU, in bytes.

    One that `lies` calls a packet too big that is no larger than that.
    """

    by: str
    mtu: int
    lies: bool = False


class KindMtu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The path MTU in bytes as the packets of one probe have it; `reason` says why there is none."""

    probe: str
    outcome: Outcome
    mtu: int | None = None
    reason: str = ""


class PathMtu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The largest packet, in bytes with its IP header, that arrives whole from one host at another.

    `mtu` is None where no kind of packet could tell, and `untested` says why. `interface_mtu` is that of the
    interface by which the source sends, `by` the router that limits the path. `tcp_mss` is the maximum
    segment size as it arrived, of a SYN that left with `tcp_mss_sent`. `fragments` is None where nothing was
    tried: nothing that the source can send is larger than the path's MTU, or it is IPv6, which routers do not
    cut.
    """

    src: str
    dst: str
    family: Family
    mtu: int | None = None
    interface_mtu: int = 0
    limit: Limit | None = None
    by: str = ""
    too_big: tuple[TooBig, ...] = ()
    kinds: tuple[KindMtu, ...] = ()
    tcp_mss: int | None = None
    tcp_mss_sent: int | None = None
    fragments: Fragments | None = None
    untested: str = ""
    notes: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """
    A whole run: what was asked, what each host said, every cell, and probe packets sent.

    `traces` are those of blocked flows, and `mtus` the path MTUs, where they were asked for. Times are ISO
    8601.
    """

    inventory: Inventory
    settings: Settings = Settings()
    hosts: tuple[HostReport, ...]
    cells: tuple[Cell, ...]
    traces: tuple[Trace, ...] = ()
    mtus: tuple[PathMtu, ...] = ()
    packets: int = 0
    started: str
    finished: str
    versions: dict[str, str]
