"""Relay: moves committed outbox rows to the broker, in order, at least once.

How: the relay owns partitions (`labkit.lease`). It claims a batch of unpublished rows in `seq`
order, publishes it outside any transaction as one numbered batch, and marks it with one
statement that also raises `lease.acked`, fenced by the epoch.

Guarantee: every committed row is published at least once; rows of one key in commit order, with
several relays, after a crash, after a frozen relay wakes, and after a loss at the broker.
Not guaranteed: exactly one publication. A crash between publish and mark sends the batch again.

Crash windows:
    relay.after_claim     claimed, not published: the next owner claims the same rows
    relay.after_publish   published, not marked: the next owner finds the broker's head above
                          `acked` and publishes the rows again, in order
    relay.after_mark      marked: nothing is left to do

A loss at the broker shows as a head that is missing or below `acked`: the owner unmarks the
rows above it and publishes them again, before anything newer.

Pattern: Richardson, *Microservices Patterns*, ch. 3 ("Polling publisher").
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql

from labkit import crash, db
from labkit.clock import Clock, SystemClock
from labkit.errors import (
    LeaseLostError,
    RefusedByBrokerError,
    TransientError,
)
from labkit.lease import Lease, Leases
from labkit.loop import run_until
from labkit.outbox import Outbox
from labkit.ports import Publisher

log = logging.getLogger(__name__)
_OURS = "kind = :kind and name = :name and lease.partition = :partition and epoch = :epoch"
_preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class RelayReport:
    """What one pass did; reports add up with `+`."""

    published: int = 0
    batches: int = 0
    refused: int = 0
    unmarked: int = 0
    lost: int = 0

    def __add__(self, other: RelayReport) -> RelayReport:
        """Add two reports, field by field."""
        return RelayReport(
            self.published + other.published,
            self.batches + other.batches,
            self.refused + other.refused,
            self.unmarked + other.unmarked,
            self.lost + other.lost,
        )


@dataclass(frozen=True)
class _Claimed:
    seq: int
    body: str


class Relay:
    """Publishes one outbox; run as many as you like, they share the partitions.

    Args:
        engine: the outbox's database, from `labkit.db.connect` with the same lease.
        outbox: what to publish.
        publisher: where to.
        owner: this worker's name; unique.
        batch: rows per partition and publish.
        lease_s: see `labkit.lease`.
        poll_s: the shortest and longest pause between passes that found nothing, in seconds.
        clock: for the pace of renewals and backoff.
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
        clock: Clock | None = None,
    ) -> None:
        self.outbox = outbox
        self.leases = Leases(
            engine,
            publisher,
            kind="relay",
            name=outbox.stream.name,
            partitions=outbox.stream.partitions,
            owner=owner,
            lease_s=lease_s,
            clock=clock,
        )
        # Each statement is a transaction of its own here: no BEGIN and COMMIT around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._publisher = publisher
        self._batch = batch
        self._poll_s = poll_s
        self._clock = clock or SystemClock()
        self._heads: dict[int, int | None] = {}
        self._resting: dict[int, float] = {}
        self._sql = _Statements(outbox)

    def run_once(self) -> RelayReport:
        """Publish one batch of each owned partition that has unpublished rows.

        Returns:
            What was done.

        Raises:
            BrokerUnavailableError: when a partition could not be taken for want of the broker.
        """
        self.leases.tick()
        report = self._find_heads()
        for partition, rows in self._claim().items():
            report += self._work(partition, rows)
        return report

    def run(self, stop: threading.Event) -> RelayReport:
        """Publish until told to stop, then give the partitions back.

        Args:
            stop: set it to end after the batch in hand.

        Returns:
            The sum of all passes.
        """
        total = RelayReport()
        wake = _WakeUp(self._engine, self.outbox, stop)

        def work() -> bool:
            nonlocal total
            report = self.run_once()
            total += report
            return report != RelayReport()

        run_until(stop, work, wake.wait, poll_s=self._poll_s)
        wake.close()
        self.leases.release()
        return total

    def _find_heads(self) -> RelayReport:
        """Compare the broker's head with ours for partitions that are new in our hands."""
        report = RelayReport()
        for partition in self._heads.keys() - self.leases.owned.keys():
            del self._heads[partition]
        for partition in self.leases.owned.keys() - self._heads.keys():
            head = self._publisher.head(partition)
            report += self._reconcile(self.leases.owned[partition], head)
        return report

    def _reconcile(self, lease: Lease, head: int | None) -> RelayReport:
        unmarked = 0
        if (head or 0) < lease.acked:
            unmarked = self._unmark(lease, head or 0)
            log.warning(
                "relay %s, partition %d: the broker lost what came after batch %s; %d rows again",
                self.outbox.stream.name,
                lease.partition,
                head,
                unmarked,
            )
        self._heads[lease.partition] = head
        return RelayReport(unmarked=unmarked)

    def _claim(self) -> dict[int, list[_Claimed]]:
        now_s = self._clock.monotonic_s()
        awake = [p for p in self._heads if self._resting.get(p, now_s) <= now_s]
        claimed: dict[int, list[_Claimed]] = defaultdict(list)
        with self._engine.connect() as connection:
            parameters = {"partitions": awake, "batch": self._batch}
            for seq, partition, body in connection.execute(self._sql.claim, parameters):
                claimed[partition].append(_Claimed(seq, body))
        return claimed

    def _work(self, partition: int, rows: Sequence[_Claimed]) -> RelayReport:
        # Crash window: claimed and not published; nothing has changed anywhere.
        crash.point("relay.after_claim")
        try:
            return self._publish_and_mark(self.leases.owned[partition], rows)
        except RefusedByBrokerError as error:
            return self._refuse(rows[error.index], error)
        except LeaseLostError:
            self._heads.pop(partition, None)
            self.leases.lose(partition)
            return RelayReport(lost=1)
        except TransientError as error:
            # We do not know whether it was published: the head will say.
            log.warning("relay %s, partition %d: %s", self.outbox.stream.name, partition, error)
            self._heads.pop(partition, None)
            self._resting[partition] = self._clock.monotonic_s() + self._poll_s[1]
            return RelayReport()

    def _publish_and_mark(self, lease: Lease, rows: Sequence[_Claimed]) -> RelayReport:
        head = self._heads[lease.partition]
        batch = max(lease.acked, head or 0) + 1
        self._publisher.publish(
            lease.partition,
            epoch=lease.epoch,
            head=head,
            batch=batch,
            bodies=[row.body for row in rows],
        )
        self._heads[lease.partition] = batch
        # Crash window: published and not marked; the next owner publishes the batch again.
        crash.point("relay.after_publish")
        self._mark(lease, batch, [row.seq for row in rows])
        self.leases.owned[lease.partition] = Lease(lease.partition, lease.epoch, batch)
        # Crash window: marked; the lease ends by itself and nothing is left over.
        crash.point("relay.after_mark")
        return RelayReport(published=len(rows), batches=1)

    def _mark(self, lease: Lease, batch: int, seqs: Sequence[int]) -> None:
        with self._engine.connect() as connection:
            parameters = self._fence(lease) | {"batch": batch, "seqs": list(seqs)}
            if not connection.execute(self._sql.mark, parameters).scalar():
                raise LeaseLostError(lease.partition)

    def _unmark(self, lease: Lease, head: int) -> int:
        with self._engine.connect() as connection:
            parameters = self._fence(lease) | {"head": head}
            return connection.execute(self._sql.unmark, parameters).rowcount

    def _fence(self, lease: Lease) -> dict[str, Any]:
        return self.leases.id | {"partition": lease.partition, "epoch": lease.epoch}

    def _refuse(self, row: _Claimed, error: RefusedByBrokerError) -> RelayReport:
        log.error("relay %s: row %d refused: %s", self.outbox.stream.name, row.seq, error)
        with self._engine.connect() as connection:
            connection.execute(self._sql.refuse, {"seq": row.seq, "reason": str(error)})
        return RelayReport(refused=1)


class _Statements:
    """The relay's SQL for one outbox table."""

    def __init__(self, outbox: Outbox) -> None:
        table = _preparer.format_table(outbox.table)
        # A lateral subquery per partition reads the partial index in order and stops at the
        # batch, however long the backlog is.
        self.claim = text(f"""
            select o.seq, o.partition, o.body
            from unnest(cast(:partitions as int[])) as p
            cross join lateral (
                select seq, partition, body from {table} as row
                where partition = p and published_at is null and refused is null
                  and not exists (select from {table} as parked
                                  where parked.refused is not null and parked.key = row.key)
                order by seq limit :batch
            ) as o
            order by o.partition, o.seq
        """)
        self.mark = text(f"""
            with fence as (
                update lease set acked = :batch
                where {_OURS}
                returning 1
            ), marked as (
                update {table} set published_at = clock_timestamp(), batch = :batch
                from fence where seq = any(cast(:seqs as bigint[]))
            )
            select count(*) from fence
        """)
        self.unmark = text(f"""
            with fence as (select 1 from lease where {_OURS} for update)
            update {table} set published_at = null, batch = null
            from fence
            where {table}.partition = :partition and {table}.batch > :head
        """)
        self.refuse = text(f"update {table} set refused = :reason where seq = :seq")


class _WakeUp:
    """Waits for NOTIFY where the outbox sends it, else for the time to pass.

    A wake-up carries no data and may get lost; polling remains the truth.
    """

    def __init__(self, engine: Engine, outbox: Outbox, stop: threading.Event) -> None:
        self._engine = engine
        self._outbox = outbox
        self._stop = stop
        self._connection: Connection | None = None

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or earlier when there is something to publish."""
        if not self._outbox.notify:
            self._stop.wait(seconds)
            return
        connection = self._connection or self._listen()
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        try:
            for _ in driver.notifies(timeout=seconds, stop_after=1):
                return
        except psycopg.Error:
            self.close()

    def _listen(self) -> Connection:
        # Its own connection for good: a pooled one would stop listening when returned.
        connection = self._connection = self._engine.connect()
        connection.detach()
        connection.exec_driver_sql(f"listen {_preparer.quote(self._outbox.channel)}")
        return connection

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
