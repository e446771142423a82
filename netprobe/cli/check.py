"""`netprobe check`: whether the hosts are fit to be nodes."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from netprobe.cli.errors import Refused, refusals
from netprobe.cli.given import given, given_options
from netprobe.cli.login import Login
from netprobe.cli.login import login as login_options
from netprobe.cli.output import TO_FILE, Output
from netprobe.cli.running import run_to_end
from netprobe.cli.selection import WordsOption, items, read

if TYPE_CHECKING:
    from netprobe.model import Inventory

EXIT_STATUS = """Exit status: 0 all that is required is there, 1 some of it is not, 2 nothing was asked,
3 some could not be found out and nothing is known to be missing."""


def _modes(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from netprobe.requirements import modes

    return items(modes(), incomplete)


def _formats(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from netprobe.reports.checks import registry

    return items(registry(), incomplete)


def _check_format(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from netprobe.reports.checks import registry

    if value is not None and value not in registry():
        raise click.BadParameter(f"{value!r} is not one of {', '.join(registry())}.")
    return value


def _check_modes(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        from netprobe.requirements import modes

        if value not in modes():
            raise click.BadParameter(f"{value!r} is not one of {', '.join(modes())}.")
    return values


@click.command(
    epilog=f"""\b
Examples:
  netprobe check hosts.yaml
  netprobe check hosts.yaml --mode vxlan --mode wireguard
  netprobe check --local -v
  netprobe check hosts.yaml --format csv | grep fail
\b
{EXIT_STATUS}"""
)
@click.argument("inventory", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--local", is_flag=True, help="Check the machine that this runs on, without an inventory.")
@click.option(
    "--mode",
    "modes",
    cls=WordsOption,
    multiple=True,
    metavar="MODE",
    callback=_check_modes,
    shell_complete=_modes,
    help="Only what this mode needs, whatever the inventory says; may be repeated.",
)
@click.option(
    "--root",
    default="/",
    metavar="DIR",
    help="The directory on the hosts that is taken for / where files are read.",
)
@click.option(
    "--format",
    "format_",
    cls=WordsOption,
    metavar="FORMAT",
    callback=_check_format,
    shell_complete=_formats,
    help="The output format.",
)
@given_options
@TO_FILE
@login_options
@click.option("-v", "--verbose", is_flag=True, help="What passes as well, and a line for each phase.")
def check(
    inventory: Path | None,
    modes: tuple[str, ...],
    root: str,
    format_: str | None,
    output: Path | None,
    *,
    local: bool,
    login: Login,
    verbose: bool,
    **more: Any,  # noqa: ANN401 - those of given_options
) -> int:
    """
    Check what Calico requires of each node: kernel, privileges, interfaces, configuration.

    The kernel itself is asked, in a network namespace that is thrown away: nothing on a host is changed, and
    no program there is needed. Without --mode, and without modes in the inventory, all modes count.
    """
    wanted = _wanted(inventory, local=local)
    if not root.startswith("/"):
        raise Refused(f"--root {root}: expected an absolute path, of a directory on the hosts")
    known = given(**more)
    target = Output(output)
    access = login.access(inventory or Path())

    from netprobe.cli.progress import Progress
    from netprobe.cli.run import options
    from netprobe.coordinator.check import check as checked
    from netprobe.reports.checks import registry

    with Progress(verbose=verbose) as progress:
        found = run_to_end(checked, wanted, modes or wanted.modes, root, progress, access, known)
    suffix = output.suffix.removeprefix(".") if output else ""
    by_name = (name for name, report in registry().items() if report.extension == suffix)
    report = registry()[format_ or next(by_name, "text")]
    target.write(report.render(found, options(target, verbose=verbose)))
    return found.exit_status


def _wanted(path: Path | None, *, local: bool) -> Inventory:
    """The hosts to check: those of an inventory, or the one that this runs on."""
    from netprobe.model import Connection, Host, Inventory

    if local and path is not None:
        raise Refused("--local checks this machine, INVENTORY others: give one of them")
    if local:
        host = Host(name=platform.node() or "localhost", addresses=(), connection=Connection(type="local"))
        return Inventory(hosts=(host,))
    if path is None:
        raise Refused("no hosts to check: give INVENTORY, or --local for this machine")
    with refusals():
        return read(path)
