"""What `ansible-inventory --list` writes: run, or read where it was written before."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Final

from netprobe.importers import programs
from netprobe.inventory.errors import InventoryError

_FIX: Final = "run it by itself to see why; ANSIBLE_VAULT_PASSWORD_FILE is for what is encrypted"


def ask(inventory: str) -> tuple[object, tuple[str, ...]]:
    """
    The document of an inventory, and the remarks of `ansible-inventory` on it.

    A file (or stdin, for `-`) that is such a document already is read as it is.
    """
    path = Path(inventory)
    if inventory == "-":
        return _parse(programs.read(path), "<stdin>"), ()
    if path.is_file():
        document = _listing(path)
        if document is not None:
            return document, ()
    elif "," not in inventory and not path.exists():
        raise InventoryError(f"{inventory}: cannot read it: No such file or directory")
    argv = ["ansible-inventory", "-i", inventory, "--list"]
    # Where no source can be parsed, it would call that an empty inventory.
    environment = {"ANSIBLE_INVENTORY_UNPARSED_FAILED": "true", "ANSIBLE_NOCOLOR": "true"}
    text, said = programs.run(argv, package="ansible-core", fix=_FIX, environment=environment)
    warnings = re.findall(r"\[WARNING\]: (.*?)(?=\n\[|\Z)", said, re.DOTALL)
    remarks = (f"ansible-inventory warns: {' '.join(warning.split())}" for warning in warnings)
    return _parse(text, f"`{shlex.join(argv)}`"), tuple(remarks)


def _listing(path: Path) -> object | None:
    """The document in a file, or None where it is an inventory of another kind."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"{":
                return None
    except OSError as error:
        raise InventoryError(f"{path}: cannot read it: {error.strerror}") from None
    try:
        document = json.loads(programs.read(path))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "_meta" in document else None


def _parse(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InventoryError(f"{name}: expected the JSON of `ansible-inventory --list`: {error}") from None
