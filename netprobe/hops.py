"""
From what was seen of a flow at every TTL to the place where it is lost.

Evidence is unequal here. A router that lets a packet expire has seen it; so has the destination whose tap
saw it. Silence says little: some routers never speak, all ration their words, and a firewall may keep these
from the source. So a hop counts as one that a flow does not come to only where it saw packets of another
probe, open between the same two hosts, and was asked for the flow's own when it had words to spare.

A router looks at the TTL before it forwards, and a Linux one before the FORWARD chain is asked
(linux/net/ipv4/ip_forward.c, linux/net/ipv6/ip6_output.c): a packet that is dropped between two hops was
dropped by the first one while it forwarded, or by the second one before that. A trace cannot tell which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import Final

import msgspec

from netprobe.attempts import HOPS, HOPS_AGAIN
from netprobe.evidence import refusals, unsendable
from netprobe.icmp import EXCEEDED
from netprobe.model import Cell, Flow, Hop, Protocol, Refusal, Reply, Trace, Verdict
from netprobe.observations import INTERFACE, LEFT, SOCKET, Observations
from netprobe.template import Kind

SAW: Final = (Reply.EXCEEDED, Reply.ARRIVED)
"""These say that the packet was seen where it had come to."""
_ENDS: Final = (Reply.ARRIVED, Reply.REFUSED, Reply.ANSWERED)
"""Behind these there is no further way."""

_ANSWERED: Final = "TCP SYN-ACK in the destination's name"


def attempts(ttl: int) -> int:
    """The attempts of a trace that have a TTL, as a mask."""
    return 1 << HOPS.first + ttl - 1 | 1 << HOPS_AGAIN.first + ttl - 1


def hop(seen: Observations, flow: Flow, ttl: int) -> Hop:
    """What became of the packets of one TTL."""
    mask, number = attempts(ttl), flow.number
    words = refusals(seen, flow, mask)
    exceeded = [word for word in words if word.reason.startswith(EXCEEDED)]
    refused = [word for word in words if not word.reason.startswith(EXCEEDED)]
    if mask & (seen.at(INTERFACE, Kind.PROBE)[number] | seen.at(SOCKET, Kind.PROBE)[number]):
        said = refused[0].reason if refused else ""
        back_us = seen.rtt_us.get(number, 0) if flow.protocol is Protocol.TCP else 0
        return Hop(ttl=ttl, reply=Reply.ARRIVED, by=flow.dst_address, said=said, rtt_ms=_ms(back_us))
    for reply, found in ((Reply.EXCEEDED, exceeded), (Reply.REFUSED, refused)):
        if found:
            word = found[0]
            rtt_us = _rtt_us(seen, flow, mask, word)
            return Hop(ttl=ttl, reply=reply, by=word.by, said=word.reason, rtt_ms=_ms(rtt_us))
    if mask & (seen.at(INTERFACE, Kind.ACCEPT)[number] | seen.at(SOCKET, Kind.ACCEPT)[number]):
        return Hop(ttl=ttl, reply=Reply.ANSWERED, said=_ANSWERED)
    return Hop(ttl=ttl)


def _rtt_us(seen: Observations, flow: Flow, mask: int, word: Refusal) -> int:
    """The shortest time after which somebody said a word."""
    times = (
        each.rtt_us
        for each in seen.refused.get(flow.number, ())
        if each.attempts & mask
        and each.rtt_us
        and (each.refusal.by, each.refusal.reason) == (word.by, word.reason)
    )
    return min(times, default=0)


def _ms(microseconds: int) -> float | None:
    return round(microseconds / 1000, 3) if microseconds else None


def end(hops: Iterable[Hop]) -> int | None:
    """The TTL at which a way ends: nobody needs to be asked behind it. None while it does not."""
    return next((each.ttl for each in hops if each.reply in _ENDS), None)


def _furthest(hops: Iterable[Hop]) -> int:
    """The largest TTL that a router let expire, 0 for none."""
    return max((each.ttl for each in hops if each.reply is Reply.EXCEEDED), default=0)


def trace(seen: Observations, flow: Flow, asked: int, unsure: Collection[int] = ()) -> Trace:
    """
    The trace of a flow of which all TTLs up to `asked` were tried.

    `unsure` are those of them at which silence would be no evidence.
    """
    every = [hop(seen, flow, ttl) for ttl in range(1, asked + 1)]
    number = flow.number
    error = unsendable(seen, flow, HOPS.mask | HOPS_AGAIN.mask)
    if error:
        return Trace(flow=flow, error=f"{flow.src} could not send: {error}")
    arrived = next((each.ttl for each in every if each.reply is Reply.ARRIVED), None)
    stop = arrived or max(end(every) or asked, _furthest(every))
    found = tuple(
        msgspec.structs.replace(each, is_unsure=True)
        if each.reply is Reply.NONE and each.ttl in unsure
        else each
        for each in every[:stop]
    )
    last = next((each for each in reversed(found) if each.reply in SAW), None)
    spoken = next((each.ttl for each in found if each.reply is Reply.REFUSED), arrived)
    words = refusals(seen, flow, attempts(spoken)) if spoken else ()
    return Trace(
        flow=flow,
        hops=found,
        left=last is not None or bool(seen.at(LEFT, Kind.PROBE)[number]),
        last_ttl=last.ttl if last else 0,
        last_by=last.by if last else "",
        arrived_ttl=arrived,
        passed=bool(seen.at(SOCKET, Kind.PROBE)[number]),
        refusal=next((word for word in words if not word.reason.startswith(EXCEEDED)), None),
    )


def beside(lost: Trace, reference: Trace) -> Trace:
    """A trace beside that of a probe that is open on the same pair, and what the two together say."""
    shown = lost.hops
    if reference.arrived_ttl is not None:
        shown = shown[: max(reference.arrived_ttl, lost.last_ttl, end(lost.hops) or 0)]
    return msgspec.structs.replace(lost, hops=shown, reference=reference, lost_ttl=_lost_ttl(lost, reference))


def _lost_ttl(lost: Trace, reference: Trace) -> int | None:
    if lost.error or not lost.left or end(lost.hops) is not None or not _is_same_way(lost, reference):
        return None
    silent = {each.ttl for each in lost.hops if each.reply is Reply.NONE and not each.is_unsure}
    behind = [each for each in reference.hops[: len(lost.hops)] if each.ttl > lost.last_ttl]
    # The destination's tap is never short of words.
    return next(
        (
            each.ttl
            for each in behind
            if each.reply is Reply.ARRIVED or (each.reply is Reply.EXCEEDED and each.ttl in silent)
        ),
        None,
    )


def _is_same_way(lost: Trace, reference: Trace) -> bool:
    """
    Whether the last hop that spoke about packets of both, if there is any, is the same one.

    Nor does a router let packets of the one expire where those of the other have arrived already.
    """
    for one, other in ((lost, reference), (reference, lost)):
        if other.arrived_ttl is not None and _furthest(one.hops) >= other.arrived_ttl:
            return False
    theirs = {each.ttl: each.by for each in reference.hops if each.reply is Reply.EXCEEDED}
    both = [each for each in lost.hops if each.reply is Reply.EXCEEDED and each.ttl in theirs]
    return not both or both[-1].by == theirs[both[-1].ttl]


def reference(flow: Flow, cells: Iterable[Cell]) -> Flow | None:
    """The flow to trace beside a blocked one: open on the same pair, of its protocol where one is."""
    candidates = [
        (cell.flow.protocol is not flow.protocol, len(cell.judgement.caveats), cell.flow.number, cell.flow)
        for cell in cells
        if cell.judgement.verdict is Verdict.OPEN
        and not cell.flow.forwarded
        and (cell.flow.src, cell.flow.dst, cell.flow.family) == (flow.src, flow.dst, flow.family)
    ]
    return min(candidates)[-1] if candidates else None


def label(flow: Flow) -> str:
    """`bgp tcp/179`, `ipip (protocol 4)`."""
    if flow.port is None:
        return f"{flow.probe} (protocol {flow.protocol.label})"
    return f"{flow.probe} {flow.protocol.label}/{flow.port}"


def in_one_line(found: Trace, names: Mapping[str, str]) -> str:
    """Say how far the packets come; `names` are the hosts' names as the reader sees them."""
    src = names.get(found.flow.src, found.flow.src)
    dst = names.get(found.flow.dst, found.flow.dst)
    if found.error:
        return f"not traced: {found.error}"
    if found.passed:
        return f"comes through to {dst}{_distance(found, found.arrived_ttl)}"
    if found.arrived_ttl is not None:
        refused = f": {found.refusal.reason}" if found.refusal else ""
        return f"comes to {dst}'s interface{_distance(found, found.arrived_ttl)}, and no further{refused}"
    if not found.left:
        return f"never left {src}" + (f": {found.refusal.reason}" if found.refusal else "")
    return _loss(found, src, dst)


def _loss(found: Trace, src: str, dst: str) -> str:
    seen = f"last seen at {found.last_by} (hop {found.last_ttl})" if found.last_ttl else f"left {src}"
    if found.refusal is not None:
        who = f"refused by {found.refusal.by}: " if found.refusal.by else ""
        return f"{seen}; {who}{found.refusal.reason}"
    if answered := [each.ttl for each in found.hops if each.reply is Reply.ANSWERED]:
        return f"{seen}; somebody at hop {answered[0]} or before it answers in {dst}'s name"
    if circle := _circle(found):
        return f"goes round in circles: {circle}"
    theirs = found.reference.hops if found.reference is not None else ()
    there = next((each for each in theirs if each.ttl == found.lost_ttl), None)
    if there is None or found.reference is None:
        return f"{seen}, not seen any further; {_nothing_to_compare(found)}"
    is_end = there.reply is Reply.ARRIVED
    at = f"{dst}{_distance(found, there.ttl)}" if is_end else f"hop {there.ttl} ({there.by})"
    untold = _untold(found.last_ttl + 1, there.ttl - 1)
    unless = "" if is_end else _unless_mute(found.flow, found.reference.flow)
    return f"{seen}, not at {at}, where {label(found.reference.flow)} is{unless}{untold}"


def _unless_mute(flow: Flow, other: Flow) -> str:
    """A router that speaks of one protocol may have no word for another, and pass it on all the same."""
    if flow.protocol is other.protocol:
        return ""
    protocol = "IP protocol 4" if flow.protocol is Protocol.IPIP else flow.protocol.label.upper()
    return f", unless that one never speaks of {protocol}"


def _distance(found: Trace, ttl: int | None) -> str:
    """
    ` (hop 4)`: where the destination is, if packets with this TTL came to it.

    They come with every larger TTL too, unless they are lost at times. So where nothing was heard with the
    TTL before, that may have been enough as well; another trace by the same way knows better.
    """
    if ttl is None:
        return ""
    other = found.reference
    ways = [found] if other is None or not _is_same_way(found, other) else [found, other]
    nearest = min([ttl, *(each.arrived_ttl for each in ways if each.arrived_ttl is not None)])
    before = [each.reply for way in ways for each in way.hops if each.ttl == nearest - 1]
    is_sure = not before or Reply.EXCEEDED in before
    return f" (hop {nearest}{'' if is_sure else ' or before'})"


def _circle(found: Trace) -> str:
    """
    A router that the packets come back to until their end, with its hops; "" for none.

    That they come back once is no circle: a firewall beside a router returns to it what it has let pass. A
    circle is what was seen twice as a whole, or of which one router was seen three times and nothing speaks
    against it.
    """
    by = {each.ttl: each.by for each in found.hops if each.reply is Reply.EXCEEDED}
    last = _furthest(found.hops)
    for period in sorted({there - here for here, there in combinations(by, 2) if by[here] == by[there]}):
        ttls = _periodic(by, period)
        seen = {ttl for each in ttls for ttl in each}
        # One address twice in a row is that of a router that hides another one, or all that are behind it.
        if len({by[ttl] for ttl in seen}) == 1 and any(ttl + 1 in seen for ttl in seen):
            continue
        most = max(ttls, key=len)
        is_whole = sum(ttl > last - 2 * period for ttl in seen) == 2 * period
        if (is_whole or len(most) > 2) and not any(_is_passed(by, each, found.reference) for each in ttls):
            return f"{by[most[0]]} is at hops {', '.join(map(str, most))}"
    return ""


def _periodic(by: Mapping[int, str], period: int) -> list[list[int]]:
    """The TTLs of each router of a circle of so many hops, as far back from the last TTL as it may go."""
    ttls: dict[int, list[int]] = {}
    for ttl in sorted(by, reverse=True):
        same = ttls.setdefault(ttl % period, [])
        if same and by[same[0]] != by[ttl]:
            break
        same.insert(0, ttl)
    return sorted(ttls.values())


def _is_passed(by: Mapping[int, str], ttls: Collection[int], reference: Trace | None) -> bool:
    """Whether packets that arrive, and not before these were seen last, come back to a router as often."""
    if reference is None or (reference.arrived_ttl or 0) <= max(by) or len(ttls) == 1:
        return False
    theirs = {each.ttl: each.by for each in reference.hops if each.reply is Reply.EXCEEDED}
    return all(theirs.get(ttl) == by[ttl] for ttl in ttls)


def _nothing_to_compare(found: Trace) -> str:
    other = found.reference
    if other is None:
        return "no other probe is open there to compare with"
    name = label(other.flow)
    if other.error:
        return f"{name}, which is open there, could not be traced: {other.error}"
    if not _is_same_way(found, other):
        return f"{name}, which is open there, takes another way"
    return f"nor was {name}, which is open there"


def _untold(first: int, last: int) -> str:
    """Which hops lie between the last one that saw a packet and the first one that did not."""
    if first > last:
        return ""
    return f"; no word from {f'hop {first}' if first == last else f'hops {first} to {last}'}"
