"""The verb `counters`: what the kernel counts, as the files of /proc/net have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from netprobe.counters import FILES
from tests.agent.driver import Agent, RefusedError


def test_the_counters_are_those_of_the_kernel() -> None:
    """
    Those that are above zero, from every file that this kernel has, under names that are told apart.
    """
    with Agent() as agent:
        before = agent.ask("counters", files=list(FILES))["counters"]
        again = agent.ask("counters", files=list(FILES))["counters"]
        only = agent.ask("counters", files=["snmp6"])["counters"]

    assert before
    assert all(number > 0 for number in before.values())
    assert before["Ip.DefaultTTL"] == int(Path("/proc/sys/net/ipv4/ip_default_ttl").read_text())
    assert {name for name in before if "." not in name} >= set(only)
    assert all(name.startswith(("Ip6", "Icmp6", "Udp6", "UdpLite6")) for name in only)
    assert set(before) <= set(again)


def test_a_file_that_is_none_of_these_is_refused() -> None:
    """
    The agent reads no path that it is told.
    """
    with Agent() as agent, pytest.raises(RefusedError, match="files: expected one of netstat, snmp, "):
        agent.ask("counters", files=["../../etc/shadow"])
