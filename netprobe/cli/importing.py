"""`netprobe inventory import`: an inventory out of what other programs know of the hosts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from netprobe.cli.errors import refusals
from netprobe.cli.output import TO_FILE, Output

if TYPE_CHECKING:
    from netprobe.importers import Imported
    from netprobe.model import Role


@click.group("import", no_args_is_help=False)
def import_() -> None:
    """
    Make an inventory out of what another program knows of the hosts.

    It goes to stdout as YAML, with comments that say where it comes from and what is left open. What
    `netprobe inventory check` would not accept is not written: a line for each mistake, and exit status 2.
    """


def _pairs(option: click.Parameter, values: tuple[str, ...], parse: Callable[[str], Any]) -> dict[str, Any]:
    """Values like NAME=WORDS, by their names."""
    found: dict[str, Any] = {}
    for value in values:
        name, equals, words = value.partition("=")
        if not name or not equals or not words:
            raise click.BadParameter(f"expected {option.metavar}, got {value!r}.")
        if name in found:
            raise click.BadParameter(f"{name!r} is there twice.")
        try:
            found[name] = parse(words)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}") from None
    return found


def _roles(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    from netprobe.importers.found import roles_of

    return _pairs(option, values, roles_of)


def _addresses(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    return _pairs(option, values, lambda words: tuple(words.split(",")))


def _role_option(name: str, instead: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--role",
        "roles",
        multiple=True,
        metavar=f"{name}=ROLE[,ROLE]",
        callback=_roles,
        help=f"The roles of {name}, of node, typha, apiserver and etcd, {instead}. May be repeated.",
    )


_USER = click.option("--user", default="", metavar="USER", help="Who logs in. [default: as ssh is set up]")
_SUDO = click.option("--sudo", is_flag=True, help="Run the agent by `sudo -n` on every host.")


def _write(imported: Imported, source: str, output: Path | None) -> None:
    from netprobe.importers import write

    # The target is tried first: what cannot be written need not be made.
    target = Output(output)
    target.write(write(imported, source, _command_line(click.get_current_context())))


def _command_line(context: click.Context) -> str:
    """The command as it would be typed, but for where its output goes."""
    words = context.command_path.split()
    operands = []
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE or name == "output":
            continue
        values = _as_typed(context.params[name])
        if isinstance(parameter, click.Argument):
            operands += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
        else:
            words += [word for value in values for word in (parameter.opts[-1], value)]
    return shlex.join(words + operands)


def _as_typed(value: object) -> list[str]:
    """The words that a parameter's value was, or its values were, typed as."""
    if isinstance(value, Mapping):
        return [f"{name}={','.join(map(_word, words)) or 'none'}" for name, words in value.items()]
    return [str(each) for each in (value if isinstance(value, tuple) else (value,))]


def _word(value: object) -> str:
    return str(getattr(value, "value", value))


@import_.command(
    epilog="""\b
Examples:
  netprobe inventory import ansible inventory/cluster/hosts.yaml -o hosts.yaml
  netprobe inventory import ansible hosts.ini --role proxies=apiserver --address-var wg_ip
  ansible-inventory --list | netprobe inventory import ansible - | netprobe inventory check -"""
)
@click.argument("inventory")
@_role_option("GROUP", "instead of what its name says, or none")
@click.option(
    "--address-var",
    "address_vars",
    multiple=True,
    metavar="VARIABLE",
    help="The host variable that has the addresses to probe, instead of the usual ones; may be repeated.",
)
@click.option("--sudo", is_flag=True, help="Run the agent by `sudo -n` where the inventory does not say.")
@TO_FILE
def ansible(
    inventory: str,
    roles: dict[str, tuple[Role, ...]],
    address_vars: tuple[str, ...],
    output: Path | None,
    *,
    sudo: bool,
) -> None:
    """
    Make an inventory out of one of Ansible.

    INVENTORY is whatever `ansible-inventory -i` takes, or a file (- for stdin) with what `ansible-inventory
    --list` wrote. Groups give roles, by the names that Kubespray and the like have for them; connection
    variables say how to reach a host. The addresses are those in ip, ip6, ipv6, access_ip, access_ip6 and
    node_ip, or else in ansible_host. Passwords are not taken.
    """
    from msgspec.structs import replace

    from netprobe.importers import ansible as importer
    from netprobe.importers.programs import called

    with refusals():
        document, warnings = importer.ask(inventory)
        source = called(Path(inventory))
        imported = importer.read(document, source, roles=roles, address_vars=address_vars, sudo=sudo)
        imported = replace(imported, remarks=(*warnings, *imported.remarks))
        _write(imported, source, output)


@import_.command(
    epilog="""\b
Examples:
  netprobe inventory import kubectl --user ops --sudo -o hosts.yaml
  kubectl get nodes -o json | netprobe inventory import kubectl - --stacked-etcd"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--context", default="", metavar="NAME", help="The context of kubectl's configuration.")
@click.option("--kubeconfig", default="", metavar="FILE", help="kubectl's configuration.")
@click.option(
    "--connect-to",
    type=click.Choice(["address", "name"]),
    default="address",
    show_default=True,
    help="Where ssh logs in: at the node's InternalIP, or at its name.",
)
@click.option("--stacked-etcd", is_flag=True, help="etcd runs on the nodes of the control plane.")
@_role_option("NODE", "instead of what its labels say; none leaves it out")
@_USER
@_SUDO
@TO_FILE
def kubectl(
    file: Path | None,
    output: Path | None,
    *,
    context: str,
    kubeconfig: str,
    **choices: Any,  # noqa: ANN401
) -> None:
    """
    Make an inventory out of the nodes of a running cluster.

    kubectl is asked for them, or FILE (- for stdin) has what `kubectl get nodes -o json` wrote. The addresses
    are the nodes' InternalIP of both families; labels tell the control plane and etcd. The nodes are reached
    by ssh, not by kubectl.
    """
    if file is not None and (context or kubeconfig):
        raise click.UsageError("--context and --kubeconfig are for kubectl, and with FILE it is not run.")

    from netprobe.importers import kubectl as importer
    from netprobe.importers import programs

    with refusals():
        if file is None:
            source = f"`{shlex.join(importer.argv(context, kubeconfig))}`"
            text = importer.ask(context, kubeconfig)
        else:
            source, text = programs.called(file), programs.read(file)
        _write(importer.read(text, source, **choices), source, output)


@import_.command(
    epilog="""\b
Examples:
  netprobe inventory import vagrant -o hosts.yaml
  netprobe inventory import vagrant node-1 node-2 --role node-1=node,apiserver,etcd
  vagrant ssh-config | netprobe inventory import vagrant --ssh-config -"""
)
@click.argument("machines", nargs=-1, metavar="[MACHINE]...")
@click.option(
    "--ssh-config",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="What `vagrant ssh-config` wrote (- for stdin), instead of running it.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="MACHINE=ADDRESS[,ADDRESS]",
    callback=_addresses,
    help="The addresses to probe of MACHINE, instead of asking it; may be repeated.",
)
@_role_option("MACHINE", "which is a node otherwise; none leaves it out")
@TO_FILE
def vagrant(
    machines: tuple[str, ...],
    ssh_config: Path | None,
    addresses: dict[str, tuple[str, ...]],
    roles: dict[str, tuple[Role, ...]],
    output: Path | None,
) -> None:
    """
    Make an inventory out of Vagrant's running machines: these, or all but those that only route.

    `vagrant ssh-config` says where to log in; the machines are asked for their addresses over ssh. Those by
    which Vagrant reaches a machine, and those that several have, are not probed.
    """
    from netprobe.importers import programs
    from netprobe.importers import ssh_config as configuration
    from netprobe.importers import vagrant as importer

    with refusals():
        if ssh_config is None:
            source, text = f"`{shlex.join(importer.argv(machines))}`", importer.ask(machines)
        else:
            source, text = programs.called(ssh_config), programs.read(ssh_config)
        sections = importer.chosen(configuration.parse(text, source), source, machines, addresses, roles)
        asked = importer.ask_machines([each for each in sections if each.name not in addresses], source)
        imported = importer.read(
            sections, asked, source, addresses=addresses, roles=roles, keeps_routers=bool(machines)
        )
        _write(imported, source, output)


@import_.command(
    epilog="""\b
Examples:
  netprobe inventory import hosts list.txt --user ops --sudo -o hosts.yaml
  getent hosts node-a node-b node-c | netprobe inventory import hosts -"""
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_USER
@_SUDO
@TO_FILE
def hosts(file: Path, user: str, output: Path | None, *, sudo: bool) -> None:
    """
    Make an inventory out of a plain list, a host on each line; FILE is - for stdin.

    A line is NAME ADDRESS [ADDRESS] [roles=ROLE,ROLE], or the other way round, ADDRESS [NAME], as in
    /etc/hosts; what follows a # is a comment. Names are not resolved.
    """
    from netprobe.importers import hosts as importer
    from netprobe.importers import programs

    with refusals():
        source = programs.called(file)
        _write(importer.read(programs.read(file), source, user=user, sudo=sudo), source, output)
