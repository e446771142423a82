"""The command line: click, and thin; what takes time to import is imported by the command that needs it."""

from __future__ import annotations

import sys

__all__ = ["main"]

INTERRUPTED_STATUS = 130  # 128 + SIGINT, as a shell has it


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        # Ctrl-C may come while it loads, when nobody listens for it yet.
        from netprobe.cli.app import run_command_line
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_STATUS)
    run_command_line()
