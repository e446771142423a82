"""Labs as they are built, used and taken away; with real namespaces."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from pyroute2 import netns

from netprobe.lab import (
    ChainType,
    Description,
    Fault,
    Hook,
    Lab,
    LabError,
    Network,
    Policy,
    build,
    describe,
    leftovers,
    namespaces,
    rootless,
)
from netprobe.model import Connection, Family, Role

pytestmark = pytest.mark.lab

TIMEOUT_S: Final = 10.0
SHORT_S: Final = 0.2
"""How long to wait for what must not come."""

RACKS: Final = """
name: two hosts on a bridge and one by itself
hosts: [a, b, {name: c, roles: [node, etcd]}]
networks: [{name: rack-1, hosts: [a, b]}]
"""


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where this was started in the background and ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="module")
def racks() -> Iterator[Lab]:
    """A lab that tests only look at."""
    with Lab(describe(RACKS)) as lab:
        yield lab


def _names(lab: Lab) -> set[str]:
    return {lab.router.namespace, *(host.namespace for host in lab.hosts.values())}


def _connect(lab: Lab, source: str, destination: str, family: Family, timeout_s: float = TIMEOUT_S) -> str:
    """The address from which a TCP connection is seen to come; `OSError` where there is none."""
    af = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}[family]
    address = lab.hosts[destination].address(family)
    listen = partial(socket.create_server, (address, 0), family=af)
    with namespaces.inside(lab.hosts[destination].namespace, listen) as server:
        connect = partial(socket.create_connection, server.getsockname()[:2], timeout=timeout_s)
        with namespaces.inside(lab.hosts[source].namespace, connect):
            server.settimeout(TIMEOUT_S)
            connection, peer = server.accept()
            connection.close()
            return str(peer[0])


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("source", "destination"), [("a", "b"), ("a", "c"), ("c", "b")])
def test_hosts_reach_each_other_at_once(racks: Lab, source: str, destination: str, family: Family) -> None:
    """Bridged and routed, IPv4 and IPv6, without a packet that has to be sent twice."""
    assert racks.hosts[source].address(family) == _connect(racks, source, destination, family)


def test_the_first_packet_arrives() -> None:
    """
    A lab is not handed out before its links carry packets and no address is tentative.

    One datagram each is all that is sent, so none may be lost.
    """
    with Lab(describe(RACKS)) as lab:
        for family, af in ((Family.IPV4, socket.AF_INET), (Family.IPV6, socket.AF_INET6)):
            address = lab.hosts["b"].address(family)
            make = partial(socket.socket, af, socket.SOCK_DGRAM)
            with (
                namespaces.inside(lab.hosts["b"].namespace, make) as receiver,
                namespaces.inside(lab.hosts["c"].namespace, make) as sender,
            ):
                receiver.bind((address, 0))
                receiver.settimeout(TIMEOUT_S)
                sender.sendto(b"first", receiver.getsockname()[:2])

                assert b"first" == receiver.recv(16)


def test_link_local_addresses_are_there_and_not_tentative(racks: Lab) -> None:
    """Also where nobody waited for them."""
    for on in ("a", "c", "router"):
        text = racks.run(on, ["ip", "-6", "address", "show"]).stdout

        assert "fe80::4c:ff:fe" in text
        assert "tentative" not in text


def test_the_inventory_reaches_the_hosts_by_their_namespaces(racks: Lab) -> None:
    """Addresses of both families, roles, and an interpreter that is there."""
    inventory = racks.inventory()
    host = inventory.hosts[2]

    assert ["a", "b", "c"] == [each.name for each in inventory.hosts]
    assert ("10.77.2.11", "fd77:6e70:6c61:2::11") == host.addresses
    assert (Role.NODE, Role.ETCD) == host.roles
    assert Connection(type="netns", name=racks.hosts["c"].namespace) == host.connection
    assert (sys.executable,) == host.python


def test_interfaces_are_called_as_promised(racks: Lab) -> None:
    """`eth0` on hosts; hosts and networks on the router."""

    def interfaces(on: str) -> list[str]:
        return re.findall(r"^\d+: ([\w-]+)", racks.run(on, ["ip", "-o", "link"]).stdout, re.MULTILINE)

    assert ["lo", racks.hosts["a"].interface] == interfaces("a")
    assert {"lo", "rack-1", *racks.router.ports.values()} == set(interfaces("router"))


def test_namespaces_are_named_after_the_process_and_the_host(racks: Lab) -> None:
    """So two labs run side by side, and strays are known."""
    assert re.fullmatch(rf"np-{os.getpid()}-[a-z]{{6}}-a", racks.hosts["a"].namespace)
    with Lab(describe(RACKS)) as other:
        assert not _names(racks) & _names(other)
        assert _names(racks) | _names(other) <= namespaces.listed()
        assert not set(leftovers()) & _names(racks)
    assert _names(racks) <= namespaces.listed()


def test_one_family_is_one_family() -> None:
    """A lab without IPv6 does not speak it at all."""
    with Lab.mesh(2, families=(Family.IPV4,)) as lab:
        assert {Family.IPV4: "10.77.1.11"} == lab.hosts["n1"].addresses
        assert not lab.run("n1", ["ip", "-6", "address"]).stdout
    with Lab.mesh(2, families=(Family.IPV6,)) as lab:
        assert lab.hosts["n2"].address(Family.IPV6) == _connect(lab, "n2", "n1", Family.IPV6)


def test_a_crowded_bridge_needs_no_neighbour_discovery() -> None:
    """Its neighbours are all there, and permanent."""
    names = tuple(f"n{number}" for number in range(16))
    rack = Network(name="rack", hosts=names)
    with Lab(Description(name="a flat mesh", hosts=names, networks=(rack,))) as lab:
        for on, count in (("n0", 2 * 16), ("router", 2 * 16)):
            neighbours = lab.run(on, ["ip", "neigh"]).stdout.splitlines()

            assert count == len([line for line in neighbours if line.endswith("PERMANENT ")])
        assert lab.hosts["n3"].address(Family.IPV6) == _connect(lab, "n3", "n9", Family.IPV6)


@pytest.mark.parametrize("family", Family)
def test_a_rule_is_planted_where_the_description_says(family: Family) -> None:
    """A drop on the host's OUTPUT is one; the others reach each other as before."""
    with Lab(describe(RACKS + "faults: [{on: a, hook: output, policy: drop}]")) as lab:
        with pytest.raises(OSError, match="timed out"):
            _connect(lab, "a", "c", family, SHORT_S)
        assert lab.hosts["b"].address(family) == _connect(lab, "b", "c", family)


def test_rules_added_later_come_behind_the_earlier_ones_in_the_same_chain() -> None:
    """A policy that is not given again stays as it is."""
    with Lab(describe(RACKS + "faults: [{on: a, policy: drop, nft: tcp dport 1 accept}]")) as lab:
        lab.nft("a", ["tcp dport 2 accept", "ip saddr $b accept"])
        lab.nft("a", policy=Policy.ACCEPT, hook=Hook.OUTPUT)
        lab.nft("a", "tcp dport 4 redirect to :5", hook=Hook.OUTPUT, type=ChainType.NAT)
        lab.plant(Fault(on=("a", "router"), sysctl={"net.ipv4.ip_default_ttl": 7}))

        assert [
            "table inet lab {",
            "chain input {",
            "type filter hook input priority filter; policy drop;",
            "tcp dport 1 accept",
            "tcp dport 2 accept",
            "ip saddr 10.77.1.12 accept",
            "}",
            "",
            "chain output {",
            "type filter hook output priority filter; policy accept;",
            "}",
            "",
            "chain nat_output_-100 {",
            "type nat hook output priority -100; policy accept;",
            "tcp dport 4 redirect to :5",
            "}",
            "}",
        ] == [line.strip() for line in lab.run("a", ["nft", "list", "ruleset"]).stdout.splitlines()]
        for on in ("a", "router"):
            assert "7\n" == lab.run(on, ["cat", "/proc/sys/net/ipv4/ip_default_ttl"]).stdout


def test_ingress_of_the_router_sees_what_is_bridged() -> None:
    """That is how a switch between two hosts of one network is made to lose packets."""
    fault = "faults: [{on: router, hook: ingress, nft: ip saddr $a ip daddr $b drop}]"
    with Lab(describe(RACKS + fault)) as lab:
        with pytest.raises(OSError, match="timed out"):
            _connect(lab, "a", "b", Family.IPV4, SHORT_S)
        assert lab.hosts["a"].address(Family.IPV6) == _connect(lab, "a", "b", Family.IPV6)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_a_route_fault_takes_the_way(kind: str, family: Family) -> None:
    """On a host the kernel refuses at once, each type in its own words (design trap 1)."""
    refusal = {
        "unreachable": "No route to host",
        "prohibit": "Permission denied",
        "blackhole": "Invalid argument",
    }
    fault = f"faults: [{{on: a, route: {kind} $c.{family.value}}}]"
    with Lab(describe(RACKS + fault)) as lab:
        with pytest.raises(OSError, match=refusal[kind]):
            _connect(lab, "a", "c", family)
        assert lab.hosts["a"].address(family) == _connect(lab, "a", "b", family)


@pytest.mark.parametrize("family", Family)
def test_a_route_fault_may_replace_the_default_route(family: Family) -> None:
    """A route of the same prefix gives way to the fault's."""
    everything = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}[family]
    with Lab(describe(RACKS + f'faults: [{{on: a, route: "unreachable {everything}"}}]')) as lab:
        with pytest.raises(OSError, match="No route to host"):
            _connect(lab, "a", "c", family)
        assert lab.hosts["a"].address(family) == _connect(lab, "a", "b", family)


def test_a_route_by_a_host_goes_by_that_host() -> None:
    """`via` takes any address of the lab."""
    with Lab(describe(RACKS + "faults: [{on: a, route: $c via $b}]")) as lab:
        text = lab.run("a", ["ip", "route", "get", lab.hosts["c"].address(Family.IPV4)]).stdout

        assert text.startswith("10.77.2.11 via 10.77.1.12 dev eth0")


def test_a_program_runs_on_a_host(racks: Lab) -> None:
    """With input and output; a failure is an error unless it is asked for."""
    assert "10.77.1.11" in racks.run("a", ["ip", "-4", "address"]).stdout
    assert "text" == racks.run("router", ["cat"], input="text").stdout
    assert 3 == racks.run("a", ["sh", "-c", "exit 3"], check=False).returncode
    with pytest.raises(subprocess.CalledProcessError):
        racks.run("a", ["false"])
    with pytest.raises(LabError, match="no host 'd'; expected one of a, b, c, router"):
        racks.run("d", ["true"])


def test_programs_end_with_the_lab() -> None:
    """Also one that does not listen to SIGTERM, and what it has started."""
    stubborn = "trap '' TERM; (while :; do read x; done) & echo $!; while :; do read x; done"
    with Lab.mesh(2) as lab:
        polite = lab.popen("n1", ["sleep", "1000"])
        deaf = lab.popen("router", ["sh", "-c", stubborn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert deaf.stdout is not None
        child = int(deaf.stdout.readline())
        pidfd = os.pidfd_open(child)
        done = lab.popen("n1", ["true"])
        done.wait(TIMEOUT_S)

    assert -signal.SIGTERM == polite.returncode
    assert -signal.SIGKILL == deaf.returncode
    assert 0 == done.returncode
    assert deaf.stdout.closed
    with os.fdopen(pidfd, "rb", buffering=0) as ended:
        assert [[ended], [], []] == [*select.select([ended], [], [], TIMEOUT_S)]


def test_a_lab_goes_when_its_body_raises() -> None:
    """The error comes out as it was."""
    lab = Lab.mesh(2)
    with pytest.raises(KeyError, match="no-such-host"), lab:
        lab.hosts["no-such-host"]

    assert not _names(lab) & namespaces.listed()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nft: tcp dport seventeen drop", "(?s)^b: nft -f -: exit status 1: .*seventeen"),
        ("nft_ruleset: nonsense", "^b: nft -f -: exit status 1: "),
        ("run: [sh, -c, 'echo no >&2; exit 7']", "^b: sh -c .*: exit status 7: no$"),
        ("run: [no-such-program]", "^b: no-such-program: No such file or directory"),
        ("sysctl: {net.ipv4.no_such: 1}", "^b: sysctl net.ipv4.no_such=1: "),
        ("sysctl: {net.ipv4.ip_forward: x}", "^b: sysctl net.ipv4.ip_forward=x: Invalid argument"),
        ("route: 192.0.2.0/24 via 192.0.2.1", "^b: the kernel refused: .*unreachable"),
    ],
)
def test_a_fault_that_cannot_be_planted_names_its_host_and_leaves_nothing(fault: str, message: str) -> None:
    """By then all namespaces, links and addresses are there."""
    lab = Lab(describe(f"name: n\nhosts: [a, b]\nfaults: [{{on: b, {fault}}}]"))

    with pytest.raises(LabError, match=message), lab:
        pytest.fail("it was built")

    assert not _names(lab) & namespaces.listed()


@pytest.mark.parametrize("step", ["router", "host", "ports", "finish", "apply"])
def test_a_build_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whichever step it is."""
    lab = Lab(describe("name: n\nhosts: [a, b]\nfaults: [{on: a, nft: drop}]"))
    original = getattr(build, step)

    def fail(*arguments: object) -> None:
        assert _names(lab) <= namespaces.listed()
        original(*arguments)
        raise MemoryError

    monkeypatch.setattr(build, step, fail)
    with pytest.raises(MemoryError), lab:
        pytest.fail("it was built")

    assert not _names(lab) & namespaces.listed()


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("step", ["router", "host", "ports", "finish", "apply"])
def test_an_interrupted_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Ctrl-C while a step is under way is heard when the step is done."""
    lab = Lab(describe("name: n\nhosts: [a, b]\nfaults: [{on: a, nft: drop}]"))
    original = getattr(build, step)
    finished = []

    def interrupt(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(*arguments)
        finished.append(step)

    monkeypatch.setattr(build, step, interrupt)
    with pytest.raises(KeyboardInterrupt), lab:
        pytest.fail("it was built")

    assert [step] == finished
    assert not _names(lab) & namespaces.listed()


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_waits_for_what_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C, while the lab goes, leaves nothing behind either."""
    lab = Lab.mesh(3)
    original = netns.remove

    def interrupt(name: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(name)

    with pytest.raises(KeyboardInterrupt), lab:
        monkeypatch.setattr(netns, "remove", interrupt)

    assert not _names(lab) & namespaces.listed()


def test_a_namespace_that_would_not_go_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others are gone nevertheless."""
    lab = Lab.mesh(2)
    original = netns.remove

    def refuse(name: str) -> None:
        if name == lab.hosts["n1"].namespace:
            raise PermissionError(1, "Operation not permitted")
        original(name)

    with monkeypatch.context() as patch:
        with pytest.raises(LabError, match=r"cannot remove np-.*-n1 \(Operation not permitted\)$"), lab:
            patch.setattr(netns, "remove", refuse)
        assert {lab.hosts["n1"].namespace} == _names(lab) & namespaces.listed()
    namespaces.remove([lab.hosts["n1"].namespace])


def test_a_lab_is_built_once() -> None:
    """Its namespaces had their names once."""
    lab = Lab.mesh(1)
    with lab, pytest.raises(LabError, match="a lab is built once"), lab:
        pytest.fail("it was built again")
    with pytest.raises(LabError, match="a lab is built once"), lab:
        pytest.fail("it was built again")


def test_a_lab_can_be_built_by_any_thread() -> None:
    """Where no signal handler can be set, and no KeyboardInterrupt arrives."""
    found: list[str] = []

    def work() -> None:
        with Lab.mesh(2) as lab:
            found.append(_connect(lab, "n1", "n2", Family.IPV4))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert ["10.77.1.11"] == found


def test_building_leaves_this_process_in_its_own_namespace(racks: Lab) -> None:
    """Only threads enter a namespace, and they end there."""
    before = Path("/proc/self/ns/net").readlink()
    inside = namespaces.inside(racks.hosts["a"].namespace, Path("/proc/thread-self/ns/net").readlink)

    assert before != inside
    assert before == Path("/proc/self/ns/net").readlink()


_PROGRAM: Final = """
import sys
from netprobe.lab import Lab
lab = Lab.mesh(2)
lab.__enter__()
print(*(host.namespace for host in lab.hosts.values()), lab.router.namespace, flush=True)
sys.stdin.read()
"""


def _start() -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _PROGRAM]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_lab_that_is_never_left_goes_with_the_interpreter() -> None:
    """`__exit__` may be missed by an interrupt between two instructions."""
    with _start() as process:
        assert process.stdout is not None
        names = set(process.stdout.readline().split())
        assert names <= namespaces.listed()
        assert not names & set(leftovers())
        process.communicate(timeout=TIMEOUT_S)

    assert 0 == process.returncode
    assert not names & namespaces.listed()


_KILLED: Final = """
import subprocess, sys
from netprobe.lab import leftovers, namespaces
argv = [sys.executable, "-c", sys.argv[1]]
with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    names = sorted(process.stdout.readline().split())
    process.kill()
print(leftovers() == names)
namespaces.remove(names)
print(leftovers())
"""


def test_what_a_killed_process_leaves_can_be_found() -> None:
    """Nobody can clean up after a SIGKILL but somebody else; here out of sight of other sessions."""
    argv = rootless.in_user_namespace([sys.executable, "-c", _KILLED, _PROGRAM])
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)

    assert ["True", "[]"] == done.stdout.splitlines()


def test_without_the_capabilities_it_is_said_what_a_lab_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose fault it is: that of the one who started it."""

    def refuse(name: str, pid: int) -> None:
        raise PermissionError(1, "Operation not permitted", name, None, pid)

    monkeypatch.setattr(netns, "attach", refuse)
    with pytest.raises(LabError, match=r"Operation not permitted \(a lab needs CAP_SYS_ADMIN"), Lab.mesh(1):
        pytest.fail("it was built")


def test_links_that_do_not_come_up_are_no_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not handed out, and the wait has an end."""
    monkeypatch.setattr(build, "_carrying", lambda _: set())
    monkeypatch.setattr(build, "_READY_TIMEOUT_S", 0.0)
    lab = Lab.mesh(1)
    with pytest.raises(LabError, match=r"^router: links did not come up within 0 s$"), lab:
        pytest.fail("it was built")

    assert not _names(lab) & namespaces.listed()


def test_a_hundred_hosts_are_there_in_a_few_seconds() -> None:
    """And the last one is as good as the first."""
    with Lab.mesh(100, roles=tuple(Role)) as lab:
        assert tuple(Role) == lab.inventory().hosts[99].roles
        for family in Family:
            assert lab.hosts["n001"].address(family) == _connect(lab, "n001", "n100", family)
    assert not _names(lab) & namespaces.listed()
