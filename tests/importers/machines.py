"""What the machines of the Vagrantfile say of themselves behind VirtualBox's NAT, as iproute2 writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from hypothesis import strategies as st

from netprobe.importers.machines import Machine, machine_of

NAMES: Final = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True)
NAT: Final = "10.0.2.15/24"
LOOPBACK: Final = {
    "ifname": "lo",
    "link_type": "loopback",
    "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}],
}


def link(name: str, *addresses: str, kind: str = "ether", **flags: bool) -> dict[str, object]:
    """An interface in `ip -json address`."""
    entries = []
    for address in addresses:
        local, _, length = address.partition("/")
        family = "inet6" if ":" in local else "inet"
        entry = {"family": family, "local": local, "prefixlen": int(length), "scope": "global", **flags}
        entries.append(entry)
    return {"ifname": name, "link_type": kind, "addr_info": entries}


def said(
    links: Sequence[Mapping[str, object]],
    routes: Sequence[Mapping[str, object]] = (),
    *,
    login: str = "10.0.2.15",
) -> Machine:
    """A machine with these interfaces and routes, to which ssh came at an address of its own."""
    default = {"dst": "default", "gateway": "10.0.2.2", "dev": "eth0"}
    ends = f"10.0.2.2 40000 {login} 22"
    documents: Sequence[object] = (ends, [LOOPBACK, *links], [default, *routes], [])
    return machine_of("\n".join(map(json.dumps, documents)))


def of_the_vagrantfile() -> dict[str, Machine]:
    """All of them."""
    rack_1 = {"dst": "10.77.0.0/16", "gateway": "10.77.1.1", "dev": "eth1"}
    rack_2 = {**rack_1, "gateway": "10.77.2.1"}
    nat = link("eth0", NAT)
    return {
        "router": said([nat, link("eth1", "10.77.1.1/24"), link("eth2", "10.77.2.1/24")]),
        "node-1": said([nat, link("eth1", "10.77.1.11/24")], [rack_1]),
        "node-2": said([nat, link("eth1", "10.77.1.12/24")], [rack_1]),
        "node-3": said([nat, link("eth1", "10.77.2.11/24")], [rack_2]),
    }
