"""Deadlines: rows whose time has come, and a worker that looks for them.

Guarantee: a deadline is a row, so it survives any restart; it fires once, at the first pass
after its time, in one transaction with what is done about it. Several workers share the work.
Not guaranteed: that it fires at the second. Times are the engine's clock (`labkit_clock`), else
the machine's; workers on several machines are as punctual as their clocks.

Crash windows: none of its own. A worker killed before the commit has done nothing, and the next
pass finds the same rows.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Aggregator" (timeout); Khononov,
*Learning Domain-Driven Design*, ch. 9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from labkit import limits, unit_of_work
from labkit.clock import SystemClock
from labkit.loop import run_until

T = TypeVar("T")
# So many in one transaction: its locks are short, and a commit is not spent on each.
BATCH = 100
_SHORTEST_PAUSE_S = 0.05


def now_of(joined: Session | Connection) -> datetime:
    """Return the time on the clock that the transaction's engine carries."""
    return unit_of_work.carried(joined, "labkit_clock", SystemClock()).now()


class DeadlineWorker(Generic[T]):
    """Lets what is due happen by itself; run as many as you like.

        DeadlineWorker(engine, availability.expire, publish).run(stop)

    Args:
        engine: the database; it may carry a clock.
        due: takes what is due out of its table, such as `Aggregator.expire`; called with a
            session and the time.
        handle: what to do about each, in the same transaction.
        pause_s: the longest pause between two passes, in seconds.

    Raises:
        ConfigurationError: when the pause makes no sense.
    """

    def __init__(
        self,
        engine: Engine,
        due: Callable[[Session, datetime], Sequence[T]],
        handle: Callable[[Session, T], None],
        *,
        pause_s: float = 1.0,
    ) -> None:
        limits.number("pause_s", pause_s, _SHORTEST_PAUSE_S)
        self._engine = engine
        self._due = due
        self._handle = handle
        self._pause_s = pause_s

    def run_once(self) -> int:
        """Handle what is due now, in one transaction.

        Returns:
            How many deadlines fired.
        """
        with Session(self._engine) as session, session.begin():
            found = self._due(session, now_of(session))
            for each in found:
                self._handle(session, each)
        return len(found)

    def run(self, stop: threading.Event) -> int:
        """Look for deadlines until told to stop.

        Args:
            stop: set it to end after the pass in hand.

        Returns:
            How many deadlines fired in all.
        """
        total = 0

        def work() -> bool:
            nonlocal total
            fired = self.run_once()
            total += fired
            return fired > 0

        def wait(seconds: float) -> None:
            stop.wait(seconds)

        run_until(stop, work, wait, poll_s=(_SHORTEST_PAUSE_S, self._pause_s))
        return total
