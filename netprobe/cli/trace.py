"""`netprobe trace`: at which hop one flow is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from netprobe.cli.errors import refusals
from netprobe.cli.login import Login
from netprobe.cli.login import login as login_options
from netprobe.cli.output import AS_TEXT_OR_JSON, TEXT_OR_JSON, TO_FILE, Output
from netprobe.cli.run import format_of, options
from netprobe.cli.running import run_to_end
from netprobe.cli.selection import INVENTORY, RATE, TIMEOUT, complete_hosts, complete_probes, read

if TYPE_CHECKING:
    from netprobe.access import Access
    from netprobe.cli.progress import Progress
    from netprobe.model import Flow, Inventory, Run, Settings

_MOST_HOPS, _MOST_TRIES = 32, 8
_STATUS = {"open": 0, "untested": 3}


@click.command(
    epilog="""\b
Examples:
  netprobe trace hosts.yaml node-a node-b ipip
  netprobe trace hosts.yaml node-a node-b flannel --port 8472 --family ipv6
  netprobe trace hosts.yaml node-a node-b bgp --format json
\b
Exit status: 0 the flow is open, 1 it is not, 2 nothing was sent,
3 it could not be tested."""
)
@INVENTORY
@click.argument("src", shell_complete=complete_hosts)
@click.argument("dst", shell_complete=complete_hosts)
@click.argument("probe", shell_complete=complete_probes)
@click.option(
    "--family",
    type=click.Choice(["ipv4", "ipv6"]),
    help="The address family. [default: the first that PROBE and both hosts have]",
)
@click.option(
    "--port", type=int, metavar="N", help="The destination port. [default: the first that PROBE goes to]"
)
@click.option(
    "--max-hops",
    type=click.IntRange(1, _MOST_HOPS),
    default=30,
    show_default=True,
    metavar="N",
    help="The largest TTL or hop limit.",
)
@click.option(
    "--tries",
    type=click.IntRange(1, _MOST_TRIES),
    default=3,
    show_default=True,
    metavar="N",
    help="How often a hop that stays silent is asked.",
)
@RATE
@TIMEOUT
@AS_TEXT_OR_JSON
@TO_FILE
@login_options
@click.option("-v", "--verbose", is_flag=True, help="A line for each phase.")
def trace(  # noqa: PLR0913 - one for each option
    inventory: Path,
    src: str,
    dst: str,
    probe: str,
    *,
    family: str | None,
    port: int | None,
    max_hops: int,
    tries: int,
    rate: float | None,
    timeout: float | None,
    format_: str | None,
    output: Path | None,
    login: Login,
    verbose: bool,
) -> int:
    """
    Find the hop at which PROBE is lost between SRC and DST.

    SRC and DST are hosts of INVENTORY. First all probes are sent from the one to the other. Then the packet
    of PROBE is sent with a growing TTL, and beside it that of a probe that is open: this tells a hop that
    does not get the packet from one that never speaks.
    """
    from netprobe import plan
    from netprobe.inventory import one_flow
    from netprobe.model import DEFAULT_RATE, DEFAULT_TIMEOUT_S, Family, Settings

    with refusals():
        everything = read(inventory)
        asked = None if family is None else Family(family)
        of, to = one_flow(everything, src, dst, probe, asked, port)
    settings = Settings(families=(of,), rate=rate or DEFAULT_RATE, timeout_s=timeout or DEFAULT_TIMEOUT_S)
    narrowed = _narrowed(everything, src, dst, probe)
    flows = plan.numbered(
        flow for flow in plan.flows(narrowed, settings) if (flow.src, flow.dst) == (src, dst)
    )
    (flow,) = (flow for flow in flows if (flow.probe, flow.port) == (probe, to))
    # Before anything is sent: a result that cannot be written is a pity.
    target = Output(output)
    access = login.access(inventory)

    from netprobe.cli.progress import Progress

    with Progress(verbose=verbose) as progress:
        result = _trace(narrowed, settings, flows, flow, (max_hops, tries), progress, access)
    is_json = (format_ or format_of(output, TEXT_OR_JSON)) == "json"
    target.write(_render(result, target, is_json=is_json))
    return _STATUS.get(result.cells[flow.number].judgement.verdict.value, 1)


def _narrowed(inventory: Inventory, src: str, dst: str, probe: str) -> Inventory:
    """The two hosts, and the probe beside those that the inventory asks for."""
    from msgspec import structs

    from netprobe import plan

    names = {each.name for each in plan.probes(inventory)} | {probe}
    hosts = tuple(host for host in inventory.hosts if host.name in (src, dst))
    return structs.replace(inventory, hosts=hosts, probes=tuple(sorted(names)), modes=None)


def _trace(
    inventory: Inventory,
    settings: Settings,
    flows: list[Flow],
    flow: Flow,
    reach: tuple[int, int],
    progress: Progress,
    access: Access,
) -> Run:
    from netprobe.coordinator import trace

    reached = trace.Reach(*reach)
    return run_to_end(trace.trace_one, inventory, settings, flows, flow, reached, progress, access)


def _render(result: Run, target: Output, *, is_json: bool) -> str:
    from netprobe.reports import registry, trace

    how = options(target, verbose=False)
    return registry()["json"].render(result, how) if is_json else trace.render(result, how)
