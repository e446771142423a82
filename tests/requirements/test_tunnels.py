"""Ports of tunnels that somebody else has: real devices, and real sockets, in a host's namespace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.lab import Lab
from netprobe.questions import Outcome
from netprobe.requirements.tunnels import tunnels
from tests.requirements.asking import found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts, whose namespaces can be given any device."""
    with Lab.mesh(2) as lab:
        yield lab


@pytest.fixture
def node(lab: Lab) -> Iterator[tuple[str, ...]]:
    """The words that run a command on one of them, whose tunnels are deleted afterwards."""
    words = ("nsenter", f"--net=/run/netns/{lab.hosts['n1'].namespace}", "--")
    yield words
    subprocess.run([*words, "sh", "-c", "ip link del t0; ip link del vxlan.calico"], check=False)


def _findings(node: tuple[str, ...], command: str = ":") -> dict[str, Finding]:
    subprocess.run([*node, "sh", "-ec", command], check=True)
    return found(*node)


@pytest.mark.lab
def test_free_ports_pass(node: tuple[str, ...]) -> None:
    """Of all kinds."""
    findings = _findings(node)

    for name in ("port-vxlan", "port-flannel", "port-wireguard"):
        assert Result.PASS is findings[name].result
        assert findings[name].seen.endswith(": free")


@pytest.mark.lab
def test_calicos_own_device_is_in_nobodys_way(node: tuple[str, ...]) -> None:
    """But in flannel's, which would share the port with another network."""
    findings = _findings(
        node, "ip link add vxlan.calico type vxlan id 4096 dstport 4789; ip link set vxlan.calico up"
    )

    assert Result.PASS is findings["port-vxlan"].result
    assert "vxlan.calico" in findings["port-vxlan"].seen
    assert Result.WARN is findings["port-flannel"].result


@pytest.mark.lab
def test_another_device_with_the_same_network_fails(node: tuple[str, ...]) -> None:
    """The kernel makes no second one with its port and its VNI: `ip` itself is refused."""
    finding = _findings(node, "ip link add t0 type vxlan id 4096 dstport 4789; ip link set t0 up")[
        "port-vxlan"
    ]
    second = subprocess.run(
        [*node, "ip", "link", "add", "vxlan.calico", "type", "vxlan", "id", "4096", "dstport", "4789"],
        capture_output=True,
        check=False,
    )

    assert Result.FAIL is finding.result
    assert "UDP 4789: device t0 has it, with VNI 4096" == finding.seen
    assert 0 != second.returncode


@pytest.mark.lab
def test_another_device_with_another_network_is_told(node: tuple[str, ...]) -> None:
    """They share the port, as the kernel lets them."""
    finding = _findings(node, "ip link add t0 type vxlan id 7 dstport 4789; ip link set t0 up")["port-vxlan"]

    assert Result.WARN is finding.result
    assert "UDP 4789: device t0 has it, with VNI 7" == finding.seen


@pytest.mark.lab
def test_a_device_that_was_moved_away_still_has_the_port(lab: Lab, node: tuple[str, ...]) -> None:
    """As Docker Swarm's are: in another network namespace, with their socket in the host's."""
    other = lab.hosts["n2"].namespace
    move = f"ip link add t0 type vxlan id 7 dstport 4789; ip link set t0 netns {other}"
    try:
        subprocess.run([*node, "sh", "-ec", move], check=True)
        subprocess.run(["ip", "-n", other, "link", "set", "t0", "up"], check=True)
        finding = found(*node)["port-vxlan"]
    finally:
        subprocess.run(["ip", "-n", other, "link", "del", "t0"], check=True)

    assert Result.WARN is finding.result
    assert "UDP 4789: the kernel has it for a device in another network namespace" == finding.seen


_HOLDER = """
import socket, sys
handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
handle.bind(("0.0.0.0", int(sys.argv[1])))
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.lab
@pytest.mark.parametrize(
    ("port", "name"), [(4789, "port-vxlan"), (8472, "port-flannel"), (51821, "port-wireguard")]
)
def test_a_process_that_has_the_port_fails(port: int, name: str, node: tuple[str, ...]) -> None:
    """The kernel's own socket cannot be bound then."""
    command = [*node, "/usr/bin/python3", "-c", _HOLDER, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        finding = found(*node)[name]

    assert Result.FAIL is finding.result
    assert re.fullmatch(rf"UDP {port}: python3 \(pid \d+\) has it", finding.seen)


@pytest.mark.lab
def test_who_cannot_see_the_holders_does_not_know(node: tuple[str, ...]) -> None:
    """For another user than root any socket could be a process's."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    subprocess.run(
        [*node, "sh", "-ec", "ip link add t0 type vxlan id 7 dstport 4789; ip link set t0 up"], check=True
    )
    finding = found(*node, *nobody, python="/usr/bin/python3")["port-vxlan"]

    assert Result.UNKNOWN is finding.result
    assert "as uid 65534" in finding.seen


@given(st.lists(st.binary(max_size=100)))
def test_any_link_is_read(bodies: list[bytes]) -> None:
    """Also bytes that are none."""
    outcome = Outcome(error="", answers=[(16, body.hex()) for body in bodies])

    assert all(each.kind in ("vxlan", "wireguard") for each in tunnels([outcome]))
