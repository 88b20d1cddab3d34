"""Relay: moves committed outbox rows to the broker, in order, at least once.

How: the relay owns partitions (`labkit.lease`). It claims a batch of unpublished rows in `seq`
order (`labkit.backlog`), publishes it outside any transaction as one numbered batch, and marks
it with one statement that also raises `lease.acked`, fenced by the epoch.

Guarantee: every committed row is published at least once; rows of one key in commit order, with
several relays, after a crash, after a frozen relay wakes, and after a loss at the broker.
Not guaranteed: exactly one publication. A crash between publish and mark sends the batch again.

Crash windows:
    relay.after_claim     claimed, not published: the next owner claims the same rows
    relay.after_publish   published, not marked: the next owner finds the broker's head above
                          `acked` and publishes the rows again, in order
    relay.after_mark      marked: nothing is left to do

A loss at the broker shows as a head that is missing or below `acked`: the owner, who looks when
it takes a partition and at every renewal, unmarks the rows above the head and publishes them
again, before anything newer. Not those that inboxes may have forgotten: see `labkit.retention`.

Pattern: Richardson, *Microservices Patterns*, ch. 3 ("Polling publisher").
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from labkit import crash, db, limits
from labkit.backlog import Backlog, Claim
from labkit.clock import Clock, SystemClock
from labkit.errors import LeaseLostError, RefusedByBrokerError, TransientError
from labkit.lease import Lease, Leases
from labkit.loop import run_until
from labkit.outbox import Outbox
from labkit.ports import Publisher
from labkit.reports import RelayReport
from labkit.retention import Retention
from labkit.wakeup import WakeUp

log = logging.getLogger(__name__)
# Each owner numbers its batches from here on: two owners must never give the same number to
# different rows, or a broker restored to the first one's state would look complete.
_BATCHES_PER_EPOCH = 1_000_000_000


@dataclass
class _Log:
    """Where the broker's log of a partition stands: its head, and the last number in use."""

    lease: Lease
    head: int | None
    batch: int
    looked_s: float


class Relay:
    """Publishes one outbox; run as many as you like, they share the partitions.

    Args:
        engine: the outbox's database, from `labkit.db.connect` with the same lease.
        outbox: what to publish.
        publisher: where to.
        owner: this worker's name; unique.
        batch: rows per partition and publish.
        lease_s: see `labkit.lease`.
        poll_s: the shortest and longest pause between passes that found nothing, in seconds, up
            to half a lease; a partition whose broker does not answer rests for the longest.
        retention: how old a row may be to be published again; the default by default.
        clock: for the pace of renewals and rests.

    Raises:
        ConfigurationError: when a name or a number makes no sense.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        publisher: Publisher,
        *,
        owner: str | None = None,
        batch: int = 1000,
        lease_s: float = db.DEFAULT_LEASE_S,
        poll_s: tuple[float, float] = (0.002, 0.1),
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        limits.worker(batch, poll_s, lease_s)
        self.outbox = outbox
        self.total = RelayReport()
        self.leases = Leases(
            engine,
            publisher,
            kind="relay",
            name=outbox.stream.name,
            partitions=outbox.stream.partitions,
            owner=owner,
            lease_s=lease_s,
            tables=[outbox.table],
            clock=clock,
        )
        self._engine = engine
        self._backlog = Backlog(engine, outbox, self.leases.id)
        self._publisher = publisher
        self._batch = batch
        self._poll_s = poll_s
        self._resend_s = (retention or Retention()).resend_s
        self._clock = clock or SystemClock()
        self._warned: set[tuple[int, int]] = set()
        self._logs: dict[int, _Log] = {}
        self._rests_until: dict[int, float] = {}

    def __repr__(self) -> str:
        """Say what it relays."""
        return f"relay of {self.outbox.stream.name}"

    def run_once(self) -> RelayReport:
        """Publish one batch of each owned partition that has unpublished rows.

        The pass ends early at the first partition that fails; the next one goes on with the rest.

        Returns:
            What was done.

        Raises:
            BrokerUnavailableError: when a partition could not be taken for want of the broker.
            sqlalchemy.exc.DBAPIError: when the database does not answer; nothing is lost.
        """
        self.leases.tick()
        report = RelayReport()
        for lease, step in self._steps():
            report += self._attempt(lease, step)
            if lease.partition not in self._logs:
                # Something went wrong. Why not go on: a broker that does not answer would cost
                # its time limit for each partition before we look whether we were told to stop.
                break
        self.total += report
        return report

    def run(self, stop: threading.Event) -> RelayReport:
        """Publish until told to stop, then give the partitions back.

        Args:
            stop: set it to end after the batch in hand.

        Returns:
            The sum of all passes.
        """
        total = RelayReport()
        wake = WakeUp(self._engine, self.outbox.channel if self.outbox.notify else None, stop)

        def work() -> bool:
            nonlocal total
            report = self.run_once()
            total += report
            return report.published + report.refused + report.unmarked > 0

        try:
            run_until(stop, work, wake.wait, poll_s=self._poll_s)
        finally:
            wake.close()
            self.leases.release()
        return total

    def _steps(self) -> Iterator[tuple[Lease, Callable[[], RelayReport]]]:
        for lease in self._unsure():
            yield lease, partial(self._find_head, lease)
        for partition, claim in self._backlog.claim(list(self._logs), self._batch).items():
            place = self._logs[partition]
            yield place.lease, partial(self._publish, place, claim)

    def _unsure(self) -> list[Lease]:
        """Forget logs of leases that ended, even if taken anew; return whose log to look at.

        That is what is new in our hands and, now and then, the rest: nobody publishes to an idle
        partition, and so nobody would notice its loss.
        """
        owned, now_s = self.leases.owned, self._clock.monotonic_s()
        self._logs = {p: place for p, place in self._logs.items() if place.lease == owned.get(p)}
        due_s = now_s - self.leases.lease_s / 4
        sure = {p for p, place in self._logs.items() if place.looked_s > due_s}
        return [
            lease
            for p, lease in owned.items()
            if p not in sure and self._rests_until.get(p, now_s) <= now_s
        ]

    def _attempt(self, lease: Lease, step: Callable[[], RelayReport]) -> RelayReport:
        """Do one step on one partition; if it fails, look at the log again before the next."""
        try:
            return step()
        except LeaseLostError:
            self._logs.pop(lease.partition, None)
            self.leases.lose(lease.partition)
            return RelayReport(lost=1)
        except TransientError as error:
            # We do not know whether it was published: the head will say.
            self._logs.pop(lease.partition, None)
            self._rests_until[lease.partition] = self._clock.monotonic_s() + self._poll_s[1]
            log.warning("relay %s, partition %d: %s", self._name, lease.partition, error)
            return RelayReport()

    def _find_head(self, lease: Lease) -> RelayReport:
        """Compare the broker's head with ours; what the broker lost is unpublished again."""
        self._logs.pop(lease.partition, None)
        head, acked = self._publisher.head(lease.partition), self._backlog.acked(lease)
        report = RelayReport()
        if (head or 0) < acked:
            report = self._take_back(lease, head or 0, acked)
        # There may be more to unmark: nothing is published before the next pass has looked.
        if not report.unmarked:
            last = max(head or 0, acked, lease.epoch * _BATCHES_PER_EPOCH)
            self._logs[lease.partition] = _Log(lease, head, last, self._clock.monotonic_s())
        return report

    def _take_back(self, lease: Lease, head: int, acked: int) -> RelayReport:
        """Unmark what the broker lost, except what inboxes may not recognise any more."""
        place = f"relay {self._name}, partition {lease.partition}"
        if unmarked := self._backlog.unmark(lease, head, acked, self._resend_s):
            told = "%s: the broker lost what came after batch %d: %d rows again"
            log.warning(told, place, head, unmarked)
            return RelayReport(unmarked=unmarked)
        # Once: until something new is published, every look finds the same rows.
        seen = (lease.partition, acked)
        too_old = 0 if seen in self._warned else self._backlog.too_old(lease, head, acked)
        self._warned.add(seen)
        if too_old:
            told = "%s: %d lost rows are too old to be published again: see `labkit.retention`"
            log.error(told, place, too_old)
        return RelayReport(too_old=too_old)

    def _publish(self, place: _Log, claim: Claim) -> RelayReport:
        # Crash window: claimed and not published; nothing has changed anywhere.
        crash.point("relay.after_claim")
        lease, batch = place.lease, place.batch + 1
        try:
            self._publisher.publish(
                lease.partition,
                epoch=lease.epoch,
                head=place.head,
                batch=batch,
                bodies=claim.bodies,
            )
        except RefusedByBrokerError as error:
            log.warning("relay %s: row %d: %s", self._name, claim.seqs[error.index], error)
            self._backlog.refuse(lease, claim.seqs[error.index], str(error))
            return RelayReport(refused=1)
        place.head = place.batch = batch
        # Crash window: published and not marked; the next owner publishes the batch again.
        crash.point("relay.after_publish")
        self._backlog.mark(lease, batch, claim.seqs)
        # Crash window: marked; the lease ends by itself and nothing is left over.
        crash.point("relay.after_mark")
        return RelayReport(published=len(claim.seqs), batches=1)

    @property
    def _name(self) -> str:
        return self.outbox.stream.name
