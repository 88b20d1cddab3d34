"""Successes that were counted and not told yet."""

from __future__ import annotations

import itertools
import threading


class Tally:
    """Counts successes of one generation.

    `add()` counts one. It is a bare counter's step, which no thread can interrupt: a lock around
    it would cost a fifth of a whole call.

    Args:
        generation: the successes of others are worth nothing any more.
        window_s: nor is what is older.
        now_s: when it begins.
    """

    def __init__(self, generation: int, window_s: float, now_s: float) -> None:
        self.generation = generation
        self.add = itertools.count().__next__
        self._window_s = window_s
        self._lock = threading.Lock()
        self._taken, self._since_s = 0, now_s

    def take(self, now_s: float) -> int:
        """Return how many there are; the count begins anew."""
        with self._lock:
            # This step is one of the counter's too.
            reached = self.add()
            calls, self._taken = reached - self._taken, reached + 1
            # They were counted soon after the last look, since a later call would have looked.
            fresh = now_s - self._since_s <= self._window_s
            self._since_s = now_s
            return calls if fresh else 0
