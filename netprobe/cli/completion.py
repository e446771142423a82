"""`netprobe completion`: the script that makes a shell complete netprobe's words."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

COMPLETION_VARIABLE: Final = "_NETPROBE_COMPLETE"
"""What the script sets to ask netprobe for words instead of running it."""


@click.command(
    epilog="""\b
Examples:
  netprobe completion bash > /etc/bash_completion.d/netprobe
  netprobe completion zsh > "${fpath[1]}/_netprobe"
  netprobe completion fish > ~/.config/fish/completions/netprobe.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete netprobe's commands, options, probes and modes."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}", context)
    script = kind(context.find_root().command, {}, "netprobe", COMPLETION_VARIABLE)
    # Not the subclass's own: bash's starts a bash only to look at its version.
    click.echo(ShellComplete.source(script))
