"""A check: an agent on each host, asked once for all that the requirements want to know; then judged."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple

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
from netprobe.requirements.given import Given

_WITHIN_S: Final = 20.0
"""For all questions of a host; what is left then is unknown."""
_ANSWER_TIMEOUT_S: Final = _WITHIN_S + 10.0


async def check(
    inventory: Inventory,
    modes: tuple[str, ...] | None = None,
    root: str = "/",
    progress: Progress | None = None,
    access: Access | None = None,
    given: Given | None = None,
) -> Check:
    """
    Find out what each host of an inventory has of what the modes need (None: all that there are).

    `root` is a directory on the hosts that is taken for / where files are read, `given` what is known of the
    cluster besides; nothing of that is in the result. Hosts that fail are in it with their reasons.
    """
    told = Silent() if progress is None else progress
    given = given or Given()
    started = now()
    evidence = await _gather(inventory, root, told, access or Access(), given)
    told.phase("judging", len(evidence))
    return Check(
        inventory=inventory,
        modes=modes,
        root=root,
        requirements=requirements.criteria(),
        hosts=tuple(_judge(name, evidence, inventory, modes, given) for name in evidence),
        started=started,
        finished=now(),
        versions={"netprobe": version("netprobe"), "python": platform.python_version()},
    )


def _judge(
    name: str,
    evidence: Mapping[str, Evidence],
    inventory: Inventory,
    modes: tuple[str, ...] | None,
    given: Given,
) -> HostFindings:
    context = Context(own=evidence[name], fleet=evidence, inventory=inventory, modes=modes, given=given)
    findings = tuple(each.finding(context) for each in requirements.registry().values())
    return HostFindings(name=name, findings=findings, error=context.own.lost)


async def _gather(
    inventory: Inventory, root: str, told: Progress, access: Access, given: Given
) -> dict[str, Evidence]:
    """What every host answers, in the order of the inventory."""
    hosts = {host.name: host for host in inventory.hosts}
    crew = Crew(inventory.hosts, access, lambda _name, _reason: None, told, "inspector")
    told.phase("starting agents", len(hosts))
    async with trio.open_nursery() as nursery:
        try:
            await crew.start(nursery)
            told.phase("asking", len(crew.names))
            questions = {name: _questions(inventory, hosts[name], given) for name in crew.names}
            requests = {name: _request(root, asked) for name, asked in questions.items()}
            answers = await _ask(crew, requests)
        finally:
            await crew.end()
        nursery.cancel_scope.cancel()
    found = {}
    for name, host in hosts.items():
        if lost := crew.lost.get(name, ""):
            found[name] = Evidence(host=host, answers={}, lost=lost)
            continue
        try:
            found[name] = answers[name].evidence(host, questions[name])
        except wire.ProtocolError as error:
            found[name] = Evidence(host=host, answers={}, lost=f"the agent talks garbage: {error}")
    return found


class _Heard(NamedTuple):
    """What an agent has answered, and the coordinator's clock around it."""

    asked: float
    inspected: wire.Inspected
    answered: float

    def evidence(self, host: Host, questions: list[Question[Any]]) -> Evidence:
        return Evidence(
            host=host,
            answers=decode(questions, self.inspected),
            asked=self.asked,
            began=self.inspected.began,
            ended=self.inspected.ended,
            answered=self.answered,
        )


async def _ask(crew: Crew, requests: Mapping[str, wire.Inspect]) -> dict[str, _Heard]:
    """What each host answers; of each it is known when it was asked, and when it had answered."""
    heard: dict[str, _Heard] = {}

    async def ask(name: str) -> None:
        asked = time.time()
        answers = await crew.ask("inspect", {name: requests[name]}, wire.Inspected, _ANSWER_TIMEOUT_S)
        answered = time.time()
        heard.update({each: _Heard(asked, answer, answered) for each, answer in answers.items()})

    async with trio.open_nursery() as nursery:
        for name in requests:
            nursery.start_soon(ask, name)
    return heard


def _questions(inventory: Inventory, host: Host, given: Given) -> list[Question[Any]]:
    """What the requirements ask of a host, each question once."""
    every = (
        question
        for each in requirements.registry().values()
        for question in each.questions(inventory, host, given)
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
