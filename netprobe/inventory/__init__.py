"""
The inventory: the user's list of hosts, from YAML to `model.Inventory` and back (design §5).

Everything that is wrong with one is told at once, a line for each: file, line, key, what was expected.
"""

from __future__ import annotations

from netprobe.inventory.dump import dump
from netprobe.inventory.errors import InventoryError
from netprobe.inventory.load import load, loads
from netprobe.inventory.narrow import narrow, one_flow

__all__ = ["InventoryError", "dump", "load", "loads", "narrow", "one_flow"]
