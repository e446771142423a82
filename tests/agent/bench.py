"""What an agent is asked to do in a run, for one flow at a time: real templates, sights and filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from netprobe import bpf, wire
from netprobe.attempts import SOURCE_PORTS
from netprobe.bpf import Direction
from netprobe.lab import Lab
from netprobe.model import Family, Protocol
from netprobe.observations import INTERFACE, LEFT, SOCKET
from netprobe.probes import registry
from netprobe.template import Base, Key, Template
from tests.agent.driver import Agent

FLOWS: Final = 1000
POINTS: Final = (LEFT, INTERFACE, SOCKET, "icmp")

VERSION: Final = {Family.IPV4: 4, Family.IPV6: 6}
CASES: Final = [
    ("bgp", Family.IPV4, 179),
    ("bgp", Family.IPV6, 179),
    ("vxlan", Family.IPV4, 4789),
    ("vxlan", Family.IPV6, 4789),
    ("wireguard", Family.IPV4, 51820),
    ("ipip", Family.IPV4, None),
]
"""A probe of each protocol, in each of its families, with its port."""


class Bench:
    """
    The key, the templates and the sights of a run of some probes, as a lab's two agents are given them.

    `template` is the number of a probe's packet, `speech` those of its request and answer.
    """

    def __init__(self, lab: Lab, probes: Iterable[str] = ("bgp", "ipip", "vxlan", "wireguard")) -> None:
        self.lab = lab
        self.key = Key.fresh()
        self._probes = [registry()[name] for name in probes]
        self.sights = list(dict.fromkeys(each for probe in self._probes for each in probe.sights(self.key)))
        self._templates: dict[tuple[object, ...], Template] = {}
        for probe in self._probes:
            for family in probe.families:
                port = probe.ports[0] if probe.ports else None
                self._templates[probe.name, family] = probe.packet(family, port, self.key)
            if probe.application is not None:
                self.sights += [
                    each for each in probe.application.sights(self.key) if each not in self.sights
                ]
                self._templates[probe.name, "request"] = probe.application.request(self.key)
                self._templates[probe.name, "answer"] = probe.application.answer(self.key)

    def arming(self, points: Iterable[str] = POINTS) -> wire.Arm:
        """The request that opens the taps at some points."""
        return wire.Arm(
            nonce=self.key.nonce,
            flows=FLOWS,
            sights=self.sights,
            taps=[tap for point in points for tap in self.taps(point)],
            templates=list(self._templates.values()),
        )

    def taps(self, point: str) -> list[wire.Tap]:
        """The taps at a point."""
        nonce = self.key.nonce
        sights = [sight for sight in self.sights if sight.base is Base.TRANSPORT]
        if point == LEFT:
            program = bpf.for_packet_tap(sights, Direction.OUT, nonce, FLOWS)
            return [wire.Tap(kind="packet", point=LEFT, filter=program)]
        if point == INTERFACE:
            program = bpf.for_packet_tap(sights, Direction.IN, nonce, FLOWS)
            return [wire.Tap(kind="packet", point=INTERFACE, filter=program, arriving=True)]
        if point == SOCKET:
            return [
                wire.Tap(
                    kind="raw",
                    point=SOCKET,
                    filter=bpf.for_raw_socket(sights, protocol, version, nonce, FLOWS),
                    version=version,
                    protocol=protocol,
                )
                for protocol in sorted({sight.protocol for sight in sights})
                for version in ((4,) if protocol == Protocol.IPIP else (4, 6))
            ]
        return [wire.Tap(kind="keep", point="icmp", filter=bpf.for_icmp_errors(), arriving=True)]

    def template(self, probe: str, family: Family) -> int:
        """The number of a probe's packet."""
        return list(self._templates).index((probe, family))

    def speech(self, probe: str) -> tuple[int, int]:
        """The numbers of a probe's request and answer."""
        names = list(self._templates)
        return names.index((probe, "request")), names.index((probe, "answer"))

    def volley(
        self,
        probe: str,
        family: Family,
        flows: Sequence[int] = (1,),
        *,
        way: str = "kernel",
        attempts: tuple[int, int] = (0, 1),
        destination: str = "",
    ) -> wire.Volley:
        """Packets from the first host to the second, or to an address."""
        source, target = (host.address(family) for host in list(self.lab.hosts.values())[:2])
        targets = [(flow, destination or target) for flow in flows]
        shot = (self.template(probe, family), source, targets, None)
        return wire.Volley(way=way, attempts=attempts, ports=(*SOURCE_PORTS, 1), shots=[shot])

    @staticmethod
    def fire(agent: Agent, *volleys: wire.Volley, rate: float = 5000.0, after: float = 0.0) -> wire.Fired:
        """Fire; what the agent says of it."""
        request = wire.Fire(rate=rate, after=after, volleys=list(volleys))
        return msgspec.convert(agent.ask("fire", request, timeout_s=30.0), wire.Fired)

    @staticmethod
    def collect(agent: Agent, expect: int = 0, within: float = 2.0) -> wire.Collected:
        """Collect: at once, or when so many packets have come to sockets."""
        request = wire.Collect(expect=expect, within=within)
        return msgspec.convert(agent.ask("collect", request), wire.Collected)


def seen(collected: wire.Collected) -> dict[tuple[str, str], dict[int, int]]:
    """The flows with their attempt masks, by (point, kind)."""
    return {(point, kind.value): dict(masks) for point, kind, masks in collected.sightings}
