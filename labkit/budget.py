"""Retry budget: how much extra load all callers of a dependency together may make.

The problem: three attempts per call are three times the load exactly when the dependency cannot
carry it, and jitter only moves that load. A budget ties retries to successes: each success saves a
tenth of a retry, so a dependency that is down gets next to none.

Guarantee: retries ≤ `most` + `ratio` × successes + `floor_per_s` × seconds, over all threads that
share the budget.
Not guaranteed: anything across processes; each has a budget of its own.

Crash windows: none; nothing is stored.

Source: Brooker, "Fixing retries with token buckets and circuit breakers", 2022; Finagle's
RetryBudget for the floor.
"""

from __future__ import annotations

import threading

from labkit import limits
from labkit.clock import Clock, SystemClock

_ROUNDING = 1e-9  # ten tenths are a little less than one


class RetryBudget:
    """A bucket of retries; give the same one to everything that calls the same dependency.

    Args:
        ratio: retries saved by each success.
        floor_per_s: retries per second that are free, so that rare callers can retry at all.
        most: how many can be saved up; it starts full.
        clock: for the floor.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        ratio: float = 0.1,
        floor_per_s: float = 1.0,
        *,
        most: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        limits.number("ratio", ratio, 0.0)
        limits.number("floor_per_s", floor_per_s, 0.0)
        limits.number("most", most, 1.0)
        self._ratio, self._floor_per_s, self._most = ratio, floor_per_s, most
        self._clock = clock or SystemClock()
        self._saved = most
        self._looked_s = self._clock.monotonic_s()
        self._lock = threading.Lock()

    @property
    def saved(self) -> float:
        """Return how many retries could be made now."""
        with self._lock:
            self._add_floor()
            return self._saved

    def deposit(self) -> None:
        """Save what a success is worth."""
        # Why not always under the lock: a bucket stays full for as long as nothing fails.
        if self._saved >= self._most:
            return
        with self._lock:
            self._saved = min(self._most, self._saved + self._ratio)

    def take(self) -> bool:
        """Take one retry; False when there is none left."""
        with self._lock:
            self._add_floor()
            if self._saved < 1 - _ROUNDING:
                return False
            self._saved -= 1
            return True

    def _add_floor(self) -> None:
        now_s = self._clock.monotonic_s()
        earned = (now_s - self._looked_s) * self._floor_per_s
        self._saved, self._looked_s = min(self._most, self._saved + earned), now_s
