"""The options that say how to log in to hosts; shared by all commands that start agents."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from netprobe.cli.errors import Refused

if TYPE_CHECKING:
    from netprobe.access import Access, Secret

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--forks",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Log in to so many hosts at a time. [default: 50]",
    ),
    click.option(
        "--ask-sudo-password",
        is_flag=True,
        help="Ask once for the password that sudo wants on the hosts; without a terminal it is from stdin.",
    ),
    click.option(
        "--accept-new-host-keys",
        is_flag=True,
        help="Let ssh add the host keys of hosts that it has never seen.",
    ),
)


class Login:
    """What was chosen, for a command to take when all else is known to be right."""

    def __init__(self, *, forks: int | None, ask_sudo_password: bool, accept_new_host_keys: bool) -> None:
        self._forks = forks
        self._asks = ask_sudo_password
        self._accepts = accept_new_host_keys

    def access(self, inventory: Path) -> Access:
        """The choice; asks for the password where one is to be asked. An inventory may come from stdin."""
        from netprobe.access import DEFAULT_FORKS, Access

        return Access(
            forks=self._forks or DEFAULT_FORKS,
            accept_new_host_keys=self._accepts,
            sudo_password=_password(stdin_is_taken=str(inventory) == "-") if self._asks else None,
        )


def login(command: _Command) -> _Command:
    """Give a command the options; it takes them as one parameter `login`."""

    @functools.wraps(command)
    def with_login(
        *arguments: Any,  # noqa: ANN401 - handed over as they are
        forks: int | None,
        ask_sudo_password: bool,
        accept_new_host_keys: bool,
        **named: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        chosen = Login(
            forks=forks, ask_sudo_password=ask_sudo_password, accept_new_host_keys=accept_new_host_keys
        )
        return command(*arguments, login=chosen, **named)

    decorated = cast("_Command", with_login)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _password(*, stdin_is_taken: bool) -> Secret:
    from netprobe.access import Secret

    if sys.stdin is not None and sys.stdin.isatty():
        return Secret(click.prompt("sudo password", hide_input=True, err=True))
    if stdin_is_taken:
        raise Refused("the sudo password is read from stdin, where no terminal is: give INVENTORY as a file")
    # As bytes: what is no text of the locale may be a password all the same.
    line = b"" if sys.stdin is None else sys.stdin.buffer.readline().rstrip(b"\n")
    if not line:
        raise Refused("no sudo password on stdin: expected it as the first line, or a terminal to ask at")
    return Secret(line.decode(errors="surrogateescape"))
