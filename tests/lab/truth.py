"""
What a network of `rules.py` does to each flow: an independent model, by walking the real packets.

A probe goes through its source's routes and chains, the router's, and the destination's chains; a TCP answer
takes the same way back, and a session's payloads follow both. Every flow is taken for itself: it is new to
every conntrack table that is not told to overlook it, its answers are known. A refusal is a packet of its
own, which can get lost as well; then the loss is one without a word.

The one state that a run cannot take away is the router's: IP protocol 4 and WireGuard are the same entry in
both directions, and the second orientation may pass because the first one did. What is then found differs
from the truth, and must say so by its caveat.

A rule that drops half of what it is about is walked past, and remembered: `halves.py` has what that makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from netprobe.lab import Hook
from netprobe.lab.topology import topology
from netprobe.model import Caveat, Flow, Protocol, Segment, Verdict
from netprobe.probes import registry
from tests.lab.halves import PASSES, SPOKEN, Met, Truth, halved, plus
from tests.lab.probing import Held
from tests.lab.rules import DESTINATIONS, ROUTER, SOURCES, Action, Does, Net, Packet, Reject, State

_EPHEMERAL: Final = 61000
_THERE: Final = (Segment.SOURCE_EGRESS, Segment.PATH, Segment.DESTINATION_INGRESS)
_BACK: Final = (Segment.DESTINATION_EGRESS, Segment.RETURN_PATH, Segment.SOURCE_INGRESS)
# Where taps see a packet: an arriving one before ingress, a leaving one after egress.
_LEAVING: Final[tuple[Hook, ...]] = (Hook.OUTPUT, Hook.POSTROUTING, Hook.EGRESS)
_ENTERING: Final = (Hook.INGRESS, Hook.PREROUTING, Hook.INPUT)
_ROUTED: Final = (Hook.FORWARD, Hook.POSTROUTING)
_PROTOCOLS: Final = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.IPIP: "4"}

_SAID: Final = {
    Reject.PROHIBITED: Verdict.REJECTED,
    Reject.PORT: Verdict.REJECTED,
    Reject.NET_PROHIBITED: Verdict.REJECTED,
    Reject.HOST_PROHIBITED: Verdict.REJECTED,
    Reject.PROTOCOL: Verdict.REJECTED,
    Reject.RESET: Verdict.REJECTED,
    Reject.HOST: Verdict.UNREACHABLE,
    Reject.NO_ROUTE: Verdict.UNREACHABLE,
    Reject.NET: Verdict.UNREACHABLE,
}
# ip-route(8): what the sender on the machine itself is told, and what a router tells by ICMP.
_OWN_ROUTE: Final = {
    "unreachable": Verdict.UNREACHABLE,
    "prohibit": Verdict.REJECTED,
    "blackhole": Verdict.UNREACHABLE,
}
_ROUTERS_ROUTE: Final = {"unreachable": Verdict.UNREACHABLE, "prohibit": Verdict.REJECTED}


_OPEN: Final = Held(Verdict.OPEN)


def _taken_back(packet: Packet) -> Packet:
    """A packet to the router as it goes on to the host in whose place that stands."""
    return packet._replace(dst=packet.behind) if packet.dst == ROUTER else packet


class Model:
    """The truth about every flow of a network."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._topology = topology(net.description())
        self._order = list(net.hosts)
        self._met: list[Met] = []
        self._in_session = False

    def truth(self, flow: Flow) -> Truth:
        """What the cell of a flow must hold."""
        truth = self._truth(flow)
        if truth.found.verdict in SPOKEN and self._is_impersonated(flow):
            # What is said to who answers in a host's place comes out of the ration of that.
            truth = truth._replace(rare=truth.rare | {(Verdict.FILTERED, truth.found.segment)})
        if self._net.serves(flow.dst, _PROTOCOLS[flow.protocol], flow.port, flow.family):
            also = frozenset(plus(each, Caveat.PORT_IN_USE) for each in truth.also)
            found, fresh = (plus(each, Caveat.PORT_IN_USE) for each in (truth.found, truth.fresh))
            return Truth(found, fresh, also, truth.rare)
        return truth

    def _is_impersonated(self, flow: Flow) -> bool:
        """Whether somebody else speaks to one end of a flow in the name of the other."""
        ends = {flow.src, flow.dst}
        return any({each.src, each.dst} == ends for each in self._net.handovers)

    def _truth(self, flow: Flow) -> Truth:
        probe = self._probe(flow)
        self._met, self._in_session = [], False
        own = self._leaves(probe, State.NEW, _THERE)
        leaving = list(self._met)
        fresh = own or self._after_source(flow, State.NEW)
        if not registry()[flow.probe].shares_conntrack:
            return halved(fresh, fresh, self._met, in_session=self._in_session)
        # The opposite is injected below its source's firewall; where it comes to this flow's source, it has
        # passed the router, which may remember it: in this run, if it went first, or from an earlier one.
        back = Packet(probe.family, probe.protocol, probe.dst, probe.src, probe.sport, probe.dport)
        is_first = not self._is_second(flow)
        is_known = is_first and self._passes_router(probe, State.NEW)
        may_know = self._passes_router(back, State.KNOWN if is_known else State.NEW)
        self._met = []
        found = own or self._after_source(flow, State.KNOWN if may_know and not is_first else State.NEW)
        arriving = list(self._met)
        if leaving and found.verdict in PASSES:
            # The sends through the source's own chain are others than those that are to arrive.
            truth = Truth(
                Held(Verdict.DEGRADED, Segment.SOURCE_EGRESS, caveats=found.caveats),
                fresh,
                rare=frozenset(
                    {(found.verdict, None), *((Verdict.DEGRADED, met.segment) for met in arriving)}
                ),
            )
        else:
            truth = halved(found, fresh, [*leaving, *arriving], in_session=False)
        return self._assisted(truth, probe, flow.port, [*leaving, *arriving]) if may_know else truth

    def _assisted(self, truth: Truth, probe: Packet, port: int | None, met: Iterable[Met]) -> Truth:
        """The same, marked where a run cannot know that no state took the probe where it came."""

        def marked(held: Held) -> Iterator[Held]:
            self._met = []
            is_assisted = self._may_be_assisted(held, probe, port)
            lossy = bool(self._met or [*met])
            is_counted = held.verdict in (Verdict.OPEN, Verdict.DEGRADED) or held.segment is _THERE[2]
            if is_assisted or (lossy and is_counted):
                yield plus(held, Caveat.STATE_ASSISTED)
            # What would show that no state was needed can get lost by half.
            if not is_assisted or (lossy and port is not None):
                yield held

        found, *others = marked(truth.found)
        also = {each for held in truth.also for each in marked(held)}
        return truth._replace(found=found, also=frozenset({*others, *also}))

    def _passes_router(self, packet: Packet, state: State) -> bool:
        return not self._cannot_be_injected(packet) and self._crosses(packet, state, _THERE) is None

    def _may_be_assisted(self, found: Held, probe: Packet, port: int | None) -> bool:
        """Whether a run cannot know that no state took the probe where it came."""
        if found.verdict is not Verdict.DEGRADED and found.segment not in (None, _THERE[2]):
            return False
        # From another source port it is a connection of its own; where that gets as far, no state was needed.
        other = probe._replace(sport=_EPHEMERAL)
        stopped = self._crosses(other, State.NEW, _THERE)
        if found.verdict in (Verdict.OPEN, Verdict.DEGRADED):
            stopped = stopped or self._enters(other, State.NEW, _THERE)
        return port is None or stopped is not None

    def _is_second(self, flow: Flow) -> bool:
        return self._order.index(flow.src) > self._order.index(flow.dst)

    @staticmethod
    def _probe(flow: Flow) -> Packet:
        port = flow.port or 0
        same = registry()[flow.probe].fixed_source_port
        sport = port if same else _EPHEMERAL if port else 0
        return Packet(flow.family, _PROTOCOLS[flow.protocol], flow.src, flow.dst, sport, port)

    def _after_source(self, flow: Flow, at_router: State) -> Held:
        probe = self._probe(flow)
        to = self._net.handed_to(probe)
        if to is not None:
            return self._handed_over(flow, probe, to)
        lost = self._crosses(probe, at_router, _THERE)
        if lost:
            return lost
        arriving = self._net.masqueraded(probe)
        found = self._arrives(flow, probe, arriving)
        return found if arriving == probe else plus(found, Caveat.NAT)

    def _arrives(self, flow: Flow, probe: Packet, arriving: Packet) -> Held:
        lost = self._enters(arriving, State.NEW, _THERE)
        if lost:
            return lost
        is_elsewhere = self._net.local(flow.dst, arriving) != arriving
        found = self._conversation(flow, probe, arriving, is_elsewhere=is_elsewhere)
        return plus(found, Caveat.PORT_IN_USE) if is_elsewhere else found

    def _conversation(self, flow: Flow, probe: Packet, arriving: Packet, *, is_elsewhere: bool) -> Held:
        """What comes of a probe that passed the destination's firewall."""
        if flow.protocol is not Protocol.TCP:
            return _OPEN
        answer = self._answer(arriving)
        if is_elsewhere:
            return self._answered(answer._replace(is_reset=True)) or Held(Verdict.CLOSED)
        lost = self._answered(answer)
        if lost or self._net.serves(flow.dst, "tcp", flow.port, flow.family):
            return lost or _OPEN
        # The session: its request, and the answer to that.
        self._in_session = True
        return (
            self._leaves(probe, State.KNOWN, _THERE)
            or self._crosses(probe, State.KNOWN, _THERE)
            or self._enters(arriving, State.KNOWN, _THERE)
            or self._answered(answer)
            or _OPEN
        )

    @staticmethod
    def _answer(probe: Packet) -> Packet:
        return Packet(probe.family, "tcp", probe.dst, probe.src, probe.dport, probe.sport, probe.behind)

    def _answered(self, answer: Packet) -> Held | None:
        return (
            self._leaves(answer, State.KNOWN, _BACK)
            or self._crosses(answer, State.KNOWN, _BACK)
            or self._enters(_taken_back(answer), State.KNOWN, _BACK)
        )

    def _handed_over(self, flow: Flow, probe: Packet, to: str) -> Held:
        """What comes of a connection that another host gets, whose words come in the destination's name."""
        handed = probe._replace(dst=to)
        lost = self._crosses(probe, State.NEW, _THERE)
        if not lost and self._stops(to, _ENTERING, handed, State.NEW, Segment.PATH) is Reject.RESET:
            # Nobody watches whether it leaves there: it must come.
            is_heard = self._is_delivered(self._answer(handed), handed)
            return Held(Verdict.REJECTED if is_heard else Verdict.FILTERED, Segment.PATH)
        lost = lost or self._enters(handed, State.NEW, _THERE)
        if lost:
            return lost._replace(segment=Segment.PATH, by=flow.dst_address if lost.by else "")
        answer = self._answer(handed)
        if self._leaves(answer, State.KNOWN, _BACK) or self._crosses(answer, State.KNOWN, _BACK):
            return Held(Verdict.FILTERED, Segment.PATH)
        if self._net.local(to, handed) != handed:
            # Its own rules lead the port to where nobody listens.
            return Held(Verdict.REJECTED, Segment.PATH)
        is_service = self._net.serves(to, "tcp", flow.port, flow.family)
        if not is_service and registry()[flow.probe].between[1] not in self._net.hosts[to]:
            return Held(Verdict.REJECTED, Segment.PATH)
        return Held(Verdict.INTERCEPTED, Segment.PATH)

    def _cannot_be_injected(self, packet: Packet) -> bool:
        """Whether a packet does not even leave its source when it enters below the firewall there."""
        is_routed = self._net.route(packet.src, packet.dst, packet.family) is None
        return not is_routed or self._stops(packet.src, (Hook.EGRESS,), packet, State.NEW, None) is not None

    def _leaves(self, packet: Packet, state: State, segments: tuple[Segment, ...]) -> Held | None:
        route = self._net.route(packet.src, packet.dst, packet.family)
        if route is not None:
            if segments is _BACK:
                # The kernel answers for nobody: nothing is sent, and nobody is told.
                return Held(Verdict.FILTERED, segments[0])
            return Held(_OWN_ROUTE[route], segments[0], self._address(packet.src, packet))
        return self._lost(packet.src, _LEAVING, packet, state, segments[0])

    def _crosses(self, packet: Packet, state: State, segments: tuple[Segment, ...]) -> Held | None:
        there = segments[1]
        lost = self._lost(ROUTER, (Hook.INGRESS,), packet, state, there)
        if lost or not self._net.is_routed(packet.src, packet.dst):
            return lost
        lost = self._lost(ROUTER, (Hook.PREROUTING,), packet, state, there)
        if lost:
            return lost
        packet = self._inside(packet)
        route = self._net.route(ROUTER, packet.dst, packet.family)
        if route is not None:
            by = self._icmp(ROUTER, packet) if route in _ROUTERS_ROUTE else None
            return Held(Verdict.FILTERED, there) if by is None else Held(_ROUTERS_ROUTE[route], there, by)
        return self._lost(ROUTER, _ROUTED, packet, state, there)

    def _inside(self, packet: Packet) -> Packet:
        """A packet as the router sends it on."""
        to = self._net.handed_to(packet)
        return packet._replace(dst=to) if to is not None else _taken_back(packet)

    def _as_seen(self, on: str, hook: Hook, priority: int, packet: Packet) -> Packet:
        """A packet as a chain sees it, before or behind the translation of addresses there."""
        is_inside = hook in (Hook.INPUT, Hook.OUTPUT)
        is_inside = is_inside or (hook is Hook.PREROUTING and priority >= DESTINATIONS)
        is_inside = is_inside or (hook is Hook.POSTROUTING and priority < SOURCES)
        if on != ROUTER:
            return self._net.local(on, packet) if is_inside else packet
        return self._inside(packet) if is_inside and hook is Hook.PREROUTING else packet

    def _enters(self, packet: Packet, state: State, segments: tuple[Segment, ...]) -> Held | None:
        return self._lost(packet.dst, _ENTERING, packet, state, segments[2])

    def _lost(
        self, on: str, hooks: tuple[Hook, ...], packet: Packet, state: State, segment: Segment
    ) -> Held | None:
        does = self._stops(on, hooks, packet, state, segment)
        if does is None:
            return None
        by = None
        if does is Reject.RESET:
            by = self._reset(on, packet, is_answer=segment in _BACK)
        elif isinstance(does, Reject):
            by = self._icmp(on, packet)
        if by is None or not isinstance(does, Reject):
            return Held(Verdict.FILTERED, segment)
        return Held(_SAID[does], segment, by)

    def _stops(
        self, on: str, hooks: tuple[Hook, ...], packet: Packet, state: State, segment: Segment | None
    ) -> Does | None:
        """What the first of the chains that does not accept a packet does with it, at hook after hook."""
        if not self._net.is_tracked(on, packet):
            state = State.UNTRACKED
        for hook in hooks:
            for chain in self._net.at(on, hook):
                does, losses = chain.does(self._as_seen(on, hook, chain.priority, packet), state)
                self._met += [Met(segment, loss, self._in_session) for loss in losses]
                if does is not Action.ACCEPT:
                    return does
        return None

    def _icmp(self, refuser: str, packet: Packet) -> str | None:
        """Who the sender of a packet hears refuse it by ICMP, None where it hears nothing."""
        error = Packet(packet.family, "icmp", refuser, packet.src, behind=packet.behind)
        if not self._is_delivered(error, packet):
            return None
        if packet.behind and refuser in (ROUTER, packet.behind) and self._net.snat_to is not None:
            # What is said about a connection of a translated address comes from that, whoever says it.
            return self._topology.stations[self._net.snat_to].subnet.gateway(packet.family)
        if refuser in (ROUTER, packet.behind):
            # The router speaks for itself, or for whom it stands in the place of.
            return self._topology.stations[packet.src].subnet.gateway(packet.family)
        return self._address(refuser, packet)

    def _reset(self, refuser: str, packet: Packet, *, is_answer: bool) -> str | None:
        """
        The same for a TCP reset, which comes in the name of the packet's destination.

        One from the destination's firewall is seen when it leaves there, whatever becomes of it then.
        """
        if packet.is_reset:
            return None
        reset = self._answer(packet)._replace(is_reset=True)
        if refuser == ROUTER:
            return "" if self._is_sent(ROUTER, reset, packet) else None
        if refuser == packet.src:
            return self._address(refuser, packet) if self._is_sent(refuser, reset, packet) else None
        arrives = self._is_delivered(reset, packet) if is_answer else self._is_sent(refuser, reset, packet)
        return self._address(refuser, packet) if arrives else None

    def _is_sent(self, refuser: str, packet: Packet, about: Packet) -> bool:
        """Whether a refusal gets out of where it is made."""
        if self._net.route(refuser, packet.dst, packet.family) is not None:
            return False
        # It is related to what it is about, where conntrack has seen that.
        state = State.KNOWN if self._net.is_tracked(refuser, about) else State.INVALID
        hooks = _LEAVING
        if refuser == packet.dst:
            # By way of the loopback device.
            hooks = (Hook.OUTPUT, Hook.POSTROUTING)
        elif refuser == ROUTER:
            hooks = (Hook.POSTROUTING,)
        return self._stops(refuser, hooks, packet, state, None) is None

    def _is_delivered(self, packet: Packet, about: Packet) -> bool:
        """Whether a host's refusal, or the router's own, gets to the interface of the host it is for."""
        if not self._is_sent(packet.src, packet, about):
            return False
        if packet.src in (ROUTER, packet.dst):
            return True
        state = State.KNOWN if self._net.is_tracked(ROUTER, about) else State.INVALID
        if self._stops(ROUTER, (Hook.INGRESS,), packet, state, None) is not None:
            return False
        if not self._net.is_routed(packet.src, packet.dst):
            return True
        stops = self._stops(ROUTER, (Hook.PREROUTING,), packet, state, None)
        packet = self._inside(packet)
        is_routed = self._net.route(ROUTER, packet.dst, packet.family) is None
        return is_routed and stops is None and self._stops(ROUTER, _ROUTED, packet, state, None) is None

    def _address(self, host: str, packet: Packet) -> str:
        return self._topology.stations[host].addresses[packet.family]
