"""What follows from a description before anything is built; here its mistakes come to light."""

from __future__ import annotations

from pathlib import Path

import msgspec

from netprobe.lab.changes import Changes, changes
from netprobe.lab.description import ROUTER, Description, parse, read, unknown
from netprobe.lab.errors import DescriptionError
from netprobe.lab.expectations import Expectations, Planted, expectations, planted
from netprobe.lab.topology import Topology, topology


class Blueprint(msgspec.Struct, frozen=True):
    """Where each host is, what the faults do on which host (or the router), and what netprobe must find."""

    topology: Topology
    changes: dict[str, Changes]
    expectations: Expectations
    planted: tuple[Planted, ...]


def blueprint(description: Description) -> Blueprint:
    """The blueprint of a description; `DescriptionError` where it names what is not there."""
    names = [*description.roles, ROUTER]
    for index, fault in enumerate(description.faults):
        for target in fault.targets:
            if target not in names:
                raise DescriptionError(f"faults[{index}].on: {unknown('host', target, names)}")
    found = topology(description)
    return Blueprint(
        topology=found,
        changes={name: changes(description.faults, name, found) for name in names},
        expectations=expectations(description, found.values),
        planted=planted(description),
    )


def describe(text: str, source: str = "") -> Description:
    """
    The description in a YAML text, checked in all that can be checked without building it.

    `DescriptionError` is one line with `source` (the name of the file), the key and what was expected. What
    nft makes of the rules is known only when they are loaded.
    """
    try:
        description = parse(text)
        blueprint(description)
    except DescriptionError as error:
        raise DescriptionError(f"{source}: {error}" if source else str(error)) from None
    return description


def describe_file(path: Path) -> Description:
    """The description in a file."""
    return describe(read(path), str(path))
