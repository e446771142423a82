"""Documents that others have written, as plain values: nothing in them is taken for more than text."""

from __future__ import annotations

import yaml


def yaml_texts(text: str) -> object | None:
    """A YAML document as mappings, lists and texts; None where it is none."""
    try:
        found: object = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - which makes nothing but these
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return None
    return found
