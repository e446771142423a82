"""Ports of tunnels that somebody else has: real devices, and real sockets, in a host's namespace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netprobe.findings import Finding, Result
from netprobe.lab import Lab
from netprobe.questions import Holder, Outcome, System, SystemFacts
from netprobe.requirements import _links, _netlink
from netprobe.requirements.tunnels import SOCKETS
from tests.requirements.asking import found
from tests.requirements.hosts import found as judged

SYSTEM: Final = SystemFacts("6.1.0", "x86_64", "a", "3.11.2", 0, 0, 0, [], 0.0)


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


@pytest.mark.lab
def test_docker_swarms_first_network_has_calicos_vni(lab: Lab, node: tuple[str, ...]) -> None:
    """The kernel makes no second device with it, wherever the first is: `ip` itself is refused."""
    other = lab.hosts["n2"].namespace
    make = (
        "ip link add docker_gwbridge type bridge; ip link add t0 type vxlan id 4096 dstport 4789; "
        f"ip link set t0 netns {other}"
    )
    second = "ip link add vxlan.calico type vxlan id 4096 dstport 4789"
    try:
        subprocess.run([*node, "sh", "-ec", make], check=True)
        subprocess.run(["ip", "-n", other, "link", "set", "t0", "up"], check=True)
        finding = found(*node)["port-vxlan"]
        refused = subprocess.run([*node, *second.split()], capture_output=True, check=False)
    finally:
        subprocess.run(["ip", "-n", other, "link", "del", "t0"], check=True)
        subprocess.run([*node, "ip", "link", "del", "docker_gwbridge"], check=True)

    assert Result.FAIL is finding.result
    assert "Docker Swarm's" in finding.seen
    assert 0 != refused.returncode


def _links_of(*devices: tuple[str, str]) -> list[Outcome]:
    """The kernel's answer with these devices: names and kinds."""
    bodies = (
        _netlink.filled(
            ifinfmsg,
            {},
            [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})],
        )
        for name, kind in devices
    )
    return [Outcome(error="", answers=[(16, body.hex()) for body in bodies])]


@pytest.mark.parametrize(
    ("devices", "is_held", "result"),
    [
        ([], False, Result.PASS),
        ([("wg0", "wireguard")], False, Result.PASS),
        ([("wireguard.cali", "wireguard")], True, Result.PASS),
        ([("wg0", "wireguard")], True, Result.FAIL),
        ([("wg0", "wireguard"), ("wireguard.cali", "wireguard")], True, Result.WARN),
        ([], True, Result.FAIL),
    ],
)
def test_no_two_wireguard_devices_share_a_port(
    devices: list[tuple[str, str]], is_held: bool, result: Result
) -> None:
    """Which of them has it the links do not tell; where only Calico's is there, it is that."""
    held = [Holder(protocol=17, address="0.0.0.0", port=51820, program="")] if is_held else []
    finding = judged(
        "port-wireguard",
        given={_links.LINKS: _links_of(*devices), SOCKETS: held, System(): SYSTEM},
    )

    assert result is finding.result, finding.seen
