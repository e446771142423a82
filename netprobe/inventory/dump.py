"""From `model.Inventory` back to the text of an inventory."""

from __future__ import annotations

import msgspec
import yaml

from netprobe.model import Connection, Host, Inventory

_NO_CONNECTION = Connection(type="")
_NO_HOST = Host(name="", addresses=())


def dump(inventory: Inventory) -> str:
    """An inventory as YAML, without what is the default anyway; `loads` gives the same inventory again."""
    document: dict[str, object] = {"hosts": [host_entry(host) for host in inventory.hosts]}
    document.update(_unlike(inventory, Inventory(hosts=inventory.hosts)))
    return written(document)


def written(value: object) -> str:
    """A value as YAML in the form that inventories have: what has nothing below it on one line."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def host_entry(host: Host) -> dict[str, object]:
    """A host as `hosts` has it, without what is the default anyway."""
    connection = _unlike(host.connection, _NO_CONNECTION)
    return {**_unlike(host, _NO_HOST), "connection": connection}


def _unlike(struct: msgspec.Struct, ordinary: msgspec.Struct) -> dict[str, object]:
    """The fields that differ from those of an ordinary one, as YAML can write them."""
    values, usual = msgspec.structs.asdict(struct), msgspec.structs.asdict(ordinary)
    return {key: msgspec.to_builtins(value) for key, value in values.items() if value != usual[key]}
