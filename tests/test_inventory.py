"""What an inventory means, and what every wrong one is told."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from netprobe import mesh, transports
from netprobe.inventory import InventoryError, document, dump, load, loads, narrow
from netprobe.inventory.narrow import mode_obstacle
from netprobe.inventory.schema import CONNECTIONS, ConnectionEntry
from netprobe.model import Connection, Family, Host, Inventory, Role
from netprobe.modes import MODES
from netprobe.probes import registry

FULL = """\
hosts:
  - name: node-a
    addresses: [10.0.0.11, "fd00::11"]
    roles: [node, apiserver, etcd, typha]
    connection: {type: ssh, host: node-a.example, user: ops, port: 22, identity: ~/.ssh/id, options: []}
  - name: node-b
    addresses: [10.0.0.12]
    connection: {type: netns, name: node-b}      # an existing namespace (ip netns add …)
  - name: node-c
    addresses: [10.0.0.13]
    connection: {type: command, argv: [podman, exec, -i, node-c]}   # any argv prefix
  - name: here
    addresses: [10.0.0.14]
    connection: {type: local}
defaults:
  connection: {type: ssh, user: ops}   # merged under each host's own
  sudo: true
  python: [python3]
probes: [bgp, wireguard]
modes: [ipip, vxlan]
ports: {apiserver: [6443], typha: [5473], flannel: [8472]}
"""

TWO = """\
hosts:
  - {name: a, addresses: [10.0.0.1]}
  - {name: b, addresses: [10.0.0.2]}
"""


def hosts(*entries: str) -> str:
    """An inventory of hosts in flow style, in the lines from 2 on; a second host is added to a single one."""
    lines = [*entries, "{name: z, addresses: [10.9.9.9]}"] if len(entries) == 1 else entries
    return "hosts:\n" + "".join(f"  - {line}\n" for line in lines)


def errors(text: str | bytes) -> list[str]:
    """The lines of the error that a wrong inventory is."""
    with pytest.raises(InventoryError) as caught:
        loads(text, "i.yaml")
    return str(caught.value).split("\n")


def test_every_key_of_the_design_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The inventory that the design shows becomes the hosts and settings that it describes.
    """
    monkeypatch.setenv("HOME", "/home/ops")
    inventory = loads(FULL)

    expected = Inventory(
        hosts=(
            Host(
                name="node-a",
                addresses=("10.0.0.11", "fd00::11"),
                roles=(Role.NODE, Role.APISERVER, Role.ETCD, Role.TYPHA),
                connection=Connection(
                    type="ssh", host="node-a.example", user="ops", port=22, identity="/home/ops/.ssh/id"
                ),
                sudo=True,
                python=("python3",),
            ),
            Host(
                name="node-b",
                addresses=("10.0.0.12",),
                connection=Connection(type="netns", name="node-b"),
                sudo=True,
                python=("python3",),
            ),
            Host(
                name="node-c",
                addresses=("10.0.0.13",),
                connection=Connection(type="command", argv=("podman", "exec", "-i", "node-c")),
                sudo=True,
                python=("python3",),
            ),
            Host(
                name="here",
                addresses=("10.0.0.14",),
                connection=Connection(type="local"),
                sudo=True,
                python=("python3",),
            ),
        ),
        probes=("bgp", "wireguard"),
        modes=("ipip", "vxlan"),
        ports={"apiserver": (6443,), "typha": (5473,), "flannel": (8472,)},
    )
    assert expected == inventory


def test_a_host_is_a_node_that_ssh_reaches_by_its_name() -> None:
    """
    Without roles a host is a node, and without a connection it is reached by ssh; without `probes` and
    `modes` all of them are asked for.
    """
    inventory = loads(TWO)

    assert (Role.NODE,) == inventory.hosts[0].roles
    assert Connection(type="ssh") == inventory.hosts[0].connection
    assert inventory.probes is None
    assert inventory.modes is None
    assert {} == inventory.ports


def test_addresses_are_written_in_one_way() -> None:
    """
    However an IPv6 address is spelled, the inventory has its canonical form (RFC 5952).
    """
    inventory = loads(hosts('{name: a, addresses: ["FD00:0:0::00A1"]}'))

    assert ("fd00::a1",) == inventory.hosts[0].addresses


def test_the_defaults_of_a_connection_are_for_its_type() -> None:
    """
    The defaults' options are merged under a host's own of the same type, and no other.
    """
    text = hosts(
        "{name: a, addresses: [10.0.0.1], connection: {port: 2022}}",
        "{name: b, addresses: [10.0.0.2], connection: {type: netns, name: b}}",
    )
    inventory = loads(text + "defaults: {connection: {type: ssh, user: ops, port: 22}}\n")

    assert Connection(type="ssh", user="ops", port=2022) == inventory.hosts[0].connection
    assert Connection(type="netns", name="b") == inventory.hosts[1].connection


def test_defaults_without_a_type_serve_every_type_that_has_the_option() -> None:
    """
    An option in the defaults goes to each host whose type of connection takes it.
    """
    text = hosts(
        "{name: a, addresses: [10.0.0.1]}",
        "{name: b, addresses: [10.0.0.2], connection: {type: local}}",
    )
    inventory = loads(text + "defaults: {connection: {user: ops}}\n")

    assert Connection(type="ssh", user="ops") == inventory.hosts[0].connection
    assert Connection(type="local") == inventory.hosts[1].connection


def test_a_hosts_own_settings_win_over_the_defaults() -> None:
    """
    `sudo` and `python` of a host are taken before those of the defaults.
    """
    text = hosts("{name: a, addresses: [10.0.0.1], sudo: false, python: [python3.6, -I]}")
    inventory = loads(text + "defaults: {sudo: true, python: [python3]}\n")

    assert [(False, ("python3.6", "-I")), (True, ("python3",))] == [
        (h.sudo, h.python) for h in inventory.hosts
    ]


def test_anchors_and_merge_keys_are_allowed() -> None:
    """
    YAML's own means against repetition work, and a key beside `<<` wins over the merged one.
    """
    inventory = loads(
        textwrap.dedent("""\
        hosts:
          - &first
            name: a
            addresses: [10.0.0.1]
            roles: &roles [node, typha]
            connection: &ssh {type: ssh, user: ops, port: 22}
          - <<: *first
            name: b
            addresses: [10.0.0.2]
          - name: c
            addresses: [10.0.0.3]
            roles: *roles
            connection: {<<: [{port: 23}, *ssh]}
        """)
    )

    assert [Connection(type="ssh", user="ops", port=port) for port in (22, 22, 23)] == [
        host.connection for host in inventory.hosts
    ]
    assert [(Role.NODE, Role.TYPHA)] * 3 == [host.roles for host in inventory.hosts]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    """
    A file that some editors begin with a byte order mark is read like any other.
    """
    assert loads(TWO) == loads(b"\xef\xbb\xbf" + TWO.encode())


ONE_LINE = {
    "an unknown key, with the nearest": (
        hosts("{name: a, adresses: [10.0.0.1], addresses: [10.0.0.1]}"),
        'i.yaml:2: hosts[0].adresses: unknown key; did you mean "addresses"?',
    ),
    "an unknown key like no other": (
        hosts("{name: a, addresses: [10.0.0.1], colour: red}"),
        (
            "i.yaml:2: hosts[0].colour: unknown key; "
            "expected one of name, addresses, roles, connection, sudo, become, python"
        ),
    ),
    "an unknown key at the top": (TWO + "prots: {}\n", 'i.yaml:4: prots: unknown key; did you mean "ports"?'),
    "an unknown key of the defaults": (
        TWO + "defaults:\n  sudoo: true\n",
        'i.yaml:5: defaults.sudoo: unknown key; did you mean "sudo"?',
    ),
    "an unknown key of a connection": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: ssh, usr: x}}"),
        'i.yaml:2: hosts[0].connection.usr: unknown key; did you mean "user"?',
    ),
    "a key that is a number": (
        TWO + "5: x\n",
        (
            "i.yaml:4: 5: unknown key; expected one of hosts, defaults, probes, modes, ports, pod_cidr, "
            "service_cidr"
        ),
    ),
    "a key that would break the line": (
        TWO + '"a\\nb": x\n',
        (
            'i.yaml:4: "a\\nb": unknown key; expected one of hosts, defaults, probes, modes, ports, '
            "pod_cidr, service_cidr"
        ),
    ),
    "a key that is a list": (TWO + "? [a]\n: b\n", "i.yaml:4: expected a key, got a list"),
    "a duplicate key": (
        "hosts:\n  - name: a\n    addresses: [10.0.0.1]\n    name: b\n  - {name: c, addresses: [10.0.0.2]}\n",
        "i.yaml:4: hosts[0].name: duplicate key; the first is in line 2",
    ),
    "a merge of something else": (
        hosts("{name: a, addresses: [10.0.0.1], <<: 5}"),
        'i.yaml:2: "<<" merges mappings, got 5',
    ),
    "an empty file": ("", 'i.yaml:1: it is empty; expected a mapping with the key "hosts"'),
    "only a comment": ("# nothing\n", 'i.yaml:1: it is empty; expected a mapping with the key "hosts"'),
    "a list": ("- a\n", 'i.yaml:1: expected a mapping with the key "hosts", got a list'),
    "a word": ("hello\n", 'i.yaml:1: expected a mapping with the key "hosts", got "hello"'),
    "nothing but null": ("~\n", 'i.yaml:1: expected a mapping with the key "hosts", got nothing'),
    "no hosts": ("probes: [bgp]\n", "i.yaml:1: hosts: missing"),
    "one host": (
        "\nhosts: [{name: a, addresses: [10.0.0.1]}]\n",
        "i.yaml:2: hosts: expected at least two hosts, got 1",
    ),
    "an empty list of hosts": ("hosts: []\n", "i.yaml:1: hosts: expected at least two hosts, got 0"),
    "hosts that are nothing": ("hosts:\n", "i.yaml:1: hosts: expected a list, got nothing"),
    "hosts by name": ("hosts: {a: {}}\n", "i.yaml:1: hosts: expected a list, got a mapping"),
    "a host that is a word": (
        hosts("a", "{name: z, addresses: [10.9.9.9]}"),
        'i.yaml:2: hosts[0]: expected a mapping, got "a"',
    ),
    "a host without a name": (hosts("{addresses: [10.0.0.1]}"), "i.yaml:2: hosts[0].name: missing"),
    "a host without addresses": (hosts("{name: a}"), "i.yaml:2: hosts[0].addresses: missing"),
    "a duplicate name": (
        hosts("{name: a, addresses: [10.0.0.1]}", "{name: a, addresses: [10.0.0.2]}"),
        'i.yaml:3: hosts[1].name: duplicate name "a"; hosts[0] has it',
    ),
    "a name that YAML reads as false": (
        hosts("{name: no, addresses: [10.0.0.1]}"),
        'i.yaml:2: hosts[0].name: expected text, got "no", which YAML reads as false; quote it: "no"',
    ),
    "a name that is true": (
        hosts("{name: true, addresses: [10.0.0.1]}"),
        'i.yaml:2: hosts[0].name: expected text, got true; quote it: "true"',
    ),
    "a name that is a number": (
        hosts("{name: 17, addresses: [10.0.0.1]}"),
        'i.yaml:2: hosts[0].name: expected text, got 17; quote it: "17"',
    ),
    "a name in base 60": (
        hosts("{name: 1:20, addresses: [10.0.0.1]}"),
        (
            'i.yaml:2: hosts[0].name: expected text, got "1:20", '
            'which YAML reads as another number; quote it: "1:20"'
        ),
    ),
    "a name with an exponent": (
        hosts("{name: 1.e+3, addresses: [10.0.0.1]}"),
        (
            'i.yaml:2: hosts[0].name: expected text, got "1.e+3", '
            'which YAML reads as a number; quote it: "1.e+3"'
        ),
    ),
    "a name that is a date": (
        hosts("{name: 2024-01-01, addresses: [10.0.0.1]}"),
        (
            'i.yaml:2: hosts[0].name: expected text, got "2024-01-01", which YAML reads as a date; '
            'quote it: "2024-01-01"'
        ),
    ),
    "a name that is nothing": (
        hosts("{name: , addresses: [10.0.0.1]}"),
        "i.yaml:2: hosts[0].name: expected text, got nothing",
    ),
    "a name with a tag": (
        hosts("{name: !!python/name:os.system x, addresses: [10.0.0.1]}"),
        'i.yaml:2: hosts[0].name: expected text, got "x", which YAML reads as "python/name:os.system"',
    ),
    "an empty name": (
        hosts("{name: '', addresses: [10.0.0.1]}"),
        "i.yaml:2: hosts[0].name: must not be empty",
    ),
    "a port in octal": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {port: 022}}"),
        (
            "i.yaml:2: hosts[0].connection.port: expected a number from 1 to 65535, "
            'got "022", which YAML reads as another number'
        ),
    ),
    "a port in quotes": (
        hosts('{name: a, addresses: [10.0.0.1], connection: {port: "22"}}'),
        'i.yaml:2: hosts[0].connection.port: expected a number from 1 to 65535, got "22"; remove the quotes',
    ),
    "a port that is a word": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {port: ssh}}"),
        'i.yaml:2: hosts[0].connection.port: expected a number from 1 to 65535, got "ssh"',
    ),
    "sudo that is a word": (
        hosts("{name: a, addresses: [10.0.0.1], sudo: maybe}"),
        'i.yaml:2: hosts[0].sudo: expected true or false, got "maybe"',
    ),
    "an unknown role": (
        hosts("{name: a, addresses: [10.0.0.1], roles: [master]}"),
        'i.yaml:2: hosts[0].roles[0]: unknown role "master"; expected one of node, typha, apiserver, etcd',
    ),
    "a role twice": (
        hosts("{name: a, addresses: [10.0.0.1], roles: [node, node]}"),
        'i.yaml:2: hosts[0].roles[1]: "node" is in the list already',
    ),
    "no roles": (
        hosts("{name: a, addresses: [10.0.0.1], roles: []}"),
        "i.yaml:2: hosts[0].roles: expected at least one element, got an empty list",
    ),
    "a role without a list": (
        hosts("{name: a, addresses: [10.0.0.1], roles: node}"),
        'i.yaml:2: hosts[0].roles: expected a list, got "node"; write ["node"]',
    ),
    "an unknown type of connection": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: sssh}}"),
        'i.yaml:2: hosts[0].connection.type: unknown connection type "sssh"; did you mean "ssh"?',
    ),
    "a connection that is a word": (
        hosts("{name: a, addresses: [10.0.0.1], connection: ssh}"),
        'i.yaml:2: hosts[0].connection: expected a mapping, got "ssh"',
    ),
    "an option of another type": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: ssh, name: x}}"),
        (
            'i.yaml:2: hosts[0].connection.name: not an option of "ssh", '
            "which has host, user, port, identity, options"
        ),
    ),
    "an option of a type that has none": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: local, host: x}}"),
        'i.yaml:2: hosts[0].connection.host: not an option of "local", which has none',
    ),
    "defaults with an option of another type": (
        TWO + "defaults: {connection: {type: ssh, argv: [x]}}\n",
        (
            'i.yaml:4: defaults.connection.argv: not an option of "ssh", '
            "which has host, user, port, identity, options"
        ),
    ),
    "a node that is a pod": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: kubectl, pod: p, node: n}}"),
        'i.yaml:2: hosts[0].connection.node: beside "pod"; expected one of them',
    ),
    "an image for a pod that is there": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: kubectl, pod: p, image: i}}"),
        'i.yaml:2: hosts[0].connection.image: beside "pod"; expected one of them',
    ),
    "defaults with a node that is a pod": (
        TWO + "defaults: {connection: {type: kubectl, pod: p, node: n}}\n",
        'i.yaml:4: defaults.connection.node: beside "pod"; expected one of them',
    ),
    "sudo in a container": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: kubectl}, sudo: true}"),
        (
            'i.yaml:2: hosts[0].sudo: nothing is run by it in a container of "kubectl"; '
            "expected a container whose user is root"
        ),
    ),
    "a host's name that no node has": (
        hosts("{name: Node_A, addresses: [10.0.0.1], connection: {type: kubectl}}"),
        (
            'i.yaml:2: hosts[0].connection.node: missing; "Node_A", the host\'s own name, is none that a '
            "node can have"
        ),
    ),
    "a pod that is no name": (
        hosts('{name: a, addresses: [10.0.0.1], connection: {type: kubectl, pod: "--x"}}'),
        (
            "i.yaml:2: hosts[0].connection.pod: expected a name that Kubernetes takes "
            '(lower case letters, digits, "-", "."), got "--x"'
        ),
    ),
    "a kubeconfig in a home that is not there": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: kubectl, kubeconfig: ~no-such-user/c}}"),
        'i.yaml:2: hosts[0].connection.kubeconfig: there is no such home directory: "~no-such-user/c"',
    ),
    "netns without a name": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: netns}}"),
        'i.yaml:2: hosts[0].connection.name: missing; "netns" needs the name of a network namespace',
    ),
    "command without argv, by the defaults": (
        hosts(
            "{name: a, addresses: [10.0.0.1]}", "{name: b, addresses: [10.0.0.2], connection: {type: local}}"
        )
        + "defaults: {connection: {type: command}}\n",
        (
            "i.yaml:2: hosts[0].connection.argv: missing; "
            '"command" needs the command to run the interpreter with'
        ),
    ),
    "command with an empty argv": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: command, argv: []}}"),
        "i.yaml:2: hosts[0].connection.argv: expected at least one element, got an empty list",
    ),
    "an ssh host that ssh would take for an option": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {host: -oProxyCommand=x}}"),
        'i.yaml:2: hosts[0].connection.host: must not begin with "-", got "-oProxyCommand=x"',
    ),
    "a user that ssh would take for an option": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {user: -x}}"),
        'i.yaml:2: hosts[0].connection.user: must not begin with "-", got "-x"',
    ),
    "an ssh host with blanks": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {host: a b}}"),
        'i.yaml:2: hosts[0].connection.host: must not have blanks, got "a b"',
    ),
    "a namespace that is a path": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: netns, name: ../x}}"),
        (
            "i.yaml:2: hosts[0].connection.name: "
            'expected the name of a network namespace (as in `ip netns list`), got "../x"'
        ),
    ),
    "a namespace that is a directory": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {type: netns, name: ..}}"),
        (
            "i.yaml:2: hosts[0].connection.name: "
            'expected the name of a network namespace (as in `ip netns list`), got ".."'
        ),
    ),
    "a text without end": (
        hosts(f"{{name: a, addresses: [10.0.0.1], python: [{'x' * 4097}]}}"),
        "i.yaml:2: hosts[0].python[0]: longer than 4,096 characters",
    ),
    "an argument with half a character": (
        hosts('{name: a, addresses: [10.0.0.1], python: ["\\ud800"]}'),
        "i.yaml:2: hosts[0].python[0]: must not have the character U+D800",
    ),
    "a home that is nobody's": (
        hosts("{name: a, addresses: [10.0.0.1], connection: {identity: ~no-such-user/id}}"),
        'i.yaml:2: hosts[0].connection.identity: there is no such home directory: "~no-such-user/id"',
    ),
    "an argument with a zero byte": (
        hosts('{name: a, addresses: [10.0.0.1], python: ["py\\0"]}'),
        "i.yaml:2: hosts[0].python[0]: must not have the character U+0000",
    ),
    "an unknown probe": (
        TWO + "probes: [bpg]\n",
        'i.yaml:4: probes[0]: unknown probe "bpg"; did you mean "bgp"?',
    ),
    "an unknown mode": (
        TWO + "modes: [vxlan, ipip-subnet]\n",
        'i.yaml:4: modes[1]: unknown mode "ipip-subnet"; did you mean "ipip-crosssubnet"?',
    ),
    "no probes": (TWO + "probes: []\n", "i.yaml:4: probes: expected at least one element, got an empty list"),
    "no modes": (TWO + "modes: []\n", "i.yaml:4: modes: expected at least one element, got an empty list"),
    "probes that are nothing": (TWO + "probes:\n", "i.yaml:4: probes: expected a list, got nothing"),
    "ports of an unknown probe": (
        TWO + "ports: {bpg: [179]}\n",
        'i.yaml:4: ports.bpg: unknown probe "bpg"; did you mean "bgp"?',
    ),
    "ports of a probe that has none": (
        TWO + "ports: {ipip: [4]}\n",
        'i.yaml:4: ports.ipip: "ipip" is an IP protocol of its own and has no ports',
    ),
    "a port without a list": (
        TWO + "ports: {typha: 5473}\n",
        "i.yaml:4: ports.typha: expected a list, got 5473; write [5473]",
    ),
    "no ports": (
        TWO + "ports: {typha: []}\n",
        "i.yaml:4: ports.typha: expected at least one element, got an empty list",
    ),
    "a port twice": (TWO + "ports: {typha: [5, 5]}\n", "i.yaml:4: ports.typha[1]: 5 is in the list already"),
    "port 0": (
        TWO + "ports: {typha: [0]}\n",
        "i.yaml:4: ports.typha[0]: expected a number from 1 to 65535, got 0",
    ),
    "port 65536": (
        TWO + "ports: {typha: [65536]}\n",
        "i.yaml:4: ports.typha[0]: expected a number from 1 to 65535, got 65536",
    ),
    "a port that is true": (
        TWO + "ports: {typha: [yes]}\n",
        'i.yaml:4: ports.typha[0]: expected a number from 1 to 65535, got "yes", which YAML reads as true',
    ),
    "IPIP asked of a host with IPv6 only": (
        hosts("{name: a, addresses: [10.0.0.1]}", '{name: b, addresses: ["fd00::2"]}')
        + "probes: [bgp, ipip]\n",
        'i.yaml:4: probes[1]: "ipip" is IPv4 only, and b has no IPv4 address',
    ),
    "WireGuard for IPv6 asked of hosts with IPv4 only": (
        TWO + "probes: [wireguard-v6]\n",
        'i.yaml:4: probes[0]: "wireguard-v6" is IPv6 only, and a and 1 more have no IPv6 address',
    ),
    "a duplicate address": (
        hosts("{name: a, addresses: [10.0.0.1]}", "{name: b, addresses: [10.0.0.1]}"),
        'i.yaml:3: hosts[1].addresses[0]: duplicate address "10.0.0.1"; hosts[0] has it',
    ),
    "a duplicate address in another spelling": (
        hosts('{name: a, addresses: ["fd00::1"]}', '{name: b, addresses: ["FD00:0:0::1"]}'),
        'i.yaml:3: hosts[1].addresses[0]: duplicate address "FD00:0:0::1" (fd00::1); hosts[0] has it',
    ),
    "no addresses": (
        hosts("{name: a, addresses: []}"),
        "i.yaml:2: hosts[0].addresses: expected at least one element, got an empty list",
    ),
    "an address without a list": (
        hosts("{name: a, addresses: 10.0.0.1}"),
        'i.yaml:2: hosts[0].addresses: expected a list, got "10.0.0.1"; write ["10.0.0.1"]',
    ),
    "an IPv6 address that YAML reads as a mapping": (
        hosts("{name: a, addresses: [fd00::]}"),
        (
            "i.yaml:2: hosts[0].addresses[0]: expected text, got a mapping; "
            "quote an address that ends with a colon"
        ),
    ),
    "an IPv6 address that YAML reads as a number": (
        hosts("{name: a, addresses: [2001:10:20:30:40:50:10:11]}"),
        (
            'i.yaml:2: hosts[0].addresses[0]: expected text, got "2001:10:20:30:40:50:10:11", '
            'which YAML reads as another number; quote it: "2001:10:20:30:40:50:10:11"'
        ),
    ),
    "an IPv6 address that is no YAML": (
        hosts("{name: a, addresses: [::1]}"),
        (
            "i.yaml:2: not YAML: expected the node content, but found ':'; "
            "quote an address that begins or ends with a colon"
        ),
    ),
    "a range of pods with bits behind its prefix": (
        TWO + "pod_cidr: 10.244.0.1/16\n",
        'i.yaml:4: pod_cidr: "10.244.0.1/16" has bits set behind its prefix; write 10.244.0.0/16',
    ),
    "a range of pods that is an address": (
        TWO + "pod_cidr: [10.244.0.0]\n",
        ('i.yaml:4: pod_cidr[0]: expected a network, as 10.244.0.0/16 or fd00:10:244::/56, got "10.244.0.0"'),
    ),
    "a range of pods that is a word": (
        TWO + "pod_cidr: default\n",
        'i.yaml:4: pod_cidr: expected a network, as 10.244.0.0/16 or fd00:10:244::/56, got "default"',
    ),
    "a range of pods that is nothing": (
        TWO + "pod_cidr:\n",
        "i.yaml:4: pod_cidr: expected text, got nothing",
    ),
    "a range of pods without an address to send from": (
        TWO + "pod_cidr: 10.244.0.2/31\n",
        'i.yaml:4: pod_cidr: "10.244.0.2/31" has no address to send from; expected at least 4 addresses',
    ),
    "a range of pods that no network routes": (
        TWO + 'pod_cidr: "fe80::/64"\n',
        'i.yaml:4: pod_cidr: "fe80::/64" is a link-local address; write one that is routed',
    ),
    "a second range of pods of a family": (
        TWO + "pod_cidr: [10.244.0.0/16, 10.245.0.0/16]\n",
        "i.yaml:4: pod_cidr[1]: a second range of IPv4; expected one of each family",
    ),
    "two ranges of services of one family": (
        TWO + "service_cidr: [10.96.0.0/16, 10.97.0.0/16]\n",
        "i.yaml:4: service_cidr[1]: a second range of IPv4; expected one of each family",
    ),
    "a range of services that has a host in it": (
        TWO + "service_cidr: 10.0.0.0/16\n",
        (
            'i.yaml:4: service_cidr: 10.0.0.0/16 has 10.0.0.1 in it, the address of "a"; '
            "expected a range of addresses that only services have"
        ),
    ),
    "a range of pods with a host in it": (
        TWO + "pod_cidr: 10.0.0.0/16\n",
        (
            'i.yaml:4: pod_cidr: 10.0.0.0/16 has 10.0.0.1 in it, the address of "a"; '
            "expected a range of addresses that only pods have"
        ),
    ),
    "a range of pods of a family that no two nodes have": (
        TWO + 'pod_cidr: "fd00:10:244::/56"\n',
        "i.yaml:4: pod_cidr: no packet can be sent as if from there: no two such hosts have IPv6 addresses",
    ),
    "packets of pods without their range": (
        TWO + "probes: [bgp, pod-route]\n",
        (
            'i.yaml:4: probes[1]: "pod-route" sends as if from pods, '
            "and needs the range of their addresses: pod_cidr"
        ),
    ),
    "a syntax error": (
        TWO + "probes: [bgp\n",
        "i.yaml:5: not YAML: expected ',' or ']', but got '<stream end>'",
    ),
    "an unknown alias": (TWO + "probes: *x\n", "i.yaml:4: not YAML: found undefined alias 'x'"),
    "two documents": (
        TWO + "---\n" + TWO,
        "i.yaml:4: not YAML: expected a single document in the stream, but found another document",
    ),
    "a control character": (TWO + "# \x07\n", "i.yaml:4: not YAML: it has the character U+0007"),
    "something that is not UTF-8": (TWO.encode() + b"# \xe9\n", "i.yaml:4: not UTF-8: byte 0xe9"),
}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10.244.0.0/16", ("10.244.0.0/16",)),
        ("[10.244.0.0/16]", ("10.244.0.0/16",)),
        ("10.244.0.0/255.255.0.0", ("10.244.0.0/16",)),
        ("10.244.0.0/30", ("10.244.0.0/30",)),
        ("[10.244.0.0/16, FD00:10:244::0/56]", ("10.244.0.0/16", "fd00:10:244::/56")),
    ],
)
def test_the_range_of_pods_is_one_network_or_one_of_each_family(
    written: str, expected: tuple[str, ...]
) -> None:
    """
    As YAML has it, with or without a list; it is kept as networks are usually written.
    """
    assert expected == loads(f"{TWO}pod_cidr: {written}\n").pod_cidr


def test_an_address_that_is_not_probed_may_be_one_of_pods() -> None:
    """
    A host's second address of a family can be its tunnel's, which is one of the range.
    """
    text = hosts("{name: a, addresses: [10.0.0.1, 10.244.7.1]}", "{name: b, addresses: [10.0.0.2]}")

    assert ("10.244.0.0/16",) == loads(text + "pod_cidr: 10.244.0.0/16\n").pod_cidr


@pytest.mark.parametrize(("text", "expected"), ONE_LINE.values(), ids=ONE_LINE.keys())
def test_a_wrong_inventory_is_told_in_one_line(text: str | bytes, expected: str) -> None:
    """
    Each mistake is one line: file, line, key, what was expected, and the nearest thing that would be right.
    """
    assert [expected] == errors(text)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("node-a", 'expected an IPv4 or IPv6 address, got "node-a"'),
        ("10.0.0.256", 'expected an IPv4 or IPv6 address, got "10.0.0.256"'),
        ("010.0.0.1", 'expected an IPv4 or IPv6 address, got "010.0.0.1"'),
        ("10.0.0.1:179", 'expected an IPv4 or IPv6 address, got "10.0.0.1:179"'),
        ("10.0.0.1/24", '"10.0.0.1/24" has a prefix length; write the host\'s address alone: "10.0.0.1"'),
        ("fd00::1/64", '"fd00::1/64" has a prefix length; write the host\'s address alone: "fd00::1"'),
        ("x/24", 'expected an IPv4 or IPv6 address, got "x/24"'),
        ("0.0.0.0", '"0.0.0.0" is the unspecified address, which no host has'),
        ("::", '"::" is the unspecified address, which no host has'),
        ("127.0.0.1", '"127.0.0.1" is a loopback address, which no other host can reach'),
        ("::1", '"::1" is a loopback address, which no other host can reach'),
        ("224.0.0.5", '"224.0.0.5" is a multicast address; a flow ends at one host'),
        ("ff02::5", '"ff02::5" is a multicast address; a flow ends at one host'),
        ("169.254.1.1", '"169.254.1.1" is a link-local address; write one that is routed'),
        ("fe80::1", '"fe80::1" is a link-local address; write one that is routed'),
        ("fe80::1%eth0", '"fe80::1%eth0" is a link-local address; write one that is routed'),
        ("fd00::1%eth0", '"fd00::1%eth0" has a zone, which only a link-local address can have'),
        ("::ffff:10.0.0.1", '"::ffff:10.0.0.1" is an IPv4 address in IPv6 form; write 10.0.0.1'),
        ("0.1.2.3", '"0.1.2.3" is in 0.0.0.0/8, which no host has'),
        ("255.255.255.255", '"255.255.255.255" is in 240.0.0.0/4, which no host has'),
        ("", "must not be empty"),
    ],
)
def test_an_address_that_no_flow_can_have_is_refused(address: str, why: str) -> None:
    """
    What is no address, or none that another host can reach, is refused with the reason.
    """
    text = hosts(f'{{name: a, addresses: ["{address}"]}}')

    assert [f"i.yaml:2: hosts[0].addresses[0]: {why}"] == errors(text)


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "a\\tb", "a\\nb", "ä", "a,b", "a\\u202Eb", "x" * 254])
def test_a_host_name_is_fit_for_every_output(name: str) -> None:
    """
    A name stands in tables, in CSV and on command lines: blanks, control characters and a leading dash are
    refused.
    """
    expected = (
        'i.yaml:2: hosts[0].name: expected a name of letters, digits, "_", "." and "-" '
        'that does not begin with "." or "-", got '
    )

    [line] = errors(hosts(f'{{name: "{name}", addresses: [10.0.0.1]}}'))

    assert expected == line[: len(expected)]
    assert line.isprintable()


def test_all_mistakes_are_told_in_the_order_of_the_file() -> None:
    """
    One look at the errors is enough to mend the whole file.
    """
    text = textwrap.dedent("""\
        ports: {ipip: [4]}
        hosts:
          - name: a
            addresses: [10.0.0.1]
          - name: a
            addresses: [10.0.0.1]
            colour: red
          - addresses: [fe80::1]
        """)

    assert [
        'i.yaml:1: ports.ipip: "ipip" is an IP protocol of its own and has no ports',
        'i.yaml:5: hosts[1].name: duplicate name "a"; hosts[0] has it',
        'i.yaml:6: hosts[1].addresses[0]: duplicate address "10.0.0.1"; hosts[0] has it',
        (
            "i.yaml:7: hosts[1].colour: unknown key; "
            "expected one of name, addresses, roles, connection, sudo, become, python"
        ),
        "i.yaml:8: hosts[2].name: missing",
        'i.yaml:8: hosts[2].addresses[0]: "fe80::1" is a link-local address; write one that is routed',
    ] == errors(text)


@pytest.mark.parametrize(
    ("mistakes", "last"), [(21, "i.yaml: and 1 more error"), (23, "i.yaml: and 3 more errors")]
)
def test_no_more_than_twenty_mistakes_are_told(mistakes: int, last: str) -> None:
    """
    After twenty lines the rest is only counted.
    """
    lines = errors(TWO + "probes: [" + ", ".join(f"x{number}" for number in range(mistakes)) + "]\n")

    assert 21 == len(lines)
    assert last == lines[-1]


def test_a_host_that_a_probe_does_not_concern_may_lack_its_family() -> None:
    """
    An IPv4-only probe between nodes says nothing against an etcd host with IPv6 only.
    """
    text = TWO + '  - {name: c, addresses: ["fd00::3"], roles: [etcd]}\nprobes: [ipip]\n'

    assert ("ipip",) == loads(text).probes


def test_a_mistake_behind_an_alias_is_told_once() -> None:
    """
    What is written once and used twice is wrong once.
    """
    text = hosts(
        "{name: a, addresses: [10.0.0.1], connection: &c {<<: 5, type: local}}",
        "{name: b, addresses: [10.0.0.2], connection: *c}",
    )

    assert ['i.yaml:2: "<<" merges mappings, got 5'] == errors(text)


@pytest.mark.parametrize("text", [TWO + "probes: " + "[" * 5000, TWO + "probes: " + "[" * 40 + "]" * 40])
def test_deep_nesting_is_refused(text: str) -> None:
    """
    Nesting that would exhaust the stack is an error like any other.
    """
    assert ["i.yaml:4: not YAML: nested deeper than 32 levels"] == errors(text)


def test_aliases_of_aliases_are_bounded() -> None:
    """
    A few lines that mean a billion values are refused before they are unfolded.
    """
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    text = hosts("{name: a, addresses: [10.0.0.1], <<: *a11}")

    assert ["i.yaml: more than 200,000 values, with each alias counted whenever it is used"] == errors(
        "\n".join(lines) + "\n" + text
    )


def test_an_alias_of_itself_ends() -> None:
    """
    A mapping that merges itself, and a list that contains itself, are read without end nowhere.
    """
    text = "hosts: &h\n  - &a {name: a, addresses: [10.0.0.1], <<: *a}\n  - *h\n"

    assert ["i.yaml:1: hosts[1]: expected a mapping, got a list"] == errors(text)


def test_a_huge_file_is_refused() -> None:
    """
    What is larger than any inventory is not even parsed.
    """
    assert ["i.yaml: larger than 1 MiB, which no inventory is"] == errors(b"#" * (document.MAX_BYTES + 1))


def test_a_thousand_hosts_are_within_the_bounds() -> None:
    """
    The largest cluster that netprobe is built for fits.
    """
    entries = [
        f"{{name: n{n}, addresses: [10.0.{n // 250}.{n % 250 + 1}, 'fd00::{n + 1:x}'], roles: [node, etcd]}}"
        for n in range(1000)
    ]

    assert 1000 == len(loads(hosts(*entries)).hosts)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(make: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    """
    The operating system's own words say why a file cannot be read.
    """
    path = tmp_path / "i.yaml"
    make(path)

    with pytest.raises(InventoryError) as caught:
        load(path)

    assert f"{path}: cannot read it: {why}" == str(caught.value)


def test_a_file_is_read_like_a_text(tmp_path: Path) -> None:
    """
    `load` gives what `loads` gives, and calls errors by the path that it was given.
    """
    path = tmp_path / "i.yaml"
    path.write_text(TWO)

    assert loads(TWO) == load(path)


def test_connection_types_are_the_transports() -> None:
    """
    The inventory knows exactly the connections that there is a transport for, and each of their options.
    """
    assert set(transports.registry()) == set(CONNECTIONS)
    assert set(ConnectionEntry.__struct_fields__) == set(Connection.__struct_fields__)
    options = {option for kind in CONNECTIONS.values() for option in kind.options}
    assert {*options, "type"} == set(Connection.__struct_fields__)


def test_what_is_of_no_use_in_a_container_is_not_its_own() -> None:
    """
    The sudo of the defaults is for the other hosts, and their pod not that of a host that is a node.
    """
    inventory = loads(
        hosts(
            "{name: a, addresses: [10.0.0.1]}",
            "{name: b, addresses: [10.0.0.2], connection: {node: n}}",
            "{name: c, addresses: [10.0.0.3], connection: {type: local}}",
        )
        + "defaults: {sudo: true, connection: {type: kubectl, pod: p, context: x}}\n"
    )

    assert [False, False, True] == [host.sudo for host in inventory.hosts]
    assert [
        Connection(type="kubectl", pod="p", context="x"),
        Connection(type="kubectl", node="n", context="x"),
        Connection(type="local"),
    ] == [host.connection for host in inventory.hosts]


def test_the_dump_says_nothing_that_goes_without_saying() -> None:
    """
    A dumped inventory has no defaults in it.
    """
    expected = textwrap.dedent("""\
        hosts:
        - name: a
          addresses: [10.0.0.1]
          connection: {type: ssh}
        - name: b
          addresses: [10.0.0.2]
          connection: {type: ssh}
        """)

    assert expected == dump(loads(TWO))


THREE = hosts(
    '{name: a, addresses: [10.0.0.1, "fd00::1"]}',
    '{name: b, addresses: [10.0.0.2, "fd00::2"]}',
    "{name: c, addresses: [10.0.0.3]}",
)


def test_the_command_line_takes_the_place_of_the_inventorys_probes_and_modes() -> None:
    """
    `--probe` or `--mode` decide alone what is probed, each name once.
    """
    inventory = loads(THREE + "probes: [bgp]\nmodes: [none]\n")

    by_probe = narrow(inventory, probes=["vxlan", "ipip", "vxlan"])
    by_mode = narrow(inventory, modes=["vxlan"])

    assert (("vxlan", "ipip"), None) == (by_probe.probes, by_probe.modes)
    assert (None, ("vxlan",)) == (by_mode.probes, by_mode.modes)


def test_without_options_an_inventory_stays_as_it_is() -> None:
    """
    Narrowing by nothing changes nothing.
    """
    assert loads(THREE) == narrow(loads(THREE))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"probes": ["vxlna"]}, '--probe: unknown probe "vxlna"; did you mean "vxlan"?'),
        ({"modes": ["VXLAN-cross"]}, '--mode: unknown mode "VXLAN-cross"; did you mean "vxlan-crosssubnet"?'),
        ({"only": ["x", "a"]}, '--only: unknown host "x"; expected one of a, b, c'),
        (
            {"probes": ["wireguard-v6"]},
            '--probe wireguard-v6: "wireguard-v6" is IPv6 only, and c has no IPv6 address',
        ),
        ({"probes": ["ipip"], "families": [Family.IPV6]}, '--probe ipip: "ipip" is IPv4 only'),
    ],
)
def test_options_that_leave_nothing_are_refused(options: dict[str, list[str]], expected: str) -> None:
    """
    An unknown name, or a choice that cannot be, is one line in the words of the command line.
    """
    with pytest.raises(InventoryError) as caught:
        narrow(loads(THREE), **options)  # type: ignore[arg-type]

    assert expected == str(caught.value)


RANGED = THREE + "pod_cidr: 10.244.0.0/16\n"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (
            THREE,
            {"probes": ["pod-route"]},
            (
                '--probe pod-route: "pod-route" sends as if from pods, '
                "and needs the range of their addresses: pod_cidr"
            ),
        ),
        (
            RANGED,
            {"probes": ["pod-route"], "families": [Family.IPV6]},
            '--probe pod-route: "pod_cidr" is IPv4 only',
        ),
        (
            RANGED,
            {"modes": ["none"], "families": [Family.IPV6]},
            '--mode none: "none" needs pod-route, and --family leaves only IPv6: pod_cidr is IPv4 only',
        ),
        (
            RANGED,
            {"modes": ["none"], "probes": ["bgp"]},
            '--mode none: "none" needs pod-route, which --probe leaves out',
        ),
    ],
)
def test_packets_of_pods_that_were_asked_for_and_cannot_be_sent_are_refused(
    text: str, options: dict[str, list[str]], expected: str
) -> None:
    """
    For lack of a range, or of one of the family that was asked for.
    """
    with pytest.raises(InventoryError) as caught:
        narrow(loads(text), **options)  # type: ignore[arg-type]

    assert expected == str(caught.value)


def test_a_mode_that_would_need_packets_of_pods_may_be_asked_for_without_a_range() -> None:
    """
    It is judged by what else it needs.
    """
    assert ("none",) == narrow(loads(THREE), modes=["none"], probes=["bgp"]).modes
    assert ("none",) == narrow(loads(THREE), modes=["none"], families=[Family.IPV6]).modes


SIX = hosts('{name: a, addresses: ["fd00::1"]}', '{name: b, addresses: ["fd00::2"]}')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            SIX + "modes: [none, ipip]\n",
            'i.yaml:4: modes[1]: "ipip" needs ipip, and no two such hosts have IPv4 addresses',
        ),
        (
            THREE + "modes:\n- none\n- typha\n",
            'i.yaml:7: modes[1]: "typha" needs typha, and no host has the role typha',
        ),
        (
            hosts("{name: a, addresses: [10.0.0.1]}", '{name: b, addresses: ["fd00::2"]}')
            + "modes: [wireguard]\n",
            (
                'i.yaml:4: modes[0]: "wireguard" needs wireguard, '
                "and no two such hosts have addresses of one family"
            ),
        ),
    ],
)
def test_a_mode_that_no_packet_could_be_sent_for_is_a_mistake(text: str, line: str) -> None:
    """
    As for a probe: line, key, and what its hosts lack.
    """
    assert [line] == errors(text)


def test_a_mode_that_some_hosts_can_have_is_none() -> None:
    """
    What the others lack is told by the run; and WireGuard needs one family, not both.
    """
    mixed = THREE.replace("10.0.0.3", '"fd00::3"') + "modes: [ipip, wireguard]\n"

    assert ("ipip", "wireguard") == loads(mixed).modes
    assert ("wireguard",) == loads(SIX + "modes: [wireguard]\n").modes
    assert ("bgp",) == loads(TWO + "probes: [bgp]\nmodes: [ipip, none]\n").probes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"modes": ["typha"]}, '--mode typha: "typha" needs typha, and no host has the role typha'),
        (
            {"modes": ["ipip"], "families": [Family.IPV6]},
            '--mode ipip: "ipip" needs ipip, and --family leaves only IPv6: ipip is IPv4 only',
        ),
        (
            {"families": [Family.IPV6]},
            'mode ipip: "ipip" needs ipip, and --family leaves only IPv6: ipip is IPv4 only',
        ),
        (
            {"probes": ["vxlan"], "modes": ["none", "vxlan"]},
            '--mode none: "none" needs bgp, which --probe leaves out',
        ),
        (
            {"probes": ["vxlan"], "modes": ["wireguard"]},
            '--mode wireguard: "wireguard" needs wireguard, which --probe leaves out',
        ),
        (
            {"modes": ["datastore-etcd"], "only": ["b"], "families": [Family.IPV6]},
            '--mode datastore-etcd: "datastore-etcd" needs etcd, of which --only b leaves no flow',
        ),
    ],
)
def test_options_that_leave_nothing_of_a_mode_are_refused(
    options: dict[str, list[str]], expected: str
) -> None:
    """
    A mode that was asked for and could not be judged, whatever gets through, is a mistake.
    """
    inventory = loads(
        hosts(
            '{name: a, addresses: [10.0.0.1, "fd00::1"]}',
            "{name: b, addresses: [10.0.0.2]}",
            '{name: c, addresses: [10.0.0.3, "fd00::3"], roles: [node, etcd]}',
        )
        + "modes: [none, ipip]\n"
    )

    with pytest.raises(InventoryError) as caught:
        narrow(inventory, **options)  # type: ignore[arg-type]

    assert expected == str(caught.value)


def test_options_that_leave_something_of_every_mode_stand() -> None:
    """
    WireGuard is one requirement in two families, and its other half is enough.
    """
    inventory = loads(
        TWO.replace("10.0.0.2", '10.0.0.2, "fd00::2"').replace("10.0.0.1", '10.0.0.1, "fd00::1"')
    )

    for family in Family:
        assert ("wireguard",) == narrow(inventory, modes=["wireguard"], families=[family]).modes
    assert ("none",) == narrow(inventory, modes=["none"], probes=["bgp", "vxlan"]).modes


_words = st.sampled_from(
    [
        "hosts",
        "name",
        "addresses",
        "connection",
        "defaults",
        "type",
        "ssh",
        "ports",
        "bgp",
        "<<",
        "10.0.0.1",
        "~",
    ]
)
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _words | st.dates()
_documents = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_words | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=24,
)


def _loads_or_refuses(text: str | bytes) -> None:
    lines: tuple[str, ...] = ("read",)
    try:
        loads(text)
    except InventoryError as error:
        lines = error.lines
    assert lines
    assert all(line.isprintable() for line in lines)


@given(_documents)
def test_any_document_is_read_or_refused(value: object) -> None:
    """
    Whatever YAML a program writes, the answer is an inventory or an `InventoryError` of printable lines.
    """
    _loads_or_refuses(yaml.safe_dump(value, allow_unicode=True))


@given(st.text() | st.binary() | st.text(alphabet="[]{}:,-&*a<>|'\"!? \n#%@"))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    """
    Whatever the bytes of a file are, the answer is an inventory or an `InventoryError`.
    """
    _loads_or_refuses(text)


@given(_documents, st.sampled_from(["hosts", "defaults", "ports", "probes", "modes"]))
def test_any_section_is_read_or_refused(value: object, key: str) -> None:
    """
    A document that is right but for one section is read or refused.
    """
    document = yaml.safe_load(TWO)
    document[key] = value
    _loads_or_refuses(yaml.safe_dump(document))


@given(_documents, st.sampled_from(["name", "addresses", "roles", "connection", "sudo", "python"]))
def test_any_host_is_read_or_refused(value: object, key: str) -> None:
    """
    A document that is right but for one key of a host is read or refused.
    """
    document = yaml.safe_load(TWO)
    document["hosts"][1][key] = value
    _loads_or_refuses(yaml.safe_dump(document))


_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_arguments = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8), min_size=1, max_size=3
)
_connections = st.one_of(
    st.just(Connection(type="local")),
    st.builds(Connection, type=st.just("netns"), name=_names),
    st.builds(Connection, type=st.just("command"), argv=_arguments.map(tuple)),
    st.builds(
        Connection,
        type=st.just("ssh"),
        host=_names,
        user=st.just("") | _names,
        port=st.just(0) | st.integers(1, 65535),
        options=st.just(()) | _arguments.map(tuple),
    ),
)


def _some(words: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), min_size=1, unique=True).map(tuple)


@st.composite
def _inventories(draw: st.DrawFn) -> Inventory:
    names = draw(st.lists(_names, min_size=2, max_size=5, unique=True))
    roles = st.lists(st.sampled_from(list(Role)), min_size=1, unique=True).map(tuple)
    hosts = tuple(
        Host(
            name=name,
            addresses=(f"10.0.0.{number}", f"fd00::{number:x}"),
            roles=draw(roles),
            connection=draw(_connections),
            sudo=draw(st.booleans()),
            python=tuple(draw(_arguments)),
        )
        for number, name in enumerate(names, start=1)
    )
    pod_cidr = draw(st.sampled_from([(), ("10.244.0.0/16",), ("10.244.0.0/16", "fd00:10:244::/56")]))
    bare = Inventory(hosts=hosts, pod_cidr=pod_cidr)
    # Without two nodes nothing can be sent as if from a pod.
    if any(probe.forwarded and not mesh.count(probe, hosts) for probe in mesh.probes(bare).values()):
        bare = Inventory(hosts=hosts)
    possible = [name for name, mode in MODES.items() if not mode_obstacle(mode, bare)]
    return Inventory(
        hosts=hosts,
        pod_cidr=bare.pod_cidr,
        service_cidr=draw(st.sampled_from([(), ("10.96.0.0/12",), ("fd00:10:96::/112", "10.96.0.0/12")])),
        probes=draw(st.none() | _some(list(mesh.probes(bare)))),
        modes=draw(st.none() | _some(possible)) if possible else None,
        ports=draw(
            st.dictionaries(
                st.sampled_from([name for name, probe in registry().items() if probe.ports]),
                st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True).map(tuple),
            )
        ),
    )


@given(_inventories())
def test_what_was_dumped_is_loaded_again(inventory: Inventory) -> None:
    """
    `loads` gives back what `dump` wrote, whatever the names look like to YAML.
    """
    assert inventory == loads(dump(inventory))
