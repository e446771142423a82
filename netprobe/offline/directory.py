"""A plan as a directory: what is to be done on which host, and later what was observed there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import msgspec
import trio
from msgspec import Meta

from netprobe import __version__, bundle
from netprobe.coordinator.field import Field
from netprobe.model import Connection, Host, Inventory, Settings
from netprobe.offline import ansible
from netprobe.offline.course import Course
from netprobe.offline.scribe import Scribe
from netprobe.template import Key

SCHEMA: Final = "netprobe.plan/1"
PLAN: Final = "plan.json"
PROGRAMMES, OBSERVATIONS = "programmes", "observations"

DEFAULT_MARGIN_S: Final = 3.0
DEFAULT_PATIENCE_S: Final = 20.0

_Seconds = Annotated[float, Meta(gt=0, le=86400)]


class PlanError(Exception):
    """A plan that cannot be written or read; the text says which file, and what to do."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was planned: enough to plan it again, and so to understand the answers.

    Half of `margin_s` is what a host may be late, with the uncertainty of its clock. Each source asks again,
    slowly, for `patience_s`. From its start the run takes `duration_s`.
    """

    schema: str
    netprobe: str
    id: str
    margin_s: _Seconds
    patience_s: Annotated[float, Meta(ge=0, le=86400)]
    duration_s: _Seconds
    key: Key
    inventory: Inventory
    settings: Settings
    seal: str = ""

    def sealed(self) -> Plan:
        """The same with a seal, by which a change is noticed."""
        plain = msgspec.json.encode(msgspec.structs.replace(self, seal=""))
        # Numbers as they are read again: an integer may have become another one than that.
        plan = msgspec.json.decode(plain, type=Plan)
        return msgspec.structs.replace(plan, seal=sha256(msgspec.json.encode(plan)).hexdigest()[:16])

    async def follow(self, crew: Scribe) -> Course:
        """The course of this plan, followed with this crew."""
        field = Field(self.inventory, self.settings, key=self.key, is_planned=True)
        field.craft()
        course = Course(field, crew, self.patience_s)
        await course.follow()
        return course

    @property
    def names(self) -> list[str]:
        """The hosts that have a part in it."""
        field = Field(self.inventory, self.settings, key=self.key, is_planned=True)
        return [name for name, flows in field.ending_at.items() if flows]


def draw_up(inventory: Inventory, settings: Settings, margin_s: float, patience_s: float) -> Written:
    """A plan of everything that an inventory asks for, with what it takes to carry it out."""
    plan = Plan(
        schema=SCHEMA,
        netprobe=__version__,
        id="",
        margin_s=margin_s,
        patience_s=patience_s,
        duration_s=1,
        key=Key.fresh(),
        inventory=_without_secrets(inventory),
        settings=msgspec.structs.replace(settings, depth="syn"),
    )
    scribe = Scribe(plan.names, margin_s)
    trio.run(plan.follow, scribe)
    plan = msgspec.structs.replace(plan, id=scribe.identity(), duration_s=round(scribe.now_s, 3))
    return Written(plan.sealed(), scribe)


def _without_secrets(inventory: Inventory) -> Inventory:
    """The same, but for how hosts are reached: a plan is handed on, and does not need it."""
    hosts = (
        Host(
            name=host.name,
            addresses=host.addresses,
            roles=host.roles,
            connection=Connection(type=host.connection.type),
        )
        for host in inventory.hosts
    )
    return msgspec.structs.replace(inventory, hosts=tuple(hosts))


class Written:
    """A plan with the schedules of its hosts."""

    def __init__(self, plan: Plan, scribe: Scribe) -> None:
        self.plan = plan
        self._scribe = scribe

    def schedules(self) -> Mapping[str, bytes]:
        """The schedule of each host, as JSON."""
        return self._scribe.schedules()

    def programmes(self) -> Mapping[str, str]:
        """The programme of each host."""
        return {
            name: bundle.programme(f"netprobe's part of {name} in the plan {self.plan.id}.", schedule)
            for name, schedule in self.schedules().items()
        }

    def write(self, directory: Path, inventory: Inventory) -> None:
        """Write it into a directory, in the place of an earlier plan; `PlanError` where that cannot be."""
        if clash := [name for name in self._scribe.names if name in ansible.GROUPS]:
            raise PlanError(f"Ansible has a group that is called {clash[0]}: give the host another name")
        check_directory(directory)
        try:
            # Whoever can read it can make packets that count, and sees how hosts are reached.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in (PROGRAMMES, OBSERVATIONS, ansible.ROLE):
                shutil.rmtree(directory / part, ignore_errors=True)
            files = ansible.texts(inventory, self._scribe.names, self.plan.duration_s)
            files |= {f"{PROGRAMMES}/{name}.py": text for name, text in self.programmes().items()}
            # The plan comes last: without it there is none.
            files[PLAN] = msgspec.json.format(msgspec.json.encode(self.plan), indent=1).decode() + "\n"
            for name, text in files.items():
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise PlanError(f"cannot write {error.filename or directory}: {error.strerror}") from None


def check_directory(directory: Path) -> None:
    """`PlanError` unless a plan may be written there: where nothing is, or an earlier plan."""
    try:
        entries = list(directory.iterdir()) if directory.exists() else []
    except NotADirectoryError:
        raise PlanError(f"{directory} is not a directory: name one that is new, or empty") from None
    except OSError as error:
        raise PlanError(f"cannot write {directory}: {error.strerror}") from None
    if entries:
        try:
            load(directory, is_any=True)
        except PlanError:
            raise PlanError(
                f"{directory} is not empty, and has no earlier plan: name a directory that is new, or empty"
            ) from None


def load(directory: Path, *, is_any: bool = False) -> Plan:
    """The plan in a directory, of this version unless `is_any` will do; `PlanError` where there is none."""
    path = directory / PLAN
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise PlanError(f"{directory} has no {PLAN}: name a directory that `netprobe plan` wrote") from None
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from None
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.schema != SCHEMA:
            raise PlanError(f"{path}: a plan of schema {head.schema!r}; this netprobe reads {SCHEMA}")
        if not is_any and head.netprobe != __version__:
            raise PlanError(
                f"{path}: a plan of netprobe {head.netprobe}, and this is {__version__}: use the same version"
            )
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path}: no plan: {error}") from None
    if plan != plan.sealed():
        raise PlanError(f"{path} was changed: plan again")
    return plan


class _Head(msgspec.Struct):
    schema: str
    netprobe: str
