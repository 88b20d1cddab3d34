"""Hedging: asks a second time when the first answer takes unusually long, and takes what is first.

The problem: of a hundred calls one waits for a garbage collection, and a page that needs a hundred
answers waits for it nearly always. A second request after the 95th percentile costs a twentieth
more load, and cuts the tail.

Guarantee: the first request is never given up: not for want of budget, threads or figures. Hedges
are at most what the budget allows. The answer is the first good one; an error comes out when all
that were asked have failed, the first one's.
Not guaranteed: that the loser stops. A thread cannot be killed: the other request runs to its end,
with its effect, and its answer is thrown away. So only what is declared idempotent is hedged.

Crash windows: none; nothing is stored.

Source: Dean and Barroso, "The Tail at Scale", CACM 2013.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

from labkit import idempotency, limits
from labkit.abandoned import Threads
from labkit.budget import RetryBudget
from labkit.clock import Clock, SystemClock
from labkit.signals import Signals

T = TypeVar("T")
_RECENT = 256  # durations that a percentile is taken of
_ENOUGH = 20  # of fewer, the 95th percentile is the luck of one call
_RENEWED_EVERY = 16


class Hedge:
    """Asks again when an answer is late; one object per dependency.

    Args:
        name: whose it is, for signals and errors.
        after_s: how late, in seconds; None: later than `percentile` of the recent answers.
        percentile: from 0 to 1; before there are 20 answers, nothing is hedged.
        budget: what hedges cost; a `RetryBudget` may be shared with retries, for both are load
            that nobody asked for. By default a twentieth of the answers.
        most: how many requests may run in threads, losers included; beyond it, calls are made
            without a hedge.
        clock: measures how long answers take.
        signals: hears `hedged`, `won` (by the hedge), and `no budget`.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        after_s: float | None = None,
        percentile: float = 0.95,
        budget: RetryBudget | None = None,
        most: int = 64,
        clock: Clock | None = None,
        signals: Signals | None = None,
    ) -> None:
        limits.name("the hedge's name", name)
        limits.number("percentile", percentile, 0.01, 0.999)
        if after_s is not None:
            limits.number("after_s", after_s, 0.0)
        self.name = name
        self.signals = signals
        self._after_s, self._percentile = after_s, percentile
        self._clock = clock or SystemClock()
        self._budget = budget or RetryBudget(0.05, 0.0, clock=self._clock)
        self._threads = Threads(f"hedge of {name}", most)
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._answers = 0
        self._usual_s: float | None = None
        self._lock = threading.Lock()

    @property
    def after_s(self) -> float | None:
        """Return how late an answer must be to be hedged; None while too little is known."""
        return self._usual_s if self._after_s is None else self._after_s

    def call(
        self, function: Callable[..., T], /, *args: Any, idempotent: bool = False, **options: Any
    ) -> T:
        """Call a function, and a second time beside it if it takes long.

        Args:
            function: what to call; `args` and `options` are its arguments.
            idempotent: declares for this call that doing it twice does no harm.

        Raises:
            ConfigurationError: when nobody declared it idempotent.
            Exception: the first request's error, when the hedge failed too or there was none.
        """
        if not idempotent:
            idempotency.refuse_unless_idempotent(self.name, function)
        request = partial(self._timed, partial(function, *args, **options))
        after_s = self.after_s
        first = None if after_s is None else self._threads.start(request)
        if first is None:
            return request()
        if wait([first], after_s).done:
            return first.result()
        second = self._second(request)
        return self._better(first, second) if second else first.result()

    def _timed(self, request: Callable[[], T]) -> T:
        started_s = self._clock.monotonic_s()
        answer = request()
        took_s = self._clock.monotonic_s() - started_s
        self._budget.deposit()
        with self._lock:
            self._recent.append(took_s)
            self._answers += 1
            is_old = self._usual_s is None or self._answers % _RENEWED_EVERY == 0
            if is_old and len(self._recent) >= _ENOUGH:
                ordered = sorted(self._recent)
                self._usual_s = ordered[int(len(ordered) * self._percentile)]
        return answer

    def _second(self, request: Callable[[], T]) -> Future[T] | None:
        if not self._budget.take():
            self._tell("no budget")
            return None
        second = self._threads.start(request)
        if second is not None:
            self._tell("hedged")
        return second

    def _better(self, first: Future[T], second: Future[T]) -> T:
        """Return the first good answer."""
        done = wait([first, second], return_when=FIRST_COMPLETED).done
        # The one that was asked first wins a draw.
        winner = first if first in done else second
        if winner.exception() is not None:
            loser = second if winner is first else first
            winner = loser if loser.exception() is None else first
        if winner is second:
            self._tell("won")
        return winner.result()

    def _tell(self, what: str) -> None:
        if self.signals is not None:
            self.signals.tell("hedging", self.name, what)
