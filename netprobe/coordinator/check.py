"""A check: an agent on each host, asked once for all that the requirements want to know; then judged."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import msgspec
import trio

from netprobe import requirements, wire
from netprobe.access import Access
from netprobe.coordinator.crew import Crew
from netprobe.coordinator.progress import Progress, Silent
from netprobe.coordinator.record import now
from netprobe.findings import Check, HostFindings
from netprobe.model import Host, Inventory
from netprobe.questions import Failed, Question
from netprobe.requirements import Context, Evidence

_WITHIN_S: Final = 20.0
"""For all questions of a host; what is left then is unknown."""
_ANSWER_TIMEOUT_S: Final = _WITHIN_S + 10.0


async def check(
    inventory: Inventory,
    modes: tuple[str, ...] | None = None,
    root: str = "/",
    progress: Progress | None = None,
    access: Access | None = None,
) -> Check:
    """
    Find out what each host of an inventory has of what the modes need (None: all that there are).

    `root` is a directory on the hosts that is taken for / where files are read. Hosts that fail are in the
    result with their reasons.
    """
    told = Silent() if progress is None else progress
    started = now()
    evidence = await _gather(inventory, root, told, access or Access())
    told.phase("judging", len(evidence))
    return Check(
        inventory=inventory,
        modes=modes,
        root=root,
        requirements=requirements.criteria(),
        hosts=tuple(_judge(name, evidence, inventory, modes) for name in evidence),
        started=started,
        finished=now(),
        versions={"netprobe": version("netprobe"), "python": platform.python_version()},
    )


def _judge(
    name: str, evidence: Mapping[str, Evidence], inventory: Inventory, modes: tuple[str, ...] | None
) -> HostFindings:
    context = Context(own=evidence[name], fleet=evidence, inventory=inventory, modes=modes)
    findings = tuple(each.finding(context) for each in requirements.registry().values())
    return HostFindings(name=name, findings=findings, error=context.own.lost)


async def _gather(inventory: Inventory, root: str, told: Progress, access: Access) -> dict[str, Evidence]:
    """What every host answers, in the order of the inventory."""
    hosts = {host.name: host for host in inventory.hosts}
    crew = Crew(inventory.hosts, access, lambda _name, _reason: None, told, "inspector")
    told.phase("starting agents", len(hosts))
    async with trio.open_nursery() as nursery:
        try:
            await crew.start(nursery)
            told.phase("asking", len(crew.names))
            questions = {name: _questions(inventory, hosts[name]) for name in crew.names}
            requests = {name: _request(root, asked) for name, asked in questions.items()}
            asked = time.time()
            answers = await crew.ask("inspect", requests, wire.Inspected, _ANSWER_TIMEOUT_S)
            answered = time.time()
        finally:
            await crew.end()
        nursery.cancel_scope.cancel()
    found = {}
    for name, host in hosts.items():
        lost = crew.lost.get(name, "")
        decoded: dict[Question[Any], Any] = {}
        if not lost:
            try:
                decoded = decode(questions[name], answers[name])
            except wire.ProtocolError as error:
                lost = f"the agent talks garbage: {error}"
        found[name] = Evidence(host=host, answers=decoded, asked=asked, answered=answered, lost=lost)
    return found


def _questions(inventory: Inventory, host: Host) -> list[Question[Any]]:
    """What the requirements ask of a host, each question once."""
    every = (
        question for each in requirements.registry().values() for question in each.questions(inventory, host)
    )
    return list(dict.fromkeys(every))


def _request(root: str, questions: list[Question[Any]]) -> wire.Inspect:
    return wire.Inspect(root=root, within=_WITHIN_S, order=sys.byteorder, questions=questions)


def decode(questions: list[Question[Any]], inspected: wire.Inspected) -> dict[Question[Any], Any]:
    """The answers by their questions, each in its form; `ProtocolError` where one has another."""
    if len(questions) != len(inspected.answers):
        raise wire.ProtocolError(f"{len(inspected.answers)} answers to {len(questions)} questions")
    found: dict[Question[Any], Any] = {}
    for question, answer in zip(questions, inspected.answers, strict=True):
        if answer.error:
            found[question] = Failed(answer.error, namespace=answer.namespace)
            continue
        try:
            found[question] = msgspec.json.decode(answer.ok, type=question.answer)
        except wire.NOT_JSON as error:
            raise wire.ProtocolError(f"no answer to {type(question).__name__}: {error}") from None
    return found
