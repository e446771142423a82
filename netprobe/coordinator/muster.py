"""Before the first packet: what each host is, what speaks against testing it, taps armed, ports held."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from netprobe import bpf, wire
from netprobe.bpf import Direction
from netprobe.coordinator.asking import Asked
from netprobe.coordinator.field import Field
from netprobe.coordinator.volleys import ANSWER_TIMEOUT_S
from netprobe.model import Family, HeldPort, HostReport, Interface, Protocol
from netprobe.observations import INTERFACE, LEFT, SOCKET
from netprobe.template import Base, Kind, Sight

_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13  # linux/include/uapi/linux/capability.h
_CAPABILITY_NAMES: Final = {_CAP_NET_ADMIN: "CAP_NET_ADMIN", _CAP_NET_RAW: "CAP_NET_RAW"}
_VERSIONS: Final = {Family.IPV4: 4, Family.IPV6: 6}
_IN_USE: Final = "EADDRINUSE"
_BARE_SYN_BYTES: Final = 60  # the longest TCP header, RFC 9293 §3.1

_REPEATED_AFTER_S, _READ_LATE_S = 1.0, 0.1
"""
When Linux repeats a SYN-ACK (TCP_TIMEOUT_INIT, RFC 6298 §2), and how late that may be known.

A run takes its SYNs back before that, unless it is slow; a plan does not know whose answer is missing.
"""

_Socket: TypeAlias = tuple[int, str, int]
_Speech: TypeAlias = tuple[int | None, int | None]


class Muster:
    """The preparation of all hosts; `watching` says whether taps stand at their interfaces."""

    def __init__(self, crew: Asked, field: Field) -> None:
        self._crew = crew
        self._field = field
        self._facts: dict[str, wire.Facts] = {}
        self.ahead_s: dict[str, float] = {}
        """By how much the clock of each host is ahead."""
        self.watching = False
        self._is_slow = False
        self._taught = 0

    async def facts(self) -> None:
        """Ask each host about itself, and exclude the flows that it cannot take part in."""
        # A plan cannot ask for holders when it is known that there are any.
        held = self._sockets() if self._field.is_planned else {}
        requests = {name: _of_ports(held.get(name, ())) for name in self._crew.names}
        started = time.time()
        self._facts = await self._crew.ask("facts", requests, wire.Facts, ANSWER_TIMEOUT_S)
        middle = (started + time.time()) / 2
        self.ahead_s = {name: facts.time - middle for name, facts in self._facts.items()}
        for name, facts in self._facts.items():
            self._check_privileges(name, facts)
            self._check_addresses(name, facts)
            self._note_claims(name, facts)
            if programs := _with_xdp(facts):
                self._field.xdp[name] = programs
            if not facts.alone:
                reason = f"another netprobe run is at work on {name}, or it is listed twice: wait or correct"
                self._field.exclude(self._field.ending_at[name], reason)

    def _check_privileges(self, name: str, facts: wire.Facts) -> None:
        lacking = [word for bit, word in _CAPABILITY_NAMES.items() if not facts.capabilities >> bit & 1]
        if not lacking:
            return
        become = "log in as root, or set sudo: true"
        confined = (
            "what confines it (a container, a unit) takes that away; with --privileged a container has it"
        )
        reason = (
            f"the agent on {name} runs as uid {facts.uid} without {' and '.join(lacking)}: "
            f"{become if facts.uid else confined}"
        )
        raw = not facts.capabilities >> _CAP_NET_RAW & 1
        self._field.exclude(
            (flow for flow in self._field.ending_at[name] if raw or self._field.is_injected(flow)),
            reason,
        )

    def _check_addresses(self, name: str, facts: wire.Facts) -> None:
        there = {ip_address(address) for _interface, address, _length in facts.addresses}
        probed = {
            flow.src_address if flow.src == name else flow.dst_address for flow in self._field.ending_at[name]
        }
        for absent in sorted(address for address in probed if ip_address(address) not in there):
            flows = (
                flow for flow in self._field.ending_at[name] if absent in (flow.src_address, flow.dst_address)
            )
            self._field.exclude(flows, f"{name} has no address {absent}")

    def _note_claims(self, name: str, facts: wire.Facts) -> None:
        """Note the addresses of other hosts that a host has as well."""
        owners = {address: host.name for host in self._field.inventory.hosts for address in host.addresses}
        for _interface, address, _length in facts.addresses:
            if owners.get(address, name) != name:
                self._field.claimants.setdefault(address, []).append(name)

    async def arm(self) -> None:
        """Watch where packets arrive at all hosts, and what routers and firewalls say."""
        field = self._field
        taps = [wire.Tap(kind="keep", point="icmp", filter=bpf.for_icmp_errors(), arriving=True)]
        forwarded = [sight for sight in self._sights() if field.is_forwarded(sight)]
        if forwarded:
            taps.append(self._arriving(forwarded, awaited=True))
        own = [sight for sight in self._sights() if sight not in forwarded]
        for family, protocol in {
            (flow.family, flow.protocol): None for flow in field.flows if not flow.forwarded
        }:
            program = bpf.for_raw_socket(
                [sight for sight in own if sight.protocol == protocol],
                protocol,
                _VERSIONS[family],
                field.key.nonce,
                len(field.flows),
            )
            version = _VERSIONS[family]
            taps.append(
                wire.Tap(kind="raw", point=SOCKET, filter=program, version=version, protocol=protocol)
            )
        await self._arm(self._present(), taps)

    async def arm_points(self) -> None:
        """
        Watch the interfaces of all hosts as well, to tell where packets are lost; once is enough.

        Every packet of a host passes these filters, so they are not there while all is well; but for those of
        packets that hosts forward, which arrive there.
        """
        if self.watching:
            return
        self.watching = True
        # A RST that ends a half-open connection leaves after every SYN-ACK: only where it arrives is telling.
        leaving = [sight for sight in self._sights() if sight.kind is not Kind.RESET]
        await self._arm(self._present(), self._packet_taps(leaving, self._sights()))

    async def beware_of_repeats(self) -> None:
        """Count no answers from now on that may be repeated ones: volleys last longer than these take."""
        self._is_slow = True
        await self._arm(self._present(), [])

    def _present(self) -> list[str]:
        """The hosts that have something to watch for; one that may not open taps has not."""
        return [name for name in self._crew.names if self._field.takes_part(name)]

    async def arm_payloads(self, names: Iterable[str]) -> None:
        """Open taps for the payloads of sessions as well, for a second look at sessions that failed."""
        sights = [sight for sight in self._field.sights if sight.base is Base.PAYLOAD]
        await self._arm(names, self._packet_taps(sights, sights))

    async def arm_sizes(self) -> None:
        """
        Watch the interfaces of all hosts for probes that arrive in one piece, and keep SYNs without data.

        A SYN that was padded and comes without its data has been changed on the way.
        """
        probes = [sight for sight in self._sights() if sight.kind is Kind.PROBE]
        syns = [sight for sight in probes if sight.protocol == Protocol.TCP]
        arriving = partial(
            bpf.for_packet_tap,
            direction=Direction.IN,
            nonce=self._field.key.nonce,
            flows=len(self._field.flows),
        )
        whole = arriving(probes, whole=True)
        bare = arriving(syns, at_most=_BARE_SYN_BYTES)
        taps = [
            wire.Tap(kind="packet", point=INTERFACE, filter=whole, arriving=True),
            wire.Tap(kind="keep", point="syn", filter=bare, arriving=True),
        ]
        await self._arm(self._present(), taps)

    async def routes(self) -> dict[str, dict[str, wire.Route]]:
        """The routes of each host to the destinations of its flows, by host and address."""
        peers: dict[str, dict[str, None]] = defaultdict(dict)
        for flow in self._field.testable(self._field.flows):
            peers[flow.src][flow.dst_address] = None
        requests = {name: wire.AskFacts(peers=list(theirs)) for name, theirs in peers.items()}
        answers = await self._crew.ask("facts", requests, wire.Facts, ANSWER_TIMEOUT_S)
        return {name: facts.routes for name, facts in answers.items()}

    async def teach(self) -> None:
        """Let all hosts know the templates that were crafted since they last heard of them."""
        if len(self._field.templates.all) > self._taught:
            await self._arm(self._present(), [])

    async def _arm(self, names: Iterable[str], taps: list[wire.Tap]) -> None:
        field = self._field
        request = wire.Arm(
            nonce=field.key.nonce,
            flows=len(field.flows),
            sights=field.sights,
            taps=taps,
            templates=field.templates.all,
            late=self._late_s() if field.is_planned or self._is_slow else 0,
        )
        self._taught = len(request.templates)
        await self._crew.ask("arm", dict.fromkeys(names, request), wire.Armed, ANSWER_TIMEOUT_S)

    def _late_s(self) -> float:
        """When an answer may be a repeated one; where users expect longer round trips, they are believed."""
        timeout_s = self._field.settings.timeout_s
        return timeout_s if timeout_s > _REPEATED_AFTER_S else _REPEATED_AFTER_S - _READ_LATE_S

    def _sights(self) -> list[Sight]:
        return [sight for sight in self._field.sights if sight.base is Base.TRANSPORT]

    def _packet_taps(self, leaving: list[Sight], arriving: list[Sight]) -> list[wire.Tap]:
        nonce, flows = self._field.key.nonce, len(self._field.flows)
        return [
            wire.Tap(
                kind="packet",
                point=LEFT,
                filter=bpf.for_packet_tap(leaving, Direction.OUT, nonce, flows),
            ),
            self._arriving(arriving),
        ]

    def _arriving(self, sights: list[Sight], *, awaited: bool = False) -> wire.Tap:
        nonce, flows = self._field.key.nonce, len(self._field.flows)
        return wire.Tap(
            kind="packet",
            point=INTERFACE,
            filter=bpf.for_packet_tap(sights, Direction.IN, nonce, flows),
            arriving=True,
            awaited=awaited,
        )

    async def listen(self) -> None:
        """Hold the probed ports that are free, and note who holds the others."""
        field, sockets = self._field, self._sockets()
        requests = {
            name: wire.Listen(field.key.mss, [(*where, *speech) for where, speech in theirs.items()])
            for name, theirs in sockets.items()
        }
        listening = await self._crew.ask("listen", requests, wire.Listening, ANSWER_TIMEOUT_S)
        in_use: dict[str, list[_Socket]] = defaultdict(list)
        for name, result in listening.items():
            failed = dict(result.failed)
            for number, (where, speech) in enumerate(sockets[name].items()):
                if failed.get(number) == _IN_USE:
                    in_use[name].append(where)
                elif number not in failed and speech[0] is not None and speech[1] is not None:
                    field.speeches[where[1], where[2]] = speech[0], speech[1]
        await self._ask_holders(in_use)

    def _sockets(self) -> dict[str, dict[_Socket, _Speech]]:
        """By host, the sockets that flows go to, and what is to be said there."""
        field = self._field
        sockets: dict[str, dict[_Socket, _Speech]] = defaultdict(dict)
        for flow in field.testable(field.flows):
            if flow.port is not None:
                application = field.probes[flow.probe].application
                speech: _Speech = (None, None)
                if application is not None:
                    speech = field.templates.speech(application)
                sockets[flow.dst].setdefault((flow.protocol, flow.dst_address, flow.port), speech)
        return sockets

    async def _ask_holders(self, in_use: dict[str, list[_Socket]]) -> None:
        """Ask who holds ports: a look at every process, so only where there is somebody to find."""
        answers = self._facts
        if not self._field.is_planned:
            requests = {name: _of_ports(theirs) for name, theirs in in_use.items()}
            answers = await self._crew.ask("facts", requests, wire.Facts, ANSWER_TIMEOUT_S)
        for name, theirs in in_use.items():
            held = answers[name].ports if name in answers else []
            for protocol, address, port in theirs:
                same = [each for each in held if each[0] == protocol and each[2] == port]
                same.sort(key=lambda each: (each[1] != address, Family.of(each[1]) is not Family.of(address)))
                program = next((each[3] for each in same if each[3]), "another program")
                self._field.holders[Protocol(protocol), address, port] = program

    def reports(self) -> tuple[HostReport, ...]:
        """What each host said of itself, or why it did not."""
        return tuple(self._report(host.name, host.addresses) for host in self._field.inventory.hosts)

    def _report(self, name: str, addresses: Collection[str]) -> HostReport:
        facts = self._facts.get(name)
        error = self._crew.lost.get(name, "")
        if facts is None:
            return HostReport(name=name, error=error)
        lengths = {ip_address(address): length for _interface, address, length in facts.addresses}
        probed = {ip_address(address) for address in addresses}
        return HostReport(
            name=name,
            error=error,
            hostname=facts.hostname,
            kernel=facts.kernel,
            machine=facts.machine,
            python=facts.python,
            interpreter=facts.executable,
            uid=facts.uid,
            capabilities=_capabilities(facts.capabilities),
            clock_offset_ms=round(1000 * self.ahead_s[name], 1),
            networks=tuple(
                f"{address}/{lengths[ip_address(address)]}"
                for address in addresses
                if ip_address(address) in lengths
            ),
            interfaces=_interfaces(facts, probed),
            ports_in_use=tuple(
                HeldPort(protocol=protocol, address=address, port=port, program=program)
                for (protocol, address, port), program in self._field.holders.items()
                if address in addresses
            ),
        )


def _of_ports(sockets: Iterable[_Socket]) -> wire.AskFacts:
    """The question who holds the ports of these."""
    return wire.AskFacts(ports=sorted({(protocol, port) for protocol, _address, port in sockets}))


def _interfaces(facts: wire.Facts, probed: Collection[IPv4Address | IPv6Address]) -> tuple[Interface, ...]:
    """Those of the probed addresses, in the order in which the host has them."""
    found: dict[str, list[str]] = {}
    for interface, address, _length in facts.addresses:
        if ip_address(address) in probed:
            found.setdefault(interface, []).append(address)
    return tuple(
        Interface(name=name, mtu=mtu, kind=kind, xdp=name in facts.xdp, addresses=tuple(found[name]))
        for name, mtu, kind in facts.links
        if name in found
    )


def _with_xdp(facts: wire.Facts) -> list[str]:
    """The interfaces with an XDP program that packets from outside come by: not those of workloads."""
    own = {interface for interface, _address, _length in facts.addresses}
    return [name for name, _mtu, kind in facts.links if name in facts.xdp and (kind != "veth" or name in own)]


def _capabilities(mask: int) -> tuple[str, ...]:
    return tuple(word for bit, word in _CAPABILITY_NAMES.items() if mask >> bit & 1)
