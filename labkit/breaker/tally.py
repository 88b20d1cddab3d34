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
        self._calls = self._generation = 0
        self._since_s = 0.0

    def begin(self, generation: int) -> None:
        """Count for a generation; what was counted for another is worth nothing any more."""
        with self._lock:
            if generation != self._generation:
                self._calls, self._generation = 0, generation

    def add(self, generation: int) -> None:
        """Count one."""
        with self._lock:
            if generation == self._generation:
                self._calls += 1

    def take(self, now_s: float) -> tuple[int, int]:
        """Return how many there are, and of which generation; the count begins anew."""
        with self._lock:
            calls, self._calls = self._calls, 0
            # They were counted soon after the last look, since a later call would have looked.
            fresh = now_s - self._since_s <= self._window_s
            self._since_s = now_s
            return (calls if fresh else 0), self._generation
