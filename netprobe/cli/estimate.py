"""What a run will cost, before it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from netprobe.model import Settings
    from netprobe.plan import Share

# Measured on two cores with the hosts on the same machine; hosts of their own are quicker, ssh is slower.
_START_S: Final = 1.0
_START_OF_HOST_S: Final = 0.05
_FLOW_S: Final = 0.0002


class Estimate(msgspec.Struct, frozen=True):
    """Probe packets and sessions of all hosts together, and seconds from the start to the result."""

    packets: int
    sessions: int
    seconds: float


def estimate(shares: Iterable[Share], settings: Settings, hosts: int) -> Estimate:
    """
    The cost of a run in which every flow turns out open and every probed port was free.

    Each lost packet adds packets and waiting; a port that somebody else holds gets more SYNs, and no session.
    """
    from netprobe import plan

    shares = list(shares)
    flows = sum(share.flows for share in shares)
    look = plan.first_look(settings, flows, hosts)
    sessions = 0
    sent: Counter[str] = Counter()
    busy: Counter[str] = Counter()
    for share in shares:
        has_session = plan.may_hold_session(share.probe, settings)
        packets = look.packets(share.probe, has_session=has_session)
        sessions += share.flows if has_session else 0
        sent[share.source] += share.flows * packets
        busy[share.source] += share.flows * (packets + (plan.SESSION_PACKETS if has_session else 0))
    busiest = max(busy.values(), default=0)
    return Estimate(
        packets=sum(sent.values()),
        sessions=sessions,
        seconds=_START_S + _START_OF_HOST_S * hosts + _FLOW_S * flows + busiest / settings.rate,
    )
