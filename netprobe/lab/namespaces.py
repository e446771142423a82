"""
Named network namespaces, and working inside one.

A namespace belongs to a thread, not to a process: what is done in one is done by a thread that enters it and
then ends, so that the rest of the process never stands in the wrong one, and nothing is forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from pyroute2 import netns

from netprobe.lab.errors import LabError

DIRECTORY: Final = Path(netns.NETNS_RUN_DIR)
"""Where `ip netns` and all others look for names."""

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_Result = TypeVar("_Result")


def listed() -> set[str]:
    """The names that `ip netns list` shows."""
    try:
        return {entry.name for entry in DIRECTORY.iterdir()}
    except FileNotFoundError:
        return set()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let a Ctrl-C wait until the body is done: what is half made cannot be taken away."""
    if threading.current_thread() is not threading.main_thread():
        # A KeyboardInterrupt is raised in the main thread only.
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
        if caught and callable(previous):
            previous(*caught[-1])


def _in_thread(function: Callable[[], _Result]) -> _Result:
    with interrupts_deferred(), ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function).result()


def inside(name: str, function: Callable[[], _Result]) -> _Result:
    """What `function` returns when it is called inside a namespace; its errors come out as they are."""

    def enter() -> _Result:
        netns.setns(name, flags=0)
        return function()

    return _in_thread(enter)


def create(names: Sequence[str]) -> None:
    """Create namespaces of these names; `LabError` where that is not allowed."""
    try:
        _in_thread(lambda: _create(names))
    except OSError as error:
        needs = "a lab needs CAP_SYS_ADMIN and CAP_NET_ADMIN: be root, or use a user namespace"
        reason = error.strerror or str(error)
        raise LabError(f"cannot create network namespaces in {DIRECTORY}: {reason} ({needs})") from error


def _create(names: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The first one makes the directory a mount of its own; two at once would do so twice. `ip netns`
        # takes the same lock.
        fcntl.flock(directory, fcntl.LOCK_EX)
        for name in names:
            if libc.unshare(_CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            netns.attach(name, threading.get_native_id())
    finally:
        os.close(directory)


def remove(names: Sequence[str]) -> None:
    """
    Remove the names that there are; `LabError` with those that would not go.

    A namespace itself ends with the last process that is in it.
    """
    reasons = {}
    for name in sorted(listed() & set(names)):
        try:
            netns.remove(name)
        except OSError as error:
            reasons[name] = error.strerror
    left = sorted(listed() & set(names))
    if left:
        raise LabError(f"cannot remove {', '.join(f'{name} ({reasons.get(name)})' for name in left)}")
