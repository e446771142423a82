"""`netprobe inventory`: what an inventory means, without sending anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netprobe.cli.output import Output
from netprobe.cli.selection import Choices, selection

if TYPE_CHECKING:
    from netprobe.model import Connection, Flow, Host, Inventory, Role


@click.group()
def inventory() -> None:
    """Look at an inventory without sending anything."""


@inventory.command(
    epilog="""\b
Examples:
  netprobe inventory check hosts.yaml
  netprobe inventory check hosts.yaml --mode vxlan --family ipv4"""
)
@selection
def check(inventory: Path, **choices: Any) -> None:  # noqa: ANN401 - handed over as they are
    """
    Check INVENTORY, and say what `netprobe run` would probe with the same options.

    Every mistake is a line with the file, the line, the key and what was expected; exit status 2.
    """
    narrowed, settings, flows = Choices(**choices).plan(inventory)

    from netprobe.cli.estimate import estimate

    cost = estimate(flows, settings, len(narrowed.hosts))
    work = f"{_counted(len(narrowed.hosts), 'host')}, {_counted(len(flows), 'flow')}"
    price = f"{cost.packets:,} packets and about {cost.seconds:.0f} s if all of them are open"
    paragraphs = (
        _table(("host", "addresses", "roles", "reached by"), map(_host, narrowed.hosts)),
        _table(("probe", "protocol", "families", "ports", "flows"), _probes(narrowed, flows)),
        f"{work}: {price}; more where packets are lost",
    )
    Output(None).write("\n\n".join(paragraphs) + "\n")


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _table(headers: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    from tabulate import tabulate

    return tabulate(list(rows), headers, tablefmt="plain", disable_numparse=True)


def _host(host: Host) -> tuple[object, ...]:
    roles = ", ".join(role.value for role in host.roles)
    sudo = " (sudo)" if host.sudo else ""
    return host.name, ", ".join(host.addresses), roles, f"{_reached(host.connection, host.name)}{sudo}"


def _reached(connection: Connection, name: str) -> str:
    where = connection.name or " ".join(connection.argv)
    if connection.type == "ssh":
        user = f"{connection.user}@" if connection.user else ""
        port = f" port {connection.port}" if connection.port else ""
        where = f"{user}{connection.host or name}{port}"
    return f"{connection.type} {where}".strip()


def _probes(inventory: Inventory, flows: list[Flow]) -> Iterator[tuple[object, ...]]:
    from netprobe import plan

    counts = Counter(flow.probe for flow in flows)
    for probe in plan.probes(inventory):
        theirs = [flow for flow in flows if flow.probe == probe.name]
        families = dict.fromkeys(flow.family.value for flow in theirs)
        ports = dict.fromkeys(str(flow.port) for flow in theirs if flow.port is not None)
        number = f"{counts[probe.name]:,}" if theirs else f"0: {_why_none(probe.between, inventory)}"
        yield probe.name, probe.protocol.label, ", ".join(families), ", ".join(ports), number


def _why_none(between: tuple[Role, Role], inventory: Inventory) -> str:
    """Why a probe that is asked for has no flows."""
    for role in between:
        if not any(role in host.roles for host in inventory.hosts):
            return f"no host has the role {role.value}"
    return "no two such hosts have addresses of one family"
