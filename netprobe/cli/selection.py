"""The options that say which flows of an inventory are probed, and how; shared by all that plan."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from netprobe.cli.errors import Refused, refusals

if TYPE_CHECKING:
    from netprobe.model import Inventory, Settings
    from netprobe.plan import Share

_Command = TypeVar("_Command", bound=Callable[..., Any])


_NONE = {
    "probe": (),
    "mode": (),
    "family": (),
    "only": (),
    "count": None,
    "rate": None,
    "timeout": None,
    "depth": None,
}
"""Nothing chosen, for commands that do not have all of the options."""


class Choices:
    """What was chosen: the values of the options below, as click hands them over."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - each option has a type of its own
        self._options = options

    def plan(self, path: Path) -> tuple[Inventory, Settings, list[Share]]:
        """What to probe, how to, and the flows, counted; `Refused` where there is nothing to probe."""
        from netprobe import plan
        from netprobe.inventory import InventoryError, narrow
        from netprobe.model import Family, Settings

        options = {**_NONE, **self._options}
        families = tuple(map(Family, options["family"])) or tuple(Family)
        with refusals():
            inventory = narrow(
                read(path),
                probes=options["probe"],
                modes=options["mode"],
                families=families,
                only=options["only"],
            )
            asked = {
                "count": options["count"],
                "rate": options["rate"],
                "timeout_s": options["timeout"],
                "depth": options["depth"],
            }
            given = {name: value for name, value in asked.items() if value is not None}
            settings = Settings(families=families, only=options["only"], **given)
            try:
                shares = plan.shares(inventory, settings)
            except ValueError as error:
                raise InventoryError(f"{path}: {error}") from None
        if not shares:
            raise Refused(
                f"{path}: nothing to probe: no two hosts have the roles and addresses that a flow needs"
            )
        return inventory, settings, shares


def read(path: Path) -> Inventory:
    """The inventory in a file, or on stdin for `-`; `InventoryError` names what is wrong with it."""
    from netprobe.inventory import document, load, loads

    if str(path) != "-":
        return load(path)
    return loads(sys.stdin.buffer.read(document.MAX_BYTES + 1), "<stdin>")


def _check_count(_context: click.Context, _option: click.Parameter, value: int | None) -> int | None:
    if value is None:
        return None
    from netprobe.attempts import FIRST

    if not 1 <= value <= FIRST.total:
        raise click.BadParameter(f"{value} is not a number from 1 to {FIRST.total}.")
    return value


def items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of the words that begin so."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_hosts(context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The hosts of the inventory that stands on the line already, if it is a file that can be read."""
    from netprobe.inventory import InventoryError, load

    # click stops reading the line at the option that has no value yet, and leaves its arguments as they are.
    path = context.params.get("inventory") or next(iter(context.args), "")
    try:
        hosts = load(path).hosts if Path(path).is_file() else ()
    except (InventoryError, OSError, ValueError):
        return []
    return items((host.name for host in hosts), incomplete)


def complete_probes(
    _context: click.Context, _option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The probes that there are."""
    from netprobe.probes import registry

    return items(registry(), incomplete)


def _modes(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from netprobe.modes import MODES

    return items(MODES, incomplete)


class WordsOption(click.Option):
    """An option whose help ends in all words that it takes; they load when they are asked for."""

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        """The option's line in the help."""
        record = super().get_help_record(context)
        words = ", ".join(item.value for item in self.shell_complete(context, ""))
        return None if record is None else (record[0], f"{record[1]} One of {words}.")


class Range(click.FloatRange):
    """The numbers from one to another; what is not a number is in no range, whatever it is compared to."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number from {self.min} to {self.max}.", param, ctx)
        return number


INVENTORY = click.argument("inventory", type=click.Path(path_type=Path, allow_dash=True))
RATE = click.option(
    "--rate",
    type=Range(min=1, max=1_000_000),
    metavar="N",
    help="Packets a second from any host, at most. [default: 5000]",
)
TIMEOUT = click.option(
    "--timeout",
    type=Range(min=0.05, max=60),
    metavar="SECONDS",
    help="The longest wait for a packet that may still arrive. [default: 1]",
)

_OPTIONS = {
    "inventory": INVENTORY,
    "probe": click.option(
        "--probe",
        cls=WordsOption,
        multiple=True,
        metavar="PROBE",
        shell_complete=complete_probes,
        help="Only this probe, whatever the inventory says; may be repeated.",
    ),
    "mode": click.option(
        "--mode",
        cls=WordsOption,
        multiple=True,
        metavar="MODE",
        shell_complete=_modes,
        help="Only what this mode needs, whatever the inventory says; may be repeated.",
    ),
    "family": click.option(
        "--family", multiple=True, type=click.Choice(["ipv4", "ipv6"]), help="Only this address family."
    ),
    "only": click.option(
        "--only",
        multiple=True,
        metavar="HOST",
        shell_complete=complete_hosts,
        help="Only the flows that begin or end at this host. May be repeated.",
    ),
    "count": click.option(
        "--count",
        type=int,
        metavar="N",
        callback=_check_count,
        help="Packets of each flow in the first round, 1 to 8. [default: 8, fewer in large clusters]",
    ),
    "rate": RATE,
    "timeout": TIMEOUT,
    "depth": click.option(
        "--depth",
        type=click.Choice(["syn", "session"]),
        default="session",
        show_default=True,
        help="How far TCP probes go: only a SYN, or then a session with payload where the port is ours.",
    ),
}


def selection(*names: str) -> Callable[[_Command], _Command]:
    """Give a command the argument INVENTORY and these options; it takes `inventory` and `**choices`."""

    def decorate(command: _Command) -> _Command:
        for name, option in reversed(_OPTIONS.items()):
            if not names or name in names:
                command = option(command)
        return command

    return decorate
