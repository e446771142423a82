"""Which addresses of Vagrant's machines are probed, and which machines are hosts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from netprobe.cli import app
from netprobe.importers import Imported, vagrant
from netprobe.importers.machines import Machine, machine_of
from netprobe.importers.ssh_config import Section
from netprobe.inventory import InventoryError
from tests.importers.machines import NAT, link, of_the_vagrantfile, said

SSH_CONFIG = Path(__file__).parent / "sources" / "vagrant-ssh-config"


def read(machines: dict[str, Machine], *, keeps_routers: bool = False) -> Imported:
    """The machines, with a place to log in to."""
    sections = [Section(name, (("HostName", "127.0.0.1"), ("User", "vagrant"))) for name in machines]
    return vagrant.read(sections, machines, "ssh-config", keeps_routers=keeps_routers)


def addresses(imported: Imported) -> dict[str, tuple[str, ...]]:
    """The addresses of each host."""
    return {found.host.name: found.host.addresses for found in imported.hosts}


def test_the_address_that_all_have_is_nobodys() -> None:
    """
    Behind VirtualBox's NAT each machine has 10.0.2.15, and with it whatever else that interface has.
    """
    nat = link("eth0", NAT, "fd17:625c:f037:2::1/64")
    machines = {name: said([nat, link("eth1", f"10.0.0.{name}/24")]) for name in "12"}
    machines["3"] = said([link("eth0", NAT, "fd17:625c:f037:2::3/64"), link("eth1", "10.0.0.3/24")])
    imported = read(machines)

    assert {name: (f"10.0.0.{name}",) for name in "123"} == addresses(imported)
    assert any(
        "several machines have it: 10.0.2.15, fd17:625c:f037:2::1" in remark for remark in imported.remarks
    )


def test_the_network_of_the_provider_is_not_the_one_to_probe() -> None:
    """
    With libvirt, machines are reached at an address of their own; it is probed where there is no other.
    """
    links = [link("eth0", "192.168.121.7/24"), link("eth1", "10.0.0.7/24", "fd00::7/64")]
    both = said(links, login="192.168.121.7")
    alone = said([link("eth0", "192.168.121.8/24")], login="192.168.121.8")

    assert {"a": ("10.0.0.7", "fd00::7"), "b": ("192.168.121.8",)} == addresses(read({"a": both, "b": alone}))


def test_one_machine_behind_the_nat_knows_it_as_well() -> None:
    """
    Where only one is asked, nothing is shared; but ssh came to that address.
    """
    imported = read({"a": said([link("eth0", NAT), link("eth1", "10.0.0.7/24")])})

    assert {"a": ("10.0.0.7",)} == addresses(imported)


def test_what_containers_have_is_no_address_of_the_machine() -> None:
    """
    Bridges, tunnels and loopbacks are left out, and so are addresses that a kernel would not use.
    """
    one = said(
        [
            link("docker0", "172.17.0.1/16"),
            link("cni0", "10.244.1.1/24"),
            link("tunl0", "10.244.1.0/32", kind="ipip"),
            link("vxlan.calico", "10.244.1.2/32"),
            link("eth1", "10.0.0.1/24"),
            link("eth2", "fd00::bad/64", deprecated=True),
            {},
        ]
    )

    assert ("10.0.0.1",) == addresses(read({"a": one}))["a"]


def test_of_several_addresses_the_first_is_probed_and_said() -> None:
    """
    All of them are in the file.
    """
    (found,) = read({"a": said([link("eth1", "10.0.0.1/24"), link("eth2", "10.1.0.1/24")])}).hosts

    assert ("10.0.0.1", "10.1.0.1") == found.host.addresses
    assert ("It has 2 IPv4 addresses; 10.0.0.1, the first, is probed.",) == found.remarks


def test_a_machine_without_an_address_is_told_with_the_fix() -> None:
    """
    A Vagrantfile without a network of its own has only what the provider needs.
    """
    with pytest.raises(InventoryError) as caught:
        read({name: said([link("eth0", NAT)]) for name in "ab"})

    fix = "a private_network in the Vagrantfile, or --address NAME=ADDRESS gives it instead"
    fix = f"it has no address of its own; {fix}"
    assert (f"ssh-config: a: {fix}", f"ssh-config: b: {fix}") == caught.value.lines


def test_a_router_between_machines_is_no_host() -> None:
    """
    Unless it is asked for by name; then all machines are.
    """
    machines = of_the_vagrantfile()

    assert {"node-1", "node-2", "node-3"} == addresses(read(machines)).keys()
    assert ("10.77.1.1", "10.77.2.1") == addresses(read(machines, keeps_routers=True))["router"]


def test_a_node_that_leads_to_pods_is_no_router() -> None:
    """
    Once Calico runs, each node is the gateway to the others' pods; no machine is beyond it.
    """
    machines = {
        name: said(
            [link("eth0", NAT), link("eth1", f"10.0.0.{name}/24")],
            [{"dst": f"10.244.{other}.0/24", "gateway": f"10.0.0.{other}", "dev": "eth1"} for other in "12"],
        )
        for name in "12"
    }

    assert {"1", "2"} == addresses(read(machines)).keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        '{"a": 1}',
        '"" [{"addr_info": 3}] [] []',
        '"" [] 1 2',
        "1 [] [] []",
        '"" [{"link_type": "ether", "addr_info": [{"local": "x", "scope": "global"}]}] [] []',
        '"" [] [{"dst": "x", "gateway": "10.0.0.1"}] []',
    ],
)
def test_what_is_no_list_of_addresses_is_refused(text: str) -> None:
    """
    A banner, an `ip` without `-json` (busybox), another document.
    """
    with pytest.raises(ValueError, match=r"."):
        machine_of(text)


def test_machines_that_cannot_be_asked_are_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A line for each: what ssh said, or what is no answer; and nothing is asked where the address is given.
    """
    program = tmp_path / "ssh"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nname = sys.argv[-2]\n"
        "if name == 'router': sys.exit('ssh: connect to host 127.0.0.1 port 2222: Connection refused')\n"
        "print('Welcome to', name)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    asking = ["inventory", "import", "vagrant", "--ssh-config", str(SSH_CONFIG)]
    assert 2 == app.status_of([*asking, "--address", "node-2=10.0.0.2", "--address", "node-3=10.0.0.3"])
    refused = "ssh: connect to host 127.0.0.1 port 2222: Connection refused"
    fix = "--address NAME=ADDRESS gives it instead"
    told = {
        "router": f"cannot ask it for its addresses by ssh: exit status 1: {refused}",
        "node-1": "cannot understand its `ip -json address`: Expecting value: line 1 column 1 (char 0)",
    }
    assert [
        f"netprobe: error: {SSH_CONFIG}: {name}: {why}; {fix}" for name, why in told.items()
    ] == capsys.readouterr().err.splitlines()

    given = [f"--address=node-{number}=10.0.0.{number}" for number in "123"]
    assert 0 == app.status_of([*asking, *given, "--role=router=none", "--role=node-1=node,etcd"])
    assert "roles: [node, etcd]" in capsys.readouterr().out
