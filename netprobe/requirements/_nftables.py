"""The chains of nf_tables in the host's network namespace, as the kernel tells of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from netprobe.questions import Failed, Look, Outcome
from netprobe.requirements import _netlink
from netprobe.requirements.base import Context

_GET_CHAIN: Final = 10 << 8 | 4  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
_NFGENMSG_BYTES: Final = 4
_TABLE, _NAME, _HOOK, _POLICY, _USE, _TYPE = (
    1,
    3,
    4,
    5,
    6,
    7,
)  # linux/include/uapi/linux/netfilter/nf_tables.h
_HOOK_NUMBER: Final = 1
_DROP: Final = 0
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_FAMILIES: Final[Mapping[int, str]] = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

_NONE: Final = ("EINVAL", "EOPNOTSUPP", "EPROTONOSUPPORT", "ENOENT")
"""What a kernel without nf_tables says."""

CHAINS: Final = Look(
    protocol=_netlink.NETFILTER,
    steps=(_netlink.step(_GET_CHAIN, bytes(_NFGENMSG_BYTES), _netlink.DUMP),),
)


class Chain(msgspec.Struct, frozen=True):
    """
    A chain: its table's family and name, its own name; `hook` is "" of one that is only jumped to.

    `uses` counts its rules and the jumps to it.
    """

    family: str
    table: str
    name: str
    hook: str
    type: str
    drops: bool
    uses: int

    def __str__(self) -> str:
        """As nft(8) has it."""
        return f"{self.family} {self.table} {self.name}"


def chains(context: Context) -> list[Chain] | Failed:
    """All chains; none where the kernel has no nf_tables."""
    found = context.of(CHAINS)
    if isinstance(found, Failed):
        return Failed(found.error, found.namespace, found.host) if found.name not in _NONE else []
    return decoded(found)


def decoded(outcomes: list[Outcome]) -> list[Chain] | Failed:
    """The chains of an answer."""
    if len(outcomes) != 1:
        return Failed(f"EPROTO: {len(outcomes)} answers to one request")
    if outcomes[0].error:
        return [] if outcomes[0].error in _NONE else Failed(outcomes[0].error)
    return [_chain(body) for body in outcomes[0].bodies if len(body) >= _NFGENMSG_BYTES]


def _chain(body: bytes) -> Chain:
    told = _netlink.attributes(body[_NFGENMSG_BYTES:])
    hook = _netlink.attributes(told.get(_HOOK, b""))
    number = _number(hook.get(_HOOK_NUMBER, b""))
    return Chain(
        family=_FAMILIES.get(body[0], str(body[0])),
        table=_text(told.get(_TABLE, b"")),
        name=_text(told.get(_NAME, b"")),
        hook="" if number is None else _HOOKS[number] if number < len(_HOOKS) else str(number),
        type=_text(told.get(_TYPE, b"")),
        drops=_number(told.get(_POLICY, b"")) == _DROP,
        uses=_number(told.get(_USE, b"")) or 0,
    )


def _number(value: bytes) -> int | None:
    return int(struct.unpack(">I", value)[0]) if len(value) == 4 else None


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


_XTABLES: Final = frozenset({"filter", "nat", "mangle", "raw", "security"})


def is_iptables(chain: Chain) -> bool:
    """Whether a chain is in a table as iptables-nft makes them."""
    return chain.family in ("ip", "ip6") and chain.table in _XTABLES
