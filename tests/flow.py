"""From one toy service to the other: outbox, relay, stream, consumer, and how tests look at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select, text

from labkit.clock import FakeClock
from labkit.consumer import Consumer
from labkit.dead_letters import Wanted
from labkit.held import Backoff
from labkit.lease import Lease
from labkit.ports import Entry, Stream
from labkit.relay import Relay
from labkit.reports import ConsumerReport
from labkit.transports.redis_streams import RedisStreams, RedisSubscription
from tests import toy

ATTEMPTS = 3


class Interrupted(RedisSubscription):
    """The real subscription, with something that happens around its acknowledgements."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def ack(self, partition: int, positions: Any) -> None:
        before, self.before = self.before, None
        after, self.after = self.after, None
        if before:
            before()
        super().ack(partition, positions)
        if after:
            after()


class InterruptedStreams(RedisStreams):
    """The real transport, whose subscriptions can be interrupted."""

    def subscription(self, stream: Stream, group: str, start: str) -> Interrupted:
        self.made = Interrupted(self, stream, group, start)
        return self.made


class Flow:
    """Source and target on their own databases, with one relay and as many consumers as asked."""

    def __init__(
        self, source: Engine, target: Engine, transport: RedisStreams, clock: FakeClock
    ) -> None:
        self.source = source
        self.target = target
        self.transport = transport
        self.clock = clock
        self.relay: Relay = toy.source.relay(source, transport)

    def consumer(self, **options: Any) -> Consumer:
        usual: Any = {"clock": self.clock, "backoff": Backoff(attempts=ATTEMPTS)}
        return toy.target.consumers(self.target, self.transport, **usual | options)[0]

    def deliver(self, consumer: Consumer) -> ConsumerReport:
        """Publish and handle until nothing more is to be done now."""
        total = ConsumerReport()
        while self.relay.run_once().published:
            pass
        while report := consumer.run_once():
            total += report
        return total

    def pending(self) -> int:
        keys = [self.transport.stream_key(toy.SOURCE, p) for p in range(toy.SOURCE.partitions)]
        client: Any = self.transport.client
        return sum(client.xpending(key, "target")["pending"] for key in keys)

    def held(self) -> list[tuple[str, int, str]]:
        columns = toy.target.held.table.c
        query = select(columns.state, columns.attempts, columns.reason).order_by(columns.position)
        with self.target.connect() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def redrive(self, message_id: str) -> None:
        with self.target.begin() as connection:
            wanted = Wanted(consumer="target", message_id=message_id)
            assert toy.target.dead_letters.redrive_all(connection, wanted).flagged

    def effects(self, key: str | None = None) -> list[int]:
        return toy.effects_of(self.target, key)

    def dead_letters(self) -> list[tuple[str, str]]:
        """Return message id and reason of what is parked."""
        with self.target.connect() as connection:
            found = toy.target.dead_letters.find(connection, Wanted(consumer="target"))
        return [(letter.message_id, letter.reason) for letter in found]

    def publish_again(self, change: str = "body = body") -> None:
        """Let every row of the outbox be published again, with a change."""
        with self.source.begin() as connection:
            connection.exec_driver_sql(f"update outbox_messages set published_at = null, {change}")
        while self.relay.run_once().published:
            pass

    def read_and_crash(self, key: str, count: int = 100, **options: Any) -> list[Entry]:
        """Leave entries read and not handled, as a process does that is killed."""
        crashed = self.consumer(owner="crashed", **options)
        crashed.leases.tick()
        lease = self.lease(crashed, key)
        entries = crashed._subscription.read_new(lease.partition, epoch=lease.epoch, count=count)
        crashed.leases.release()
        return entries

    def lease(self, consumer: Consumer, key: str) -> Lease:
        """Return the lease under which a consumer handles a key."""
        return consumer.leases.owned[toy.SOURCE.partition_of(key)]

    def expire_leases(self) -> None:
        """Let all consumer leases of the target end now."""
        with self.target.begin() as connection:
            connection.execute(text("update lease set until = clock_timestamp() - interval '1 s'"))
            connection.execute(text("delete from member"))

    def lose_redis(self) -> None:
        """Do what FLUSHALL does, to the keys of this test."""
        prefix = self.transport.prefix
        if found := list(self.transport.client.scan_iter(match=f"*{prefix}*", count=999)):
            self.transport.client.delete(*found)
