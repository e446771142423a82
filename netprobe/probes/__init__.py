"""
The probes: one file each, ending in one `PROBE` record (or a `PROBES` tuple), found by walking this package.

Adding a row of the network requirements means adding a file here, and no other change.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from netprobe.probes._tcp import announced_mss
from netprobe.probes.base import Probe

__all__ = ["Probe", "announced_mss", "registry"]


@cache
def registry() -> Mapping[str, Probe]:
    """Every probe by its name, in the order of `Probe.rank` (that of the requirements page)."""
    found: list[Probe] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        if (probe := getattr(module, "PROBE", None)) is not None:
            found.append(probe)
        found.extend(getattr(module, "PROBES", ()))
    return MappingProxyType({probe.name: probe for probe in sorted(found, key=lambda probe: probe.rank)})
