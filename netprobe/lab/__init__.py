"""
Small networks out of network namespaces, with faults, from a description; always taken away again.

A description is YAML::

    name: a router that answers with RST is a rejection, not a closed port
    hosts: [a, {name: b, roles: [node, typha]}]       # a role left out is `node`
    families: [ipv4, ipv6]                            # the default
    networks:                                         # a host in none has a link of its own to the router
      - {name: rack-1, hosts: [a, b]}                 # a bridge, with the router on it
    pod_cidr: [10.244.0.0/16]                         # as the inventory has it; none is the default
    faults:
      - {on: router, nft: "tcp dport 179 reject with tcp reset"}    # at forward; on a host: at input
      - {on: [a, b], hook: output, nft: ["ip daddr $b drop", "ip6 daddr $b.ipv6 drop"]}
      - {on: a, policy: drop, nft: "ct state established,related accept"}
      - {on: router, type: nat, hook: prerouting, nft: "ip daddr $a tcp dport 179 dnat to $b"}
      - {on: router, hook: ingress, nft: "ip saddr $a drop"}  # what its ports receive, bridged or routed
      - {on: b, nft_ruleset: "table inet t { … }"}    # verbatim
      - {on: router, route: "unreachable $a"}         # also prohibit, blackhole, throw, and `$a via $b`
      - {on: b, sysctl: {net.ipv4.conf.all.rp_filter: 1}}
      - {on: a, run: [ip, neigh, …]}
      - {on: router, nft: "…", says: "what a person calls it", expect: {a -> b bgp: filtered @ path}}
    expect:                                           # all else is expected open
      a -> b bgp: rejected @ path by a.gateway (ICMP 3/13)      # who, and a part of the detail
      b -> a vxlan: open +nat                         # with this caveat, among others
      "* -> rack-1 vxlan:4789/ipv6": filtered @ destination-ingress

Placeholders: `$a` (or `$a.ipv4`) and `$a.ipv6` are the addresses of host a, `$a.gateway` (`$a.gateway.ipv6`)
the router's on a's link, `$rack-1` and `$rack-1.ipv6` the prefixes of a network; `${a}` where a letter
follows, `$$` is a `$`. They stand in rules, rulesets, routes and argument vectors.

Every host has the one interface `eth0`. The router's are called like the hosts they lead to, and its bridges
like their networks. What is bridged never meets the router's IP hooks (`forward`); its ports' `ingress` does.
"""

from __future__ import annotations

from netprobe.lab.blueprint import describe, describe_file
from netprobe.lab.description import ChainType, Description, Fault, Hook, HostEntry, Network, Policy
from netprobe.lab.errors import DescriptionError, LabError
from netprobe.lab.expectations import Expectations, Expected, Mismatch, Planted
from netprobe.lab.lab import Lab, LabHost, LabRouter, leftovers

__all__ = [
    "ChainType",
    "Description",
    "DescriptionError",
    "Expectations",
    "Expected",
    "Fault",
    "Hook",
    "HostEntry",
    "Lab",
    "LabError",
    "LabHost",
    "LabRouter",
    "Mismatch",
    "Network",
    "Planted",
    "Policy",
    "describe",
    "describe_file",
    "leftovers",
]
