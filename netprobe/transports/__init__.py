"""
Ways to reach a host: one file each, ending in one `TRANSPORT` record, found by walking this package.

A transport is an argv prefix: it turns "run this command there, with stdin and stdout connected" into the
command line to run here. Everything else is the session's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from netprobe.transports.base import Transport

__all__ = ["Transport", "registry"]


@cache
def registry() -> Mapping[str, Transport]:
    """Every transport by the name that an inventory's `connection.type` uses."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        if (transport := getattr(module, "TRANSPORT", None)) is not None:
            found[transport.name] = transport
    return MappingProxyType(found)
