"""`netprobe run`: probe everything that an inventory asks for, and report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from netprobe.cli.login import Login
from netprobe.cli.login import login as login_options
from netprobe.cli.mtu import check_pairs, measure
from netprobe.cli.output import TO_FILE, Output
from netprobe.cli.running import run_to_end
from netprobe.cli.selection import Choices, items, selection

if TYPE_CHECKING:
    from netprobe.access import Access
    from netprobe.cli.progress import Progress
    from netprobe.model import Inventory, Run, Settings
    from netprobe.reports import Options


class FormatOption(click.Option):
    """`--format`, whose words are those of the reports that there are; they load when they are asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option's line in the help."""
        from netprobe.reports import registry

        self.help = f"{', '.join(registry())}. [default: what FILE's name ends in, or else text]"
        return super().get_help_record(ctx)


def _check_format(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from netprobe.reports import registry

    if value is not None and value not in registry():
        raise click.BadParameter(f"{value!r} is not one of {', '.join(registry())}.")
    return value


def _formats(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from netprobe.reports import registry

    return items(registry(), incomplete)


AS = click.option(
    "--format",
    "format_",
    cls=FormatOption,
    metavar="FORMAT",
    callback=_check_format,
    shell_complete=_formats,
    help="The output format.",
)


@click.command(
    epilog="""\b
Examples:
  netprobe run hosts.yaml
  netprobe run hosts.yaml --mode vxlan --family ipv4
  netprobe run hosts.yaml --probe bgp --only node-a -v
  netprobe run hosts.yaml --trace
  netprobe run hosts.yaml --format csv | grep filtered
  netprobe run hosts.yaml --mtu
  netprobe run hosts.yaml -o before.json
\b
Exit status: 0 every required flow is open, 1 some is not, 2 nothing was sent,
3 some could not be tested and none was blocked. With --mtu a path that is
a black hole is 1, and one that could not be measured 3."""
)
@selection()
@AS
@TO_FILE
@login_options
@click.option(
    "--trace",
    is_flag=True,
    help="Then find the hop at which one flow of each group is lost that is blocked on the path.",
)
@click.option(
    "--mtu",
    "with_mtu",
    is_flag=True,
    help="Measure the path MTUs between all nodes as well, as `netprobe mtu` does.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Every flow with its evidence, and a line for each phase."
)
def run(
    inventory: Path,
    format_: str | None,
    output: Path | None,
    *,
    login: Login,
    trace: bool,
    with_mtu: bool,
    verbose: bool,
    **choices: Any,  # noqa: ANN401 - handed over as they are
) -> int:
    """
    Probe every flow between the hosts of INVENTORY and print what gets through.

    INVENTORY is a YAML file with a list of hosts, or - for stdin. The result goes to stdout, the progress to
    stderr. Nothing is installed on the hosts, and nothing stays there.
    """
    narrowed, settings, _ = Choices(**choices).plan(inventory)
    if with_mtu:
        check_pairs(narrowed, settings)
    # Before anything is sent: a result that cannot be written is a pity.
    target = Output(output)
    access = login.access(inventory)

    from netprobe import mtus
    from netprobe.cli.progress import Progress
    from netprobe.modes import exit_status

    with Progress(verbose=verbose) as progress:
        result = probe(narrowed, settings, progress, access)
        if trace:
            result = trace_blocked(result, progress, access)
        if with_mtu:
            result = _with_mtus(result, measure(narrowed, settings, progress, access))
    target.write(render(result, format_ or format_of(output), target, verbose=verbose))
    statuses = {exit_status(result), mtus.exit_status(result.mtus)}
    return next((status for status in (1, 3) if status in statuses), 0)


def _with_mtus(result: Run, measured: Run) -> Run:
    """A run and the path MTUs that were measured after it, as one."""
    import msgspec

    return msgspec.structs.replace(
        result,
        mtus=measured.mtus,
        packets=result.packets + measured.packets,
        finished=measured.finished,
    )


def probe(inventory: Inventory, settings: Settings, progress: Progress, access: Access | None = None) -> Run:
    """The run itself."""
    import gc

    from netprobe import coordinator

    # Nearly all that a run makes it keeps; looking for cycles in it takes a tenth of its time.
    gc.disable()
    return run_to_end(coordinator.run, inventory, settings, progress, access=access)


def trace_blocked(result: Run, progress: Progress, access: Access) -> Run:
    """The run with the traces of flows that are blocked on the path."""
    from netprobe.coordinator import trace

    return run_to_end(trace.trace_blocked, result, progress, access)


def format_of(output: Path | None, formats: Collection[str] | None = None) -> str:
    """What a file's name ends in, of these formats (None: all that there are), or else text."""
    from netprobe.reports import registry

    suffix = output.suffix.removeprefix(".") if output else ""
    known = registry() if formats is None else {name: registry()[name] for name in formats}
    return next((name for name, report in known.items() if report.extension == suffix), "text")


def render(result: Run, format_: str, target: Output, *, verbose: bool) -> str:
    """The report of a run, fit for where it goes."""
    from netprobe.reports import registry

    return registry()[format_].render(result, options(target, verbose=verbose))


def options(target: Output, *, verbose: bool) -> Options:
    """How to write a report that goes there."""
    from netprobe.reports import Options

    is_colourful = target.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Options(
        width=shutil.get_terminal_size((100, 24)).columns,
        color=is_colourful,
        unicode=_can_encode("→…", target.encoding),
        verbose=verbose,
    )


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
