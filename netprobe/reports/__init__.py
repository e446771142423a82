"""
The output formats: one file each, ending in one `REPORT` record, found by walking this package.

Adding a format means adding a file here, and no other change.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from netprobe.reports.base import Options, Report, ReportError

__all__ = ["Options", "Report", "ReportError", "registry"]


@cache
def registry() -> Mapping[str, Report]:
    """Every output format by its name, in alphabetical order."""
    found: list[Report] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        if (report := getattr(module, "REPORT", None)) is not None:
            found.append(report)
    return MappingProxyType({report.name: report for report in sorted(found, key=lambda report: report.name)})
