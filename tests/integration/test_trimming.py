"""Streams are trimmed behind every reader, and never past one that is missing or stands still."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, MetaData

from labkit import readers
from labkit.cleaner import Cleaner
from labkit.clock import FakeClock
from labkit.readers import MISSING_S, forget_reader, reader_table
from labkit.reports import CleanerReport
from labkit.retention import Retention
from labkit.transports.redis_streams import RedisStreams, RedisSubscription
from tests.publishing import STREAM, Publishing

KEPT = Retention(4000.0)
PARTITION = STREAM.partition_of("a")


class Trimming(Publishing):
    """An outbox, its cleaner, and groups that read one partition of its stream."""

    def __init__(self, engine: Engine, transport: RedisStreams, clock: FakeClock) -> None:
        super().__init__(engine, transport, clock)
        self.log = transport.log(STREAM)
        self.publisher = self.relay()
        self.worker = self.cleaner(KEPT)

    def cleaner(self, kept: Retention) -> Cleaner:
        """Return a cleaner; one of another retention takes the place of the first."""
        return Cleaner(
            self.engine,
            self.outbox,
            self.inbox,
            self.log,
            name="me",
            retention=kept,
            owner="cleaner",
            clock=self.clock,
        )

    def publish(self, count: int) -> None:
        self.append(*["a"] * count)
        self.drain(self.publisher)

    def old(self, count: int) -> None:
        """Add entries that were published two windows ago."""
        client: Any = self.transport.client
        now_s, _ = client.time()
        born_ms = int(now_s - 2 * KEPT.window_s) * 1000
        for n in range(count):
            client.xadd(self.stream, {"body": "{}"}, id=f"{born_ms}-{n + 1}")

    @property
    def stream(self) -> str:
        return self.transport.stream_key(STREAM, PARTITION)

    def group(self, name: str) -> RedisSubscription:
        """Return a group that exists on every partition."""
        made = self.transport.subscription(STREAM, name, "0")
        for partition in range(STREAM.partitions):
            made.raise_epoch(partition, 1)
        return made

    def read(self, group: RedisSubscription, count: int, acked: int | None = None) -> None:
        entries = group.read_new(PARTITION, epoch=1, count=count)
        group.ack(PARTITION, [each.position for each in entries[:acked]])

    def entry(self, index: int) -> str:
        """Return the position of an entry."""
        client: Any = self.transport.client
        position: bytes = client.xrange(self.stream)[index][0]
        return position.decode()

    def left(self) -> int:
        client: Any = self.transport.client
        return int(client.xlen(self.stream))

    def alarms(self) -> list[tuple[int, str, str]]:
        with self.engine.connect() as connection:
            return [(a.partition, a.group, a.reason) for a in readers.alarms(connection)]


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Trimming:
    return Trimming(engine, transport, clock)


def test_only_what_both_groups_acknowledged_goes(outbox: Trimming) -> None:
    outbox.old(10)
    outbox.read(outbox.group("fast"), 9)
    outbox.read(outbox.group("slow"), 4)

    # The last one that `slow` was given stays, as the place where it stands.
    assert outbox.worker.run_once().entries == 3
    assert outbox.left() == 7


def test_a_pending_entry_protects_itself_and_all_after_it(outbox: Trimming) -> None:
    outbox.old(10)
    reader = outbox.group("reader")
    outbox.read(reader, 10, acked=5)

    outbox.worker.run_once()

    pending = reader.read_pending(PARTITION, epoch=1, after="0", count=10)
    assert [entry.body for entry in pending] == [b"{}"] * 5
    assert outbox.left() == 5


def test_what_is_younger_than_the_retention_stays_though_everybody_read_it(
    outbox: Trimming,
) -> None:
    outbox.old(3)
    outbox.publish(4)
    outbox.read(outbox.group("reader"), 10)

    assert outbox.worker.run_once() == CleanerReport(entries=3)
    assert outbox.left() == 4


def test_a_stream_that_nobody_reads_is_not_trimmed(outbox: Trimming) -> None:
    outbox.old(3)

    assert outbox.worker.run_once() == CleanerReport()
    assert outbox.log.trim(PARTITION, groups=[], kept_s=1) == 0
    assert outbox.left() == 3


def test_a_group_that_the_broker_lost_stops_the_trimming_at_once(outbox: Trimming) -> None:
    outbox.old(5)
    outbox.group("lost")
    outbox.read(outbox.group("reader"), 5)
    outbox.worker.run_once()
    for partition in range(STREAM.partitions):
        key = outbox.transport.stream_key(STREAM, partition)
        outbox.transport.client.xgroup_destroy(key, "lost")

    assert outbox.worker.run_once() == CleanerReport()
    assert outbox.left() == 5


def test_a_group_that_stays_lost_raises_an_alarm_on_each_partition(outbox: Trimming) -> None:
    outbox.group("lost")
    outbox.worker.run_once()
    outbox.log.drop_reader("lost")
    outbox.sql("update reader set seen_at = seen_at - make_interval(secs => :s)", s=MISSING_S)

    assert outbox.worker.run_once().alarms == STREAM.partitions
    assert outbox.alarms()[0] == (0, "lost", "is missing at the broker")


def test_a_group_known_on_one_partition_protects_all(outbox: Trimming) -> None:
    outbox.old(5)
    outbox.read(outbox.group("reader"), 5)
    elsewhere = (PARTITION + 1) % STREAM.partitions
    outbox.transport.subscription(STREAM, "new", "0").raise_epoch(elsewhere, 1)

    assert outbox.worker.run_once().entries == 0


def test_a_reader_that_stands_still_while_entries_wait_raises_an_alarm(outbox: Trimming) -> None:
    outbox.publish(3)
    reader = outbox.group("reader")
    outbox.read(reader, 1)
    outbox.worker.run_once()
    late = "update reader set moved_at = moved_at - make_interval(secs => :s)"
    outbox.sql(late, s=KEPT.delivery_s + 1)

    assert outbox.worker.run_once().alarms == 1
    assert outbox.alarms() == [(PARTITION, "reader", "stands still while entries wait")]
    outbox.read(reader, 1)
    assert outbox.worker.run_once().alarms == 0
    assert outbox.alarms() == []


def test_a_reader_that_has_nothing_to_read_may_stand_still(outbox: Trimming) -> None:
    outbox.publish(3)
    outbox.read(outbox.group("reader"), 3)
    outbox.worker.run_once()
    outbox.sql("update reader set moved_at = moved_at - interval '1 year'")

    assert outbox.worker.run_once().alarms == 0


def test_a_stranger_who_trims_before_delivery_raises_an_alarm(outbox: Trimming) -> None:
    """The group's own lag reads 0 by then."""
    outbox.group("reader")
    outbox.publish(10)
    outbox.transport.client.xtrim(outbox.stream, maxlen=2, approximate=False)

    assert outbox.worker.run_once().alarms == 1
    assert outbox.alarms() == [(PARTITION, "reader", "8 entries were deleted by somebody else")]


def test_what_the_cleaner_trimmed_is_no_alarm(outbox: Trimming) -> None:
    outbox.old(8)
    reader = outbox.group("reader")
    outbox.read(reader, 8)
    outbox.worker.run_once()
    outbox.publish(1)

    assert outbox.worker.run_once().alarms == 0
    assert outbox.log.state(PARTITION).vanished == 0


def test_a_stream_that_was_deleted_and_filled_again_counts_anew(outbox: Trimming) -> None:
    outbox.old(8)
    outbox.read(outbox.group("reader"), 8)
    outbox.worker.run_once()
    outbox.transport.client.delete(outbox.stream)
    outbox.group("reader")
    outbox.publish(5)
    outbox.log.state(PARTITION)
    outbox.transport.client.xtrim(outbox.stream, maxlen=3, approximate=False)

    assert outbox.log.state(PARTITION).vanished == 2


def test_an_alarm_stops_the_trimming_of_its_partition(outbox: Trimming) -> None:
    outbox.old(9)
    outbox.transport.client.xdel(outbox.stream, outbox.entry(0))
    outbox.read(outbox.group("reader"), 9)

    assert outbox.worker.run_once() == CleanerReport(alarms=1)
    assert outbox.left() == 8


def test_a_trimmed_stream_still_knows_its_head(outbox: Trimming) -> None:
    outbox.publish(3)
    reader = outbox.group("reader")
    outbox.read(reader, 3)
    outbox.transport.client.xtrim(outbox.stream, maxlen=0, approximate=False)
    outbox.publish(1)

    assert outbox.publisher.run_once().unmarked == 0
    assert [entry.body is not None for entry in reader.read_new(PARTITION, epoch=1, count=9)] == [
        True
    ]


def test_a_forgotten_reader_stops_nobody(outbox: Trimming) -> None:
    outbox.old(5)
    outbox.group("dead")
    outbox.read(outbox.group("reader"), 5)
    assert outbox.worker.run_once().entries == 0

    with outbox.engine.begin() as connection:
        assert forget_reader(connection, outbox.log, STREAM, "dead") == STREAM.partitions
        assert forget_reader(connection, outbox.log, STREAM, "nobody") == 0

    assert outbox.worker.run_once().entries == 4


def test_the_table_of_readers_is_defined_once() -> None:
    metadata = MetaData()

    assert reader_table(metadata) is reader_table(metadata)
