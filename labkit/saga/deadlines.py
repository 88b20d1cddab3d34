"""Deadlines: the worker that wakes sagas whose time is over.

Guarantee: a saga whose answer does not come, or whose pause has ended, is taken up within
`poll_s`, by one worker, also after every process was stopped for as long as you like: the time is
a column of its row. A deadline of a step that was answered meanwhile does not exist any more.
Not guaranteed: that it is taken up at the second. Many workers may run; they skip each other's.

Crash windows: none; one transaction per batch, and a killed one leaves all of it due.

Why not a lease: the row's own lock says who works on it, for as short as that takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from labkit import db, limits
from labkit.errors import CommitUnknownError
from labkit.loop import run_until
from labkit.reports import DeadlineReport
from labkit.saga.rows import Kept

BATCH = 100
POLL_S = (0.05, 0.5)
_FAILED_PAUSE_S = 10.0
log = logging.getLogger(__name__)


class Deadlines:
    """Wakes sagas whose time is over; run as many as you like.

    Args:
        engine: the service's database.
        sagas: whose.
        batch: sagas per transaction.
        poll_s: the shortest and longest pause when nothing is due, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        sagas: Kept,
        *,
        batch: int = BATCH,
        poll_s: tuple[float, float] = POLL_S,
    ) -> None:
        limits.worker(batch, poll_s, db.DEFAULT_LEASE_S)
        self._engine, self._sagas = engine, sagas
        self._batch, self._poll_s = batch, poll_s
        # Whose deadline failed here, and until when others go first.
        self._failed: dict[str, float] = {}

    def __repr__(self) -> str:
        """Say whose deadlines."""
        return f"deadlines of {self._sagas.name}"

    def run_once(self) -> DeadlineReport:
        """Take up to one batch of sagas that are due; one by one when one of them fails."""
        with Session(self._engine) as session, session.begin():
            turn = self._sagas.turn(session)
            due = self._sagas.due(session, turn.now, self._batch + len(self._failed))
        due = self._without_failed(due)[: self._batch]
        try:
            return self._wake(due)
        except Exception:  # whatever local work raises
            if not due:
                raise
            return sum((self._wake_alone(saga_id) for saga_id in due), DeadlineReport())

    def run(self, stop: threading.Event) -> DeadlineReport:
        """Wake sagas until told to stop; return the sum of the reports."""
        total = DeadlineReport()

        def work() -> bool:
            nonlocal total
            report = self.run_once()
            total += report
            return bool(report.due)

        def wait(seconds: float) -> None:
            stop.wait(seconds)

        run_until(stop, work, wait, poll_s=self._poll_s)
        return total

    def _without_failed(self, due: Collection[str]) -> list[str]:
        """Leave out what failed a moment ago: a batch full of it would let nobody else through."""
        now_s = time.monotonic()
        self._failed = {each: until_s for each, until_s in self._failed.items() if until_s > now_s}
        return [saga_id for saga_id in due if saga_id not in self._failed]

    def _wake(self, due: Collection[str]) -> DeadlineReport:
        with Session(self._engine) as session, session.begin():
            turn = self._sagas.turn(session)
            turn.lock(due, skip=True)
            woken = sum(turn.wake(saga_id) for saga_id in due)
            turn.finish()
        return DeadlineReport(due=woken)

    def _wake_alone(self, saga_id: str) -> DeadlineReport:
        try:
            return self._wake([saga_id])
        except (OperationalError, InterfaceError, CommitUnknownError):
            raise  # the database is away: no saga is to blame
        except Exception:
            log.exception("the deadline of %s %s failed; it stays due", self._sagas.name, saga_id)
            self._failed[saga_id] = time.monotonic() + _FAILED_PAUSE_S
            return DeadlineReport(failed=1)
