"""Lanes: which messages wait together, and what is written about those that wait.

A lane is a key. A message has none, and waits for nobody, where order is given up (the `skip`
policy) or cannot be known (bytes that are no message). A lane with held rows is blocked: what
comes later on it waits.

Only the owner of a partition adds held rows, so no lane is missing from its copy of the blocked
ones for as long as the lease lasts; it is kept by lease, since a partition that was lost and taken
anew is another matter. An operator may discard a row: until the owner looks again, a lane that is
free seems blocked, and its messages take the way through `held`, in order all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError

from labkit import db
from labkit.clock import Clock
from labkit.dispatch import Delivery
from labkit.errors import (
    CommitUnknownError,
    LeaseLostError,
    PayloadMismatchError,
    PermanentError,
)
from labkit.held import Backoff, Place
from labkit.lease import Lease

MAX_REASON_CHARS = 2000
Row = dict[str, Any]


class Lanes:
    """The waiting rules of one consumer.

    Args:
        consumer: its name.
        stream: the name of the stream that it reads.
        backoff: pauses between attempts, and their number.
        keeps_order: whether a failed message holds its key.
        clock: for due times.
    """

    def __init__(
        self, consumer: str, stream: str, backoff: Backoff, clock: Clock, *, keeps_order: bool
    ) -> None:
        self.backoff = backoff
        # None stands for the held messages that have no lane.
        self.blocked: dict[Lease, set[str | None]] = {}
        self._consumer = consumer
        self._stream = stream
        self._clock = clock
        self._keeps_order = keeps_order

    def place(self, lease: Lease) -> Place:
        """Return where the messages of a partition are held."""
        return Place(self._consumer, self._stream, lease.partition)

    def lane(self, delivery: Delivery) -> str | None:
        """Return the lane of a message; None when it waits for nobody."""
        return delivery.key if self._keeps_order else None

    def stops(self, lease: Lease, deliveries: Sequence[Delivery]) -> bool:
        """Say whether some of these cannot be handled now."""
        blocked = self.blocked[lease] - {None}
        return any(d.error or self.lane(d) in blocked for d in deliveries)

    def sort(
        self, lease: Lease, deliveries: Sequence[Delivery]
    ) -> tuple[list[Delivery], list[Row]]:
        """Separate what can be handled now from what is dead or must wait.

        Args:
            lease: of the partition where they came from.
            deliveries: in stream order.

        Returns:
            What to handle, and the rows to hold, both in order.
        """
        ready: list[Delivery] = []
        rows: list[Row] = []
        blocked = self.blocked[lease] - {None}
        for delivery in deliveries:
            if self.lane(delivery) in blocked:
                rows.append(self.row(lease, delivery, "waiting"))
            elif delivery.error:
                rows.append(self.row(lease, delivery, "parked"))
                blocked |= {self.lane(delivery)} - {None}
            else:
                ready.append(delivery)
        return ready, rows

    def part(
        self, deliveries: Sequence[Delivery], failed_ids: Collection[str]
    ) -> tuple[list[Delivery], list[Delivery]]:
        """Find what of a batch cannot go on.

        Args:
            deliveries: in stream order.
            failed_ids: of those that failed.

        Returns:
            What failed, and what must wait behind it; both in order. Of one lane, only the first
            counts as failed: what comes behind it is to be tried after it.
        """
        failed: list[Delivery] = []
        behind: list[Delivery] = []
        for delivery in deliveries:
            if self.lane(delivery) in {self.lane(each) for each in failed} - {None}:
                behind.append(delivery)
            elif delivery.message_id in failed_ids:
                failed.append(delivery)
        return failed, behind

    def row(self, lease: Lease, delivery: Delivery, state: str) -> Row:
        """Return a row for `Held.add`."""
        return {
            **self.place(lease)._asdict(),
            "message_id": delivery.message_id,
            "key": self.lane(delivery),
            "body": delivery.body,
            "state": state,
            "attempts": 0,
            "due_at": self._clock.now(),
            "reason": reason(delivery.error) if delivery.error else None,
        }

    def mismatched_row(self, lease: Lease, delivery: Delivery) -> Row:
        """Return a dead letter that blocks nobody: the id's first content was handled."""
        error = PayloadMismatchError(delivery.message_id)
        return self.row(lease, delivery._replace(error=error), "parked") | {"key": None}

    def failed_row(self, lease: Lease, delivery: Delivery, error: Exception) -> Row:
        """Return the row of a message whose first attempt failed."""
        due = self.next_due(error, attempt=1)
        row = self.row(lease, delivery, "parked" if due is None else "retry")
        return row | {
            "attempts": 1,
            "due_at": due or self._clock.now(),
            "reason": reason(error),
        }

    def next_due(self, error: Exception, attempt: int) -> datetime | None:
        """Return when to try again after a failed attempt; None to park the message."""
        if isinstance(error, PermanentError) or attempt >= self.backoff.attempts:
            return None
        return self._clock.now() + timedelta(seconds=self.backoff.delay_s(attempt))


def reason(error: Exception) -> str:
    """Return what an operator reads about a failure, whatever the error is made of."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - a broken error must not end the worker, for ever
        said = "it cannot say what happened"
    readable = said[:MAX_REASON_CHARS].encode(errors="backslashreplace").decode()
    # PostgreSQL stores no NUL.
    return f"{type(error).__name__}: {readable}".replace("\0", "\\0")


def raise_unless_the_message_is_to_blame(error: Exception, took_s: float, lease_s: float) -> None:
    """Let failures of lease and infrastructure out: they say nothing about a message.

    Args:
        error: what ended the attempt.
        took_s: how long the attempt took, in seconds.
        lease_s: the worker's lease, in seconds.

    Raises:
        Exception: the error itself, when the message is not to blame.
    """
    if isinstance(error, LeaseLostError | CommitUnknownError):
        raise error
    # A handler that takes too long has its connection cut by PostgreSQL, and is to blame.
    too_long = took_s >= db.transaction_limit_s(lease_s)
    if isinstance(error, DBAPIError) and _has_no_database(error) and not too_long:
        raise error


def _has_no_database(error: DBAPIError) -> bool:
    refused = error.statement is None and getattr(error.orig, "sqlstate", None) is None
    return error.connection_invalidated or refused
