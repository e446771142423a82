"""The verb `counters`: what the kernel counts, as the files of /proc/net have it."""

from __future__ import annotations

from pathlib import Path

from tests.agent.driver import Agent


def test_the_counters_are_those_of_the_kernel() -> None:
    """
    Those that are above zero, from every file that this kernel has, under names that are told apart.
    """
    with Agent() as agent:
        before = agent.ask("counters")["counters"]
        again = agent.ask("counters")["counters"]

    assert before
    assert all(number > 0 for number in before.values())
    assert before["Ip.DefaultTTL"] == int(Path("/proc/sys/net/ipv4/ip_default_ttl").read_text())
    assert {"Ip", "Tcp", "TcpExt", "IpExt"} <= {name.partition(".")[0] for name in before}
    assert set(before) <= set(again)
