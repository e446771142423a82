"""
What already runs on a host is not disturbed: services that listen, BGP sessions, the kernel's tunnel devices.

Everything here is live while netprobe runs beside it, several times: servers of ours, a real BIRD, and the
kernel's own VXLAN device.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import pytest

from netprobe.lab import Lab, describe
from netprobe.lab.expectations import label
from netprobe.model import Caveat, Family, Run, Segment, Verdict
from netprobe.plan import Settings
from tests.lab.probing import Held, evidence, held, only, probe

pytestmark = pytest.mark.lab

RUNS: Final = 3
TIMEOUT_S: Final = 20.0
NAME: Final = "some-service"

TWO: Final = "{name: two hosts, hosts: [a, {name: b, roles: [node, typha, apiserver, etcd]}]}"
IN_USE: Final = Held(Verdict.OPEN, caveats=(Caveat.PORT_IN_USE,))

# Says "ready" when all its sockets are there, and a line for each connection and datagram that it gets.
_SERVICE: Final = f"""
import selectors, socket, sys
open("/proc/self/comm", "w").write("{NAME}")
selector = selectors.DefaultSelector()
for word in sys.argv[1:]:
    kind, address, port = word.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held.bind((address, int(port)))
    if kind == "tcp":
        held.listen()
    selector.register(held, selectors.EVENT_READ, word)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data.startswith("tcp"):
            connection, _peer = key.fileobj.accept()
            print("accepted", key.data, repr(connection.recv(100)), flush=True)
            connection.close()
        else:
            print("received", key.data, len(key.fileobj.recv(2000)), flush=True)
"""
_CLIENT: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(b"the test itself")
    connection.recv(1)
"""


class Lines:
    """The lines of a program, each awaited."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self._descriptor = stream.fileno()
        self._rest = b""

    def find(self, pattern: str) -> str:
        """The next line that a pattern is found in; fails where none comes in time."""
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if end:
                self._rest = rest
                if re.search(pattern, line.decode()):
                    return line.decode()
                continue
            assert select.select([self._descriptor], [], [], TIMEOUT_S)[0], f"no {pattern!r}, last {line!r}"
            more = os.read(self._descriptor, 1 << 16)
            assert more, f"it ended without {pattern!r}, with {line!r}"
            self._rest += more


class Service:
    """A service on a host, ready."""

    def __init__(self, lab: Lab, on: str, *sockets: str) -> None:
        argv = [sys.executable, "-c", _SERVICE, *sockets]
        self.process = lab.popen(on, argv, stdout=subprocess.PIPE)
        self.lines = Lines(self.process.stdout)
        self.lines.find("^ready$")


def connect(lab: Lab, source: str, address: str, port: int) -> None:
    """Connect from a host, completely, and say who it is."""
    lab.run(source, [sys.executable, "-c", _CLIENT, address, str(port)])


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Lab, Service, list[Run]]]:
    """A host with a service on many ports, and three runs."""
    with Lab(describe(TWO)) as lab:
        both = [lab.hosts["b"].address(Family.IPV4), "::"]
        service = Service(
            lab,
            "b",
            *(f"tcp,{address},{port}" for address in both for port in (179, 5473, 6443, 2379)),
            *(f"udp,{address},{port}" for address in both for port in (4789, 8472)),
            f"udp,{both[0]},51820",
            "udp,::,51821",
        )
        yield lab, service, [probe(lab) for _ in range(RUNS)]


def test_no_connection_to_a_live_service_is_ever_completed(
    served: tuple[Lab, Service, list[Run]],
) -> None:
    """
    Of all that three runs sent it has accepted nothing: the first connection is that of the test.
    """
    lab, service, _runs = served
    accepted = []
    for address in lab.hosts["b"].addresses.values():
        for port in (179, 5473, 6443, 2379):
            connect(lab, "a", address, port)
            accepted.append(service.lines.find("^accepted"))

    assert 8 == len(accepted)
    assert all("the test itself" in each for each in accepted)


def test_no_connection_to_a_live_service_stays_half_open(
    served: tuple[Lab, Service, list[Run]],
) -> None:
    """
    The kernel of the source takes each SYN back as soon as it is answered.
    """
    lab, _service, _runs = served

    assert "" == lab.run("b", ["ss", "--no-header", "-tn", "state", "syn-recv"]).stdout


@pytest.mark.parametrize("number", range(RUNS))
def test_a_port_that_a_program_holds_is_open_and_the_program_is_named(
    served: tuple[Lab, Service, list[Run]], number: int
) -> None:
    """
    TCP and UDP, both families; where the port is free nothing is said.
    """
    _lab, service, runs = served
    for cell in runs[number].cells:
        is_held = cell.flow.dst == "b" and cell.flow.port not in (None, 443)

        assert Verdict.OPEN is cell.judgement.verdict, evidence(cell)
        assert is_held == (Caveat.PORT_IN_USE in cell.judgement.caveats), evidence(cell)
        assert is_held == (f"{NAME} (pid {service.process.pid}) holds the port" in cell.judgement.detail)


def test_a_service_at_one_address_is_spared_and_the_other_address_probed_in_full() -> None:
    """
    BIRD may listen for one family only: then a session is ours to hold over the other, and not over this.
    """
    with Lab(describe(TWO)) as lab:
        service = Service(lab, "b", "tcp,::,179")
        run = probe(lab, "bgp")
        connect(lab, "a", lab.hosts["b"].address(Family.IPV6), 179)

        assert "the test itself" in service.lines.find("^accepted")
    assert {
        "a -> b bgp:179/ipv4": Held(Verdict.OPEN),
        "b -> a bgp:179/ipv4": Held(Verdict.OPEN),
        "a -> b bgp:179/ipv6": IN_USE,
        "b -> a bgp:179/ipv6": Held(Verdict.OPEN),
    } == held(run)
    assert {label(cell.flow) for cell in run.cells if cell.evidence.session is None} == {
        "a -> b bgp:179/ipv6"
    }


@pytest.mark.parametrize("on", ["b", "router"])
def test_a_service_to_which_a_probed_port_is_redirected_is_spared(on: str) -> None:
    """
    Our own listener holds the port, and it is not it that answers.
    """
    text = f"""
    name: a port that leads to another one
    hosts: [a, b]
    faults: [{{on: {on}, type: nat, hook: prerouting, nft: 'tcp dport 179 redirect to :1790'}}]
    """
    if on == "router":
        text = text.replace("'tcp dport 179 redirect to :1790'", "'iifname a tcp dport 179 dnat to :1790'")
    with Lab(describe(text)) as lab:
        addresses = lab.hosts["b"].addresses.values()
        service = Service(lab, "b", *(f"tcp,{address},1790" for address in addresses))
        run = probe(lab, "bgp")
        for address in addresses:
            connect(lab, "a", address, 1790)
            assert "the test itself" in service.lines.find("^accepted")

    for family in Family:
        cell = only(run.cells, f"a -> b bgp:179/{family.value}")

        assert IN_USE == Held.of(cell), evidence(cell)
        assert cell.evidence.session is None
        assert "a redirection to port 1790 holds the port" in cell.judgement.detail


_PICKY: Final = """
import socket, struct, sys
held = socket.create_server((sys.argv[1], 179))
peer = socket.inet_aton(sys.argv[2])
# struct tcp_md5sig, linux/include/uapi/linux/tcp.h: an address, flags and prefix, the key's length, the key.
address = struct.pack("=HH4s120x", socket.AF_INET, 0, peer)
held.setsockopt(socket.IPPROTO_TCP, 14, address + struct.pack("=BBHI80s", 0, 0, 6, 0, b"secret"))
print("ready", flush=True)
held.accept()
print("accepted", flush=True)
"""


def test_a_service_that_ignores_syns_without_its_signature_is_told_from_a_firewall() -> None:
    """
    A BGP session with a password (RFC 2385): its kernel drops what is not signed, in silence.
    """
    with Lab(describe(TWO)) as lab:
        there, here = (lab.hosts[name].address(Family.IPV4) for name in ("b", "a"))
        process = lab.popen("b", [sys.executable, "-c", _PICKY, there, here], stdout=subprocess.PIPE)
        Lines(process.stdout).find("^ready$")
        cell = only(probe(lab, "bgp").cells, "a -> b bgp:179/ipv4")

    assert (Verdict.FILTERED, Segment.DESTINATION_INGRESS) == (cell.judgement.verdict, cell.judgement.segment)
    assert (Caveat.PORT_IN_USE,) == cell.judgement.caveats
    assert "TCPMD5NotFound of b grew with each packet: the program wants TCP MD5" in cell.judgement.detail


AT_ANOTHER_ADDRESS: Final = """
name: a port that leads to the same one of another address of the host
hosts: [a, b]
families: [ipv4]
faults:
  - {on: b, run: [ip, address, add, 192.0.2.77/32, dev, lo]}
  - {on: b, type: nat, hook: prerouting, nft: "tcp dport 179 dnat ip to 192.0.2.77"}
"""


def test_a_service_that_answers_in_our_listeners_place_is_spared() -> None:
    """
    Not the port tells then, but the answer: it is none of ours.
    """
    with Lab(describe(AT_ANOTHER_ADDRESS)) as lab:
        service = Service(lab, "b", "tcp,192.0.2.77,179")
        run = probe(lab, "bgp")
        connect(lab, "a", lab.hosts["b"].address(Family.IPV4), 179)

        assert "the test itself" in service.lines.find("^accepted")
    cell = only(run.cells, "a -> b bgp:179/ipv4")
    assert IN_USE == Held.of(cell), evidence(cell)
    assert cell.evidence.session is None


def test_a_program_is_named_for_the_address_that_it_holds() -> None:
    """
    Two programs with one port: BIRD had one for each family.
    """
    with Lab(describe(TWO)) as lab:
        services = {address: Service(lab, "b", f"tcp,{address},179") for address in ("0.0.0.0", "::")}
        run = probe(lab, "bgp")

    for family, address in ((Family.IPV4, "0.0.0.0"), (Family.IPV6, "::")):
        cell = only(run.cells, f"a -> b bgp:179/{family.value}")

        assert f"{NAME} (pid {services[address].process.pid}) holds the port" == cell.judgement.detail


def test_with_syns_alone_no_service_needs_to_be_spared() -> None:
    """
    `--depth syn` finds the same, and no session is held anywhere.
    """
    with Lab(describe(TWO)) as lab:
        Service(lab, "b", "tcp,::,179")
        run = probe(lab, "bgp", "etcd", settings=Settings(depth="syn"))

    assert all(cell.evidence.session is None for cell in run.cells)
    assert {
        "a -> b bgp:179/ipv4": Held(Verdict.OPEN),
        "b -> a bgp:179/ipv4": Held(Verdict.OPEN),
        "a -> b bgp:179/ipv6": IN_USE,
        "b -> a bgp:179/ipv6": Held(Verdict.OPEN),
        "a -> b etcd:2379/ipv4": Held(Verdict.OPEN),
        "a -> b etcd:2379/ipv6": Held(Verdict.OPEN),
    } == held(run)


_BIRD: Final = """
log stderr all;
router id {address};
protocol device {{ }}
protocol bgp peer {{
    debug {{ states }};
    local {address} as 64512;
    neighbor {peer} as 64512;
    multihop;
    connect delay time 1;
    connect retry time 1;
    graceful restart on;
    ipv4 {{ import all; export none; }};
}}
"""


@pytest.mark.skipif(not Path("/usr/sbin/bird").exists(), reason="there is no /usr/sbin/bird")
def test_a_bgp_session_of_bird_outlives_three_runs(tmp_path: Path) -> None:
    """
    With graceful restart, as Calico configures it, a full connect from the peer's address would end it.
    """
    with Lab(describe("{name: two BGP speakers, hosts: [a, b], families: [ipv4]}")) as lab:
        birds = {name: _start_bird(lab, name, peer, tmp_path) for name, peer in (("a", "b"), ("b", "a"))}
        for bird in birds.values():
            bird.find("peer: State changed to up")
        before = _session(lab, tmp_path)
        runs = [probe(lab, "bgp") for _ in range(RUNS)]
        after = _session(lab, tmp_path)

        for run in runs:
            assert {"a -> b bgp:179/ipv4": IN_USE, "b -> a bgp:179/ipv4": IN_USE} == held(run)
            cell = only(run.cells, "a -> b bgp:179/ipv4")
            assert re.fullmatch(r"bird \(pid \d+\) holds the port", cell.judgement.detail)
        assert "Established" in before
        assert before == after
        # And that it would have told: this is what the probe must never be.
        connect(lab, "a", lab.hosts["b"].address(Family.IPV4), 179)
        birds["b"].find("peer: (State changed to (stop|down|start)|.*restart)")


def _start_bird(lab: Lab, name: str, peer: str, directory: Path) -> Lines:
    address, other = (lab.hosts[each].address(Family.IPV4) for each in (name, peer))
    configuration = directory / f"{name}.conf"
    configuration.write_text(_BIRD.format(address=address, peer=other))
    argv = ["bird", "-f", "-c", str(configuration), "-s", str(directory / f"{name}.ctl")]
    return Lines(lab.popen(name, argv, stderr=subprocess.PIPE).stderr)


def _session(lab: Lab, directory: Path) -> str:
    """What BIRD says of the session at `b`: since when, in which state; without its timers."""
    text = lab.run("b", ["birdc", "-s", str(directory / "b.ctl"), "show", "protocols", "all", "peer"]).stdout
    return re.sub(r"[0-9.]+/[0-9]+", "", text)


INNER: Final = {"vxlan0": "198.18.0.", "vxlan6": "198.18.6."}  # RFC 2544
FOREIGN_MAC: Final = "026e70000002"
HOST, BROADCAST, OTHER_HOST = 0, 1, 3  # linux/if_packet.h

# Says "ready", and of each frame that a device receives for whom the kernel takes it to be, and its header.
_SNIFFER: Final = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
    tap.bind((sys.argv[1], 3))
    print("ready", flush=True)
    while True:
        data, (_name, _protocol, kind, *_) = tap.recvfrom(2000)
        if kind != 4:
            print("frame", kind, data[:14].hex(), data[-7:] == b"control", flush=True)
"""
_CONTROL: Final = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"control", (sys.argv[1], 9))
"""


@pytest.fixture
def overlay() -> Iterator[Lab]:
    """Two nodes with a VXLAN device for each family, as Calico makes them, whose inner networks work."""
    with Lab(describe("{name: two nodes of a VXLAN overlay, hosts: [a, b]}")) as lab:
        for number, (name, peer) in enumerate((("a", "b"), ("b", "a")), start=1):
            ends = zip(lab.hosts[name].addresses.values(), lab.hosts[peer].addresses.values(), strict=True)
            for device, (local, remote) in zip(INNER, ends, strict=True):
                vxlan = ["type", "vxlan", "id", "4096", "dstport", "4789", "local", local, "nolearning"]
                lab.run(name, ["ip", "link", "add", device, *vxlan])
                lab.run(name, ["sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1"])
                lab.run(name, ["ip", "address", "add", f"{INNER[device]}{number}/24", "dev", device])
                lab.run(name, ["ip", "link", "set", device, "up"])
                everybody = ["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", device]
                lab.run(name, [*everybody, "dst", remote])
        yield lab


def _received(lab: Lab, on: str, device: str) -> Mapping[str, int]:
    """What a device has received, by the kernel's own count."""
    (link,) = json.loads(lab.run(on, ["ip", "-s", "-j", "link", "show", device]).stdout)
    received: dict[str, int] = link["stats64"]["rx"]
    return received


def test_a_vxlan_device_of_the_kernel_hands_nothing_to_its_network(overlay: Lab) -> None:
    """
    It unwraps what has its VNI, and finds each frame to be for another host: the end of it.

    A real packet of the overlay, which comes after three runs, is the first that is meant for anybody there.
    """
    ends = [("a", "vxlan0"), ("a", "vxlan6"), ("b", "vxlan0"), ("b", "vxlan6")]
    sniffers = {
        end: Lines(
            overlay.popen(end[0], [sys.executable, "-c", _SNIFFER, end[1]], stdout=subprocess.PIPE).stdout
        )
        for end in ends
    }
    for sniffer in sniffers.values():
        sniffer.find("^ready$")
    runs = [probe(overlay) for _ in range(RUNS)]
    received = {end: _received(overlay, *end) for end in ends}
    for name, peer_number in (("a", 2), ("b", 1)):
        for network in INNER.values():
            overlay.run(name, [sys.executable, "-c", _CONTROL, f"{network}{peer_number}"])

    for run in runs:
        assert {Verdict.OPEN} == {cell.judgement.verdict for cell in run.cells}
        for cell in run.cells:
            is_held = cell.flow.port == 4789

            assert is_held == (Caveat.PORT_IN_USE in cell.judgement.caveats)
            assert is_held == ("the kernel (vxlan0, vxlan6) holds the port" in cell.judgement.detail)
    for end, sniffer in sniffers.items():
        ours, frame = 0, sniffer.find("^frame")
        while f"frame {OTHER_HOST} {FOREIGN_MAC}" in frame:
            ours += 1
            frame = sniffer.find("^frame")

        # Then ARP and the packet of the test itself, in whatever order the four of them crossed.
        assert re.match(f"frame ({HOST}|{BROADCAST}) ", frame)
        assert 0 < ours == received[end]["packets"]
        assert 0 == received[end]["errors"] == received[end]["dropped"]
        assert "True" in sniffer.find("^frame 0 .* True$")
