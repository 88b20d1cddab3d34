"""The state of a breaker in memory: for one process, and while Redis is away.

Guarantee: the same answers as the scripts in Redis, from the same rules. Every method holds the
lock for a few operations only, never during a protected call.
Not guaranteed: anything beyond this process.

Crash windows: none; it dies with the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime

from labkit.breaker.rules import (
    BUCKETS,
    CLOSED,
    HALF_OPEN,
    KEPT_EVENTS,
    OPEN,
    SUCCESS,
    Answer,
    Counts,
    Rules,
    Transition,
    new_trial,
)

_RESTING = frozenset({OPEN, HALF_OPEN})


class Window:
    """Calls of the last `window_s` seconds, in buckets of a tenth of it."""

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / BUCKETS
        self._buckets: dict[int, list[int]] = {}

    def add(self, counts: Counts, at_s: float) -> None:
        """Count calls at a time."""
        number = int(at_s // self._bucket_s)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._forget(number)
            bucket = self._buckets[number] = [0, 0, 0]
        bucket[0] += counts[0]
        bucket[1] += counts[1]
        bucket[2] += counts[2]

    def seen(self, now_s: float) -> Counts:
        """Return the sums of what is not too old."""
        self._forget(int(now_s // self._bucket_s))
        found = list(self._buckets.values())
        return Counts(*(sum(bucket[i] for bucket in found) for i in range(3)))

    def _forget(self, current: int) -> None:
        for number in [each for each in self._buckets if each <= current - BUCKETS]:
            del self._buckets[number]


class Circuit:
    """A `Store` in memory.

    Args:
        rules: when to open, and for how long.
        monotonic_s: seconds that never run backwards.
        now: the time of events.
        random: from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        rules: Rules,
        monotonic_s: Callable[[], float],
        now: Callable[[], datetime],
        random: Callable[[], float],
    ) -> None:
        self._rules, self._monotonic_s, self._now, self._random = rules, monotonic_s, now, random
        self._lock = threading.Lock()
        self._events: deque[Transition] = deque(maxlen=KEPT_EVENTS)
        self._opened = self._successes = 0
        self._open_until_s = self._trial_until_s = 0.0
        self._trial = ""
        self._begin(CLOSED, generation=1)

    def adopt(self, answer: Answer) -> None:
        """Go on from what another store said last; trials of other processes are unknown here."""
        with self._lock:
            self._open_until_s = self._monotonic_s() + answer.wait_s
            self._opened = 0
            self._begin(answer.state, answer.generation + 1)

    def admit(self) -> Answer:
        """See `Store`."""
        answer = self._answer
        if answer.state not in _RESTING:
            return answer
        with self._lock:
            return self._admit_one(self._monotonic_s())

    def record(self, counts: Counts, generation: int, trial: str = "") -> Answer:
        """See `Store`."""
        with self._lock:
            if generation == self._answer.generation:
                self._count(counts, trial, self._monotonic_s())
            return self._told()

    def move(self, to: str, why: str) -> Answer:
        """See `Store`."""
        with self._lock:
            self._move(to, why, self._monotonic_s())
            return self._told()

    def events(self) -> list[Transition]:
        """Return the last transitions, oldest first."""
        with self._lock:
            return list(self._events)

    def seen(self) -> Counts:
        """Return what the window holds."""
        with self._lock:
            return self._window.seen(self._monotonic_s())

    @property
    def answer(self) -> Answer:
        """What it would say now to whoever only asks."""
        with self._lock:
            return self._told()

    @property
    def successes(self) -> int:
        """How many trials went well in this half-open state."""
        return self._successes

    def _admit_one(self, now_s: float) -> Answer:
        """Give the one permit of the half-open state, or say how long its holder may have it."""
        if self._answer.state == OPEN and now_s >= self._open_until_s:
            self._move(HALF_OPEN, "the open time is over", now_s)
        if self._answer.state != HALF_OPEN:
            return self._told()
        if self._trial and now_s < self._trial_until_s:
            return self._answer._replace(wait_s=self._trial_until_s - now_s)
        self._trial, self._trial_until_s = new_trial(), now_s + self._rules.lease_s
        return self._answer._replace(trial=self._trial)

    def _count(self, counts: Counts, trial: str, now_s: float) -> None:
        if self._answer.state == CLOSED:
            self._count_closed(counts, now_s)
        elif self._answer.state == HALF_OPEN:
            self._count_trial(counts, trial, now_s)

    def _count_closed(self, counts: Counts, now_s: float) -> None:
        self._window.add(counts, now_s)
        # Only a bad call may open it: a success that trips would surprise everybody.
        if (
            counts is not SUCCESS
            and counts.bad
            and (why := self._rules.reason_to_open(self._window.seen(now_s)))
        ):
            self._move(OPEN, why, now_s)

    def _count_trial(self, counts: Counts, trial: str, now_s: float) -> None:
        if trial == self._trial:
            self._trial = ""
        if counts.bad:
            self._move(OPEN, "a trial failed" if counts.failures else "a trial was slow", now_s)
            return
        self._successes += counts.calls
        if self._successes >= self._rules.success_threshold:
            self._move(CLOSED, "trials went well", now_s)

    def _move(self, to: str, why: str, now_s: float) -> None:
        before, wait_s = self._answer.state, 0.0
        if to == OPEN:
            wait_s = self._rules.open_for_s(self._opened, self._random())
            self._open_until_s = now_s + wait_s
            self._opened += 1
        elif to != HALF_OPEN:
            self._opened = 0
        self._begin(to, self._answer.generation + 1)
        told = Transition(self._now(), before, to, why, self._answer.generation, wait_s)
        self._events.append(told)

    def _begin(self, state: str, generation: int) -> None:
        self._answer = Answer(state, generation)
        self._window = Window(self._rules.window_s)
        self._trial, self._trial_until_s, self._successes = "", 0.0, 0

    def _told(self) -> Answer:
        if self._answer.state == OPEN:
            return self._answer._replace(wait_s=max(0.0, self._open_until_s - self._monotonic_s()))
        return self._answer
