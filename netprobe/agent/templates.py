"""Templates: bytes from the coordinator, and what to patch in them for each packet."""

import socket
import struct

from netprobe.agent import wire

ATTEMPT_BITS = 6
_WORD = 0xFFFFFFFF
_ADDRESSES_AT = {4: 12, 6: 8}  # RFC 791 §3.1, RFC 8200 §3
_ADDRESS_BYTES = {4: 4, 6: 16}
_PROTOCOL_AT = {4: 9, 6: 6}
_HEADER_BYTES = {4: 20, 6: 40}
_MOST_BYTES = 0xFFFF


class Template:
    """
    One packet from its IP header on, or one payload.

    `packet` and `payload` fill in what differs. Packets are patched in one buffer, which the next call
    changes.
    """

    def __init__(self, request: "dict[str, object]") -> None:
        data = wire.octets(request.get("data"), "template.data")
        data += bytes(wire.integer(request.get("pad", 0), "template.pad", 0, _MOST_BYTES))
        self.size = len(data)
        self.network = wire.flag(request.get("network", True), "template.network")
        self._tags = self._offsets(request, "tags", 4)
        self._plus = wire.integer(request.get("plus", 0), "template.plus")
        self._idents = self._offsets(request, "idents", 2)
        port = request.get("source_port")
        self._port = None if port is None else wire.integer(port, "template.source_port", 0, self.size - 2)
        self._checksums = [
            self._checksum(wire.items(each, "template.checksums", 4))
            for each in wire.items(request.get("checksums", []), "template.checksums")
        ]
        # Checksums are sums of 16-bit words in the machine's own byte order (RFC 1071 §2 (B)).
        self._buffer = bytearray(data + bytes(len(data) % 2))
        self._words = memoryview(self._buffer).cast("H")
        self._view = memoryview(self._buffer)[: self.size]
        self.version = 0
        if self.network:
            self.version = data[0] >> 4 if data else 0
            if not _HEADER_BYTES.get(self.version, _WORD) <= self.size <= _MOST_BYTES:
                raise wire.RequestError("template.data: neither an IPv4 nor an IPv6 packet")
            self._addresses_at = _ADDRESSES_AT[self.version]
            keeps_source = wire.flag(request.get("keeps_source", False), "template.keeps_source")
            self._kept = _ADDRESS_BYTES[self.version] if keeps_source else 0
            length = self.size - _HEADER_BYTES[self.version]
            protocol = data[_PROTOCOL_AT[self.version]]
            self._pseudo = socket.htons(protocol) + socket.htons(length)

    def _offsets(self, request: "dict[str, object]", name: str, width: int) -> "list[int]":
        what = "template." + name
        return [
            wire.integer(each, what, 0, self.size - width) for each in wire.items(request.get(name, []), what)
        ]

    def _checksum(self, values: "list[object]") -> "tuple[int, int, int, bool]":
        at, start, end = (wire.integer(each, "template.checksums", 0, self.size) for each in values[:3])
        if at % 2 or start % 2 or at + 2 > self.size or start > end:
            raise wire.RequestError("template.checksums: even offsets within the packet")
        return at // 2, start // 2, (end + 1) // 2, wire.flag(values[3], "template.checksums")

    def packet(self, addresses: bytes, tag: int, port: int) -> memoryview:
        """
        The packet with these addresses (source and destination, packed, in one), this tag and source port.

        The source address and the port are ignored where the template's own is fixed.
        """
        buffer = self._buffer
        at = self._addresses_at
        buffer[at + self._kept : at + len(addresses)] = addresses[self._kept :]
        for offset in self._idents:
            struct.pack_into("!H", buffer, offset, tag & 0xFFFF)
        for offset in self._tags:
            struct.pack_into("!I", buffer, offset, (tag + self._plus) & _WORD)
        if self._port is not None:
            struct.pack_into("!H", buffer, self._port, port)
        words = self._words
        for check, start, end, pseudo in self._checksums:
            words[check] = 0
            total = sum(words[start:end])
            if pseudo:
                total += self._pseudo + sum(words[at // 2 : (at + len(addresses)) // 2])
            total = (total >> 16) + (total & 0xFFFF)
            total = ~(total + (total >> 16)) & 0xFFFF
            # Zero would mean "no checksum" to UDP (RFC 768); both forms verify alike.
            words[check] = total or 0xFFFF
        return self._view

    def payload(self, tag: int) -> bytes:
        """The payload with this tag."""
        data = bytearray(self._view)
        for offset in self._tags:
            struct.pack_into("!I", data, offset, tag)
        return bytes(data)

    def tag_of(self, data: bytes) -> "int | None":
        """The tag that `data` carries if it is this payload with some tag, else None."""
        if len(data) != self.size or not self._tags:
            return None
        tag = int(struct.unpack_from("!I", data, self._tags[0])[0])
        return tag if self.payload(tag) == data else None
