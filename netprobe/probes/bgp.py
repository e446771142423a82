"""BGP sessions between all nodes (RFC 4271), which Calico routes by wherever it does not use VXLAN."""

from __future__ import annotations

import logging
from typing import Final

from netprobe.model import Protocol
from netprobe.probes import _tcp
from netprobe.probes.base import Application, Probe
from netprobe.template import Base, Key, Kind, Match, Sight, Template

_TYPE_AT, _HOLD_TIME_AT, _IDENTIFIER_AT = 18, 22, 24  # RFC 4271 §4.1, §4.2
_OPEN: Final = 1
_PRIVATE_AS: Final = 64512  # Calico's default AS number
# The two OPENs differ in their hold times (seconds), by which a tap tells request and answer apart.
_HOLD_TIMES: Final = {Kind.REQUEST: 90, Kind.ANSWER: 240}
_RESTART_TIME_S: Final = 120


def _open(kind: Kind) -> bytes:
    # scapy's BGP layer warns of its default AS width when it is imported; that is no news to the user.
    logging.getLogger("scapy.contrib.bgp").setLevel(logging.ERROR)
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    from scapy.contrib import bgp

    capabilities = (
        bgp.BGPCapMultiprotocol(afi=1, safi=1),
        bgp.BGPCapGeneric(code=2, length=0),  # route refresh, RFC 2918
        bgp.BGPCapFourBytesASN(asn=_PRIVATE_AS),
        bgp.BGPCapGracefulRestart(restart_time=_RESTART_TIME_S),
    )
    message = bgp.BGPOpen(
        my_as=_PRIVATE_AS,
        hold_time=_HOLD_TIMES[kind],
        bgp_id="192.0.2.4",  # becomes the tag
        opt_params=[bgp.BGPOptParam(param_type=2, param_value=capability) for capability in capabilities],
    )
    return bytes(bgp.BGPHeader(type=_OPEN) / message)


def _request(_key: Key) -> Template:
    return Template(data=_open(Kind.REQUEST), network=False, tags=(_IDENTIFIER_AT,))


def _answer(_key: Key) -> Template:
    return Template(data=_open(Kind.ANSWER), network=False, tags=(_IDENTIFIER_AT,))


def _sights(_key: Key) -> tuple[Sight, ...]:
    return tuple(
        Sight(
            kind=kind,
            protocol=Protocol.TCP,
            base=Base.PAYLOAD,
            matches=(
                Match(0, 4, 0xFFFFFFFF, 0xFFFFFFFF),  # the marker, RFC 4271 §4.1
                Match(_TYPE_AT, 1, 0xFF, _OPEN),
                Match(_HOLD_TIME_AT, 2, 0xFFFF, hold_time),
            ),
            tag=_IDENTIFIER_AT,
        )
        for kind, hold_time in _HOLD_TIMES.items()
    )


PROBE = Probe(
    name="bgp",
    rank=10,
    summary="BGP sessions between all nodes: a SYN, then an OPEN with capabilities in each direction",
    source="Calico networking (BGP): All, bidirectional, TCP 179; RFC 4271",
    protocol=Protocol.TCP,
    ports=(179,),
    packet=_tcp.syn,
    sights=_tcp.sights,
    withdrawal=_tcp.withdrawal,
    application=Application(name="BGP OPEN", request=_request, answer=_answer, sights=_sights),
)
