"""Attempt timeout: for how long a caller waits for one attempt, whatever it is doing.

The problem: a dependency that hangs holds its caller for as long as its socket waits: for ever, by
default. A timeout lets the caller go.

Guarantee: the caller waits at most `seconds`, and at most for what is left of its deadline; never
more than `most` attempts run, those that were abandoned included.
Not guaranteed: that the work stops. **A timeout does not kill work**: it goes on in its thread,
with its connection, and its effect may still happen. Its outcome is unknown, so that only what is
idempotent may be tried again. A timeout in the client (socket, statement) is better where there is
one: it ends the work too. This one costs a thread per attempt.

Crash windows: none; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any, TypeVar

from labkit import limits
from labkit.abandoned import Threads
from labkit.deadline import check, remaining_s
from labkit.errors import AttemptTimeoutError, BulkheadFullError
from labkit.signals import Signals

T = TypeVar("T")


class AttemptTimeout:
    """Waits for so long and then goes on without the answer.

    Args:
        name: whose it is, for signals and errors.
        seconds: how long an attempt may take.
        most: how many attempts may run at once, abandoned ones included.
        signals: hears `timed out`, and `refused` when too many run.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self, name: str, seconds: float, *, most: int = 64, signals: Signals | None = None
    ) -> None:
        limits.name("the timeout's name", name)
        limits.number("a timeout in seconds", seconds, 0.001)
        self.name = name
        self.seconds = seconds
        self.signals = signals
        self._threads = Threads(f"attempt of {name}", most)

    @property
    def running(self) -> int:
        """Return how many attempts are running now, abandoned ones included."""
        return self._threads.running

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function in another thread, and wait for it no longer than agreed.

        Raises:
            AttemptTimeoutError: when it took longer; it is still running.
            BulkheadFullError: when too many attempts are running; it was not called.
            DeadlineExceededError: when the deadline has passed already; it was not called.
        """
        check()
        left_s = remaining_s()
        wait_s = self.seconds if left_s is None else max(0.0, min(self.seconds, left_s))
        attempt = self._threads.start(partial(function, *args, **options))
        if attempt is None:
            self._tell("refused", f"{self._threads.most} attempts are running")
            raise BulkheadFullError(f"attempts of {self.name}", self._threads.most)
        if wait([attempt], wait_s).not_done:
            self._tell("timed out", f"after {wait_s:.3f} s")
            raise AttemptTimeoutError(self.name, wait_s)
        return attempt.result()

    def _tell(self, what: str, detail: str) -> None:
        if self.signals is not None:
            self.signals.tell("timeout", self.name, what, detail)
