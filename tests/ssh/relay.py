"""
A wire between two network namespaces that is long and loses packets: two TUN devices and a program between.

Its packets are real ones of real kernels; each arrives later by the delay, or not at all. Run as a program
it says `ready` once the wire is there, which goes with it.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from netprobe.lab import namespaces

_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MOST_BYTES: Final = 65536


def _device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _carry(ends: Sequence[int], delay_s: float, loss: float, seed: int) -> None:
    """Read at one end, write at the other, until stdin closes."""
    dice = random.Random(seed)  # noqa: S311 (the same packets are lost each time)
    under_way: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        pause = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable = select.select([0, *ends], [], [], pause)[0]
        if 0 in readable:
            return
        for end in readable:
            packet = os.read(end, _MOST_BYTES)
            if dice.random() >= loss:
                number += 1
                heapq.heappush(under_way, (time.monotonic() + delay_s, number, end, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(under_way)
            os.write(ends[1 - ends.index(end)], packet)


@contextmanager
def wire(
    namespace: str, other: str, name: str, addresses: tuple[str, str], *, rtt_s: float, loss: float
) -> Iterator[subprocess.Popen[str]]:
    """
    A wire between two namespaces, with an address (with its prefix length) at each end.

    `loss` is the share of packets that are lost, in each direction. The program is yielded: stopped, it is a
    cable that was pulled.
    """
    words = [namespace, other, name, *addresses, str(rtt_s / 2), str(loss)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ssh.relay", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
            yield program
        finally:
            program.stdin.close()
            program.kill()


def main() -> None:
    """The program."""
    namespace, other, name, address, other_address, delay_s, loss = sys.argv[1:]
    ends = []
    for where, own in ((namespace, address), (other, other_address)):
        ends.append(namespaces.inside(where, lambda: _device(name)))
        for words in (["address", "add", own, "dev", name], ["link", "set", name, "up"]):
            subprocess.run(["ip", "-n", where, *words], check=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _carry(ends, float(delay_s), float(loss), seed=1)


if __name__ == "__main__":
    main()
