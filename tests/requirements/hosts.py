"""Hosts to judge: the agent's own eyes on a tree of files, and what else is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from netprobe import requirements
from netprobe.agent import sights
from netprobe.agent.inspection import _Child
from netprobe.coordinator.check import check
from netprobe.findings import Finding, Level, Result
from netprobe.lab import Lab, describe
from netprobe.model import Connection, Host, Inventory
from netprobe.questions import Failed, File, Files, Places, Process, Processes, Question
from netprobe.requirements import Context, Evidence
from netprobe.requirements.given import Given

HOST: Final = Host(name="a", addresses=(), connection=Connection(type="local"))
INVENTORY: Final = Inventory(hosts=(HOST,))


def process(name: str, *argv: str, pid: int = 100, is_here: bool | None = True) -> Process:
    """A process, as the agent tells of it."""
    return Process(pid, name, 0, list(argv) or [f"/usr/sbin/{name}"], is_here)


def text_file(path: str, text: str) -> File:
    """A file, as the agent tells of it."""
    return File(path, error="", cut=False, text=text)


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """A tree of files below a directory; a text that begins with `->` is a symbolic link's target."""
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            file.symlink_to(text[2:])
        else:
            file.write_text(text)
    return root


def asked(question: Question[Any], root: Path) -> Any:  # noqa: ANN401 - each question has its own answer
    """What an agent says whose / is that directory."""
    encoded = json.loads(msgspec.json.encode(question))
    answer = _Child(sights.Root(str(root)), same_order=True).answer(encoded)
    if "error" in answer:
        return Failed(str(answer["error"]))
    return msgspec.json.decode(json.dumps(answer["ok"]), type=question.answer)


def found(
    requirement: str,
    root: Path | None = None,
    *processes: Process,
    given: Mapping[Any, Any] | None = None,
    modes: tuple[str, ...] | None = None,
) -> Finding:
    """
    What comes of a requirement: files are those below `root`, processes those that are named.

    Every other question needs an answer that is `given`.
    """
    wanted = requirements.registry()[requirement]
    answers: dict[Question[Any], Any] = {}
    for question in wanted.questions(INVENTORY, HOST, Given()):
        if given is not None and question in given:
            answers[question] = given[question]
        elif isinstance(question, Processes):
            answers[question] = list(processes)
        elif isinstance(question, (Files, Places)) and root is not None:
            answers[question] = asked(question, root)
        else:
            raise AssertionError(f"no answer to {question}")
    evidence = Evidence(host=HOST, answers=answers)
    context = Context(own=evidence, fleet={HOST.name: evidence}, inventory=INVENTORY, modes=modes)
    return wanted.finding(context)


def failure(requirement: str) -> Result:
    """What a requirement that is not met comes to: a warning where it is only recommended."""
    return Result.WARN if requirements.registry()[requirement].level is Level.RECOMMENDED else Result.FAIL


def findings_after(commands: Mapping[str, Sequence[str]], root: Path) -> dict[str, dict[str, Finding]]:
    """What is found at the hosts of a lab, each after its commands, by id; files are those below `root`."""
    with Lab(describe(f"name: prepared hosts\nhosts: [{', '.join(commands)}]\n")) as lab:
        for name, theirs in commands.items():
            for command in theirs:
                lab.run(name, command.split())
        result = trio.run(check, lab.inventory(), None, str(root))
    return {host.name: {each.id: each for each in host.findings} for host in result.hosts}
