"""Bulkhead: a limit to how many calls of one kind are under way, so that they cannot take it all.

The problem: a dependency that hangs collects the threads of everybody who calls it, until none is
left for those who do not need it. With a bulkhead it gets its share and no more.

Guarantee: never more than `limit` calls inside; one more waits at most `wait_s`, at most for what
is left of the deadline, and is refused then.
Not guaranteed: that a call which was abandoned by a timeout outside is over: its place is free when
the call ends, not when nobody waits any more.

Crash windows: none; nothing is stored.

Source: Nygard, *Release It!*, 2nd ed., ch. 5 ("Bulkheads").
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from labkit import limits
from labkit.deadline import remaining_s
from labkit.errors import BulkheadFullError
from labkit.signals import Signals

T = TypeVar("T")


class Bulkhead:
    """Lets so many calls in at once; share one among all that call the same dependency.

    Args:
        name: whose it is, for signals and errors.
        limit: how many calls at once.
        wait_s: how long one more waits for a place; 0 refuses at once.
        signals: hears `refused`.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self, name: str, limit: int, *, wait_s: float = 0.0, signals: Signals | None = None
    ) -> None:
        limits.name("the bulkhead's name", name)
        limits.number("limit", limit, 1, 10_000)
        limits.number("wait_s", wait_s, 0.0, float(threading.TIMEOUT_MAX))
        self.name = name
        self.limit = limit
        self.signals = signals
        self._wait_s = wait_s
        # Why not threading.Semaphore: it is written in Python, and costs five times as much.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(limit):
            self._places.put(None)

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function, in one of the places.

        Raises:
            BulkheadFullError: when none was free in time; the function was not called.
        """
        try:
            self._places.get_nowait()
        except Empty:
            self._wait()
        try:
            return function(*args, **options)
        finally:
            self._places.put(None)

    def _wait(self) -> None:
        left_s = remaining_s()
        wait_s = self._wait_s if left_s is None else min(self._wait_s, left_s)
        try:
            self._places.get(timeout=max(0.0, wait_s))
        except Empty:
            if self.signals is not None:
                self.signals.tell("bulkhead", self.name, "refused", f"limit {self.limit}")
            raise BulkheadFullError(self.name, self.limit) from None
