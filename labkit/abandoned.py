"""Work in threads of its own, so that nobody has to wait for its end.

The problem: Python cannot stop a thread. Whoever stops waiting leaves the work running, with its
connection, its locks and its effect. So what runs is counted, and there is a limit.

Guarantee: never more threads than `most`; each runs in a copy of its caller's context, so it knows
the caller's deadline; none keeps the process from ending.
Not guaranteed: that abandoned work ends, or that its effect does not happen.

Crash windows: none; nothing is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from labkit import limits

T = TypeVar("T")


class Threads:
    """Threads for work that may be left behind.

    Args:
        name: of the threads.
        most: how many may run at once, abandoned ones included.

    Raises:
        ConfigurationError: when the number makes no sense.
    """

    def __init__(self, name: str, most: int) -> None:
        limits.number("most threads", most, 1, 10_000)
        self.most = most
        self._name = name
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """Return how many threads are at work now."""
        return self._running

    def start(self, work: Callable[[], T]) -> Future[T] | None:
        """Begin the work in a thread of its own; None when too many are running, or none is left.

        Why not a pool: its threads would be taken by abandoned work, the next call would wait in
        its queue, and the interpreter would wait for all of them at its end.
        """
        with self._lock:
            if self._running >= self.most:
                return None
            self._running += 1
        future: Future[T] = Future()
        context = copy_context()
        run = threading.Thread(
            target=lambda: context.run(self._run, work, future), name=self._name, daemon=True
        )
        try:
            run.start()
        except RuntimeError:  # the system has no thread left
            self._end()
            return None
        return future

    def _run(self, work: Callable[[], T], future: Future[T]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            self._end()
            future.set_exception(error)
        else:
            self._end()
            future.set_result(result)

    def _end(self) -> None:
        # Before the result is known, so that whoever got it finds the place free.
        with self._lock:
            self._running -= 1
