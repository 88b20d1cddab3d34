"""Retries: holds messages that could not be handled, and runs them when they are due.

The first of each key goes first, the one behind it follows. An attempt is counted and committed
before it runs, so that a handler that ends its process is parked like any other, after as many
deaths as it had attempts.

What was never tried here runs together once, a message of each key: one transaction for all the
starts, one for all the effects. After a death there are hundreds of those, and a commit for each
start and each effect takes most of the time. Whatever goes wrong, each runs alone from then on.
Not guaranteed: that an attempt was its own. Beside a message that ends the process, a neighbour
loses one attempt, never its last.

Crash windows:
    consumer.after_start   attempts are counted and have not run: due again after their backoff
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine

from labkit import crash
from labkit.clock import Clock
from labkit.dispatch import Delivery, Dispatcher
from labkit.errors import PayloadMismatchError, PermanentError
from labkit.held import Held, HeldMessage
from labkit.inbox import Inbox
from labkit.lanes import Lanes, raise_unless_the_message_is_to_blame, reason
from labkit.lease import Lease, Leases
from labkit.ports import Entry
from labkit.reports import ConsumerReport
from labkit.wire import decode_envelope

# Messages whose attempts are counted, each with its number.
Started = list[tuple[HeldMessage, int]]


class Retries:
    """The retrying half of a consumer.

    Args:
        engine: the database of inbox and effects.
        leases: the consumer's leases.
        name: the consumer's name.
        inbox: remembers what was handled.
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
        inbox: Inbox,
        held: Held,
        lanes: Lanes,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._name = name
        self._leases = leases
        self._inbox = inbox
        self._held = held
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._clock = clock
        self._looked_s: dict[int, float] = {}

    def handled(self, connection: Connection, deliveries: Sequence[Delivery]) -> dict[str, bytes]:
        """Return which of the ids were handled, each with the digest of what it brought."""
        ids = [delivery.message_id for delivery in deliveries]
        return self._inbox.handled(connection, self._name, ids)

    def look(self, lease: Lease) -> None:
        """Learn which lanes of a partition are blocked."""
        with self._engine.connect() as connection:
            self._lanes.blocked[lease] = self._held.keys(connection, self._lanes.place(lease))
        self._looked_s[lease.partition] = self._clock.monotonic_s()

    def hold_pending(self, lease: Lease, deliveries: Sequence[Delivery]) -> ConsumerReport:
        """Hold what an earlier owner read and did not handle: it may have ended its process.

        Args:
            lease: ours.
            deliveries: what was pending, in stream order.

        Raises:
            LeaseLostError: when it is not ours any more.
        """
        with self._renewed(lease) as connection:
            known = self.handled(connection, deliveries)
            fresh = [d for d in deliveries if d.message_id not in known]
            others = [d for d in deliveries if known.get(d.message_id, d.digest) != d.digest]
            rows = [self._lanes.row(lease, d, "parked" if d.error else "retry") for d in fresh]
            rows += [self._lanes.mismatched_row(lease, d) for d in others]
            self._held.add(connection, rows)
        parked = sum(row["state"] == "parked" for row in rows)
        return ConsumerReport(
            duplicates=len(deliveries) - len(rows), waiting=len(rows) - parked, parked=parked
        )

    def hold_failed(
        self, lease: Lease, deliveries: Sequence[Delivery], error: Exception
    ) -> ConsumerReport:
        """Hold a message whose first attempt failed.

        Args:
            lease: ours.
            deliveries: the message; none when nobody handles it.
            error: what ended the attempt.

        Raises:
            LeaseLostError: when it is not ours any more.
        """
        rows = [self._lanes.failed_row(lease, delivery, error) for delivery in deliveries]
        with self._renewed(lease) as connection:
            self._held.add(connection, rows)
        self._lanes.blocked[lease] |= {row["key"] for row in rows}
        parked = sum(row["state"] == "parked" for row in rows)
        return ConsumerReport(failed=len(rows) - parked, parked=parked)

    def run(self, lease: Lease, batch: int) -> ConsumerReport:
        """Run what is due on a partition.

        Args:
            lease: ours.
            batch: how many attempts, at most: other partitions wait meanwhile.

        Raises:
            LeaseLostError: when it is not ours any more.
        """
        report = ConsumerReport()
        if not self._lanes.blocked[lease]:
            return report
        due, left = self._due(lease, batch), batch
        while together := self._untried(due):
            report += self._retry(lease, together)
            left -= len(together)
            due = self._due(lease, left)
        report += self._run_alone(lease, due, left)
        if report or self._looked_long_ago(lease):
            self.look(lease)
        return report

    def _untried(self, due: Sequence[HeldMessage]) -> list[HeldMessage]:
        """Return what may run together: nothing that was tried, and nothing that has one attempt.

        Why not what was tried: it may have ended its process, and its neighbours would be parked
        with it.
        """
        untried = [row for row in due if row.attempts == 0 and row.state != "parked"]
        return untried if len(untried) > 1 and self._lanes.backoff.attempts > 1 else []

    def _run_alone(self, lease: Lease, due: Sequence[HeldMessage], most: int) -> ConsumerReport:
        report, line = ConsumerReport(), deque(due)
        for _ in range(most):
            if not line:
                break
            row = line.popleft()
            outcome = self._retry(lease, [row])
            report += outcome
            if not (outcome.failed or outcome.parked):
                line.extend(self._following(row))
        return report

    def _looked_long_ago(self, lease: Lease) -> bool:
        # Somebody may have discarded a dead letter, and its key is free without our doing.
        return (
            self._clock.monotonic_s() >= self._looked_s[lease.partition] + self._leases.lease_s / 4
        )

    def _due(self, lease: Lease, batch: int) -> list[HeldMessage]:
        place = self._lanes.place(lease)
        with self._engine.connect() as connection:
            return self._held.due(connection, place, self._clock.now(), batch)

    def _following(self, row: HeldMessage) -> list[HeldMessage]:
        with self._engine.connect() as connection:
            found = self._held.following(connection, row, self._clock.now())
        return [found] if found else []

    def _retry(self, lease: Lease, rows: Sequence[HeldMessage]) -> ConsumerReport:
        """Try messages of different keys together, or one alone."""
        if rows[0].attempts >= self._lanes.backoff.attempts:
            return self._fail(lease, rows[0], _cut_off(rows[0]), rows[0].attempts)
        started = self._start(lease, rows)
        # Crash window: attempts are counted and have not run; they are due again after a backoff.
        crash.point("consumer.after_start")
        return self._attempt(lease, started) if started else ConsumerReport()

    def _start(self, lease: Lease, rows: Sequence[HeldMessage]) -> Started:
        self._leases.tick()
        pause = timedelta(seconds=self._lanes.backoff.delay_s(rows[0].attempts + 1))
        with self._engine.begin() as connection:
            self._leases.check(connection, lease)
            attempts = self._held.start(connection, rows, self._clock.now() + pause)
        return [(row, attempts[row.position]) for row in rows if row.position in attempts]

    def _attempt(self, lease: Lease, started: Started) -> ConsumerReport:
        """Run what was started; one by one when that fails."""
        started_s = self._clock.monotonic_s()
        try:
            return self._handle(lease, started)
        except Exception as error:  # noqa: BLE001 - any error of a handler is a failed attempt
            took_s = self._clock.monotonic_s() - started_s
            raise_unless_the_message_is_to_blame(error, took_s, self._leases.lease_s)
            if len(started) > 1:
                return self._attempt_singly(lease, started)
            ((row, attempt),) = started
            return self._fail(lease, row, error, attempt)

    def _attempt_singly(self, lease: Lease, started: Started) -> ConsumerReport:
        report = ConsumerReport()
        for each in started:
            self._leases.tick()
            report += self._attempt(lease, [each])
        return report

    def _handle(self, lease: Lease, started: Started) -> ConsumerReport:
        deliveries = [self._read(row, attempt) for row, attempt in started]
        with self._dispatcher.lend() as session:
            self._leases.check(session.connection(), lease)
            outcome = self._dispatcher.handle(session, deliveries)
            if outcome.mismatched:
                raise PayloadMismatchError(outcome.mismatched[0].message_id)
            self._held.done(session.connection(), [row for row, _ in started])
        return ConsumerReport(outcome.handled, outcome.duplicates, late=outcome.late)

    def _read(self, row: HeldMessage, attempt: int) -> Delivery:
        entry, redelivered = Entry(str(row.position), row.body), row.state != "waiting"
        delivery = self._dispatcher.read(
            entry,
            "held",
            attempt=attempt,
            redelivered=redelivered,
            # An operator wants it handled, also by a later attempt or after a death.
            however_late=row.redrive,
        )
        if delivery is None:
            raise _nobody_handles(row)
        if delivery.error:
            raise delivery.error
        return delivery

    def _fail(
        self, lease: Lease, row: HeldMessage, error: Exception, attempt: int
    ) -> ConsumerReport:
        due = self._lanes.next_due(error, attempt)
        if isinstance(error, PayloadMismatchError):
            # It blocks nobody: the id's first content was handled.
            row = row._replace(key=None)
        with self._renewed(lease) as connection:
            self._held.fail(connection, row, reason(error), due)
        return ConsumerReport(parked=1) if due is None else ConsumerReport(failed=1)

    @contextmanager
    def _renewed(self, lease: Lease) -> Iterator[Connection]:
        """Open a transaction under a lease that was renewed just now: an attempt takes time."""
        self._leases.hurry()
        self._leases.tick()
        with self._engine.begin() as connection:
            self._leases.check(connection, lease)
            yield connection


def _cut_off(row: HeldMessage) -> PermanentError:
    before = f"; the last error was {row.reason}" if row.reason else ""
    return PermanentError(f"the worker or its connection ended during every attempt{before}")


def _nobody_handles(row: HeldMessage) -> PermanentError:
    # Why not skip it, as in the stream: somebody may be repairing what it failed for.
    type_ = decode_envelope(row.body).event.type
    return PermanentError(f"nobody handles {type_} any more: bring its handler back, and redrive")
