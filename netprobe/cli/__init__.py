"""The command line: click, and thin; what takes time to import is imported by the command that needs it."""

from __future__ import annotations

from netprobe.cli.app import main

__all__ = ["main"]
