"""What a command runs on trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run_to_end(
    function: Callable[..., Awaitable[_Result]],
    *arguments: Any,  # noqa: ANN401
    **named: Any,  # noqa: ANN401
) -> _Result:
    """
    Run it. Ctrl-C ends it where it waits, never in the middle of a step, and then it cleans up.

    The next Ctrl-C ends that as well: agents that are not waited for end by themselves.
    """
    import trio

    task = partial(function, *arguments, **named)
    return trio.run(task, restrict_keyboard_interrupt_to_checkpoints=True)
