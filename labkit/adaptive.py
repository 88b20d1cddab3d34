"""Adaptive limit: finds by itself how many calls a dependency can take at once.

The problem: a fixed limit is right for the capacity on the day when it was set. When the
dependency loses half of its workers, the limit lets in twice of what it can do, all of it waits,
and all of it comes too late.

How: as TCP finds its window. A round of good calls adds one place; a sign of overload (too slow, a
timeout, a refusal) takes a part of the places away, once per round: calls that began before it say
nothing about the new limit. The limit grows only when it is used, or it would mean nothing.

Guarantee: never more calls inside than the limit says; the limit stays between `least` and `most`.
Not guaranteed: that nobody is refused in calm times. It finds the capacity by trying one more.

Crash windows: none; nothing is stored.

Source: Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance",
1989; Netflix concurrency-limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from labkit import limits
from labkit.clock import Clock, SystemClock
from labkit.errors import BulkheadFullError, DeadlineExceededError, RejectedError
from labkit.signals import Signals

T = TypeVar("T")


class AdaptiveLimit:
    """A bulkhead whose limit follows what its dependency can do.

    Args:
        name: whose it is, for signals and errors.
        start: the limit to begin with.
        least: the lowest limit; one call must stay, or it would never learn of better times.
        most: the highest limit.
        slow_s: a call that takes longer, in seconds, is a sign of overload; None: no call is.
        shrink: what an overload leaves of the limit, such as 0.7.
        overload: errors that are a sign of it; others, and a deadline that had passed, say nothing.
        clock: measures how long calls take.
        signals: hears `refused` and `shrank`.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        name: str,
        start: int = 20,
        *,
        least: int = 1,
        most: int = 200,
        slow_s: float | None = None,
        shrink: float = 0.7,
        overload: tuple[type[Exception], ...] = (TimeoutError, RejectedError),
        clock: Clock | None = None,
        signals: Signals | None = None,
    ) -> None:
        limits.name("the limit's name", name)
        limits.number("most", most, 1, 1_000_000)
        limits.number("least", least, 1, most)
        limits.number("start", start, least, most)
        limits.number("shrink", shrink, 0.01, 0.99)
        if slow_s is not None:
            limits.number("slow_s", slow_s, 0.0)
        self.name = name
        self.signals = signals
        self._limit, self._least, self._most = float(start), least, most
        self._slow_s, self._shrink, self._overload = slow_s, shrink, overload
        self._clock = clock or SystemClock()
        self._inside = 0
        self._round = 0
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Return how many calls may be inside now."""
        return int(self._limit)

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function, and learn from how it went.

        Raises:
            BulkheadFullError: when as many calls are inside as may be; it was not called.
        """
        round_ = self._enter()
        started_s = self._clock.monotonic_s()
        overloaded = None
        try:
            result = function(*args, **options)
        except DeadlineExceededError:
            raise  # the caller had no time left; nothing says that the dependency is busy
        except self._overload:
            overloaded = True
            raise
        else:
            took_s = self._clock.monotonic_s() - started_s
            overloaded = self._slow_s is not None and took_s > self._slow_s
            return result
        finally:
            self._leave(round_, overloaded=overloaded)

    def _enter(self) -> int:
        with self._lock:
            if self._inside < self.limit:
                self._inside += 1
                return self._round
        self._tell("refused", f"limit {self.limit}")
        raise BulkheadFullError(self.name, self.limit)

    def _leave(self, round_: int, *, overloaded: bool | None) -> None:
        """Give the place back; None for a call that says nothing about the load."""
        shrank = False
        with self._lock:
            # Half full is full enough: places are given back at different times.
            is_used = self._inside * 2 >= self.limit
            self._inside -= 1
            if overloaded and round_ == self._round:
                self._limit = max(float(self._least), self._limit * self._shrink)
                self._round += 1
                shrank = True
            elif overloaded is False and is_used:
                self._limit = min(float(self._most), self._limit + 1 / self._limit)
        if shrank:
            self._tell("shrank", f"limit {self.limit}")

    def _tell(self, what: str, detail: str) -> None:
        if self.signals is not None:
            self.signals.tell("adaptive", self.name, what, detail)
