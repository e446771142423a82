"""What a command runs on trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run_to_end(function: Callable[..., Awaitable[_Result]], *arguments: Any) -> _Result:  # noqa: ANN401
    """Run it. Ctrl-C ends it where it waits, never in the middle of a step, and then it cleans up."""
    import trio

    return trio.run(function, *arguments, restrict_keyboard_interrupt_to_checkpoints=True)
