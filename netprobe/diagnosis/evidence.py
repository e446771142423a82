"""The evidence of one flow in one line: how many packets were seen where they got lost, and just before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from netprobe.model import Answer, Cell, Evidence, Fates, Protocol, Seen, Segment, Verdict

_ANSWER_REACH: Final[Mapping[Answer, int]] = {
    Answer.NONE: 0,
    Answer.ACCEPT_LEFT: 1,
    Answer.RST_LEFT: 1,
    Answer.ACCEPT_AT_INTERFACE: 2,
    Answer.RST_AT_INTERFACE: 2,
    Answer.ACCEPT: 3,
    Answer.RST: 3,
    Answer.RST_INSTEAD: 1,  # what the destination sent got lost, and the RST is not its answer
}
"""How far an answer came: left the destination, reached the source's interface, its socket."""

_STEPS: Final[Mapping[Segment, tuple[str, ...]]] = {
    Segment.SOURCE_EGRESS: ("left",),
    Segment.PATH: ("left", "at_interface"),
    Segment.DESTINATION_INGRESS: ("at_interface", "at_socket"),
    Segment.DESTINATION_EGRESS: ("at_socket", "answers_left"),
    Segment.RETURN_PATH: ("answers_left", "answers_at_interface"),
    Segment.SOURCE_INGRESS: ("answers_at_interface", "answers"),
}
"""The last point that was passed, and the first that was not."""

_STEP_WORDS: Final[Mapping[str, str]] = {
    "left": "{count} left {src}",
    "at_interface": "{count} reached {dst}'s interface",
    "at_socket": "{count} passed {dst}'s firewall",
    "answers_left": "{count} {answers} left {dst}",
    "answers_at_interface": "{count} {answers} reached {src}'s interface",
    "answers": "{count} {answers} passed {src}'s firewall",
    "came_back": "{count} {answers} came back",
}


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many packets were seen at each point of the way, in the order of the way."""

    tried: int
    sent: int
    left: int
    at_interface: int
    at_socket: int
    answers_left: int
    answers_at_interface: int
    answers: int

    @property
    def came_back(self) -> int:
        """The answers, where it does not matter how far they came."""
        return self.answers

    @classmethod
    def of(cls, fates: Fates) -> Counts:
        """Add up fates; a packet that was seen at one point has passed all those before."""

        def seen(point: Seen) -> int:
            return sum(count for fate, count in fates if fate.seen >= point)

        def answered(reach: int) -> int:
            return sum(count for fate, count in fates if _ANSWER_REACH[fate.answer] >= reach)

        return cls(
            tried=seen(Seen.UNSENT),
            sent=seen(Seen.SENT),
            left=seen(Seen.LEFT),
            at_interface=seen(Seen.AT_INTERFACE),
            at_socket=seen(Seen.AT_SOCKET),
            answers_left=answered(1),
            answers_at_interface=answered(2),
            answers=answered(3),
        )


def in_one_line(cell: Cell, names: Mapping[str, str]) -> str:
    """
    Say what was counted around the point of the loss, who refused, and which source ports fail.

    `names` are the hosts' names as the reader sees them.
    """
    evidence = cell.evidence
    src = names.get(cell.flow.src, cell.flow.src)
    dst = names.get(cell.flow.dst, cell.flow.dst)
    unit, fates = _decisive(evidence, cell.judgement.segment)
    counts = Counts.of(fates)
    said = [f"{counts.sent} {unit}sent"]
    if counts.sent < counts.tried:
        said.insert(0, f"{counts.tried} {unit}tried")
    for step in _steps(cell) if counts.sent else ():
        count = getattr(counts, step)
        answers = "answer" if count == 1 else "answers"
        said.append(_STEP_WORDS[step].format(count=count, src=src, dst=dst, answers=answers))
    line = ", ".join(said)
    for refusal in evidence.refusals:
        # Packets that were counted elsewhere may have been refused as well.
        times = f", {refusal.count} times" if 1 < refusal.count <= counts.tried else ""
        by = {cell.flow.src_address: src, cell.flow.dst_address: dst}.get(refusal.by, refusal.by)
        line += f"; {refusal.reason}{f' from {by}' if by else ''}{times}"
    if evidence.failing_ports and evidence.passing_ports:
        line += f"; source ports {_ports(evidence.failing_ports)} fail, {_ports(evidence.passing_ports)} pass"
    return line


def _decisive(evidence: Evidence, segment: Segment | None) -> tuple[str, Fates]:
    """The fates that the verdict stands on, and the word for one of them."""
    if evidence.session is not None and evidence.session.stage and evidence.session.fates:
        return "payloads ", evidence.session.fates
    if segment is Segment.SOURCE_EGRESS and any(fate.seen < Seen.LEFT for fate, _ in evidence.output):
        return "", evidence.output
    return "", (*evidence.first, *evidence.confirm)


def _steps(cell: Cell) -> tuple[str, ...]:
    segment = cell.judgement.segment
    if cell.judgement.verdict is Verdict.CLOSED:
        return ("at_socket", "came_back")
    if cell.judgement.verdict is Verdict.INTERCEPTED:
        at_destination = segment is Segment.DESTINATION_INGRESS
        return ("at_socket", "answers_left") if at_destination else ("at_interface", "came_back")
    if segment is None:
        arrivals = ("left", "at_interface", "at_socket")
        return (*arrivals, "answers") if cell.flow.protocol is Protocol.TCP else arrivals
    return _STEPS[segment]


def _ports(ports: tuple[int, ...]) -> str:
    shown = ", ".join(str(port) for port in ports[:4])
    return shown if len(ports) <= 4 else f"{shown} and {len(ports) - 4} more"
