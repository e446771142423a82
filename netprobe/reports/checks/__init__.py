"""
The output formats of a check: one file each, ending in one `REPORT` record, found by walking this package.

Adding a format means adding a file here, and no other change.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from netprobe.reports.checks.base import CheckReport

__all__ = ["CheckReport", "registry"]


@cache
def registry() -> Mapping[str, CheckReport]:
    """Every output format by its name, in alphabetical order."""
    found: list[CheckReport] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        if (report := getattr(module, "REPORT", None)) is not None:
            found.append(report)
    return MappingProxyType({report.name: report for report in sorted(found, key=lambda report: report.name)})
