"""
An API server, a Typha and an etcd are up while netprobe runs, and see nothing of it: not one connection.

etcd is the real one. In the place of the others stands OpenSSL's own server, which says what it gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from netprobe.lab import Lab, describe
from netprobe.model import Family, Run
from tests.lab.live.programs import (
    TRACKING,
    Program,
    check_open,
    connect,
    needs,
    self_signed,
    three_runs,
    traces,
)

pytestmark = needs("etcd", "openssl", "conntrack")

LAB: Final = f"""
name: a node, and what every node connects to
hosts: [a, {{name: b, roles: [apiserver, typha]}}, {{name: c, roles: [etcd]}}]
faults: [{TRACKING % "a, b, c"}]
"""
SERVED: Final = (6443, 443, 5473)
ETCD: Final = 2379

CIPHER: Final = "TLS_CHACHA20_POLY1305_SHA256"
"""The test's own client, and no other here, insists on it."""


class Servers(msgspec.Struct, frozen=True):
    """OpenSSL's servers at `b` and an etcd at `c`, three runs, and what `b` had accepted before and after."""

    lab: Lab
    openssl: dict[int, Program]
    etcd: Program
    runs: list[Run]
    accepted: tuple[int, int]
    traces: dict[str, set[str]]


def _accepted(lab: Lab, on: str) -> int:
    """How many TCP connections the kernel has accepted for all programs of a host: PassiveOpens, RFC 4022."""
    names, values = re.findall(r"^Tcp: (.*)$", lab.run(on, ["cat", "/proc/net/snmp"]).stdout, re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["PassiveOpens"])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """All are ready before the runs."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed(directory)
    with Lab(describe(LAB)) as lab:
        serve = ["openssl", "s_server", "-cert", certificate, "-key", key, "-accept"]
        openssl = {port: Program(lab, "b", [*serve, str(port)], ready="^ACCEPT") for port in SERVED}
        here = lab.hosts["c"].addresses
        urls = f"https://{here[Family.IPV4]}:{ETCD},https://[{here[Family.IPV6]}]:{ETCD}"
        argv = ["etcd", "--data-dir", str(directory / "data"), "--listen-peer-urls", "http://127.0.0.1:2380"]
        argv += ["--listen-client-urls", urls, "--advertise-client-urls", urls]
        argv += ["--cert-file", certificate, "--key-file", key]
        etcd = Program(lab, "c", argv, ready="ready to serve client requests")
        before = _accepted(lab, "b")
        runs = three_runs(lab, "apiserver", "typha", "etcd")
        yield Servers(lab, openssl, etcd, runs, (before, _accepted(lab, "b")), traces(lab))


def test_the_kernel_accepts_no_connection_for_them(servers: Servers) -> None:
    """
    By its own count: no handshake was ever completed.
    """
    assert (0, 0) == servers.accepted


def test_nothing_of_the_node_is_left_anywhere(servers: Servers) -> None:
    """
    No half-open connection, and no conntrack entry; etcd keeps those that it has with itself.
    """
    for address in servers.lab.hosts["a"].addresses.values():
        assert [] == [trace for left in servers.traces.values() for trace in left if address in trace]


def test_every_server_is_open_and_named(servers: Servers) -> None:
    """
    `etcd` and `openssl`, each with the process that has this very port.
    """
    holders = {("b", port): server.holds for port, server in servers.openssl.items()}
    holders["c", ETCD] = servers.etcd.holds
    for run in servers.runs:
        assert (len(SERVED) + 1) * len(Family) == len(run.cells)
        check_open(run, holders)


@pytest.mark.parametrize("port", SERVED)
def test_openssl_has_nothing_to_say_but_of_a_client(servers: Servers, port: int) -> None:
    """
    Its first words after three runs are of a connection of the test itself, which it would have had of any.
    """
    there = f"{servers.lab.hosts['b'].address(Family.IPV4)}:{port}"
    servers.lab.run(
        "a", ["openssl", "s_client", "-connect", there, "-ciphersuites", CIPHER, "-brief"], input=""
    )
    words = servers.openssl[port].lines.until("^(CIPHER is|ERROR|CONNECTION CLOSED|ACCEPT)")

    assert f"CIPHER is {CIPHER}" == words[-1]


def test_etcd_has_nothing_to_say_but_of_a_client(servers: Servers) -> None:
    """
    It complains of who connects and does not speak TLS: first of the test itself.
    """
    source = servers.lab.hosts["a"].address(Family.IPV4)
    port = connect(servers.lab, "a", servers.lab.hosts["c"].address(Family.IPV4), ETCD)

    assert f"{source}:{port}" in servers.etcd.lines.find("rejected connection")
