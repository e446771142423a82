"""What can go wrong with a lab, by whose fault it is."""

from __future__ import annotations


class LabError(Exception):
    """A lab that cannot be built or taken away here; the text names the host and what was tried."""


class DescriptionError(LabError):
    """A description that cannot be meant so; one line that names file and key, and what was expected."""
