"""What a run tells of its hosts: kernel, interpreter, interfaces, ports in use."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.model import HeldPort, Interface, Protocol
from tests.lab.probing import probe

pytestmark = pytest.mark.lab

TWO: Final = "{name: two hosts, hosts: [a, b]}"
_HOLDER: Final = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind((sys.argv[1], 4789))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_host_is_described_as_its_agent_found_it() -> None:
    """With the interface of each probed address, whatever MTU it has."""
    with Lab(describe(TWO)) as lab:
        lab.run("a", ["ip", "link", "set", "eth0", "mtu", "1400"])
        addresses = tuple(lab.hosts["a"].addresses.values())
        a, b = probe(lab, "vxlan").hosts

    uname = os.uname()
    assert (uname.nodename, uname.release, uname.machine) == (a.hostname, a.kernel, a.machine)
    assert (platform.python_version(), sys.executable) == (a.python, a.interpreter)
    (interface,) = a.interfaces
    assert Interface(name="eth0", mtu=1400, kind="veth", addresses=interface.addresses) == interface
    assert set(addresses) == set(interface.addresses)
    assert [1500] == [each.mtu for each in b.interfaces]


def test_ports_in_use_are_those_of_the_host() -> None:
    """Only the probed ones, with who holds them."""
    with Lab(describe(TWO)) as lab:
        address = next(iter(lab.hosts["b"].addresses.values()))
        argv = [sys.executable, "-c", _HOLDER, address]
        holder = lab.popen("b", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            assert "ready\n" == holder.stdout.readline()
            a, b = probe(lab, "vxlan").hosts
        finally:
            holder.communicate()

    (held,) = b.ports_in_use
    assert () == a.ports_in_use
    assert HeldPort(protocol=Protocol.UDP, address=address, port=4789, program=held.program) == held
    assert held.program.endswith(f" (pid {holder.pid})")
