"""
Why a host was lost, in one line with its fix: what ssh, kubectl, sudo, shells and others say, understood.

Where it ended, on the way there, on the way to root and the interpreter, or at work, says which rules to ask.
The first whose pattern is found in what was said is told; what no rule knows is told as it was said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from netprobe import launch
from netprobe.failures import cluster, login
from netprobe.failures.login import added_key
from netprobe.failures.start import START
from netprobe.failures.story import LINE_CHARACTERS, Rule, Story, flat, one_line, without_log
from netprobe.failures.words import Words

__all__ = ["LINE_CHARACTERS", "Story", "added_key", "explain", "explain_answer", "one_line", "without_log"]


def explain(story: Story) -> tuple[str, bool]:
    """The reason in one line, and whether the host refused a connection that it may take later."""
    said = "\n".join((story.reason, *story.stderr, *story.log, *story.stdout))
    for rule in _rules(story):
        if match := re.search(rule.pattern, said, re.MULTILINE):
            return flat(rule.text.format_map(Words(story, match))), rule.may_pass
    return flat("{reason}{stage}{heard}".format_map(Words(story))), False


def explain_answer(verb: str, error: str) -> str:
    """Why an agent could not do what it was asked, in one line; `error` is its answer."""
    said = f"the agent cannot {verb}: {one_line(error)}"
    if re.match("EPERM|EACCES", error):
        said += ": the kernel forbids it: a seccomp filter (a container's: --privileged has none), or SELinux"
    return said


def _rules(story: Story) -> tuple[Rule, ...]:
    at_login, dropped = _WAYS.get(story.host.connection.type, ((), ()))
    if story.greeted or launch.AT_INTERPRETER in story.stdout:
        return dropped
    if at_login and launch.AT_SHELL not in story.stdout:
        return at_login
    return START + dropped


_WAYS: Final[Mapping[str, tuple[tuple[Rule, ...], tuple[Rule, ...]]]] = MappingProxyType(
    {"ssh": (login.LOGIN, login.DROPPED), "kubectl": (cluster.LOGIN, cluster.DROPPED)}
)
"""What goes wrong on the way to a host's shell, and what when it is there, by the type of connection."""
