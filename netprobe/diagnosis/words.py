"""
What a lost flow means, in words for somebody who knows networks and has never seen Kubernetes.

The texts are tables over verdict and segment. `{src}` and `{dst}` are the two ends, `{by}` says who refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from netprobe.model import Segment, Verdict

_LOST: Final[Mapping[Segment | None, str]] = {
    Segment.SOURCE_EGRESS: "{src}'s own firewall or kernel drops it: it never left {src}'s interface.",
    Segment.PATH: "Lost on the path: it left {src}'s interface and never reached {dst}'s.",
    Segment.DESTINATION_INGRESS: "{dst}'s own firewall or kernel drops it: it reached {dst}'s interface "
    "and got no further.",
    Segment.DESTINATION_EGRESS: "{dst}'s own firewall or kernel drops the answer: it never left {dst}'s "
    "interface.",
    Segment.RETURN_PATH: "The answer is lost on the way back: it left {dst}'s interface and never reached "
    "{src}'s.",
    Segment.SOURCE_INGRESS: "{src}'s own firewall or kernel drops the answer: it reached {src}'s interface "
    "and got no further.",
    None: "Lost, and nothing says where.",
}
_REFUSED: Final[Mapping[Segment | None, str]] = {
    Segment.SOURCE_EGRESS: "{src}'s own firewall, or a prohibiting route, refuses to send it.",
    Segment.PATH: "A firewall on the path refuses it ({by}).",
    Segment.DESTINATION_INGRESS: "{dst}'s own firewall refuses it, and says so.",
    Segment.DESTINATION_EGRESS: "{dst}'s own firewall refuses to send the answer.",
    Segment.RETURN_PATH: "A firewall on the way back refuses the answer ({by}).",
    Segment.SOURCE_INGRESS: "{src}'s own firewall refuses the answer.",
    None: "A firewall refuses it ({by}).",
}
_NO_WAY: Final[Mapping[Segment | None, str]] = {
    Segment.SOURCE_EGRESS: "{src} itself has no way to {dst}: no route, or no neighbour that answers.",
    Segment.PATH: "A router on the path has no way to {dst} ({by}).",
    Segment.DESTINATION_INGRESS: "{dst} itself answers that this cannot be reached.",
    Segment.DESTINATION_EGRESS: "{dst} has no way back to {src}: no route, or no neighbour that answers.",
    Segment.RETURN_PATH: "A router on the way back has no way to {src} ({by}).",
    Segment.SOURCE_INGRESS: "{src} itself answers that this cannot be reached.",
    None: "There is no way to {dst} ({by}).",
}
_SOME: Final[Mapping[Segment | None, str]] = {
    Segment.SOURCE_EGRESS: "Some get through, some do not: the others never leave {src}'s interface.",
    Segment.PATH: "Some get through, some do not: the others are lost on the path, between {src}'s interface "
    "and {dst}'s.",
    Segment.DESTINATION_INGRESS: "Some get through, some do not: the others reach {dst}'s interface, and "
    "{dst}'s own firewall or kernel drops them.",
    Segment.DESTINATION_EGRESS: "Some get through, some do not: the other answers never leave {dst}'s "
    "interface.",
    Segment.RETURN_PATH: "Some get through, some do not: the other answers are lost on the way back, between "
    "{dst}'s interface and {src}'s.",
    Segment.SOURCE_INGRESS: "Some get through, some do not: the other answers reach {src}'s interface, and "
    "{src}'s own firewall or kernel drops them.",
    None: "Some get through, some do not.",
}
_ANSWERED: Final = (
    "Something else answers in {dst}'s place, which never saw the packet: a proxy, a load balancer or some "
    "other middlebox on the path."
)

HANDED_ON: Final = (
    "Another host gets it in {dst}'s place: its address is translated on the path, or two hosts have it."
)
"""What `intercepted` means of what nobody answers."""

CAUSES: Final[Mapping[Verdict, Mapping[Segment | None, str]]] = {
    Verdict.FILTERED: _LOST,
    Verdict.REJECTED: _REFUSED,
    Verdict.UNREACHABLE: _NO_WAY,
    Verdict.DEGRADED: _SOME,
    Verdict.INTERCEPTED: {
        **dict.fromkeys((*Segment, None), _ANSWERED),
        Segment.DESTINATION_INGRESS: "Something else answers in {dst}'s place, on {dst} itself: the "
        "packet did not get past its firewall.",
    },
    Verdict.CLOSED: dict.fromkeys(
        (*Segment, None), "The network lets it through, and nothing listens on {dst}: its kernel refuses."
    ),
}
"""The sentence for every verdict that is neither open nor untested, and every segment."""

STAGES: Final[Mapping[str, str]] = {
    "handshake": "A single SYN is answered, yet no connection is established: look for a firewall that "
    "follows connections.",
    "request": "The connection opens, and what is then said in it is lost: look for a firewall that inspects "
    "the application.",
    "answer": "The connection opens, the request arrives, and the answer in it is lost: look for a firewall "
    "that inspects the application.",
}
"""What it means that a TCP session broke at this stage (`Session.stage`)."""

COUNTED: Final = "Its kernel counts each of them as {counter}: {meaning}."
"""What is said where a counter of the kernel grew by each of the packets (`Evidence.counter`)."""

SEVERAL_ADDRESSES: Final = (
    "A router speaks from its address towards whom it tells: these may be one router, or several."
)
RATIONED_TOO: Final = (
    "Nobody was heard to refuse the filtered ones, but refusals are rationed, and others from and to the "
    "same hosts were refused: probably the same rule."
)
RATIONED_ALONE: Final = (
    "Nobody was heard to refuse these, but refusals are rationed, and these were too many to ask each again: "
    "they may have been refused."
)
"""What is said of flows whose refusals may have been rationed (`model.RATIONED`)."""
