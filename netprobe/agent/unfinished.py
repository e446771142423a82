"""
What a run that is cut off would leave half done at other hosts, and what takes it back.

A SYN whose answer got lost leaves its destination repeating that answer for a minute. A run takes such
packets back itself; where it ends in the middle, be it that its coordinator was killed, its agents do.
"""

import contextlib
import socket
import time

from netprobe.agent import netlink, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from netprobe.agent.templates import Template

    Begun = tuple[float, Template, bytes, str, int]

_REPEATED_S = 64.0
"""As long as Linux repeats an answer (net.ipv4.tcp_synack_retries: after 1, 2, 4, … seconds, five times)."""
_MOST = 5000
"""As many as a host may send in a second; the latest are the ones that matter."""


class Unfinished:
    """The packets of a run that are to be taken back if it ends in the middle, by their numbers."""

    def __init__(self) -> None:
        self._begun: dict[int, Begun] = {}

    def begin(self, number: int, undo: "Template", addresses: bytes, text: str, port: int) -> None:
        """Note a packet that leaves, with the template of what takes it back."""
        self._begun[number] = (time.monotonic(), undo, addresses, text, port)

    def forget(self) -> None:
        """All has come to its end."""
        self._begun.clear()

    def take_back(self, nonce: int, answered: "Container[int]") -> None:
        """Take back what was sent not long ago, and was not answered."""
        since = time.monotonic() - _REPEATED_S
        late = [
            (number, begun)
            for number, begun in self._begun.items()
            if begun[0] >= since and number not in answered
        ]
        self.forget()
        # What cannot be sent is forgotten by its destination in a minute: no reason for an agent not to end.
        with contextlib.suppress(OSError), contextlib.ExitStack() as open_sockets:
            sockets: dict[bytes, socket.socket] = {}
            for number, (_at, undo, addresses, text, port) in late[-_MOST:]:
                source = addresses[: len(addresses) // 2]
                if source not in sockets:
                    handle = socket.socket(netlink.family_of(source), socket.SOCK_RAW, socket.IPPROTO_RAW)
                    sockets[source] = open_sockets.enter_context(handle)
                    handle.bind((wire.address_text(source), 0))
                with contextlib.suppress(OSError):
                    packet = undo.packet(addresses, nonce ^ number, port)
                    sockets[source].sendto(packet, socket.MSG_DONTWAIT, (text, 0))
