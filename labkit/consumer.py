"""Consumer: reads a stream's partitions in order and applies each message's effect once.

How: the consumer owns partitions (`labkit.lease`). It first settles what an earlier owner left
pending, then reads new entries. Inbox rows, effects and outgoing events of a batch are one
transaction (`labkit.dispatch`); the acknowledgement follows the commit. A batch with a failing
member is done again one by one, or without it when its handler names it (`partial_batches`); the
one that fails moves to `labkit.held` and its key waits behind it.

Guarantee: the effect of a message is applied exactly once per (consumer, message id) inside the
inbox window; messages of one key are handled in stream order, with several consumers, after a
crash, and after a frozen consumer wakes.
Not guaranteed: order under the `skip` policy; anything that a handler does outside its session.

Crash windows:
    consumer.before_commit   handled, not committed: nothing has happened, it is redelivered
    consumer.after_commit    committed, not acknowledged: redelivered, and the inbox knows it

Pattern: Hohpe and Woolf, "Idempotent Receiver", "Transactional Client".
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Literal

from sqlalchemy import Engine

from labkit import db, limits
from labkit.batches import Batches
from labkit.clock import Clock, SystemClock
from labkit.dispatch import Dispatcher
from labkit.errors import ConfigurationError, LeaseLostError
from labkit.handlers import AnyHandler
from labkit.held import Backoff, Held
from labkit.inbox import Inbox
from labkit.lanes import Lanes
from labkit.lease import Lease, Leases
from labkit.loop import run_until
from labkit.messages import Event, Registry
from labkit.ports import Stream, Subscription
from labkit.reports import ConsumerReport
from labkit.retries import Retries


class Consumer:
    """Handles one stream under one name; run as many as you like, they share the partitions.

    Args:
        engine: the database of inbox and effects, from `labkit.db.connect` with the same lease.
        subscription: the stream, read under this consumer's group.
        stream: its name and number of partitions.
        name: who handles; part of the inbox's key, so it must stay the same.
        handlers: what to do with which event; other types are skipped.
        registry: how to read events.
        inbox: remembers what was handled.
        held: keeps what failed.
        on_poison: `park_key` holds the key of a dead letter; `skip` gives its order up.
        backoff: pauses between attempts, and their number.
        batch: entries per transaction.
        owner: this worker's name; unique.
        lease_s: see `labkit.lease`; a transaction may take half of it.
        poll_s: the shortest and longest pause when idle, in seconds; new entries end it.
        clock: for retries and the pace of renewals.

    Raises:
        ConfigurationError: when there is no such policy, or a name or a number makes no sense.
    """

    def __init__(
        self,
        engine: Engine,
        subscription: Subscription,
        stream: Stream,
        *,
        name: str,
        handlers: Mapping[type[Event], AnyHandler],
        registry: Registry,
        inbox: Inbox,
        held: Held,
        on_poison: Literal["park_key", "skip"] = "park_key",
        backoff: Backoff | None = None,
        batch: int = 100,
        owner: str | None = None,
        lease_s: float = db.DEFAULT_LEASE_S,
        poll_s: tuple[float, float] = (0.05, 0.25),
        clock: Clock | None = None,
    ) -> None:
        if on_poison not in {"park_key", "skip"}:
            raise ConfigurationError(f"on_poison is park_key or skip, not {on_poison!r}")
        limits.name("the consumer's name", name)
        limits.worker(batch, poll_s, lease_s)
        self.name = name
        self.stream = stream
        self.total = ConsumerReport()
        self._clock = clock or SystemClock()
        self.leases = Leases(
            engine,
            subscription,
            kind="consumer",
            name=f"{name} < {stream.name}",
            partitions=stream.partitions,
            owner=owner,
            lease_s=lease_s,
            tables=[inbox.table, held.table],
            clock=self._clock,
        )
        dispatcher = Dispatcher(engine, name, handlers, registry, inbox, clock=self._clock)
        self._subscription = subscription
        self._lanes = Lanes(
            name,
            stream.name,
            backoff or Backoff(),
            self._clock,
            keeps_order=on_poison == "park_key",
        )
        self._retries = Retries(
            engine,
            self.leases,
            name=name,
            inbox=inbox,
            held=held,
            lanes=self._lanes,
            dispatcher=dispatcher,
            clock=self._clock,
        )
        self._batches = Batches(
            subscription,
            stream,
            self.leases,
            held=held,
            lanes=self._lanes,
            retries=self._retries,
            dispatcher=dispatcher,
            clock=self._clock,
        )
        self._batch = batch
        self._poll_s = poll_s
        self._read_all_s = float("-inf")

    def __repr__(self) -> str:
        """Say who handles what."""
        return f"consumer {self.name} of {self.stream.name}"

    def run_once(self) -> ConsumerReport:
        """Handle up to one batch of each owned partition.

        Returns:
            What was done.

        Raises:
            BrokerUnavailableError: when the broker does not answer; nothing is lost.
            sqlalchemy.exc.DBAPIError: when the database does not; nothing is lost.
        """
        return self._pass(range(self.stream.partitions))

    def _pass(self, to_read: Collection[int]) -> ConsumerReport:
        """Settle and retry on all owned partitions; read new entries of some."""
        self.leases.tick()
        report = ConsumerReport()
        for partition in list(self.leases.owned):
            # Again before each: the batches of the others took their time.
            self.leases.tick()
            if partition in self.leases.owned:
                report += self._work(self.leases.owned[partition], reads=partition in to_read)
        for lease in self._lanes.blocked.keys() - set(self.leases.owned.values()):
            del self._lanes.blocked[lease]
        self.total += report
        return report

    def run(self, stop: threading.Event) -> ConsumerReport:
        """Handle messages until told to stop, then give the partitions back.

        Args:
            stop: set it to end after the batch in hand.

        Returns:
            The sum of all passes.
        """
        total = ConsumerReport()

        def work() -> bool:
            nonlocal total
            report = self._pass(self._to_read())
            total += report
            return bool(report)

        def wait(seconds: float) -> None:
            owned = list(self.leases.owned)
            if owned:
                self._subscription.wait(owned, seconds)
            else:
                stop.wait(seconds)

        try:
            run_until(stop, work, wait, poll_s=self._poll_s)
        finally:
            self.leases.release()
        return total

    def _to_read(self) -> Collection[int]:
        """Return the partitions that have news; all of them now and then.

        One question for all is cheaper than a read of each. Why not trust it always: a stream that
        was lost and begun anew may stand behind what we have seen, and would never wake us.
        """
        owned, now_s = list(self.leases.owned), self._clock.monotonic_s()
        if not owned or now_s >= self._read_all_s + self._poll_s[1]:
            self._read_all_s = now_s
            return range(self.stream.partitions)
        return self._subscription.wait(owned, 0.0)

    def _work(self, lease: Lease, *, reads: bool) -> ConsumerReport:
        try:
            report = self._settle_pending(lease)
            report += self._retries.run(lease, self._batch)
            return report + self._read_new(lease) if reads else report
        except LeaseLostError:
            self._lanes.blocked.pop(lease, None)
            self.leases.lose(lease.partition)
            return ConsumerReport(lost=1)
        except BaseException:
            # What was read and not acknowledged is pending now: settle it before going on.
            self._lanes.blocked.pop(lease, None)
            raise

    def _settle_pending(self, lease: Lease) -> ConsumerReport:
        """Acknowledge what was handled; move the rest to `held`, where starts are counted."""
        report, after = ConsumerReport(), "0"
        if lease in self._lanes.blocked:
            return report
        while entries := self._subscription.read_pending(
            lease.partition, epoch=lease.epoch, after=after, count=self._batch
        ):
            deliveries = self._batches.read(lease, entries)
            report += self._retries.hold_pending(lease, deliveries)
            report += ConsumerReport(skipped=len(entries) - len(deliveries))
            self._batches.acknowledge(lease, entries)
            after = entries[-1].position
        self._retries.look(lease)
        return report

    def _read_new(self, lease: Lease) -> ConsumerReport:
        entries = self._subscription.read_new(lease.partition, epoch=lease.epoch, count=self._batch)
        return self._batches.process(lease, entries) if entries else ConsumerReport()
