"""The clocks of the hosts, compared with each other by way of the coordinator's."""

from __future__ import annotations

from statistics import median
from typing import Final, NamedTuple

from netprobe.requirements.base import (
    Context,
    Evidence,
    Group,
    Judgement,
    Level,
    Requirement,
    not_applicable,
    passed,
    unknown,
    warned,
)

_MOST_S: Final = 1.0
"""etcd complains of more between its members (rafthttp, maxClockDifference)."""


class Offset(NamedTuple):
    """By how many seconds a host's clock is ahead of the coordinator's: `middle`, give or take `error`."""

    middle: float
    error: float

    @classmethod
    def of(cls, evidence: Evidence) -> Offset:
        """
        From four times, as NTP has it (RFC 5905 §8).

        The host's clock was read after the question left, and before the answer came: whatever the ways
        there and back took, the offset lies between the two differences.
        """
        most, least = evidence.began - evidence.asked, evidence.ended - evidence.answered
        return cls((most + least) / 2, abs(most - least) / 2)

    def is_beyond(self, other: Offset) -> bool:
        """Whether two clocks certainly differ by more than what is tolerated."""
        return abs(self.middle - other.middle) - self.error - other.error > _MOST_S


def _clock(context: Context) -> Judgement:
    offsets = {name: Offset.of(evidence) for name, evidence in context.fleet.items() if not evidence.lost}
    own = offsets[context.own.host.name]
    if len(offsets) == 1:
        return not_applicable("there is no other host to compare with")
    middle = median(offset.middle for offset in offsets.values())
    shown = f"{own.middle - middle:+.1f} s from the hosts' median, give or take {own.error:.1f} s"
    beyond = [name for name, offset in offsets.items() if offset.is_beyond(own)]
    if not beyond:
        if own.error > _MOST_S:
            return unknown(shown, "Ask again when the host and the way there are less busy.")
        return passed(f"within {_MOST_S:g} s of {len(offsets) - 1} others, as far as can be seen")
    # Who is alone is wrong, not those who differ from it.
    if 2 * len(beyond) <= len(offsets) - 1:
        return passed(f"within {_MOST_S:g} s of most others; not of {_some(beyond)}")
    return warned(f"{shown}; more than {_MOST_S:g} s from {_some(beyond)}")


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)


GROUP: Final = Group(
    name="Time",
    rank=130,
    requirements=(
        Requirement(
            id="clock",
            title="The clocks agree",
            level=Level.RECOMMENDED,
            source="Certificates, tokens and leases are good for a time: the hosts must agree on which it is",
            method=(
                "The host's clock, between two readings of the coordinator's, with the uncertainty that this "
                "leaves; against those of all other hosts"
            ),
            fix="Run chrony or systemd-timesyncd on all hosts, with the same servers; chronyc makestep.",
            judge=_clock,
        ),
    ),
)
