"""
The description of a lab: YAML in, checked values out, nothing built.

YAML is read with the booleans of YAML 1.2 (`true` and `false`): `on` is a key here, and `no` may be a host.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from netprobe.inventory.schema import check_text
from netprobe.lab.errors import DescriptionError
from netprobe.model import Family, Role

ROUTER: Final = "router"
"""The name by which faults, and commands that are run in a lab, mean the router."""

MAX_NETWORK_HOSTS: Final = 200
"""Hosts of one network have the last octets from .11 on."""

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# The router's interfaces have the names of the hosts: IFNAMSIZ less its zero byte, and not what is taken by
# another interface or by sysctl.
_NAME_CHARACTERS: Final = 15
_RESERVED: Final = (ROUTER, "lo", "all", "default")
_NEAR: Final = 0.7  # of 1, as difflib counts: `droped` is not near to `open`


class Hook(enum.Enum):
    """Where a rule is asked: the hooks of nftables; `ingress` and `egress` are below the IP layer."""

    INPUT = "input"
    OUTPUT = "output"
    FORWARD = "forward"
    PREROUTING = "prerouting"
    POSTROUTING = "postrouting"
    INGRESS = "ingress"
    EGRESS = "egress"


class Policy(enum.Enum):
    """What a base chain does with a packet that no rule decided on."""

    ACCEPT = "accept"
    DROP = "drop"


class ChainType(enum.Enum):
    """The types of base chains of nftables."""

    FILTER = "filter"
    NAT = "nat"
    ROUTE = "route"


class HostEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One host with its roles."""

    name: str
    roles: tuple[Role, ...] = (Role.NODE,)


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hosts on one bridge, whose other end is the router: they reach each other without being routed."""

    name: str
    hosts: tuple[str, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One thing that is wrong with the network.

    `on` are the hosts that have it, or `router`. What it is stands in exactly one of `nft` (rules for the
    base chain of `hook`), `nft_ruleset` (a whole ruleset, verbatim), `route`, `sysctl` and `run` (an argument
    vector); `policy`, `type` and `priority` are the base chain's, and a `policy` needs no rules. `says` tells
    a person what it is, `expect` which cells show it.
    """

    on: str | tuple[str, ...]
    nft: str | tuple[str, ...] = ()
    hook: Hook | None = None
    policy: Policy | None = None
    type: ChainType = ChainType.FILTER
    priority: int | str | None = None
    nft_ruleset: str = ""
    route: str | tuple[str, ...] = ()
    sysctl: dict[str, int | str] = {}
    run: tuple[str, ...] = ()
    says: str = ""
    expect: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what is no fault, or two at once; the message ends up behind the key's path."""
        kinds = [key for key in ("nft_ruleset", "route", "sysctl", "run") if getattr(self, key)]
        if self.nft or self.policy:
            kinds.insert(0, "nft")
        else:
            chain = {
                "hook": self.hook is not None,
                "type": self.type is not ChainType.FILTER,
                "priority": self.priority is not None,
            }
            for key in (key for key, is_given in chain.items() if is_given):
                raise ValueError(f"{key!r} without 'nft' or 'policy'")
        if len(kinds) != 1:
            expected = "expected exactly one of nft (or policy), nft_ruleset, route, sysctl, run"
            raise ValueError(f"{expected}; got {' and '.join(kinds) or 'none of them'}")

    @property
    def targets(self) -> tuple[str, ...]:
        """The hosts that have it, or the router."""
        return _strings(self.on)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules, one text each."""
        return _strings(self.nft)

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes, one text each."""
        return _strings(self.route)


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small network, what is wrong with it, and what netprobe must find."""

    name: str
    hosts: tuple[str | HostEntry, ...]
    families: tuple[Family, ...] = tuple(Family)
    networks: tuple[Network, ...] = ()
    pod_cidr: str | tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    expect: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse names that are not usable or not unique, and networks that cannot be."""
        for text in self.pod_ranges:
            if problem := check_text(text, "network"):
                raise ValueError(f"'pod_cidr': {problem}")
        if not self.hosts:
            raise ValueError("'hosts' is empty")
        if not self.families or len(set(self.families)) < len(self.families):
            raise ValueError("'families' is empty or names a family twice")
        names = list(self.roles)
        _check_names([entry if isinstance(entry, str) else entry.name for entry in self.hosts], "hosts")
        _check_names([*(network.name for network in self.networks), *names], "networks")
        placed: dict[str, str] = {}
        for network in self.networks:
            if not 0 < len(network.hosts) <= MAX_NETWORK_HOSTS:
                expected = f"expected 1 to {MAX_NETWORK_HOSTS}"
                raise ValueError(f"network {network.name!r} has {len(network.hosts)} hosts, {expected}")
            for host in network.hosts:
                if host not in names:
                    raise ValueError(f"network {network.name!r}: {unknown('host', host, names)}")
                if host in placed:
                    both = f"{placed[host]!r} and {network.name!r}"
                    raise ValueError(f"host {host!r} is in two networks, {both}")
                placed[host] = network.name

    @property
    def pod_ranges(self) -> tuple[str, ...]:
        """The ranges of the pods' addresses."""
        return _strings(self.pod_cidr)

    @property
    def roles(self) -> dict[str, tuple[Role, ...]]:
        """The hosts in their order, each with its roles."""
        entries = (HostEntry(name=entry) if isinstance(entry, str) else entry for entry in self.hosts)
        return {entry.name: entry.roles or (Role.NODE,) for entry in entries}


def _strings(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def unknown(kind: str, word: str, words: Sequence[str]) -> str:
    """That there is no such word, with the nearest that there is, or else all."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=_NEAR)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(words)}"
    return f"no {kind} {word!r}; {hint}"


def _check_names(names: Sequence[str], key: str) -> None:
    for index, name in enumerate(names):
        if not _NAME.fullmatch(name) or len(name) > _NAME_CHARACTERS:
            expected = f"lower-case letters, digits and single hyphens, at most {_NAME_CHARACTERS}"
            raise ValueError(f"{key!r}: the name {name!r}; expected {expected}")
        if name in _RESERVED:
            raise ValueError(f"{key!r}: the name {name!r} is taken")
        if name in names[:index]:
            raise ValueError(f"{key!r}: the name {name!r} is there twice")


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's booleans, and duplicate keys refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (as in PyYAML)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    problem = f"duplicate key {key.value!r}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|false)$"), ["t", "f"])

# The fields of the struct, and the words of the enumeration, that a key of the description stands for.
_STRUCTS: Final = {"": Description, "hosts": HostEntry, "networks": Network, "faults": Fault}
_WORDS: Final[Mapping[str, tuple[str, type[enum.Enum]]]] = {
    "families": ("family", Family),
    "roles": ("role", Role),
    "hook": ("hook", Hook),
    "policy": ("policy", Policy),
    "type": ("chain type", ChainType),
}


def convert(raw: object) -> Description:
    """The description in a document that YAML has read; `DescriptionError` names the key."""
    try:
        return msgspec.convert(raw, Description)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        key = path.strip("`").removeprefix("$").removeprefix(".")
        raise DescriptionError(f"{key}: {_explained(text, key)}" if key else _explained(text, key)) from None


def _explained(text: str, key: str) -> str:
    """What msgspec says, with what was expected where it does not say that."""
    keys = re.findall(r"[a-z_]+", key)
    if field := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        struct = _STRUCTS.get(keys[0] if keys else "")
        if struct is not None:
            return unknown("key", field[1], struct.__struct_fields__)
    if (word := re.fullmatch(r"Invalid enum value '?(.*?)'?", text)) and keys and keys[-1] in _WORDS:
        kind, words = _WORDS[keys[-1]]
        return unknown(kind, word[1], [member.value for member in words])
    return text[0].lower() + text[1:]


def parse(text: str) -> Description:
    """The description in a YAML text, without a look at what its rules and expectations mean."""
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise DescriptionError(f"line {mark.line + 1 if mark else 1}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise DescriptionError(f"not YAML: {' '.join(str(error).split())}") from None
    return convert(raw)


def read(path: Path) -> str:
    """The text of a file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DescriptionError(f"{path}: cannot read it: {reason}") from None


def mesh(
    hosts: int, *, roles: Sequence[Role] = (Role.NODE,), families: Sequence[Family] = tuple(Family)
) -> Description:
    """`hosts` hosts without a fault, each with these roles, on a link of its own to the one router."""
    names = [f"n{number:0{len(str(hosts))}}" for number in range(1, hosts + 1)]
    return Description(
        name=f"{hosts} hosts and nothing in the way",
        hosts=tuple(HostEntry(name=name, roles=tuple(roles)) for name in names),
        families=tuple(families),
    )
