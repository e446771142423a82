"""What is compared between hosts: MTUs, the address that Calico would choose, clocks, identities."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netprobe.findings import Check, Finding, Result
from netprobe.lab import Lab
from netprobe.model import Connection, Family, Host
from netprobe.questions import HeldAddress, Link, NetworkFacts
from netprobe.requirements import Evidence
from netprobe.requirements.clock import Offset
from netprobe.requirements.links import first_found
from tests.requirements.asking import checked, host, of


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts."""
    with Lab.mesh(3) as lab:
        yield lab


def check(lab: Lab) -> Check:
    """The check of a lab."""
    return checked(inventory=lab.inventory())


def every(check: Check, name: str) -> list[Result]:
    """What came of a requirement at each host."""
    return [of(check, host.name, name).result for host in check.hosts]


@pytest.mark.lab
def test_the_same_mtu_everywhere_passes_and_another_does_not(lab: Lab) -> None:
    """The one that differs is told, and what the others have."""
    before = check(lab)
    lab.run("n3", ["ip", "link", "set", "eth0", "mtu", "1400"])
    after = check(lab)

    assert [Result.PASS] * 3 == every(before, "interface-mtu")
    assert [Result.PASS, Result.PASS, Result.WARN] == every(after, "interface-mtu")
    assert "eth0 1400; of 3 hosts 2 have 1500" == of(after, "n3", "interface-mtu").seen


@pytest.mark.lab
def test_the_address_that_calico_would_choose(lab: Lab) -> None:
    """The first one that is up and has a routed address; the fix names the right one."""
    before = check(lab)
    lab.run("n2", ["ip", "link", "set", "eth0", "down"])
    lab.run("n3", ["ip", "link", "add", "br0", "type", "bridge"])
    lab.run("n3", ["ip", "link", "set", "br0", "up"])
    lab.run("n3", ["ip", "addr", "add", "172.31.0.1/24", "dev", "br0"])
    lab.run("n3", ["ip", "link", "set", "eth0", "down"])
    after = check(lab)

    assert [Result.PASS] * 3 == every(before, "autodetection")
    assert [Result.PASS, Result.WARN, Result.WARN] == every(after, "autodetection")
    assert "chooses no interface" in of(after, "n2", "autodetection").seen
    assert "first-found chooses br0 172.31.0.1" in of(after, "n3", "autodetection").seen
    assert "interface=eth0" in of(after, "n3", "autodetection").fix


def test_first_found_goes_by_index_and_leaves_out_what_calico_leaves_out() -> None:
    """Bridges of containers, interfaces that are down, link-local addresses."""
    names = ["lo", "docker0", "down0", "local0", "ens4", "ens3"]
    facts = NetworkFacts(
        links=[Link(9 - n, name, "", 1500, "", name != "down0") for n, name in enumerate(names)],
        addresses=[
            HeldAddress(9 - n, "169.254.0.1" if name == "local0" else f"10.0.{n}.1", 24)
            for n, name in enumerate(names)
        ],
        routes=[],
    )

    assert ("ens3", "10.0.5.1") == first_found(facts, Family.IPV4)
    assert None is first_found(facts, Family.IPV6)


@pytest.mark.lab
def test_hosts_of_one_machine_share_its_identity(lab: Lab) -> None:
    """Namespaces have the machine's hostname and machine-id; their MAC addresses are their own."""
    found = check(lab)

    assert [Result.FAIL] * 3 == every(found, "hostname-unique")
    assert [Result.PASS] * 3 == every(found, "mac-unique")
    assert [Result.PASS] * 3 == every(found, "address-unique")
    assert "is also n2, n3's" in of(found, "n1", "hostname-unique").seen


@pytest.mark.lab
def test_the_same_mac_and_the_same_address_fail(lab: Lab) -> None:
    """Both of those that have it are told, and nobody else."""
    mac = lab.run("n1", ["ip", "-br", "link", "show", "eth0"]).stdout.split()[2]
    address = lab.hosts["n1"].address(Family.IPV4)
    lab.run("n3", ["ip", "link", "set", "eth0", "address", mac])
    lab.run("n3", ["ip", "addr", "add", f"{address}/32", "dev", "lo"])
    found = check(lab)

    assert [Result.FAIL, Result.PASS, Result.FAIL] == every(found, "mac-unique")
    assert Result.FAIL is of(found, "n1", "address-unique").result
    assert f"{address} is on n3 as well (lo)" == of(found, "n1", "address-unique").seen


def named(name: str, machine_id: str, directory: Path) -> Host:
    """The machine here under another name, with another machine-id."""
    file = directory / f"machine-id-{name}"
    file.write_text(f"{machine_id}\n")
    script = (
        f'printf %s "{name}" >/proc/sys/kernel/hostname; mount --bind "{file}" /etc/machine-id; exec "$@"'
    )
    return host(name.lower(), "unshare", "--uts", "--mount", "sh", "-c", script, "sh")


@pytest.mark.lab
def test_hosts_with_names_of_their_own_pass(tmp_path: Path) -> None:
    """And the copy of one, with its machine-id, does not; the id itself is in no report."""
    found = checked(
        named("alpha", "a" * 32, tmp_path),
        named("beta", "b" * 32, tmp_path),
        named("gamma", "b" * 32, tmp_path),
    )

    assert [Result.PASS] * 3 == every(found, "hostname-unique")
    assert [Result.PASS] * 3 == every(found, "hostname")
    assert [Result.PASS, Result.WARN, Result.WARN] == every(found, "machine-id-unique")
    assert "b" * 32 not in str(found)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("node-1.example.com", Result.PASS),
        ("Node-1", Result.WARN),
        ("node_1", Result.FAIL),
        ("-node", Result.FAIL),
        ("localhost", Result.FAIL),
        ("a" * 64, Result.FAIL),
        (f"{'a' * 40}.{'b' * 23}", Result.WARN),
    ],
)
def test_names_that_nodes_can_have(name: str, result: Result) -> None:
    """RFC 1123, in lower case; a label takes 63 characters."""
    script = f'printf %s "{name}" >/proc/sys/kernel/hostname; exec "$@"'
    found = checked(host("here", "unshare", "--uts", "sh", "-c", script, "sh"))

    assert result is of(found, "here", "hostname").result


def test_one_host_alone_is_compared_with_nobody() -> None:
    """There is nothing to say of it."""
    found = checked(host("here"))

    for name in ("clock", "hostname-unique", "interface-mtu"):
        assert [Result.NOT_APPLICABLE] == every(found, name)


def shifted(name: str, by: str) -> Host:
    """The machine here, whose agent's clock is another."""
    if shutil.which("faketime") is None:
        pytest.skip("no faketime in the PATH")
    python = ("faketime", "-f", by, sys.executable)
    return Host(name=name, addresses=(), connection=Connection(type="local"), python=python)


def clock(check: Check, name: str) -> Finding:
    """What came of a host's clock."""
    return of(check, name, "clock")


def test_clocks_that_agree_pass_and_one_that_is_ahead_does_not() -> None:
    """The offset is measured, with what it may be wrong by; those that agree are not blamed."""
    found = checked(host("a"), host("b"), shifted("c", "+90s"), shifted("d", "-0.2s"))

    assert [Result.PASS, Result.PASS, Result.WARN, Result.PASS] == every(found, "clock")
    assert clock(found, "c").seen.startswith(("+90.", "+89."))
    assert "not of c" in clock(found, "a").seen


def test_of_two_clocks_nobody_knows_which_is_wrong() -> None:
    """Both are told."""
    assert [Result.WARN] * 2 == every(checked(host("a"), shifted("b", "-30s")), "clock")


def test_an_offset_has_its_uncertainty() -> None:
    """RFC 5905: half of what the ways there and back may have taken."""
    evidence = Evidence(host=host("a"), answers={}, asked=100.0, began=110.5, ended=111.0, answered=102.0)

    assert Offset(9.75, 0.75) == Offset.of(evidence)
    assert not Offset(9.75, 0.75).is_beyond(Offset(8.0, 0.75))
    assert Offset(9.75, 0.1).is_beyond(Offset(8.0, 0.1))
