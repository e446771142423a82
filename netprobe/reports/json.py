"""
The whole run as one JSON document (design §5), and back.

The document is the run itself, with nothing left out but defaults, so that every report can be made from it
later. The results of the modes are added for readers who do not want to work them out, and not read back.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import msgspec

from netprobe import __version__
from netprobe.model import MIN_NETWORK, Cell, HostReport, Inventory, Run, Settings, Trace, Verdict
from netprobe.modes import ModeResult, evaluate
from netprobe.reports.base import Options, Report, ReportError, printable, when

SCHEMA: Final = "netprobe.run/1"
"""The version changes when a reader of the old one would go wrong; a new field with a default does not."""

_SCHEMA_FORM: Final = re.compile(r"netprobe\.run/(?P<version>[0-9]{1,9})")


class ModeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """
    A mode's result: of `required` flows so many are open, blocked and untested.

    These are those that were probed; `not_probed` and `impossible` are what the mode needs besides, and
    `left_out` its probes that the inventory has no addresses for.
    """

    mode: str
    usable: bool
    required: int
    open: int
    blocked: int
    untested: int
    verdicts: dict[Verdict, int]
    not_probed: int = 0
    impossible: int = 0
    left_out: tuple[str, ...] = ()


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What is written; the order of the fields is that of the file. Fields that are not known are skipped."""

    schema: str
    versions: dict[str, str]
    started: str
    finished: str
    packets: int = 0
    settings: Settings = Settings()
    modes: tuple[ModeSummary, ...]
    inventory: Inventory
    hosts: tuple[HostReport, ...]
    cells: tuple[Cell, ...]
    traces: tuple[Trace, ...] = ()


class _Head(msgspec.Struct):
    schema: str


def render(run: Run, _options: Options) -> str:
    """One object; each mode, host and cell is a line of its own, for `grep`, `diff` and pagers."""
    document = Document(
        schema=SCHEMA,
        versions=run.versions,
        started=run.started,
        finished=run.finished,
        packets=run.packets,
        settings=run.settings,
        modes=tuple(map(_summary, evaluate(run))),
        inventory=run.inventory,
        hosts=run.hosts,
        cells=run.cells,
        traces=run.traces,
    )
    encode = msgspec.json.Encoder().encode
    fields: list[bytes] = []
    for name in document.__struct_fields__:
        value = getattr(document, name)
        if name == "traces" and not value:
            continue
        text = (
            b"[\n" + b",\n".join(map(encode, value)) + b"\n]" if isinstance(value, tuple) else encode(value)
        )
        fields.append(encode(name) + b": " + text)
    return "{\n" + b",\n".join(fields).decode() + "\n}\n"


def _summary(result: ModeResult) -> ModeSummary:
    return ModeSummary(
        mode=result.mode.name,
        usable=result.usable,
        required=result.required,
        open=result.counts.get(Verdict.OPEN, 0),
        blocked=result.blocked,
        untested=result.untested,
        verdicts=dict(result.counts),
        not_probed=result.not_probed,
        impossible=result.impossible,
        left_out=result.left_out,
    )


def load(source: Path | bytes) -> Run:
    """
    Read a run back, from a file or from what was in one.

    `ReportError` where the file cannot be read, is no netprobe run, or is one of a later schema.
    """
    name = "the document"
    if isinstance(source, Path):
        name = str(source)
        try:
            source = source.read_bytes()
        except OSError as error:
            raise ReportError(f"{name}: {error.strerror}") from error
    try:
        _check_schema(msgspec.json.decode(source, type=_Head).schema)
        document = msgspec.json.decode(source, type=Document)
        run = Run(
            inventory=document.inventory,
            settings=document.settings,
            hosts=document.hosts,
            cells=document.cells,
            traces=document.traces,
            started=document.started,
            finished=document.finished,
            packets=document.packets,
            versions=document.versions,
        )
        _check(run)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReportError(f"{name}: not a netprobe run: {printable(str(error))}") from error
    except ReportError as error:
        raise ReportError(f"{name}: {error}") from None
    return run


def _check_schema(schema: str) -> None:
    if schema == SCHEMA:
        return
    match = _SCHEMA_FORM.fullmatch(schema)
    if match is not None and int(match["version"]) > int(SCHEMA.rpartition("/")[2]):
        raise ReportError(
            f"its schema is {schema}, this netprobe ({__version__}) reads up to {SCHEMA}: use a newer one"
        )
    raise ValueError(f"its schema is {schema[:40]!r}, not {SCHEMA}")


def _check(run: Run) -> None:
    """What the types do not say and every reader of a run relies on; `ValueError` where it is not so."""
    when(run.started)
    when(run.finished)
    hosts = {host.name for host in run.inventory.hosts}
    if len(hosts) != len(run.inventory.hosts):
        raise ValueError("two hosts have the same name")
    addresses = {address for host in run.inventory.hosts for address in host.addresses}
    for cell in run.cells:
        flow = cell.flow
        if flow.src not in hosts or flow.dst not in hosts:
            raise ValueError(f"flow {flow.number} is between hosts that the inventory does not have")
        if flow.src == flow.dst:
            raise ValueError(f"flow {flow.number} is from a host to itself")
        addresses |= {flow.src_address, flow.dst_address, flow.bears}
    if len({cell.flow.number for cell in run.cells}) != len(run.cells):
        raise ValueError("two flows have the same number")
    for address in addresses:
        ip_address(address)
    for text in run.inventory.pod_cidr:
        if ip_network(text).num_addresses < MIN_NETWORK:
            raise ValueError(f"the range {text} has no address to send from")


REPORT = Report(
    name="json",
    extension="json",
    summary="The whole run as one document, with all evidence; other reports are made from it.",
    render=render,
)
