"""
WireGuard tunnels, in userspace, are up and have carried traffic while netprobe runs.

A probe is a handshake initiation from the very address and port of a peer. It must make no handshake, move no
peer, and count as nothing that came through a tunnel.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Family, Run
from tests.lab.live.programs import (
    TRACKING,
    Program,
    Traffic,
    check_open,
    needs,
    three_runs,
    traces,
)

pytestmark = [
    *needs("wireguard-go", "wg", "conntrack"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun"),
]

LAB: Final = f"{{name: two ends of WireGuard tunnels, hosts: [a, b], faults: [{TRACKING % 'a, b'}]}}"
PORTS: Final = {Family.IPV4: 51820, Family.IPV6: 51821}
INNER: Final = {Family.IPV4: "198.18.4.", Family.IPV6: "198.18.6."}  # RFC 2544
_HERE, _THERE = 1, 2

# Messages without content, ten seconds after the last that came and had some (the WireGuard paper, §6.5).
_KEEPALIVE_BYTES: Final = 32
_SENT, _RECEIVED = "Sending keepalive packet", "Receiving keepalive packet"
_REFUSED: Final = "Received packet with invalid mac1"


class Peer(NamedTuple):
    """What a tunnel knows of its other end: where it is, when they last shook hands, and bytes."""

    endpoint: str
    handshake_s: int
    received: int
    sent: int


class End:
    """One end of one tunnel: a `wireguard-go` with a device."""

    def __init__(self, lab: Lab, on: str, family: Family) -> None:
        self._lab = lab
        self.on = on
        self.family = family
        # The sockets by which `wg` reaches them stand in one directory for all namespaces.
        self._device = f"wg{os.getpid()}{on}{family.value[-1]}"
        argv = ["env", "LOG_LEVEL=verbose", "wireguard-go", "--foreground", self._device]
        self._program = Program(lab, on, argv, ready="UAPI listener started", name="wireguard-go")
        self.holds = self._program.holds
        self._key = _wg("genkey")
        self.public_key = _wg("pubkey", input=self._key)

    def join(self, other: End, number: int) -> None:
        """Make `other` the peer, and this number one's own in the inner network."""
        there, port = self._lab.hosts[other.on].address(self.family), PORTS[self.family]
        endpoint = f"[{there}]:{port}" if self.family is Family.IPV6 else f"{there}:{port}"
        argv = ["wg", "set", self._device, "listen-port", str(port), "private-key", "/dev/stdin"]
        argv += ["peer", other.public_key, "allowed-ips", f"{INNER[self.family]}0/24", "endpoint", endpoint]
        self._lab.run(self.on, argv, input=self._key)
        own = f"{INNER[self.family]}{number}/24"
        self._lab.run(self.on, ["ip", "address", "add", own, "dev", self._device])
        self._lab.run(self.on, ["ip", "link", "set", self._device, "up"])

    def peer(self) -> Peer:
        """The peer as it is now."""
        _own, line = self._lab.run(self.on, ["wg", "show", self._device, "dump"]).stdout.splitlines()
        _key, _psk, endpoint, _allowed, handshake, received, sent, _keepalive = line.split("\t")
        return Peer(endpoint, int(handshake), int(received), int(sent))

    def said(self) -> list[str]:
        """What it has logged of packets since it was last asked."""
        self._lab.run(self.on, ["wg", "set", self._device, "fwmark", "off"])
        lines = self._program.lines.until("UAPI: Updating fwmark")
        return [line for line in lines if "UAPI:" not in line and "Routine:" not in line]


def _wg(verb: str, input: str | None = None) -> str:  # noqa: A002 (as in subprocess)
    return subprocess.run(
        ["wg", verb], input=input, check=True, capture_output=True, text=True
    ).stdout.strip()


class Tunnels(msgspec.Struct, frozen=True):
    """Their ends, three runs, and what was there before and after them."""

    lab: Lab
    ends: list[End]
    runs: list[Run]
    peers: list[tuple[Peer, Peer]]
    said: list[list[str]]
    traces: tuple[dict[str, set[str]], dict[str, set[str]]]


def _carry(lab: Lab) -> None:
    """Send something through each tunnel, and have it answered."""
    Traffic(lab, "a", "b", [f"{network}{_THERE}" for network in INNER.values()]).stop()


@pytest.fixture(scope="module")
def tunnels() -> Iterator[Tunnels]:
    """One over each family, with Calico's ports; both have carried traffic before the runs."""
    with Lab(describe(LAB)) as lab:
        ends = []
        for family in Family:
            one, other = End(lab, "a", family), End(lab, "b", family)
            one.join(other, _HERE)
            other.join(one, _THERE)
            ends += [one, other]
        _carry(lab)
        for end in ends:
            end.said()
        before, left = [end.peer() for end in ends], traces(lab)
        runs = three_runs(lab)
        after, still_left = [end.peer() for end in ends], traces(lab)
        said = [end.said() for end in ends]
        yield Tunnels(lab, ends, runs, list(zip(before, after, strict=True)), said, (left, still_left))


def test_no_peer_has_moved_and_no_byte_was_counted(tunnels: Tunnels) -> None:
    """
    Endpoint, last handshake and transfer are those of before, but for the tunnel's own keepalives.
    """
    for (before, after), said in zip(tunnels.peers, tunnels.said, strict=True):
        received, sent = (sum(word in line for line in said) for word in (_RECEIVED, _SENT))
        expected = before._replace(
            received=before.received + _KEEPALIVE_BYTES * received,
            sent=before.sent + _KEEPALIVE_BYTES * sent,
        )

        assert 0 < before.handshake_s
        assert 0 < before.received
        assert expected == after


def test_every_probe_ends_at_its_first_check(tunnels: Tunnels) -> None:
    """
    WireGuard saw each, and dropped it for its mac1: before it did any cryptography, and without an answer.
    """
    for said in tunnels.said:
        packets = [line for line in said if _SENT not in line and _RECEIVED not in line]

        assert packets
        assert all(line.endswith(_REFUSED) for line in packets), packets


def test_the_tunnels_entries_stay_and_no_other_does(tunnels: Tunnels) -> None:
    """
    A tunnel's conntrack entry has the addresses and ports of the probes; it was there before, so it stays.
    """
    before, after = tunnels.traces

    assert before == after
    assert {"a": len(Family), "b": len(Family)} == {host: len(left) for host, left in after.items()}


def test_wireguard_is_open_and_the_program_is_named(tunnels: Tunnels) -> None:
    """
    `wireguard-go`, each with the process of the family's own port; all else is free and open.
    """
    holders = {(end.on, PORTS[end.family]): end.holds for end in tunnels.ends}
    for run in tunnels.runs:
        check_open(run, holders)


def test_the_tunnels_carry_on(tunnels: Tunnels) -> None:
    """
    After three runs they need no new handshake to carry what comes.
    """
    _carry(tunnels.lab)

    for end, (before, _after) in zip(tunnels.ends, tunnels.peers, strict=True):
        peer = end.peer()

        assert before.handshake_s == peer.handshake_s
        assert before.received < peer.received
