"""
What already listens on a host is spared, wherever it listens and whatever leads to it: programs of our own.

They listen for one family, at one address, behind a redirection, or only for those who bring a signature.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from netprobe.attempts import SOURCE_PORTS
from netprobe.lab import Lab, describe
from netprobe.lab.expectations import label
from netprobe.model import Family, Run, Verdict
from netprobe.plan import Settings
from tests.lab.live.programs import GREETING, HOLD, IGNORED, IN_USE, Program, check_open, connect, three_runs
from tests.lab.probing import Held, evidence, held, only, probe

pytestmark = pytest.mark.lab

NAME: Final = "some-service"

TWO: Final = "{name: two hosts, hosts: [a, {name: b, roles: [node, typha, apiserver, etcd]}]}"

_SERVICE: Final = f"""{HOLD}
import selectors
open("/proc/self/comm", "w").write("{NAME}")
selector = selectors.DefaultSelector()
for word, handle in held.items():
    selector.register(handle, selectors.EVENT_READ, word)
print("named", flush=True)
while True:
    for key, _ in selector.select():
        if key.data.startswith("tcp"):
            connection, _peer = key.fileobj.accept()
            print("accepted", key.data, repr(connection.recv(100)), flush=True)
            connection.close()
        else:
            print("received", key.data, len(key.fileobj.recv(2000)), flush=True)
"""


class Service(Program):
    """A service on a host, ready."""

    def __init__(self, lab: Lab, on: str, *sockets: str) -> None:
        super().__init__(lab, on, [sys.executable, "-c", _SERVICE, *sockets], ready="^named$", name=NAME)


TCP_PORTS: Final = (179, 5473, 6443, 2379)
UDP_PORTS: Final = (4789, 8472)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Lab, Service, list[Run]]]:
    """A host with a service on many ports, and three runs."""
    with Lab(describe(TWO)) as lab:
        both = [lab.hosts["b"].address(Family.IPV4), "::"]
        service = Service(
            lab,
            "b",
            *(f"tcp,{address},{port}" for address in both for port in TCP_PORTS),
            *(f"udp,{address},{port}" for address in both for port in UDP_PORTS),
            f"udp,{both[0]},51820",
            "udp,::,51821",
        )
        yield lab, service, three_runs(lab)


def test_no_connection_to_a_live_service_is_ever_completed(
    served: tuple[Lab, Service, list[Run]],
) -> None:
    """
    Of all that three runs sent it has accepted nothing: the first connection is that of the test.
    """
    lab, service, _runs = served
    for address in lab.hosts["b"].addresses.values():
        for port in TCP_PORTS:
            connect(lab, "a", address, port)

            assert GREETING in service.lines.find("^accepted")


def test_a_port_that_a_program_holds_is_open_and_the_program_is_named(
    served: tuple[Lab, Service, list[Run]],
) -> None:
    """
    TCP and UDP, both families; where the port is free nothing is said.
    """
    _lab, service, runs = served
    for run in runs:
        check_open(run, {("b", port): service.holds for port in (*TCP_PORTS, *UDP_PORTS, 51820, 51821)})


def test_a_service_at_one_address_is_spared_and_the_other_address_probed_in_full() -> None:
    """
    BIRD may listen for one family only: then a session is ours to hold over the other, and not over this.
    """
    with Lab(describe(TWO)) as lab:
        service = Service(lab, "b", "tcp,::,179")
        run = probe(lab, "bgp")
        connect(lab, "a", lab.hosts["b"].address(Family.IPV6), 179)

        assert GREETING in service.lines.find("^accepted")
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
            assert GREETING in service.lines.find("^accepted")

    for family in Family:
        cell = only(run.cells, f"a -> b bgp:179/{family.value}")

        assert IN_USE == Held.of(cell), evidence(cell)
        assert cell.evidence.session is None
        assert "a redirection to port 1790 holds the port" in cell.judgement.detail


CLIENTS: Final = 6000
"""With a connection each, they have nearly a third of the ports that SYNs leave from."""

_KEEPING: Final = """
import resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
address, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if number:
    kept = [socket.socket() for _ in range(number)]
    for place, client in enumerate(kept):
        client.bind(("", int(sys.argv[4]) + place * (int(sys.argv[5]) // number)))
        client.connect((address, port))
    print("ready", flush=True)
    changes = select.epoll()
    for client in kept:
        changes.register(client, select.EPOLLIN)
    changes.poll()
    print("changed", flush=True)
else:
    held = socket.create_server((address, port), backlog=4096)
    print("ready", flush=True)
    kept = []
    while True:
        kept.append(held.accept())
"""


def test_a_syn_that_meets_a_live_connection_is_no_evidence_and_no_harm() -> None:
    """
    A service has many clients, with the ports of SYNs: their connections stay, and it is open all the same.
    """
    text = "{name: a service with clients, hosts: [a, {name: b, roles: [apiserver]}], families: [ipv4]}"
    with Lab(describe(text)) as lab:
        here = [sys.executable, "-c", _KEEPING, lab.hosts["b"].address(Family.IPV4), "6443"]
        service = Program(lab, "b", [*here, "0"], ready="^ready$", name=Path(sys.executable).name)
        ports = (str(each) for each in SOURCE_PORTS)
        clients = Program(lab, "a", [*here, str(CLIENTS), *ports], ready="^ready$")
        for run in three_runs(lab, "apiserver"):
            cell = only(run.cells, "a -> b apiserver:6443/ipv4")

            assert IN_USE == Held.of(cell), evidence(cell)
            assert "holds the port" in cell.judgement.detail
        established = ["ss", "--no-header", "-tn", "state", "established"]
        for host in lab.hosts:
            assert CLIENTS == lab.run(host, established).stdout.count("\n")
        service.process.kill()

        assert "changed" == clients.lines.find(".")


# Listens for those who sign with a key (RFC 2385), or whose packets crossed no router (RFC 5082).
_PICKY: Final = """
import socket, struct, sys
what, address, peer = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
held = socket.create_server((address, 179), family=family)
if what == "password":
    # struct tcp_md5sig, linux/include/uapi/linux/tcp.h: an address, flags and prefix, and the key.
    here = b"" if family == socket.AF_INET else bytes(4)
    here = struct.pack("=HH", family, 0) + here + socket.inet_pton(family, peer)
    key = here.ljust(128, bytes(1)) + struct.pack("=BBHI80s", 0, 0, 6, 0, b"secret")
    held.setsockopt(socket.IPPROTO_TCP, 14, key)
else:
    # IPV6_MINHOPCOUNT and IP_MINTTL, linux/include/uapi/linux/in6.h and in.h.
    held.setsockopt(*((41, 73) if family == socket.AF_INET6 else (0, 21)), 255)
print("ready", flush=True)
held.accept()
print("accepted", flush=True)
"""


@pytest.mark.parametrize(
    ("what", "counter"), [("password", "TCPMD5NotFound"), ("ttl security", "TCPMinTTLDrop")]
)
@pytest.mark.parametrize("family", Family)
def test_a_service_that_ignores_syns_is_told_from_a_firewall(family: Family, what: str, counter: str) -> None:
    """
    Its kernel drops in silence what does not bring what it wants, and counts it: the counter is named.
    """
    with Lab(describe(TWO)) as lab:
        there, here = (lab.hosts[name].address(family) for name in ("b", "a"))
        argv = [sys.executable, "-c", _PICKY, what, there, here]
        picky = Program(lab, "b", argv, ready="^ready$", name=Path(sys.executable).name)
        cell = only(probe(lab, "bgp").cells, f"a -> b bgp:179/{family.value}")
    assert IGNORED == Held.of(cell), evidence(cell)
    assert picky.holds in cell.judgement.detail
    assert counter in cell.judgement.detail


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

        assert GREETING in service.lines.find("^accepted")
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

        assert services[address].holds == cell.judgement.detail


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


@pytest.mark.parametrize("size", [536, 1000, 1300])
def test_a_clamped_segment_size_makes_no_other_program_of_our_listener(size: int) -> None:
    """
    It is by that size that its answers are known; what leaves the destination tells.
    """
    text = f"""
    name: a router that clamps the segment size
    hosts: [a, b]
    faults: [{{on: router, nft: "tcp flags syn tcp option maxseg size set {size}"}}]
    """
    with Lab(describe(text)) as lab:
        run = probe(lab, "bgp")

    for cell in run.cells:
        assert Held(Verdict.OPEN) == Held.of(cell), evidence(cell)
        assert "" == cell.judgement.detail
        assert cell.evidence.session is not None
