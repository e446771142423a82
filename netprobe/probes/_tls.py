"""
The first two messages of a TLS session, for the probes of services that speak it.

The client's is a real one, written by OpenSSL; the server's has the form of one (RFC 8446 §4.1.3). Both carry
the tag and the mark as the first bytes of their random (RFC 8446 §4.1.2). No key is ever agreed.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence
from typing import Final

from netprobe.model import Protocol
from netprobe.probes.base import Application
from netprobe.template import Base, Key, Kind, Match, Sight, Template, mark_matches

_TYPE_AT, _RANDOM_AT, _RANDOM_BYTES = 5, 11, 32
_MARK_AT: Final = _RANDOM_AT + 4
_CLIENT_HELLO, _SERVER_HELLO, _HANDSHAKE = 1, 2, 22
_TLS_AES_128_GCM_SHA256: Final = 0x1301
_TLS_1_2, _TLS_1_3 = 0x0303, 0x0304
_SUPPORTED_VERSIONS: Final = 43


def tls(*alpn: str) -> Application:
    """An application that greets with a ClientHello that offers these protocols (RFC 7301)."""

    def request(key: Key) -> Template:
        return _template(_client_hello(alpn), key)

    return Application(name="TLS ClientHello", request=request, answer=_answer, sights=_sights)


def _client_hello(alpn: Sequence[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # One classical group keeps the message within one segment: a post-quantum share alone is over 1,100
    # bytes.
    context.set_ecdh_curve("prime256v1")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        # It has written its hello and waits for the server's, which never comes.
        return outgoing.read()
    message = "OpenSSL finished a handshake that nobody answered"
    raise AssertionError(message)


def _answer(key: Key) -> Template:
    version = struct.pack("!HHH", _SUPPORTED_VERSIONS, 2, _TLS_1_3)
    body = struct.pack("!H", _TLS_1_2) + bytes(_RANDOM_BYTES) + bytes([0])
    body += struct.pack("!HBH", _TLS_AES_128_GCM_SHA256, 0, len(version)) + version
    message = bytes([_SERVER_HELLO]) + len(body).to_bytes(3, "big") + body
    return _template(struct.pack("!BHH", _HANDSHAKE, _TLS_1_2, len(message)) + message, key)


def _template(message: bytes, key: Key) -> Template:
    data = message[:_MARK_AT] + key.mark + message[_MARK_AT + len(key.mark) :]
    return Template(data=data, network=False, tags=(_RANDOM_AT,))


def _sights(key: Key) -> tuple[Sight, ...]:
    return tuple(
        Sight(
            kind=kind,
            protocol=Protocol.TCP,
            base=Base.PAYLOAD,
            matches=(Match(_TYPE_AT, 1, 0xFF, message), *mark_matches(_MARK_AT, key)),
            tag=_RANDOM_AT,
        )
        for kind, message in ((Kind.REQUEST, _CLIENT_HELLO), (Kind.ANSWER, _SERVER_HELLO))
    )
