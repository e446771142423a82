"""From the text of an inventory to `model.Inventory`: the schema first, then what only the whole can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import msgspec

from netprobe import mesh
from netprobe.inventory import document
from netprobe.inventory.errors import KeyPath, Place, Problems, key_path, shown
from netprobe.inventory.narrow import mode_obstacle, probe_obstacle
from netprobe.inventory.schema import CONNECTIONS, DEFAULT_CONNECTION, ConnectionKind, Document, check_text
from netprobe.inventory.shape import WRONG, Walker
from netprobe.model import Family, Inventory
from netprobe.modes import MODES
from netprobe.probes import registry

Entry = Mapping[str, object]
"""A mapping of the document: checked against the schema, with `WRONG` for what did not pass."""

_MIN_HOSTS: Final = 2
_WAYS_TO_ROOT: Final = ("sudo", "become")
_RANGES: Final = {"pod_cidr": "pods", "service_cidr": "services"}
"""The keys that are ranges of addresses, and who has these."""
_FILES: Final = ("identity", "kubeconfig")
"""The options of a connection that are paths of this machine."""


def load(path: str | Path) -> Inventory:
    """The inventory in a file; `InventoryError` with all that is wrong with it."""
    return loads(document.read(Path(path), str(path)), str(path))


def loads(text: str | bytes, name: str = "<text>") -> Inventory:
    """The inventory in a text (bytes: in UTF-8), which errors call `name`; `InventoryError` like `load`."""
    problems = Problems(name)
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    root = document.compose(content, problems, name)
    words = {"probe": tuple(registry()), "mode": tuple(MODES), "connection type": tuple(CONNECTIONS)}
    walker = Walker(problems, name, words)
    data = walker.walk(root, msgspec.inspect.type_info(Document))
    whole = _Whole(data if isinstance(data, dict) else {}, problems, walker.places)
    whole.check()
    if problems:
        raise problems.error()
    inventory = whole.inventory()
    whole.check_needs(inventory)
    if problems:
        raise problems.error()
    return inventory


class _Whole:
    """What the parts of a document mean together."""

    def __init__(self, data: Entry, problems: Problems, places: Mapping[KeyPath, Place]) -> None:
        self._data = data
        self._problems = problems
        self._places = places
        self._defaults = _entry(data.get("defaults"))

    def _add(self, path: KeyPath, text: str) -> None:
        # What is missing has no place of its own: the nearest thing above it that was written has.
        written = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self._places)
        self._problems.add(self._places[written], path, text)

    def _hosts(self) -> Iterator[tuple[KeyPath, Entry]]:
        hosts = self._data.get("hosts")
        for index, host in enumerate(hosts if isinstance(hosts, list) else []):
            if isinstance(host, dict):
                yield ("hosts", index), host

    def check(self) -> None:
        """Find what is wrong between the parts; works on what passed the schema."""
        hosts = self._data.get("hosts")
        if isinstance(hosts, list) and len(hosts) < _MIN_HOSTS:
            self._add(("hosts",), f"expected at least two hosts, got {len(hosts)}")
        self._check_names()
        self._check_addresses()
        self._check_ports()
        for key, whose in _RANGES.items():
            self._check_ranges(key, whose)
        self._check_root(("defaults",), self._defaults)
        own = _entry(self._defaults.get("connection"))
        if isinstance(own.get("type"), str):
            self._check_options(("defaults", "connection"), str(own["type"]), own)
            self._check_apart(("defaults", "connection"), str(own["type"]), own)
        for path, host in self._hosts():
            self._check_root(path, host)
            self._check_connection(path, host)

    def _check_root(self, path: KeyPath, entry: Entry) -> None:
        if entry.get("sudo") is True and "become" in entry:
            self._add((*path, "become"), 'beside "sudo: true"; expected one way to become root')

    def _check_names(self) -> None:
        first: dict[str, KeyPath] = {}
        for path, host in self._hosts():
            name = host.get("name")
            if isinstance(name, str) and first.setdefault(name, path) != path:
                self._add((*path, "name"), f"duplicate name {shown(name)}; {_host_of(first[name])} has it")

    def _check_addresses(self) -> None:
        first: dict[str, KeyPath] = {}
        for path, host in self._hosts():
            addresses = host.get("addresses")
            for index, text in enumerate(addresses if isinstance(addresses, list) else []):
                here = (*path, "addresses", index)
                if isinstance(text, str) and first.setdefault(address := _normal(text), here) != here:
                    also = "" if text == address else f" ({address})"
                    self._add(
                        here, f"duplicate address {shown(text)}{also}; {_host_of(first[address])} has it"
                    )

    def _check_ports(self) -> None:
        for probe in _entry(self._data.get("ports")):
            if not registry()[probe].ports:
                self._add(("ports", probe), f"{shown(probe)} is an IP protocol of its own and has no ports")

    def _check_ranges(self, key: str, whose: str) -> None:
        ranges = self._data.get(key)
        versions: set[int] = set()
        for index, text in enumerate(ranges if isinstance(ranges, list) else []):
            if text is WRONG:
                continue
            here: KeyPath = (key, index)
            if here not in self._places:
                here = (key,)
            network = ip_network(text)
            if network.version in versions:
                self._add(here, f"a second range of IPv{network.version}; expected one of each family")
            versions.add(network.version)
            taken = next((each for each in self._probed() if ip_address(each[0]) in network), None)
            if taken is not None:
                expected = f"expected a range of addresses that only {whose} have"
                self._add(here, f"{network} has {taken[0]} in it, the address of {taken[1]}; {expected}")

    def _probed(self) -> Iterator[tuple[str, str]]:
        """The addresses that are probed, the first of each family, and the hosts that have them."""
        for path, host in self._hosts():
            addresses = host.get("addresses")
            first: dict[Family, str] = {}
            for text in addresses if isinstance(addresses, list) else []:
                if isinstance(text, str):
                    first.setdefault(Family.of(text), _normal(text))
            name = host.get("name")
            for address in first.values():
                yield address, shown(name) if isinstance(name, str) else _host_of(path)

    def _check_options(self, path: KeyPath, type_: str, options: Entry) -> None:
        known = CONNECTIONS[type_].options
        for option in options:
            if option not in ("type", *known):
                has = f"has {', '.join(known)}" if known else "has none"
                self._add((*path, option), f"not an option of {shown(type_)}, which {has}")

    def _check_apart(self, path: KeyPath, type_: str, options: Entry) -> None:
        for one, other in CONNECTIONS[type_].apart:
            if one in options and other in options:
                self._add((*path, other), f'beside "{one}"; expected one of them')

    def _check_no_way_to_root(self, path: KeyPath, host: Entry, type_: str) -> None:
        for key in _WAYS_TO_ROOT:
            if host.get(key, False) is not False:
                expected = "expected a container whose user is root"
                self._add((*path, key), f"nothing is run by it in a container of {shown(type_)}; {expected}")

    def _check_node_name(self, path: KeyPath, host: Entry) -> None:
        name = host.get("name")
        if isinstance(name, str) and check_text(name, "kubernetes name"):
            why = f"missing; {shown(name)}, the host's own name, is none that a node can have"
            self._add((*path, "connection", "node"), why)

    def _check_connection(self, path: KeyPath, host: Entry) -> None:
        if host.get("connection") is WRONG:
            return
        merged = self._connection(host)
        type_ = merged.get("type")
        if not isinstance(type_, str):
            return
        own = _entry(host.get("connection"))
        self._check_options((*path, "connection"), type_, own)
        self._check_apart((*path, "connection"), type_, own)
        kind = CONNECTIONS[type_]
        if not kind.as_root:
            self._check_no_way_to_root(path, host, type_)
        if type_ == "kubectl" and not merged.keys() & {"pod", "node"}:
            self._check_node_name(path, host)
        if kind.needs and kind.needs not in merged:
            self._add((*path, "connection", kind.needs), f"missing; {shown(type_)} needs {kind.need}")
        for key in _FILES:
            file = merged.get(key)
            if isinstance(file, str) and _expanded(file) is None:
                here = (*path, "connection") if key in own else ("defaults", "connection")
                self._add((*here, key), f"there is no such home directory: {shown(file)}")

    def _connection(self, host: Entry) -> dict[str, object]:
        """A host's own options over those defaults that are for the same type of connection."""
        own, defaults = _entry(host.get("connection")), _entry(self._defaults.get("connection"))
        type_ = own.get("type", defaults.get("type", DEFAULT_CONNECTION))
        if defaults.get("type", type_) != type_:
            defaults = {}
        kind = CONNECTIONS[type_] if isinstance(type_, str) else ConnectionKind()
        taken = {key for pair in kind.apart for key in pair if own.keys() & ({*pair} - {key})}
        options = set(kind.options) - taken
        return {**{key: value for key, value in defaults.items() if key in options}, **own, "type": type_}

    def inventory(self) -> Inventory:
        """The inventory of a document without problems."""
        hosts = []
        for _, host in self._hosts():
            connection = self._connection(host)
            for key in connection.keys() & _FILES:
                connection[key] = _expanded(str(connection[key]))
            addresses = [_normal(address) for address in msgspec.convert(host["addresses"], list[str])]
            own = {**host, "addresses": addresses, "connection": connection}
            hosts.append({**self._defaults_of(host, str(connection["type"])), **own})
        ranges = {key: msgspec.convert(self._data.get(key, []), list[str]) for key in _RANGES}
        networks = {key: [str(ip_network(text)) for text in texts] for key, texts in ranges.items()}
        return msgspec.convert({**self._data, "hosts": hosts, **networks}, Inventory)

    def _defaults_of(self, host: Entry, type_: str) -> Entry:
        """The defaults, without a way to become root where a host has its own, or can have none."""
        has_own = host.keys() & _WAYS_TO_ROOT or not CONNECTIONS[type_].as_root
        unwanted = _WAYS_TO_ROOT if has_own else ()
        return {key: value for key, value in self._defaults.items() if key not in unwanted}

    def check_needs(self, inventory: Inventory) -> None:
        """Find the probes that some host has no address for, and the modes that no hosts can have."""
        for index, name in enumerate(inventory.probes or ()):
            if obstacle := probe_obstacle(registry()[name], inventory):
                self._add(("probes", index), obstacle)
        for index, name in enumerate(inventory.modes or ()):
            if obstacle := mode_obstacle(MODES[name], inventory):
                self._add(("modes", index), obstacle)
        for probe in mesh.probes(inventory).values():
            if probe.forwarded and not mesh.count(probe, inventory.hosts):
                why = mesh.why_none(probe, inventory.hosts)
                self._add(("pod_cidr",), f"no packet can be sent as if from there: {why}")


def _entry(value: object) -> Entry:
    return value if isinstance(value, dict) else {}


def _host_of(path: KeyPath) -> str:
    return key_path(path[:2])


def _normal(address: str) -> str:
    return str(ip_address(address))


def _expanded(file: str) -> str | None:
    """A path with `~` replaced by the home directory; None where there is none."""
    try:
        return str(Path(file).expanduser())
    except RuntimeError:
        return None
