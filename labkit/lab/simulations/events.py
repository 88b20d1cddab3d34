"""A clock that jumps: callbacks in order of their time, for the models that have many events.

Model: `at` puts a callback on the agenda, `run` calls them in order of time and, at equal times, in
the order in which they were put there.
Assumptions: none. Why not SimPy here: it reads better and is ten times slower; `queueing` uses it.
It does not show: anything by itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Agenda:
    """What happens next; `now` is the time in seconds of what is happening."""

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Plan a callback."""
        self._count += 1
        heapq.heappush(self._planned, (when, self._count, do))

    def run(self, until: float) -> None:
        """Call what is planned, up to and including a time."""
        while self._planned and self._planned[0][0] <= until:
            self.now, _, do = heapq.heappop(self._planned)
            do()
        self.now = until
