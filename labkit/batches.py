"""Batches: handles what was read, in one transaction if that goes well.

How: inbox rows, effects and outgoing events of a batch are one transaction; the acknowledgement
follows the commit. When a member fails, the batch is done again: without it and in one transaction
when its handler named it (`labkit.partial_batches`), one by one otherwise. What failed is held.

Guarantee and crash windows are those of `labkit.consumer`, whose handling half this is:
    consumer.after_commit   committed or held, not acknowledged: redelivered, and inbox or `held`
                            knows it
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit import crash
from labkit.clock import Clock
from labkit.dispatch import Delivery, Dispatcher
from labkit.errors import BatchItemFailuresError
from labkit.held import Held
from labkit.lanes import Lanes, raise_unless_the_message_is_to_blame
from labkit.lease import Lease, Leases
from labkit.ports import Entry, Stream, Subscription
from labkit.reports import ConsumerReport
from labkit.retries import Retries


class Batches:
    """The handling half of a consumer.

    Args:
        subscription: acknowledges.
        stream: where entries come from.
        leases: the consumer's leases.
        held: where messages wait.
        lanes: which of them wait together.
        retries: holds what failed.
        dispatcher: runs the handlers.
        clock: measures how long an attempt took.
    """

    def __init__(
        self,
        subscription: Subscription,
        stream: Stream,
        leases: Leases,
        *,
        held: Held,
        lanes: Lanes,
        retries: Retries,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._subscription = subscription
        self._stream = stream
        self._leases = leases
        self._held = held
        self._lanes = lanes
        self._retries = retries
        self._dispatcher = dispatcher
        self._clock = clock

    def process(
        self, lease: Lease, entries: Sequence[Entry], *, parted: bool = False
    ) -> ConsumerReport:
        """Handle entries in one transaction; if that fails, in parts or one by one.

        Args:
            lease: ours.
            entries: of its partition, in stream order.
            parted: whether they are a part already, so that the next failure means one by one.

        Raises:
            LeaseLostError: when it is not ours any more.
        """
        started_s = self._clock.monotonic_s()
        try:
            report = self._commit_together(lease, entries)
        except Exception as error:  # noqa: BLE001 - any error of a handler is a failed attempt
            took_s = self._clock.monotonic_s() - started_s
            raise_unless_the_message_is_to_blame(error, took_s, self._leases.lease_s)
            if len(entries) > 1:
                if isinstance(error, BatchItemFailuresError) and not parted:
                    return self._process_parted(lease, entries, error)
                return self._process_singly(lease, entries)
            report = self._retries.hold_failed(lease, self.read(lease, entries), error)
        # Why not inside the try: a broker that is away is no fault of what was handled.
        self._settle(lease, entries)
        return report

    def _process_parted(
        self, lease: Lease, entries: Sequence[Entry], error: BatchItemFailuresError
    ) -> ConsumerReport:
        """Handle what did not fail in one transaction, then hold what did and what is behind it."""
        failed, behind = self._lanes.part(self.read(lease, entries), error.message_ids)
        apart = {d.position for d in failed + behind}
        report = ConsumerReport()
        if free := [entry for entry in entries if entry.position not in apart]:
            report += self.process(lease, free, parted=True)
        self._leases.tick()
        report += self._retries.hold_failed(lease, failed, error)
        self._settle(lease, failed)
        if waiting := [Entry(d.position, d.body) for d in behind]:
            report += self.process(lease, waiting, parted=True)
        return report

    def _process_singly(self, lease: Lease, entries: Sequence[Entry]) -> ConsumerReport:
        report = ConsumerReport()
        for entry in entries:
            self._leases.tick()
            report += self.process(lease, [entry])
        return report

    def _commit_together(self, lease: Lease, entries: Sequence[Entry]) -> ConsumerReport:
        deliveries = self.read(lease, entries)
        with self._dispatcher.lend() as session:
            connection = session.connection()
            self._leases.check(connection, lease)
            # What was handled and comes again must not wait or be parked: it stays handled, even
            # behind a dead letter of its key, and even if nobody can read it any more.
            stopped = self._lanes.stops(lease, deliveries)
            known = self._retries.handled(connection, deliveries if stopped else [])
            new = [d for d in deliveries if known.get(d.message_id) != d.digest]
            ready, rows = self._lanes.sort(lease, new)
            outcome = self._dispatcher.handle(session, ready)
            rows += [self._lanes.mismatched_row(lease, d) for d in outcome.mismatched]
            self._held.add(connection, rows)
        self._lanes.blocked[lease] |= {row["key"] for row in rows}
        parked = sum(row["state"] == "parked" for row in rows)
        return ConsumerReport(
            handled=outcome.handled,
            duplicates=outcome.duplicates + len(deliveries) - len(new),
            skipped=len(entries) - len(deliveries),
            waiting=len(rows) - parked,
            parked=parked,
            late=outcome.late,
        )

    def read(self, lease: Lease, entries: Sequence[Entry]) -> list[Delivery]:
        """Read entries; those that nobody handles are left out."""
        origin = f"{self._stream.name}:{lease.partition}"
        read = [self._dispatcher.read(entry, origin) for entry in entries]
        return [delivery for delivery in read if delivery is not None]

    def _settle(self, lease: Lease, done: Sequence[Entry | Delivery]) -> None:
        # Crash window: committed, not acknowledged; redelivered, and inbox or `held` knows it.
        crash.point("consumer.after_commit")
        self.acknowledge(lease, done)

    def acknowledge(self, lease: Lease, entries: Sequence[Entry | Delivery]) -> None:
        """Tell the broker that they are settled."""
        self._subscription.ack(lease.partition, [entry.position for entry in entries])
