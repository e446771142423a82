"""`netprobe inventory`: what an inventory means, without sending anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from netprobe.cli.errors import Refused
from netprobe.cli.importing import import_
from netprobe.cli.output import TO_FILE, Output
from netprobe.cli.selection import Choices, selection

if TYPE_CHECKING:
    from netprobe.model import Connection, Host, Inventory
    from netprobe.plan import Share

EXAMPLE: Final = Path(__file__).parents[1] / "inventory" / "example.yaml"
"""What `netprobe inventory init` writes; a `#` without a blank behind it is before a key that is left out."""


@click.group(no_args_is_help=False)  # the help is no error message
def inventory() -> None:
    """Make an inventory, or look at one, without probing anything."""


inventory.add_command(import_)


@inventory.command(
    epilog="""\b
Examples:
  netprobe inventory check hosts.yaml
  netprobe inventory check hosts.yaml --mode vxlan --family ipv4"""
)
@selection()
def check(inventory: Path, **choices: Any) -> None:  # noqa: ANN401 - handed over as they are
    """
    Check INVENTORY, and say what `netprobe run` would probe with the same options.

    Every mistake is a line with the file, the line, the key and what was expected; exit status 2.
    """
    narrowed, settings, shares = Choices(**choices).plan(inventory)

    from netprobe.cli.estimate import estimate

    cost = estimate(shares, settings, len(narrowed.hosts))
    flows = sum(share.flows for share in shares)
    work = [_counted(len(narrowed.hosts), "host"), _counted(flows, "flow")]
    price = [_counted(cost.packets, "probe packet"), f"about {cost.seconds:.0f} s"]
    if cost.sessions:
        price.insert(1, _counted(cost.sessions, "TCP session"))
    paragraphs = (
        _table(("host", "addresses", "roles", "reached by"), map(_host, narrowed.hosts)),
        _table(("probe", "protocol", "families", "ports", "flows"), _probes(narrowed, shares)),
        _pods(narrowed, shares),
        f"{', '.join(work)}: {', '.join(price)} if all are open; more where packets are lost",
    )
    Output(None).write("\n\n".join(filter(None, paragraphs)) + "\n")


@inventory.command(
    epilog="""\b
Examples:
  netprobe inventory init -o hosts.yaml
  netprobe inventory import --help      the hosts from Ansible, kubectl, Vagrant or a list instead"""
)
@TO_FILE
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
def init(output: Path | None, *, force: bool) -> None:
    """Write an example of an inventory, with every key and what it means."""
    target = Output(output)
    if output is not None and not force and output.is_file():
        raise Refused(f"{output}: it is there already; --force replaces it")
    target.write(EXAMPLE.read_text(encoding="utf-8"))


def _pods(inventory: Inventory, shares: list[Share]) -> str:
    """The source addresses of packets that bear none of a host, "" where there are no such packets."""
    families = dict.fromkeys(share.family for share in shares if share.probe.forwarded)
    addresses = " and ".join(map(inventory.pod_address, families))
    return f"pod-route sends as if from {addresses}" if addresses else ""


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _table(headers: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    from tabulate import tabulate

    return tabulate(list(rows), headers, tablefmt="plain", disable_numparse=True)


def _host(host: Host) -> tuple[object, ...]:
    roles = ", ".join(role.value for role in host.roles)
    become = "sudo" if host.sudo else next(iter(host.become), "")
    root = f" ({become})" if become else ""
    return host.name, ", ".join(host.addresses), roles, f"{_reached(host.connection, host.name)}{root}"


def _reached(connection: Connection, name: str) -> str:
    where = connection.name or " ".join(connection.argv)
    if connection.type == "ssh":
        user = f"{connection.user}@" if connection.user else ""
        port = f" port {connection.port}" if connection.port else ""
        where = f"{user}{connection.host or name}{port}"
    elif connection.type == "kubectl":
        namespace = f"{connection.namespace}/" if connection.namespace and connection.pod else ""
        where = f"pod {namespace}{connection.pod}" if connection.pod else f"node {connection.node or name}"
    return f"{connection.type} {where}".strip()


def _probes(inventory: Inventory, shares: list[Share]) -> Iterator[tuple[object, ...]]:
    from netprobe import mesh, plan

    for probe in plan.probes(inventory):
        theirs = [share for share in shares if share.probe.name == probe.name]
        families = dict.fromkeys(share.family.value for share in theirs)
        ports = [str(port) for port in mesh.ports(probe, inventory) if theirs and port is not None]
        number = f"{sum(share.flows for share in theirs):,}"
        if not theirs:
            # Where the hosts would have some, it is an option that leaves none.
            is_option = mesh.count(probe, inventory.hosts)
            number += f": {'left out by the options' if is_option else mesh.why_none(probe, inventory.hosts)}"
        yield probe.name, probe.protocol.label, ", ".join(families), ", ".join(ports), number
