"""`netprobe mtu`: the largest packet that arrives whole between any two nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netprobe.cli.errors import Refused
from netprobe.cli.login import Login
from netprobe.cli.login import login as login_options
from netprobe.cli.output import AS_TEXT_OR_JSON, TEXT_OR_JSON, TO_FILE, Output
from netprobe.cli.running import run_to_end
from netprobe.cli.selection import Choices, selection

if TYPE_CHECKING:
    from netprobe.access import Access
    from netprobe.cli.progress import Progress
    from netprobe.model import Inventory, Run, Settings


@click.command(
    epilog="""\b
Examples:
  netprobe mtu hosts.yaml
  netprobe mtu hosts.yaml --only node-a -v
  netprobe mtu hosts.yaml -o mtu.json
\b
Exit status: 0 every path was measured, and whoever sends too much is told so,
1 some path is a black hole, 2 nothing was sent, 3 some could not be measured."""
)
@selection("inventory", "family", "only", "rate", "timeout")
@AS_TEXT_OR_JSON
@TO_FILE
@login_options
@click.option("-v", "--verbose", is_flag=True, help="Every pair by itself, and a line for each phase.")
def mtu(
    inventory: Path,
    format_: str | None,
    output: Path | None,
    *,
    login: Login,
    verbose: bool,
    **choices: Any,  # noqa: ANN401 - handed over as they are
) -> int:
    """
    Measure the path MTUs between the nodes of INVENTORY, and say which MTU to give Calico.

    Packets of VXLAN, IP-in-IP and TCP are padded to all sizes that may be the limit, up to the MTU of the
    source's interface, and count where the destination sees them arrive whole. Where larger ones vanish and
    no router says so, the path is a black hole. SYNs with data go to netprobe's own listeners only.
    """
    from netprobe.cli.run import format_of, render

    narrowed, settings, _ = Choices(probe=("bgp", "vxlan"), **choices).plan(inventory)
    target = Output(output)
    access = login.access(inventory)

    from netprobe.cli.progress import Progress
    from netprobe.mtus import exit_status

    with Progress(verbose=verbose) as progress:
        result = measure(narrowed, settings, progress, access)
    chosen = format_ or format_of(output, TEXT_OR_JSON)
    target.write(render(result, chosen, target, verbose=verbose))
    return exit_status(result.mtus)


def measure(inventory: Inventory, settings: Settings, progress: Progress, access: Access) -> Run:
    """The measurement itself."""
    from netprobe import coordinator

    return run_to_end(coordinator.measure, inventory, settings, progress, access)


def check_pairs(inventory: Inventory, settings: Settings) -> None:
    """`Refused` where no two hosts are nodes with addresses of one family."""
    from netprobe import mesh
    from netprobe.probes import registry

    probe = registry()["vxlan"]
    if not mesh.count(probe, inventory.hosts, settings.families, settings.only):
        raise Refused(f"--mtu: nothing to measure: {mesh.why_none(probe, inventory.hosts)}")
