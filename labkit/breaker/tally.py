"""Successes that were counted and not told yet."""

from __future__ import annotations

import threading


class Tally:
    """Counts successes of one generation.

    Args:
        window_s: what is older is not worth telling.
    """

    def __init__(self, window_s: float) -> None:
        self._lock = threading.Lock()
        self._window_s = window_s
        self._calls, self._generation, self._since_s = 0, 0, 0.0

    def add(self, generation: int, now_s: float) -> None:
        """Count one; those of another generation would not count in Redis any more."""
        with self._lock:
            if generation != self._generation or not self._calls:
                self._calls, self._generation, self._since_s = 0, generation, now_s
            self._calls += 1

    def take(self, now_s: float) -> tuple[int, int]:
        """Return how many there are, and of which generation; the count begins anew."""
        with self._lock:
            calls, self._calls = self._calls, 0
            fresh = now_s - self._since_s <= self._window_s
            return (calls if fresh else 0), self._generation
