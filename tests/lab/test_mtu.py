"""Path MTUs in real networks: what limits a path, who says so, and what stays on the hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import pytest
import trio

from netprobe import coordinator
from netprobe.lab import Lab, describe
from netprobe.lab.description import Hook
from netprobe.model import Family, Fragments, Limit, Outcome, PathMtu, Run, Settings
from netprobe.mtus import calico_mtus, exit_status
from tests.lab.live.programs import HOLD, Program

pytestmark = pytest.mark.lab

IPV4, IPV6 = Family.IPV4, Family.IPV6


def narrow(to: str, mtu: int, families: Sequence[Family] = tuple(Family)) -> list[dict[str, object]]:
    """Faults: the router's way to a host is narrower, and it says so to whoever sends too much."""
    addresses = {IPV4: f"${to}", IPV6: f"${to}.ipv6"}
    words = {family: f"ip route add {addresses[family]} dev {to} mtu lock {mtu}" for family in families}
    return [{"on": "router", "run": words[family].split()} for family in families]


def links(hosts: str, mtu: int) -> list[dict[str, object]]:
    """Faults: the links of hosts have another MTU, at both ends."""
    change = ["ip", "link", "set", "mtu", str(mtu), "dev"]
    ends = [*((host, "eth0") for host in hosts), *(("router", host) for host in hosts)]
    return [{"on": on, "run": [*change, device]} for on, device in ends]


def lab(hosts: str, *faults: object) -> Lab:
    """A lab of these hosts with these faults."""
    described = {"name": "paths", "hosts": list(hosts), "faults": list(faults)}
    return Lab(describe(msgspec.json.encode(described).decode()))


def measured(lab: Lab, settings: Settings | None = None) -> Run:
    """One measurement."""
    return trio.run(coordinator.measure, lab.inventory(), settings or Settings())


def path(run: Run, src: str, dst: str, family: Family) -> PathMtu:
    """One result."""
    (found,) = (each for each in run.mtus if (each.src, each.dst, each.family) == (src, dst, family))
    return found


def kinds(found: PathMtu) -> dict[str, int | None]:
    """The path MTU by kind."""
    return {kind.probe: kind.mtu for kind in found.kinds}


def exceptions(lab: Lab, hosts: Iterable[str]) -> str:
    """What the kernels of hosts have noted of path MTUs."""
    found = ""
    for name in hosts:
        for family in ("-4", "-6"):
            found += lab.run(name, ["ip", family, "route", "show", "cache"]).stdout
        for other in lab.hosts.values():
            if other.name != name:
                for address in other.addresses.values():
                    text = lab.run(name, ["ip", "route", "get", address]).stdout
                    found += text if " mtu " in text else ""
    return found


def test_an_open_path_takes_what_the_interface_takes() -> None:
    """Nothing is larger: the source's interface is the limit, and nothing can be cut."""
    with Lab.mesh(2) as lab:
        run = measured(lab)

    for family, mss in ((IPV4, 1460), (IPV6, 1440)):
        found = path(run, "n1", "n2", family)
        assert (1500, 1500, Limit.SOURCE_INTERFACE) == (found.mtu, found.interface_mtu, found.limit)
        assert (mss, mss, None) == (found.tcp_mss, found.tcp_mss_sent, found.fragments)
        assert {1500} == set(kinds(found).values())
    assert 0 == exit_status(run.mtus)


@pytest.mark.parametrize("mtu", [1280, 1372, 1400, 1450, 1499])
def test_a_router_that_tells_is_named_and_each_direction_has_its_own(mtu: int) -> None:
    """To the byte, whether it is a usual size or not; and the kernels note nothing of it."""
    with lab("ab", *narrow("b", mtu)) as network:
        run = measured(network)
        noted = exceptions(network, "ab")
        gateways = {family: path(run, "a", "b", family).by for family in Family}
        own = {line.split()[3].partition("/")[0] for line in addresses(network)}

    for family in Family:
        there, back = path(run, "a", "b", family), path(run, "b", "a", family)
        assert (mtu, Limit.ROUTER) == (there.mtu, there.limit)
        assert {mtu} == set(kinds(there).values())
        assert (1500, Limit.SOURCE_INTERFACE) == (back.mtu, back.limit)
        assert gateways[family] in own
        assert [(mtu, False)] == [(said.mtu, said.lies) for said in there.too_big]
    assert path(run, "a", "b", IPV4).fragments is Fragments.DELIVERED
    assert path(run, "a", "b", IPV6).fragments is None
    assert "" == noted
    assert 0 == exit_status(run.mtus)


def addresses(network: Lab) -> list[str]:
    """The lines in which `ip` lists the router's addresses."""
    return network.run("router", ["ip", "-o", "address", "show"]).stdout.splitlines()


SILENT: Final = (
    {"on": "router", "hook": "output", "nft": ["icmp type destination-unreachable drop"]},
    {"on": "router", "hook": "output", "nft": ["icmpv6 type packet-too-big drop"]},
)


def test_a_router_that_keeps_quiet_is_a_black_hole() -> None:
    """Larger packets vanish, and no ICMP came although they were sent several times."""
    with lab("ab", *narrow("b", 1400), *SILENT) as network:
        run = measured(network)

    for family in Family:
        found = path(run, "a", "b", family)
        assert (1400, Limit.BLACK_HOLE, "", ()) == (found.mtu, found.limit, found.by, found.too_big)
    assert 1 == exit_status(run.mtus)


def test_a_link_whose_other_end_takes_less_is_a_black_hole() -> None:
    """
    A frame beyond a receiver's MTU is dropped by its device, without a word.

    A veth takes four bytes more than its MTU, room for a VLAN tag.
    """
    with lab("ab", {"on": "router", "run": ["ip", "link", "set", "dev", "a", "mtu", "1400"]}) as network:
        run = measured(network)

    for family in Family:
        there, back = path(run, "a", "b", family), path(run, "b", "a", family)
        assert (1404, Limit.BLACK_HOLE) == (there.mtu, there.limit)
        assert (1400, Limit.ROUTER) == (back.mtu, back.limit)
    assert path(run, "a", "b", IPV4).fragments is Fragments.LOST


def test_what_is_narrower_behind_a_router_that_tells_is_a_black_hole() -> None:
    """It tells the truth about its own link, and 1400 bytes arrive: nobody tells of what is behind."""
    with lab("ab", *narrow("b", 1450)) as network:
        network.nft("router", "ip daddr $b meta length > 1400 drop", hook=Hook.POSTROUTING)
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert (1400, Limit.BLACK_HOLE) == (found.mtu, found.limit)
    assert [(1450, False)] == [(said.mtu, said.lies) for said in found.too_big]
    assert 1 == exit_status(run.mtus)


# Says of every packet from 1401 bytes on that 1500 would fit.
LIAR: Final = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
speaker = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print("ready", flush=True)
while True:
    packet, where = tap.recvfrom(65535)
    if where[0] == "a" and where[2] == 0 and len(packet) > 1400:
        body = struct.pack("!HH", 0, 1500) + packet[:28]
        icmp = struct.pack("!BBH", 3, 4, checksum(struct.pack("!BBH", 3, 4, 0) + body)) + body
        speaker.sendto(icmp, (socket.inet_ntoa(packet[12:16]), 0))
"""


def test_a_router_that_lies_is_not_believed() -> None:
    """It calls packets too big that are no larger than what it says would fit."""
    with lab("ab") as network:
        network.nft("router", "iifname a meta length > 1400 drop")
        liar = network.popen("router", [sys.executable, "-c", LIAR], stdout=subprocess.PIPE)
        assert liar.stdout is not None
        assert "ready\n" == liar.stdout.readline()
        run = measured(network)
        noted = exceptions(network, "ab")

    found = path(run, "a", "b", IPV4)
    assert (1400, Limit.BLACK_HOLE, "") == (found.mtu, found.limit, found.by)
    assert [(1500, True)] == [(said.mtu, said.lies) for said in found.too_big]
    assert "" == noted
    assert 1 == exit_status(run.mtus)


def test_jumbo_frames_with_a_usual_link_in_the_middle() -> None:
    """The source could send 9000 bytes; the search goes no further, and finds the 1500 and who says so."""
    with lab("abc", *links("abc", 9000), *narrow("c", 1500)) as network:
        run = measured(network)

    for family in Family:
        wide, narrowed = path(run, "a", "b", family), path(run, "a", "c", family)
        assert (9000, Limit.SOURCE_INTERFACE) == (wide.mtu, wide.limit)
        assert (1500, 9000, Limit.ROUTER) == (narrowed.mtu, narrowed.interface_mtu, narrowed.limit)
    best = {(each.mode, each.family): each for each in calico_mtus(run)}
    assert (1480, 1450, 1440) == tuple(best[mode, IPV4].mtu for mode in ("ipip", "vxlan", "wireguard"))
    assert (1430, 1420) == tuple(best[mode, IPV6].mtu for mode in ("vxlan", "wireguard"))
    assert {"c"} == {each.dst for each in best.values()}


def test_a_source_sends_no_more_than_its_interface_takes() -> None:
    """Its limit is its own, and nobody else is asked."""
    with lab("ab", *links("a", 1400)) as network:
        run = measured(network)

    for family in Family:
        there, back = path(run, "a", "b", family), path(run, "b", "a", family)
        assert (1400, 1400, Limit.SOURCE_INTERFACE) == (there.mtu, there.interface_mtu, there.limit)
        assert (1400, 1500, Limit.ROUTER) == (back.mtu, back.interface_mtu, back.limit)


def test_a_clamped_segment_size_is_seen_where_it_arrives() -> None:
    """And the path itself is as wide as ever."""
    with lab("ab") as network:
        network.nft("router", "iifname a tcp flags syn tcp option maxseg size set 1300")
        run = measured(network)

    for family, mss in ((IPV4, 1460), (IPV6, 1440)):
        there, back = path(run, "a", "b", family), path(run, "b", "a", family)
        assert (1500, 1300, mss) == (there.mtu, there.tcp_mss, there.tcp_mss_sent)
        assert (mss, mss) == (back.tcp_mss, back.tcp_mss_sent)


def test_fragments_that_a_firewall_drops() -> None:
    """The first one arrives at the interface, and the socket gets nothing."""
    with lab("ab", *narrow("b", 1400)) as network:
        network.nft("b", "ip frag-off & 0x1fff != 0 drop", hook=Hook.INGRESS)
        run = measured(network)

    assert Fragments.PARTIAL is path(run, "a", "b", IPV4).fragments


def test_a_kind_that_is_blocked_leaves_the_path_to_the_others() -> None:
    """VXLAN does not get through; IP-in-IP and TCP tell how wide the path is."""
    with lab("ab", *narrow("b", 1450)) as network:
        network.nft("router", "udp dport 4789 ip daddr $b drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert {"bgp": 1450, "ipip": 1450, "vxlan": None} == kinds(found)
    assert [Outcome.MEASURED, Outcome.MEASURED, Outcome.BLOCKED] == [kind.outcome for kind in found.kinds]
    assert 1450 == found.mtu
    assert 0 == exit_status(run.mtus)


def test_a_path_that_nothing_gets_through_is_not_measured() -> None:
    """That is no black hole: of its size nothing is known."""
    with lab("ab") as network:
        network.nft("router", "iifname a drop")
        run = measured(network)

    for family in Family:
        there = path(run, "a", "b", family)
        assert (None, None) == (there.mtu, there.limit)
        assert "does not arrive" in there.untested
        assert 1500 == path(run, "b", "a", family).mtu
    assert 3 == exit_status(run.mtus)


def test_a_destination_that_drops_all_still_sees_it_arrive() -> None:
    """Its firewall is behind the tap; only no SYN with data is sent to who knows whom."""
    with lab("ab", *narrow("b", 1450)) as network:
        network.nft("b", "meta l4proto { tcp, udp, 4 } drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert {"bgp": None, "ipip": 1450, "vxlan": 1450} == kinds(found)
    assert (1450, Limit.ROUTER, None) == (found.mtu, found.limit, found.fragments)
    assert 1460 == found.tcp_mss


@pytest.mark.parametrize("percent", [2, 20])
def test_losses_are_no_limits(percent: int) -> None:
    """A path that loses a fifth of all packets is as wide as one that does not."""
    with lab("abc", *narrow("b", 1413)) as network:
        network.nft("router", f"numgen random mod 100 < {percent} drop")
        run = measured(network)

    for found in run.mtus:
        expected = (1413, Limit.ROUTER) if found.dst == "b" else (1500, Limit.SOURCE_INTERFACE)
        assert expected == (found.mtu, found.limit)
        assert len(set(kinds(found).values())) == 1


@pytest.mark.parametrize(
    "rules",
    [
        ["numgen random mod 100 < 75 drop"],
        [
            "iifname a meta length > 1300 limit rate 20/second burst 2 packets accept",
            "iifname a meta length > 1300 drop",
        ],
        ["meta length > 1300 numgen random mod 10 < 8 drop"],
    ],
    ids=["of all", "over a rate", "of large ones"],
)
def test_what_is_mostly_lost_is_no_narrow_path(rules: list[str]) -> None:
    """From every port now and then the largest packet passes: that is measured, or nothing is."""
    with lab("ab", {"on": "router", "nft": rules}) as network:
        run = measured(network, Settings(families=(IPV4,)))

    for found in run.mtus:
        assert found.notes == ()
        assert (found.mtu, found.limit) in {(1500, Limit.SOURCE_INTERFACE), (None, None)}
        assert set(kinds(found).values()) <= {1500, None}
    assert {each.path_mtu for each in calico_mtus(run)} <= {1500}


SERVICE: Final = [sys.executable, "-c", f"{HOLD}sys.stdin.read()", "tcp,0.0.0.0,179", "tcp,::,179"]


def test_no_syn_with_data_is_sent_to_a_live_service() -> None:
    """Somebody else's port gets SYNs without data, of which the segment size is read."""
    with lab("ab") as network:
        network.nft("b", "tcp dport 179 meta length > 100 counter")
        Program(network, "b", SERVICE, ready="^ready$")
        run = measured(network)
        counted = network.run("b", ["nft", "list", "ruleset"]).stdout

    for family, mss in ((IPV4, 1460), (IPV6, 1440)):
        found = path(run, "a", "b", family)
        (bgp,) = (kind for kind in found.kinds if kind.probe == "bgp")
        assert Outcome.UNTESTED is bgp.outcome
        assert "holds the port: no SYN with data" in bgp.reason
        assert (1500, mss) == (found.mtu, found.tcp_mss)
    assert "counter packets 0 bytes 0" in re.sub(r" +", " ", counted)


def test_a_firewall_that_wants_no_data_in_a_syn_says_nothing_of_sizes() -> None:
    """TCP has no result then, and no small one."""
    with lab("ab") as network:
        network.nft("router", "tcp flags & (syn | ack) == syn meta length > 100 drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    (bgp,) = (kind for kind in found.kinds if kind.probe == "bgp")
    assert (Outcome.UNTESTED, None) == (bgp.outcome, bgp.mtu)
    assert "SYNs with data do not arrive" in bgp.reason
    assert (1500, Limit.SOURCE_INTERFACE, 1460) == (found.mtu, found.limit, found.tcp_mss)
    assert 0 == exit_status(run.mtus)


def test_a_host_whose_agent_fails_is_not_measured() -> None:
    """The others are."""
    with Lab.mesh(3, families=(IPV4,)) as network:
        inventory = network.inventory()
        hosts = list(inventory.hosts)
        hosts[2] = msgspec.structs.replace(hosts[2], python=("/nonexistent",))
        run = trio.run(
            coordinator.measure, msgspec.structs.replace(inventory, hosts=tuple(hosts)), Settings()
        )

    assert 1500 == path(run, "n1", "n2", IPV4).mtu
    assert path(run, "n1", "n3", IPV4).mtu is None
    assert path(run, "n1", "n3", IPV4).untested.startswith("n3: ")
    assert 3 == exit_status(run.mtus)


def test_a_live_vxlan_device_is_not_disturbed() -> None:
    """
    Its inner network sees nothing, and its kernel notes nothing of what a router says of our packets.

    A kernel takes such a word for its own where its device has the packet's network.
    """
    device = "ip link add calico type vxlan id 4096 dstport 4789 dev eth0 nolearning"
    with lab("ab", *narrow("b", 1400)) as network:
        for name in "ab":
            for command in (device, "ip address add 198.18.0.1/24 dev calico", "ip link set calico up"):
                network.run(name, command.split())
        run = measured(network)
        noted = exceptions(network, "ab")
        received = network.run("b", ["cat", "/proc/net/dev"]).stdout

    for family in Family:
        assert (1400, Limit.ROUTER) == (path(run, "a", "b", family).mtu, path(run, "a", "b", family).limit)
    assert "" == noted
    assert re.search(r"calico: +0 +0 ", received)


def test_half_open_connections_are_taken_back() -> None:
    """A live service whose answers get lost would repeat each for a minute."""
    with lab("ab") as network:
        network.nft("router", "tcp sport 179 drop")
        Program(network, "b", SERVICE, ready="^ready$")
        run = measured(network)
        half_open = network.run("b", ["ss", "-Hnt", "state", "syn-recv"]).stdout

    assert 1460 == path(run, "a", "b", IPV4).tcp_mss
    assert "" == half_open


def test_nothing_stays_on_a_host() -> None:
    """No socket, no rule, no route, no conntrack entry of a tunnel."""
    look = ["sh", "-c", "ss -aHntuw0 | sort; nft list ruleset; ip -o address; ip route show table all"]
    tracked = ["conntrack", "-L", "-p", "4"]
    with lab("ab", *narrow("b", 1400)) as network:
        for name in "ab":
            network.nft(name, "ct state established,related accept")
        before = {name: network.run(name, look).stdout for name in "ab"}
        measured(network)
        after = {name: network.run(name, look).stdout for name in "ab"}
        entries = [network.run(name, tracked).stdout for name in "ab"]

    assert before == after
    assert ["", ""] == entries


def test_the_smallest_of_the_kinds_counts() -> None:
    """Where the kinds differ, it is said."""
    with lab("ab") as network:
        network.nft("router", "iifname a udp dport 4789 meta length > 1300 drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert {"bgp": 1500, "ipip": 1500, "vxlan": 1300} == kinds(found)
    assert Fragments.LOST is found.fragments
    assert (1300, Limit.BLACK_HOLE) == (found.mtu, found.limit)
    assert ("differs by kind: bgp 1500, ipip 1500, vxlan 1300",) == found.notes


def test_of_fragments_nothing_is_said_by_a_kind_that_is_not_the_limit() -> None:
    """Only TCP is narrow: that IP-in-IP's larger packets arrive is no word about TCP's."""
    with lab("ab") as network:
        network.nft("router", "iifname a meta l4proto tcp meta length > 1300 drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert {"bgp": 1300, "ipip": 1500, "vxlan": 1500} == kinds(found)
    assert (1300, None) == (found.mtu, found.fragments)


def test_what_does_not_arrive_is_told_by_its_size() -> None:
    """A SYN is tried without data first, and where that is lost no larger one is sent."""
    with lab("ab") as network:
        network.nft("router", "iifname a meta length < 100 drop")
        run = measured(network, Settings(families=(IPV4,)))

    (bgp,) = (kind for kind in path(run, "a", "b", IPV4).kinds if kind.probe == "bgp")
    assert (Outcome.BLOCKED, "bgp does not arrive, of 60 bytes") == (bgp.outcome, bgp.reason)


@pytest.mark.parametrize("loss", [0, 30])
def test_parallel_paths_are_told_from_losses(loss: int) -> None:
    """Where much is lost, sizes are asked for until that explains no port any more."""
    rules = [f"numgen random mod 100 < {loss} drop", "udp sport & 1 == 1 meta length > 1400 drop"]
    with lab("ab", {"on": "router", "nft": rules}) as network:
        run = measured(network, Settings(families=(IPV4,)))

    for found in run.mtus:
        assert (1400, Limit.BLACK_HOLE) == (found.mtu, found.limit)


@pytest.mark.parametrize("told", [False, True])
def test_of_parallel_paths_the_narrowest_counts(*, told: bool) -> None:
    """A way for odd source ports takes less: what half of all tunnels get through is what fits all."""
    dropped = "udp sport & 1 == 1 meta length > 1400"
    with lab("ab") as network:
        if told:
            network.nft("router", f"{dropped} meta mark set 1", hook=Hook.PREROUTING)
            for command in (
                "ip rule add fwmark 1 lookup 100",
                f"ip route add {network.hosts['b'].address(IPV4)} dev b mtu lock 1400 table 100",
            ):
                network.run("router", command.split())
        else:
            network.nft("router", f"{dropped} drop")
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert {"bgp": 1500, "ipip": 1500, "vxlan": 1400} == kinds(found)
    assert (1400, Limit.ROUTER if told else Limit.BLACK_HOLE) == (found.mtu, found.limit)
    assert any(re.match(r"parallel paths differ: of 8 source ports \d take", note) for note in found.notes)


def test_a_source_that_has_no_way_is_not_measured() -> None:
    """Nothing is known of a path that a host does not take, and the reason is its kernel's."""
    with lab("ab", {"on": "a", "route": "unreachable $b"}) as network:
        run = measured(network)

    there, back = path(run, "a", "b", IPV4), path(run, "b", "a", IPV4)
    assert (None, 0) == (there.mtu, there.interface_mtu)
    assert there.untested.startswith("a knows no interface for 10.")
    assert "EHOSTUNREACH" in there.untested
    assert 1500 == back.mtu


def test_a_kind_that_the_source_keeps_in_is_blocked_there() -> None:
    """Its kernel says so; the other kinds tell how wide the path is."""
    with lab("ab") as network:
        network.nft("a", "udp dport 4789 drop", hook=Hook.OUTPUT)
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    (vxlan,) = (kind for kind in found.kinds if kind.probe == "vxlan")
    assert (Outcome.BLOCKED, "a could not send vxlan: EPERM") == (vxlan.outcome, vxlan.reason)
    assert 1500 == found.mtu


def test_a_host_alone_has_no_path() -> None:
    """Nothing is sent, and nothing is wrong."""
    with lab("a") as network:
        run = measured(network)

    assert ((), 0) == (run.mtus, run.packets)
    assert 0 == exit_status(run.mtus)


def test_packets_that_are_cut_against_their_will_do_not_vanish() -> None:
    """A router that clears DF cuts them; they arrive, and not whole."""
    with lab("ab", *narrow("b", 1400)) as network:
        network.nft("router", "iifname a ip frag-off set 0", hook=Hook.PREROUTING)
        run = measured(network)

    found = path(run, "a", "b", IPV4)
    assert (1400, Limit.CUT, ()) == (found.mtu, found.limit, found.too_big)
    assert Limit.ROUTER is path(run, "a", "b", IPV6).limit
    assert 0 == exit_status(run.mtus)
