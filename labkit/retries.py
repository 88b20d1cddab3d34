"""Retries: runs held messages when they are due, the first of each lane first.

An attempt is counted and committed before it runs, so that a handler that ends its process is
parked like any other, after as many deaths as it had attempts.

Crash windows:
    consumer.after_start   the attempt is counted and has not run: due again after its backoff
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from labkit import crash
from labkit.clock import Clock
from labkit.dispatch import Dispatcher
from labkit.errors import PermanentError
from labkit.held import Held, HeldMessage
from labkit.lanes import Lanes, raise_unless_the_message_is_to_blame, reason
from labkit.lease import Lease, Leases
from labkit.ports import Entry
from labkit.reports import ConsumerReport


class Retries:
    """The retrying half of a consumer.

    Args:
        engine: the database of inbox and effects.
        leases: the consumer's leases.
        name: the consumer's name.
        held: where the messages wait.
        lanes: which of them wait together.
        dispatcher: runs their handlers.
        clock: for due times.
    """

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        *,
        name: str,
        held: Held,
        lanes: Lanes,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._name = name
        self._leases = leases
        self._held = held
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._clock = clock

    def run(self, lease: Lease) -> ConsumerReport:
        """Run what is due on a partition, until nothing more is.

        Args:
            lease: ours.

        Raises:
            LeaseLostError: when it is not ours any more.
        """
        report, partition = ConsumerReport(), lease.partition
        while self._lanes.blocked[lease]:
            with self._engine.connect() as connection:
                due = self._held.due(connection, self._name, partition, self._clock.now())
            if not due:
                break
            for row in due:
                report += self._retry(lease, row)
            with self._engine.connect() as connection:
                self._lanes.blocked[lease] = self._held.keys(connection, self._name, partition)
        return report

    def _retry(self, lease: Lease, row: HeldMessage) -> ConsumerReport:
        attempt = self._start(lease, row)
        # Crash window: the attempt is counted and has not run; it is due again after its backoff.
        crash.point("consumer.after_start")
        if attempt > self._lanes.backoff.attempts:
            died = PermanentError(row.reason or "the process ended during every attempt")
            return self._fail(lease, row, died, attempt)
        started_s = self._clock.monotonic_s()
        try:
            return self._handle(lease, row, attempt)
        except Exception as error:  # noqa: BLE001 - any error of a handler is a failed attempt
            took_s = self._clock.monotonic_s() - started_s
            raise_unless_the_message_is_to_blame(error, took_s, self._leases.lease_s)
            return self._fail(lease, row, error, attempt)

    def _start(self, lease: Lease, row: HeldMessage) -> int:
        self._leases.tick()
        pause = timedelta(seconds=self._lanes.backoff.delay_s(row.attempts + 1))
        with self._engine.begin() as connection:
            self._leases.check(connection, lease)
            return self._held.start(connection, row, self._clock.now() + pause)

    def _handle(self, lease: Lease, row: HeldMessage, attempt: int) -> ConsumerReport:
        entry = Entry(str(row.position), row.body)
        delivery = self._dispatcher.read(entry, "held", attempt=attempt, redelivered=True)
        if delivery and delivery.error:
            raise delivery.error
        with self._dispatcher.lend() as session:
            self._leases.check(session.connection(), lease)
            outcome = self._dispatcher.handle(session, [delivery] if delivery else [])
            for mismatch in outcome.mismatched:
                raise mismatch.error or PermanentError
            self._held.done(session.connection(), row)
        skipped = 0 if delivery else 1
        return ConsumerReport(outcome.handled, outcome.duplicates, skipped)

    def _fail(
        self, lease: Lease, row: HeldMessage, error: Exception, attempt: int
    ) -> ConsumerReport:
        due = self._lanes.next_due(error, attempt)
        self._leases.hurry()
        self._leases.tick()
        with self._engine.begin() as connection:
            self._leases.check(connection, lease)
            self._held.fail(connection, row, reason(error), due)
        return ConsumerReport(parked=1) if due is None else ConsumerReport(failed=1)
