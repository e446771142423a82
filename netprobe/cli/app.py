"""The command `netprobe`: its subcommands, and how every ending becomes an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from click.shell_completion import shell_complete

from netprobe import __version__
from netprobe.cli import INTERRUPTED_STATUS
from netprobe.cli.check import check
from netprobe.cli.completion import COMPLETION_VARIABLE, completion
from netprobe.cli.demo import demo
from netprobe.cli.errors import IO_STATUS, Refused, tell
from netprobe.cli.inventory import inventory
from netprobe.cli.mtu import mtu
from netprobe.cli.output import Output, abandon_stdout
from netprobe.cli.plan import collate, plan
from netprobe.cli.run import run
from netprobe.cli.trace import trace

USAGE_STATUS: Final = 2  # design §1
INTERNAL_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h; Python's own 1 would mean "some flow is not open"
BROKEN_PIPE_STATUS: Final = 141  # 128 + SIGPIPE


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  netprobe demo                         see it at work on a small faulty cluster
  netprobe inventory import --help      an inventory out of Ansible, kubectl, Vagrant or a list
  netprobe inventory check hosts.yaml   what would be probed, and is the inventory right
  netprobe run hosts.yaml               probe everything, print what gets through
  netprobe check hosts.yaml             is each host fit to be a node
  netprobe trace hosts.yaml a b bgp     at which hop BGP from a to b is lost
  netprobe mtu hosts.yaml               the largest packet that arrives whole, and the MTU for Calico
  netprobe plan hosts.yaml -o plan      the same run by Ansible, where no machine reaches all hosts
\b
Exit status:
  0   every required flow is open
  1   some required flow is not
  2   the command or the inventory is wrong; nothing was sent
  3   some flow could not be tested, and none that could be was blocked""",
)
@click.version_option(__version__, prog_name="netprobe", message="%(prog)s %(version)s")
def cli() -> None:
    """
    Which packets of a Kubernetes cluster get from which host to which host, and where the others are lost.

    netprobe sends what Calico would send (BGP, IP-in-IP, VXLAN, WireGuard, Typha, API server, etcd) between
    every ordered pair of hosts, watches both ends, and says for each flow whether it is open, and if not,
    where it is lost and who refused it. Nothing is installed on a host.
    """


for command in (run, check, trace, mtu, plan, collate, demo, inventory, completion):
    cli.add_command(command)


def run_command_line() -> None:
    """Run the command line of this process and exit."""
    if sys.stderr is None:
        # Whoever closes it wants to hear nothing.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    # A script's background jobs are started with SIGINT ignored; what follows comes by way of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for request in (signal.SIGTERM, signal.SIGHUP):
        # Who asks in another way gets the same end as by Ctrl-C; nohup's wish stands.
        if signal.getsignal(request) is signal.SIG_DFL:
            signal.signal(request, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    sys.exit(status_of(sys.argv[1:]))


def status_of(arguments: Sequence[str]) -> int:
    """
    Run a command line and return the exit status that it ends with.

    Whatever is the fault of the user, of a host or of the network is a line on stderr. Only a mistake of
    netprobe itself shows a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        result = _invoke(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except Refused as refused:
        tell(*refused.lines)
        return refused.status
    except click.ClickException as error:
        tell(*error.format_message().splitlines())
        if context := getattr(error, "ctx", None):
            click.echo(f"Try '{context.command_path} --help'.", file=sys.stderr)
        return USAGE_STATUS
    except BrokenPipeError:
        # Whoever read the output has enough.
        abandon_stdout()
        return BROKEN_PIPE_STATUS
    except BaseException as error:  # noqa: BLE001 - the last resort, which tells and does not go on
        return _status_of_failure(error)
    return result


def _invoke(arguments: Sequence[str]) -> int:
    """What click's own `main` does, but for its exit status 1 when a pipe is closed."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(cli, {}, "netprobe", COMPLETION_VARIABLE, instruction)
    try:
        # Without any word the help is the answer, but nothing has been done.
        with cli.make_context("netprobe", list(arguments) or ["--help"]) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as end:
        Output(None)  # where there is no stdout, click has shown its help to nobody
        return end.exit_code if arguments else USAGE_STATUS
    return status if isinstance(status, int) else 0


def _is_of_stdout(error: OSError) -> bool:
    """Whether what failed was to print (help, a completion script), by the place where it did."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_code in (click.echo.__code__, status_of.__code__)


def _status_of_failure(error: BaseException) -> int:
    if _is_interruption(error):
        tell("interrupted")
        return INTERRUPTED_STATUS
    if isinstance(error, OSError) and _is_of_stdout(error):
        abandon_stdout()
        tell(f"cannot write stdout: {error.strerror}")
        return IO_STATUS
    traceback.print_exception(type(error), error, error.__traceback__)
    tell("this is a mistake in netprobe itself, not in your network; please report it with the lines above")
    return INTERNAL_STATUS


def _is_interruption(error: BaseException) -> bool:
    """Whether all that went wrong is Ctrl-C, by itself or out of the groups that nurseries raise."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return all(map(_is_interruption, inner))
    return isinstance(error, KeyboardInterrupt | click.Abort)
