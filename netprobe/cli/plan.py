"""`netprobe plan` and `netprobe collate`: a run that others carry out, where no machine reaches all hosts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from netprobe.cli.errors import Refused
from netprobe.cli.output import TO_FILE, Output
from netprobe.cli.run import AS, format_of, render
from netprobe.cli.selection import Choices, Range, selection


@click.command(
    epilog="""\b
Examples:
  netprobe plan hosts.yaml -o plan
  ansible-playbook -i plan/inventory.yaml plan/playbook.yaml
  netprobe collate plan
\b
Exit status: 0 the plan is written, 2 it is not."""
)
@selection("inventory", "probe", "mode", "family", "only", "count", "rate", "timeout")
@click.option(
    "-o",
    "--output",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Where the plan goes: a directory that is new, or empty, or has an earlier plan; that one and what "
    "was observed by it are replaced.",
)
@click.option(
    "--margin",
    type=Range(min=0.2, max=600),
    metavar="SECONDS",
    help="How much all hosts together may be late, or unsure of the time. [default: 3]",
)
@click.option(
    "--patience",
    type=Range(min=0, max=3600),
    metavar="SECONDS",
    help="How long each host asks slowly, to hear refusals that are rationed. [default: 20]",
)
def plan(
    inventory: Path,
    directory: Path,
    margin: float | None,
    patience: float | None,
    **choices: Any,  # noqa: ANN401 - handed over as they are
) -> None:
    """
    Write a plan into DIR: a programme for every host of INVENTORY, and a playbook that runs them all.

    For fleets that no machine reaches as a whole, or that Ansible reaches anyway. All programmes work at the
    same time; `netprobe collate DIR` makes the report of what they have observed. TCP is probed with SYNs
    only, as by `netprobe run --depth syn`.
    """
    narrowed, settings, _ = Choices(**choices).plan(inventory)

    from netprobe.offline import PlanError, ansible, draw_up
    from netprobe.offline.directory import DEFAULT_MARGIN_S, DEFAULT_PATIENCE_S, check_directory

    try:
        check_directory(directory)
        written = draw_up(
            narrowed,
            settings,
            DEFAULT_MARGIN_S if margin is None else margin,
            DEFAULT_PATIENCE_S if patience is None else patience,
        )
        written.write(directory, narrowed)
    except PlanError as error:
        raise Refused(str(error)) from None
    if names := ansible.unreachable(narrowed):
        _say(f"add the connection of {', '.join(names)} to {directory / ansible.INVENTORY}")
    if names := ansible.powerless(narrowed):
        _say(f"add the ansible_become_method of {', '.join(names)} to {directory / ansible.INVENTORY}")
    _say(f"{len(written.plan.names):,} programmes, which take {written.plan.duration_s:,.0f} s; next:")
    click.echo(ansible.command(directory))
    click.echo(shlex.join(["netprobe", "collate", str(directory)]))


@click.command(
    epilog="""\b
Examples:
  netprobe collate plan
  netprobe collate plan --format csv | grep filtered
  netprobe collate plan-from-east plan-from-west -o result.json
\b
Exit status: 0 every required flow is open, 1 some is not, 2 there is no plan,
3 some could not be tested and none was blocked."""
)
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@AS
@TO_FILE
@click.option("-v", "--verbose", is_flag=True, help="Every flow with its evidence.")
def collate(directories: tuple[Path, ...], format_: str | None, output: Path | None, *, verbose: bool) -> int:
    """
    Print what gets through, from the observations that a plan's programmes have made.

    DIR is the directory of a plan; where several machines had copies of it, and each has fetched the
    observations of some hosts, name all of them. Flows of hosts without observations are untested.
    """
    target = Output(output)

    from netprobe import offline
    from netprobe.modes import exit_status

    try:
        run, clocks = offline.collate(directories)
    except offline.PlanError as error:
        raise Refused(str(error)) from None
    for name, ahead_s in clocks.items():
        where = "ahead" if ahead_s > 0 else "behind"
        _say(f"the clock of {name} is {abs(ahead_s):,.0f} s {where}; that was allowed for")
    target.write(render(run, format_ or format_of(output), target, verbose=verbose))
    return exit_status(run)


def _say(text: str) -> None:
    from netprobe.reports.base import printable

    click.echo(f"netprobe: {printable(text)}", err=True)
