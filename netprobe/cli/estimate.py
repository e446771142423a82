"""What a run will cost, before it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from netprobe.model import Flow
    from netprobe.plan import Settings

# Measured on two cores with the hosts on the same machine; hosts of their own are quicker, ssh is slower.
_START_S: Final = 1.0
_START_OF_HOST_S: Final = 0.05
_FLOW_S: Final = 0.0002
_SESSION_PACKETS: Final = 8
"""Three for the handshake, one each for request and answer, and three to close."""


class Estimate(msgspec.Struct, frozen=True):
    """Packets of all hosts together, and seconds from the start to the result."""

    packets: int
    seconds: float


def estimate(flows: Sequence[Flow], settings: Settings, hosts: int) -> Estimate:
    """The cost of a run in which every flow turns out open; each lost one adds packets and waiting."""
    from netprobe.model import Protocol
    from netprobe.plan import usual_count

    count = settings.count or usual_count(len(flows), hosts)
    sessions = sum(flow.protocol is Protocol.TCP for flow in flows) if settings.depth == "session" else 0
    busiest = max(Counter(flow.src for flow in flows).values(), default=0)
    return Estimate(
        packets=len(flows) * count + sessions * _SESSION_PACKETS,
        seconds=_START_S + _START_OF_HOST_S * hosts + _FLOW_S * len(flows) + busiest * count / settings.rate,
    )
