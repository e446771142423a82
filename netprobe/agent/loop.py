"""One thread waits for everything: stdin, taps, sessions and timers."""

import heapq
import itertools
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """An epoll loop; handlers are called with the events of their descriptor and must not block."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._running = True

    def watch(self, fd: int, handler: "Callable[[int], object]", events: int = select.EPOLLIN) -> None:
        """Call `handler` while `events` hold on `fd`; replaces an earlier handler."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; to be called before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, callback: "Callable[[], None]") -> None:
        """Call back once, `delay_s` seconds from now at the earliest."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), callback))

    def stop(self) -> None:
        """Leave `run` after the current handler."""
        self._running = False

    def run(self) -> None:
        """Wait and call, until `stop`."""
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, events in self._epoll.poll(timeout):
                # A handler of this round may have closed another one's descriptor.
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            while self._running and self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
