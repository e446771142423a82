"""From faults to rules, routes, sysctls and commands."""

from __future__ import annotations

import textwrap

from netprobe import lab
from netprobe.lab.changes import Changes, Route, changes
from netprobe.lab.topology import topology


def _changes(faults: str, on: str) -> Changes:
    description = lab.describe(f"name: n\nhosts: [a, b]\nfaults:\n{textwrap.dedent(faults)}")
    return changes(description.faults, on, topology(description))


def test_the_hook_is_forward_on_the_router_and_input_on_a_host() -> None:
    """That is where most firewalls are."""
    faults = "- {on: [a, router], nft: drop}"

    assert "type filter hook input priority 0;\n" in _changes(faults, "a").ruleset
    assert "type filter hook forward priority 0;\n" in _changes(faults, "router").ruleset
    assert Changes() == _changes(faults, "b")


def test_faults_of_one_hook_land_in_one_chain_in_their_order() -> None:
    """The policy may come with any of them."""
    faults = """
    - {on: a, nft: [tcp dport 1 accept, tcp dport 2 accept]}
    - {on: a, hook: output, nft: ip daddr $b drop}
    - {on: a, policy: drop}
    - {on: a, nft: tcp dport 3 accept}
    """
    expected = """\
    table inet lab {
      chain input {
        type filter hook input priority 0; policy drop;
        tcp dport 1 accept
        tcp dport 2 accept
        tcp dport 3 accept
      }
    }
    table inet lab {
      chain output {
        type filter hook output priority 0;
        ip daddr 10.77.2.11 drop
      }
    }
    """

    assert textwrap.dedent(expected) == _changes(faults, "a").ruleset


def test_another_type_or_priority_is_another_chain() -> None:
    """Each type has the priority that nftables gives it by default."""
    faults = """
    - {on: a, nft: drop}
    - {on: a, priority: -150, nft: drop}
    - {on: a, priority: filter - 10, nft: drop}
    - {on: a, type: nat, hook: prerouting, nft: redirect}
    """
    lines = _changes(faults, "a").ruleset.splitlines()

    assert [
        "  chain input {",
        "    type filter hook input priority 0;",
        "  chain filter_input_-150 {",
        "    type filter hook input priority -150;",
        "  chain filter_input_filter_-_10 {",
        "    type filter hook input priority filter - 10;",
        "  chain nat_prerouting_-100 {",
        "    type nat hook prerouting priority -100;",
    ] == [line for line in lines if "chain" in line or "hook" in line]


def test_ingress_and_egress_know_their_devices() -> None:
    """A host has one, the router one for each host."""
    faults = "- {on: [b, router], hook: ingress, nft: drop}"

    assert (
        'table netdev lab {\n  chain ingress {\n    type filter hook ingress devices = { "eth0" }'
        in _changes(faults, "b").ruleset
    )
    assert 'devices = { "a", "b" } priority 0;' in _changes(faults, "router").ruleset


def test_a_ruleset_is_verbatim_but_for_its_placeholders() -> None:
    """It comes before what the lab makes of the other faults."""
    faults = """
    - {on: a, nft: drop}
    - on: a
      nft_ruleset: |
        define peer = $b
        table inet mine { set x { type ipv4_addr; elements = { $$peer } } }
    """
    ruleset = _changes(faults, "a").ruleset

    assert ruleset.startswith(
        "define peer = 10.77.2.11\n"
        "table inet mine { set x { type ipv4_addr; elements = { $peer } } }\n"
        "table inet lab {\n"
    )


def test_a_route_has_a_type_or_a_gateway() -> None:
    """A prefix without a length is one address."""
    faults = """
    - {on: router, route: [unreachable $a, "blackhole fd00::/8", $b via $a, "::/0 via $a.ipv6"]}
    - {on: router, route: prohibit 0.0.0.0/0}
    """

    assert (
        Route("10.77.1.11/32", "unreachable"),
        Route("fd00::/8", "blackhole"),
        Route("10.77.2.11/32", gateway="10.77.1.11"),
        Route("::/0", gateway="fd77:6e70:6c61:1::11"),
        Route("0.0.0.0/0", "prohibit"),
    ) == _changes(faults, "router").routes


def test_sysctls_and_commands_keep_their_order() -> None:
    """Placeholders stand in arguments."""
    faults = """
    - {on: a, sysctl: {net.ipv4.ip_forward: 1, net.ipv4.tcp_ecn: "2"}}
    - {on: a, run: [ip, neigh, del, $a.gateway, dev, eth0]}
    - {on: a, run: ["true"]}
    """
    found = _changes(faults, "a")

    assert (("net.ipv4.ip_forward", "1"), ("net.ipv4.tcp_ecn", "2")) == found.sysctls
    assert (("ip", "neigh", "del", "10.77.1.1", "dev", "eth0"), ("true",)) == found.runs
