"""The kernel's settings, really set in the network namespaces of a lab; and what a tree of files says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.lab import Lab
from netprobe.requirements.sysctls import reserved
from tests.requirements.asking import checked, found, of, written

HOST: Final = "n1"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts, whose settings a test sets back."""
    with Lab.mesh(2) as lab:
        yield lab


@contextmanager
def set_to(lab: Lab, settings: dict[str, str]) -> Iterator[None]:
    """Some settings of a host, for as long as the block lasts."""
    before = {name: lab.run(HOST, ["cat", f"/proc/sys/net/{name}"]).stdout.strip() for name in settings}
    for name, value in settings.items():
        _set(lab, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            _set(lab, name, value)


def _set(lab: Lab, name: str, value: str) -> None:
    lab.run(HOST, ["sh", "-c", f"echo '{value}' >/proc/sys/net/{name}"])


CASES: Final = [
    ("sysctl-ip-forward", {"ipv4/ip_forward": "1"}, Result.PASS, "ip_forward = 1"),
    ("sysctl-ip-forward", {"ipv4/ip_forward": "0"}, Result.WARN, "ip_forward = 0"),
    (
        "sysctl-ip-forward",
        {"ipv4/ip_forward": "1", "ipv4/conf/eth0/forwarding": "0"},
        Result.FAIL,
        "eth0.forwarding = 0",
    ),
    ("sysctl-ipv6-forwarding", {"ipv6/conf/all/forwarding": "1"}, Result.PASS, "forwarding = 1"),
    ("sysctl-ipv6-forwarding", {"ipv6/conf/all/forwarding": "0"}, Result.WARN, "forwarding = 0"),
    ("sysctl-rp-filter", {"ipv4/conf/all/rp_filter": "0"}, Result.PASS, "eth0: rp_filter = 0"),
    ("sysctl-rp-filter", {"ipv4/conf/eth0/rp_filter": "2"}, Result.PASS, "eth0: rp_filter = 2"),
    ("sysctl-local-ports", {"ipv4/ip_local_port_range": "32768 60999"}, Result.PASS, "32768 60999"),
    ("sysctl-local-ports", {"ipv4/ip_local_port_range": "2000 60999"}, Result.WARN, "5473 (typha)"),
    (
        "sysctl-local-ports",
        {
            "ipv4/ip_local_port_range": "2000 60999",
            "ipv4/ip_local_reserved_ports": "2379-2380,4789,5473,6443,8472,30000-32767",
        },
        Result.PASS,
        "2000 60999",
    ),
    (
        "sysctl-local-ports-wireguard",
        {"ipv4/ip_local_port_range": "32768 60999"},
        Result.WARN,
        "51820 (wireguard)",
    ),
    (
        "sysctl-local-ports-wireguard",
        {"ipv4/ip_local_reserved_ports": "51820,51821"},
        Result.PASS,
        "ip_local_port_range",
    ),
    ("sysctl-unprivileged-ports", {"ipv4/ip_unprivileged_port_start": "1024"}, Result.PASS, "1024"),
    ("sysctl-unprivileged-ports", {"ipv4/ip_unprivileged_port_start": "0"}, Result.WARN, "port 179"),
    ("sysctl-src-valid-mark", {"ipv4/conf/eth0/rp_filter": "0"}, Result.PASS, "nowhere strict"),
    (
        "sysctl-src-valid-mark",
        {"ipv4/conf/eth0/rp_filter": "1", "ipv4/conf/all/src_valid_mark": "0"},
        Result.WARN,
        "src_valid_mark = 0",
    ),
    (
        "sysctl-src-valid-mark",
        {"ipv4/conf/eth0/rp_filter": "1", "ipv4/conf/all/src_valid_mark": "1"},
        Result.PASS,
        "src_valid_mark = 1",
    ),
]


@pytest.mark.lab
@pytest.mark.parametrize(("requirement", "settings", "result", "seen"), CASES)
def test_a_setting_of_a_host(
    lab: Lab, requirement: str, settings: dict[str, str], result: Result, seen: str
) -> None:
    """What the kernel of its namespace is set to is what is found."""
    with set_to(lab, settings):
        finding = of(checked(inventory=lab.inventory()), HOST, requirement)

    assert (result, True) == (finding.result, seen in finding.seen), finding.seen


@pytest.mark.lab
def test_a_strict_filter_with_two_ways_out(lab: Lab) -> None:
    """An answer that takes the other way is thrown away."""
    with set_to(lab, {"ipv4/conf/all/rp_filter": "1"}):
        one = of(checked(inventory=lab.inventory()), HOST, "sysctl-rp-filter")
        lab.run(HOST, ["ip", "link", "add", "eth1", "type", "bridge"])
        lab.run(HOST, ["ip", "link", "set", "eth1", "up"])
        lab.run(HOST, ["ip", "route", "add", "default", "dev", "eth1", "metric", "900"])
        two = of(checked(inventory=lab.inventory()), HOST, "sysctl-rp-filter")
        lab.run(HOST, ["ip", "link", "del", "eth1"])

    assert Result.PASS is one.result
    assert Result.WARN is two.result
    assert "eth1" in two.seen


@pytest.mark.lab
def test_an_advertised_default_route(lab: Lab) -> None:
    """With accept_ra = 1 it goes once the host forwards; with 2 it stays, and without one nobody asks."""
    results = [of(checked(inventory=lab.inventory()), HOST, "sysctl-accept-ra").result]
    route = ["default", "dev", "eth0", "proto", "ra", "metric", "50"]
    lab.run(HOST, ["ip", "-6", "route", "add", *route])
    try:
        for value in ("1", "2", "0"):
            with set_to(lab, {"ipv6/conf/eth0/accept_ra": value}):
                results.append(of(checked(inventory=lab.inventory()), HOST, "sysctl-accept-ra").result)
    finally:
        lab.run(HOST, ["ip", "-6", "route", "del", *route])

    assert [Result.NOT_APPLICABLE, Result.WARN, Result.PASS, Result.PASS] == results


def tree(root: Path, **files: str) -> Finding:
    """What comes of the settings in a tree of files."""
    (name,) = {key.partition("__")[0] for key in files}
    paths = {"bridge": "bridge/bridge-nf-call-", "netfilter": "netfilter/nf_conntrack_"}
    there = {f"/proc/sys/net/{paths[name]}{key.partition('__')[2]}": text for key, text in files.items()}
    ids = {"bridge": "sysctl-bridge-nf", "netfilter": "sysctl-conntrack-size"}
    return found(root=written(root, there))[ids[name]]


@pytest.mark.parametrize(
    ("count", "most", "result"),
    [
        ("10", "1000", Result.PASS),
        ("800", "1000", Result.WARN),
        ("1000", "1000", Result.FAIL),
        ("5", "0", Result.PASS),
        ("x", "1000", Result.NOT_APPLICABLE),
    ],
)
def test_the_size_of_the_table_of_connections(tmp_path: Path, count: str, most: str, result: Result) -> None:
    """No namespace has one of its own."""
    assert result is tree(tmp_path, netfilter__count=count, netfilter__max=most).result


@pytest.mark.parametrize(("value", "result"), [("1", Result.PASS), ("0", Result.WARN)])
def test_bridged_packets(tmp_path: Path, value: str, result: Result) -> None:
    """As kubeadm wants it."""
    assert result is tree(tmp_path, bridge__iptables=value, bridge__ip6tables=value).result


def test_a_host_without_settings_is_unknown(tmp_path: Path) -> None:
    """A root without /proc says nothing; what may be missing is not there."""
    findings = found(root=tmp_path)

    assert Result.UNKNOWN is findings["sysctl-ip-forward"].result
    assert Result.UNKNOWN is findings["sysctl-rp-filter"].result
    assert Result.NOT_APPLICABLE is findings["sysctl-bridge-nf"].result
    assert Result.NOT_APPLICABLE is findings["sysctl-conntrack-size"].result


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=5))
def test_reserved_ports_are_read_as_the_kernel_writes_them(ranges: list[tuple[int, int]]) -> None:
    """Single ports and ranges."""
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)

    assert ranges == list(reserved(text))


@given(st.text())
def test_reserved_ports_may_be_anything(text: str) -> None:
    """What is none is left out."""
    assert all(first <= 99999 >= last for first, last in reserved(text))
