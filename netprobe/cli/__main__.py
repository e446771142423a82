"""`python -m netprobe.cli`, for where the console script is not in the PATH."""

from __future__ import annotations

from netprobe.cli import main

main()
