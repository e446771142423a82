"""
From what another program knows of hosts to an inventory: one file per source.

Each has a pure function from the source's document to `Imported`; `programs` gets documents, `writing` makes
the YAML. What a source does not tell is a remark in the file that is written, and what cannot be is an
`InventoryError` with a line for each host and key.
"""

from __future__ import annotations

from netprobe.importers.found import Found, Imported
from netprobe.importers.writing import write

__all__ = ["Found", "Imported", "write"]
