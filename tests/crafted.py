"""Every packet of a run, as an agent sends it or a host answers it, for the tests of what recognises them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from netprobe.agent import templates
from netprobe.agent.taps import Sight as AgentSight
from netprobe.attempts import SOURCE_PORTS
from netprobe.model import Family, Protocol
from netprobe.probes import Probe, registry
from netprobe.template import Key, Kind, Sight, Template
from netprobe.wire import Arm, Conversation

KEY: Final = Key(nonce=0x5EEDF00D, mark=bytes.fromhex("4b1dfacec0ffee42"))
ADDRESSES: Final = {Family.IPV4: ("10.0.0.1", "10.0.0.2"), Family.IPV6: ("fd00::1", "fd00::2")}
HEADER_BYTES: Final = {Family.IPV4: 20, Family.IPV6: 40}
SOURCE_PORT: Final = SOURCE_PORTS[0] + 234


class Crafted(msgspec.Struct, frozen=True):
    """A packet from its IP header on, and what it is."""

    probe: str
    kind: Kind
    family: Family
    protocol: Protocol
    port: int | None
    data: bytes

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.probe}-{self.port or 4}-{self.family.value}-{self.kind.value}"

    @property
    def transport(self) -> int:
        """Where its transport header begins."""
        return HEADER_BYTES[self.family]


def on_an_agent(template: Template) -> templates.Template:
    """A template as an agent has it: by way of the very request that the coordinator sends."""
    return templates.Template(_sent(Arm(0, 0, [], [], [template]))["templates"][0])


def sight_on_an_agent(sight: Sight) -> AgentSight:
    """A sight as an agent has it."""
    return AgentSight(_sent(Arm(0, 0, [sight], [], []))["sights"][0])


def _sent(request: Arm) -> dict[str, list[dict[str, object]]]:
    _number, line = Conversation().request("arm", request)
    decoded: dict[str, list[dict[str, object]]] = json.loads(line)
    return decoded


def packed(family: Family, source: str = "", destination: str = "") -> bytes:
    """Both addresses as an agent patches them in."""
    address_family = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    usual = ADDRESSES[family]
    both = source or usual[0], destination or usual[1]
    return b"".join(socket.inet_pton(address_family, each) for each in both)


def crafts() -> Iterator[tuple[Probe, Family, int | None]]:
    """Every packet template that a run of all probes needs."""
    for probe in registry().values():
        for family in probe.families:
            for port in probe.ports or (None,):
                yield probe, family, port


def sights(key: Key = KEY) -> list[Sight]:
    """All sights of a run of all probes, in its order: those of packets, then those of payloads."""
    found: dict[Sight, None] = {}
    for probe in registry().values():
        found.update(dict.fromkeys(probe.sights(key)))
    for probe in registry().values():
        if probe.application is not None:
            found.update(dict.fromkeys(probe.application.sights(key)))
    return list(found)


def packets(flow: int, attempt: int, key: Key = KEY) -> list[Crafted]:
    """All packets that a run sees of one attempt: probes, answers, what ends them, payloads of sessions."""
    return [each for craft in crafts() for each in _packets(*craft, key.tag(flow, attempt), key)]


def _packets(probe: Probe, family: Family, port: int | None, tag: int, key: Key) -> Iterator[Crafted]:
    def crafted(kind: Kind, data: bytes) -> Crafted:
        return Crafted(probe.name, kind, family, probe.protocol, port, data)

    def patched(template: Template) -> bytes:
        return bytes(on_an_agent(template).packet(packed(family), tag, SOURCE_PORT))

    yield crafted(Kind.PROBE, patched(probe.packet(family, port, key)))
    if probe.withdrawal is not None:
        yield crafted(Kind.WITHDRAWAL, patched(probe.withdrawal(family, port, key)))
    if probe.protocol is not Protocol.TCP:
        return
    following = (tag + 1) & 0xFFFFFFFF
    there, back = partial(TCP, sport=SOURCE_PORT, dport=port), partial(TCP, sport=port, dport=SOURCE_PORT)
    syn_ack = back(seq=0x01020304, ack=following, flags="SA", window=65160, options=[("MSS", 1460)])
    yield crafted(Kind.ACCEPT, _segment(family, syn_ack, back=True))
    syn_ack.options = [("MSS", key.mss)]
    yield crafted(Kind.OURS, _segment(family, syn_ack, back=True))
    yield crafted(Kind.RST, _segment(family, back(ack=following, flags="RA", window=0), back=True))
    yield crafted(Kind.RESET, _segment(family, there(seq=following, flags="R", window=0)))
    if probe.application is not None:
        request = on_an_agent(probe.application.request(key)).payload(tag)
        answer = on_an_agent(probe.application.answer(key)).payload(tag)
        # The numbers of a session are the kernel's own; Linux adds timestamps to every segment.
        options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
        said, replied = (way(seq=7, ack=8, flags="PA", options=options) for way in (there, back))
        yield crafted(Kind.REQUEST, _segment(family, said / Raw(request)))
        yield crafted(Kind.ANSWER, _segment(family, replied / Raw(answer), back=True))


def _segment(family: Family, segment: Packet, *, back: bool = False) -> bytes:
    source, destination = ADDRESSES[family][::-1] if back else ADDRESSES[family]
    header = IP if family is Family.IPV4 else IPv6
    return bytes(header(src=source, dst=destination) / segment)
