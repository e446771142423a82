"""What a requirement is: the record that the files of this package are made of, and what it judges by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from netprobe.findings import Criterion, Finding, Level, Result
from netprobe.model import Host, Inventory
from netprobe.questions import Failed, Question
from netprobe.requirements.given import Given

T = TypeVar("T")

__all__ = [
    "Context",
    "Evidence",
    "Failed",
    "Group",
    "Judgement",
    "Level",
    "Requirement",
    "Result",
    "failed",
    "not_applicable",
    "passed",
    "unknown",
    "warned",
]

PAGE = "Calico 3.28 system requirements"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one host answered.

    `asked` and `answered` are the coordinator's clock, in seconds since 1970, before and after; `began` and
    `ended` the host's in between. `lost` is why the host said nothing, "" where it did.
    """

    host: Host
    answers: Mapping[Question[Any], Any]
    asked: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    answered: float = 0.0
    lost: str = ""

    def of(self, question: Question[T]) -> T | Failed:
        """The answer to a question, which the requirement has in its `asks`; or why there is none."""
        if self.lost:
            return Failed(self.lost, host=True)
        found: T | Failed = self.answers[question]
        return found


class UnansweredError(Exception):
    """A question without which nothing can be judged has no answer; `failure` is why."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.error)
        self.failure = failure


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a requirement judges one host by: its own evidence, and for comparisons that of all hosts, by name.

    `modes` are those that were chosen, None for all that there are; `given` is what the user said besides.
    """

    own: Evidence
    fleet: Mapping[str, Evidence]
    inventory: Inventory
    modes: tuple[str, ...] | None = None
    given: Given = Given()

    def of(self, question: Question[T]) -> T | Failed:
        """The answer of the host that is judged."""
        return self.own.of(question)

    def need(self, question: Question[T]) -> T:
        """The same; `UnansweredError`, of which comes `unknown`, where there is none."""
        found = self.of(question)
        if isinstance(found, Failed):
            raise UnansweredError(found)
        return found


class Judgement(msgspec.Struct, frozen=True):
    """A result, what was seen, and a fix where the requirement's own does not fit."""

    result: Result
    seen: str
    fix: str = ""


def passed(seen: str) -> Judgement:
    """It is as it should be."""
    return Judgement(Result.PASS, seen)


def failed(seen: str, fix: str = "") -> Judgement:
    """It is not, and that was seen."""
    return Judgement(Result.FAIL, seen, fix)


def warned(seen: str, fix: str = "") -> Judgement:
    """It works, or may work, and deserves a look."""
    return Judgement(Result.WARN, seen, fix)


def not_applicable(seen: str) -> Judgement:
    """The host does not need it."""
    return Judgement(Result.NOT_APPLICABLE, seen)


def unknown(why: str | Failed, fix: str = "") -> Judgement:
    """It could not be found out, and this is why."""
    return Judgement(Result.UNKNOWN, why if isinstance(why, str) else why_unknown(why), fix)


_REASONS: Mapping[str, str] = {
    "EPERM": "the agent may not ask that: log in as root, or set sudo: true",
    "EACCES": "the agent may not ask that: log in as root, or set sudo: true",
    "ETIME": "no time was left for it",
    "ETIMEDOUT": "the kernel gave no answer in time",
    "SIGKILL": "the question hung, and was given up",
    "ENOSYS": "the host's Python or kernel cannot ask that",
}


def why_unknown(failure: Failed) -> str:
    """Why a question has no answer, in words."""
    if failure.host:
        return failure.error
    reason = _REASONS.get(failure.name, "")
    what = f"no throwaway network namespace ({failure.error})" if failure.namespace else failure.error
    return f"{what}: {reason}" if reason else what


class Requirement(Criterion, frozen=True, kw_only=True):
    """
    A requirement, with how it is found out.

    `asks` are the questions that every host is asked, `asks_about` those that depend on the inventory, the
    host and what else was given. `judge` is a pure function of the answers.
    """

    asks: tuple[Question[Any], ...] = ()
    asks_about: Callable[[Inventory, Host, Given], tuple[Question[Any], ...]] | None = None
    judge: Callable[[Context], Judgement]

    def questions(self, inventory: Inventory, host: Host, given: Given) -> tuple[Question[Any], ...]:
        """All that it asks of a host."""
        return self.asks + (self.asks_about(inventory, host, given) if self.asks_about else ())

    def is_needed(self, modes: tuple[str, ...] | None) -> bool:
        """Whether one of the chosen modes needs it."""
        return not self.modes or modes is None or not set(self.modes).isdisjoint(modes)

    def criterion(self, group: str) -> Criterion:
        """What is told of it."""
        values = {name: getattr(self, name) for name in Criterion.__struct_fields__}
        return Criterion(**{**values, "group": group})

    def finding(self, context: Context) -> Finding:
        """What comes of it at a host."""
        try:
            judgement = unknown(context.own.lost) if context.own.lost else self.judge(context)
        except UnansweredError as error:
            judgement = unknown(error.failure)
        result, seen = judgement.result, judgement.seen
        if result is Result.FAIL and self.level is Level.RECOMMENDED:
            result = Result.WARN
        if not self.is_needed(context.modes) and not context.own.lost:
            result, seen = Result.NOT_APPLICABLE, f"no chosen mode needs it ({seen})"
        # What nobody knows to be lacking needs no fix but one that makes it known.
        fix = judgement.fix or (self.fix if result in (Result.FAIL, Result.WARN) else "")
        return Finding(id=self.id, result=result, seen=seen, fix=fix)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What one file of this package ends in: requirements under a heading of the page; `rank` orders them."""

    name: str
    rank: int
    requirements: tuple[Requirement, ...]
