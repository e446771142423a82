"""
The requirements of a node: one file for each group, ending in one `GROUP`, found by walking this package.

To add a requirement, add it to the `GROUP` of a file here, or a file with a new one; no other change::

    _OS = Files(patterns=("/etc/os-release",))                 # a question, see netprobe/questions.py

    def _judge(context: Context) -> Judgement:                 # pure: answers in, a judgement out
        found = context.need(_OS)                              # without an answer: unknown, whatever follows
        return passed("…") if found.text("/etc/os-release") else failed("no /etc/os-release")

    GROUP = Group(
        name="Distribution",
        rank=15,                                               # its place in the reports, the page's order
        requirements=(
            Requirement(
                id="os-release",                               # a contract
                title="The distribution says what it is",
                source="The page's own words",
                method="/etc/os-release is read",
                fix="Install …",
                asks=(_OS,),
                judge=_judge,
            ),
        ),
    )

- `modes=("ipip",)` makes it required for these modes only; with `level=Level.RECOMMENDED` it never fails, it
  warns.
- `context.of(…)` is the answer or a `Failed`, where a requirement can do without.
- `asks_about(inventory, host, given)` gives the questions that depend on the inventory, the host, or on what
  else the user has given.
- `context.fleet` has the evidence of all hosts by name, where they are to be compared.
- A question that there is no kind for: a struct in netprobe/questions.py, a function in
  netprobe/agent/sights.py (the host as it is) or netprobe/agent/throwaway.py (a namespace of its own), and
  its kind in netprobe/agent/inspection.py. Agents know how to ask, not what it means.
- What the page says in that place is a line of docs/requirements.md: `scripts/print-requirements` prints it.
- Tests: tests/requirements/, one in which it passes and one in which it really fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from netprobe.findings import Criterion
from netprobe.modes import MODES
from netprobe.requirements.base import Context, Evidence, Failed, Group, Requirement

__all__ = ["Context", "Evidence", "Failed", "Group", "Requirement", "criteria", "groups", "modes", "registry"]


@cache
def groups() -> tuple[Group, ...]:
    """All groups, in the order of the page."""
    found: list[Group] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        if (group := getattr(module, "GROUP", None)) is not None:
            found.append(group)
    return tuple(sorted(found, key=lambda group: (group.rank, group.name)))


@cache
def registry() -> Mapping[str, Requirement]:
    """Every requirement by its id, in the order of the groups."""
    return MappingProxyType({each.id: each for group in groups() for each in group.requirements})


@cache
def criteria() -> tuple[Criterion, ...]:
    """What is told of every requirement, in that order."""
    return tuple(each.criterion(group.name) for group in groups() for each in group.requirements)


@cache
def modes() -> tuple[str, ...]:
    """What may be chosen: the modes of encapsulation, and the further ones that some requirement is for."""
    further = (mode for each in registry().values() for mode in each.modes)
    return tuple(dict.fromkeys([*MODES, *further]))
