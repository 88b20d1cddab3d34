"""After any loss at the broker, the outbox brings back what is missing, in order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from labkit.clock import FakeClock
from labkit.reconcile import reconcile
from labkit.reports import ReconcileReport
from labkit.retention import Retention
from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.flow import Flow
from tests.publishing import STREAM, Publishing

KEPT = Retention(4000.0)
PARTITION = STREAM.partition_of("a")


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Publishing:
    return Publishing(engine, transport, clock)


def compare(outbox: Publishing, **options: Any) -> ReconcileReport:
    log = outbox.transport.log(STREAM)
    return reconcile(outbox.engine, outbox.outbox, log, KEPT, **options)


def publish(outbox: Publishing, *keys: str) -> None:
    relay = outbox.relay(batch=1, owner="relay")
    outbox.append(*keys)
    outbox.drain(relay)


def lose(outbox: Publishing, *places: int) -> None:
    stream, _ = outbox.keys(PARTITION)
    positions = [position for position, _ in outbox.entries(PARTITION)]
    outbox.transport.client.xdel(stream, *[positions[place] for place in places])


def test_where_nothing_is_missing_nothing_happens(outbox: Publishing) -> None:
    publish(outbox, *"abab")

    assert compare(outbox) == ReconcileReport()
    outbox.drain(outbox.relay())
    assert outbox.published() == outbox.committed()


def test_from_the_first_missing_batch_on_everything_comes_again(outbox: Publishing) -> None:
    publish(outbox, *"aaaaa")
    lose(outbox, 2)

    assert compare(outbox) == ReconcileReport(missing=1, again=3)
    outbox.drain(outbox.relay(owner="relay"))

    assert outbox.published() == outbox.committed()


def test_a_loss_at_the_beginning_comes_back_before_anything_newer(outbox: Publishing) -> None:
    publish(outbox, *"aaaaa")
    lose(outbox, 0, 1)
    outbox.append("a")

    compare(outbox)
    outbox.drain(outbox.relay(owner="relay"))

    assert outbox.published() == outbox.committed()


def test_a_batch_in_flight_is_published_in_its_turn(outbox: Publishing) -> None:
    publish(outbox, *"aaa")
    publisher = outbox.interrupted()
    relay = outbox.relay(publisher=publisher, owner="relay")
    relay.run_once()
    outbox.append("a")
    lose(outbox, 1)
    publisher.before = lambda: compare(outbox)
    relay.run_once()

    outbox.drain(relay)

    assert outbox.published() == outbox.committed()


def test_what_somebody_was_given_stays_and_is_repeated(outbox: Publishing) -> None:
    publish(outbox, *"aaa")
    reader = outbox.transport.subscription(STREAM, "reader", "0")
    reader.raise_epoch(PARTITION, 1)
    reader.read_new(PARTITION, epoch=1, count=2)
    lose(outbox, 0)

    compare(outbox)
    outbox.drain(outbox.relay(owner="relay"))

    ids = outbox.committed()["a"]
    assert outbox.published()["a"] == [ids[1], *ids]
    pending = reader.read_pending(PARTITION, epoch=1, after="0", count=9)
    assert [entry.body is None for entry in pending] == [True, False]


def test_an_idle_relay_begins_within_a_quarter_of_its_lease(
    outbox: Publishing, clock: FakeClock
) -> None:
    relay = outbox.relay(batch=1)
    outbox.append(*"aaa")
    outbox.drain(relay)
    lose(outbox, 1)
    compare(outbox)
    assert relay.run_once().unmarked == 0

    clock.advance(2.5)

    assert relay.run_once().unmarked == 2


def test_a_time_range_is_published_again_whether_missing_or_not(outbox: Publishing) -> None:
    publish(outbox, *"aa")
    ((since,),) = outbox.sql("select clock_timestamp()")
    publish(outbox, *"aa")

    assert compare(outbox, since=datetime(2999, 1, 1, tzinfo=UTC)) == ReconcileReport()
    assert compare(outbox, since=since) == ReconcileReport(again=2)
    outbox.drain(outbox.relay(owner="relay"))
    assert outbox.published() == outbox.committed()


def test_what_the_inbox_may_have_forgotten_stays_lost_and_is_counted(outbox: Publishing) -> None:
    publish(outbox, *"aaaa")
    old = "update outbox_messages set created_at = created_at - make_interval(secs => :s)"
    outbox.sql(old + " where seq in (1, 4)", s=KEPT.resend_s + 1)
    lose(outbox, 0, 2)

    assert compare(outbox) == ReconcileReport(missing=2, again=1, too_old=1)


def test_an_entry_whose_row_may_be_gone_before_the_relay_comes_stays(outbox: Publishing) -> None:
    publish(outbox, *"aaa")
    old = "update outbox_messages set created_at = created_at - make_interval(secs => :s)"
    outbox.sql(old, s=KEPT.published_s / 2 + 1)
    lose(outbox, 0)

    compare(outbox)

    assert len(outbox.entries(PARTITION)) == 2


def test_rows_that_are_due_for_the_cleaner_are_not_missed(outbox: Publishing) -> None:
    publish(outbox, "a")
    outbox.sql(
        "update outbox_messages set published_at = published_at - make_interval(secs => :s)",
        s=KEPT.published_s + 1,
    )
    lose(outbox, 0)

    assert compare(outbox) == ReconcileReport()


def test_afterwards_nothing_counts_as_vanished(outbox: Publishing) -> None:
    publish(outbox, *"aaaa")
    lose(outbox, 0, 3)
    log = outbox.transport.log(STREAM)
    assert log.state(PARTITION).vanished == 2

    compare(outbox)
    outbox.drain(outbox.relay(owner="relay"))

    assert log.state(PARTITION).vanished == 0


def test_a_strangers_entry_is_left_alone(outbox: Publishing) -> None:
    publish(outbox, "a", "a")
    stream, _ = outbox.keys(PARTITION)
    lose(outbox, 0)
    outbox.transport.client.xadd(stream, {"body": "{}"})
    outbox.transport.client.xadd(stream, {"hello": "world"})

    compare(outbox)

    client: Any = outbox.transport.client
    assert client.xlen(stream) == 2


def test_a_relay_does_not_publish_again_what_an_inbox_may_have_forgotten(
    engine: Engine, transport: RedisStreams, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Publishing(engine, transport, clock)
    relay = outbox.relay(retention=KEPT)
    outbox.append(*"aaa")
    outbox.drain(relay)
    old = "update outbox_messages set created_at = created_at - make_interval(secs => :s)"
    outbox.sql(old + " where seq = 1", s=KEPT.resend_s + 1)
    outbox.lose_everything()

    clock.advance(2.5)
    report = outbox.drain(relay)

    assert (report.unmarked, report.too_old) == (2, 1)
    assert outbox.published()["a"] == outbox.committed()["a"][1:]
    assert "1 lost rows are too old" in caplog.text


def test_a_loss_in_the_middle_of_a_run_leaves_the_effects_complete_and_in_order(
    flow: Flow,
) -> None:
    consumer = flow.consumer()
    for n in range(1, 11):
        toy.happen(flow.source, "a", n)
        toy.happen(flow.source, "b", n)
    flow.deliver(consumer)
    for n in range(11, 21):
        toy.happen(flow.source, "a", n)
        toy.happen(flow.source, "b", n)
    flow.relay.run_once()
    consumer.run_once()
    flow.lose_redis()
    for n in range(21, 31):
        toy.happen(flow.source, "a", n)
        toy.happen(flow.source, "b", n)
    for _ in range(5):
        flow.relay.leases.hurry()
        consumer.leases.hurry()
        flow.deliver(consumer)

    assert toy.effects_of(flow.target, "a") == list(range(1, 31))
    assert toy.effects_of(flow.target, "b") == list(range(1, 31))


def test_what_a_stranger_deleted_unread_is_handled_once_and_in_order(flow: Flow) -> None:
    consumer = flow.consumer()
    flow.deliver(consumer)
    toy.happen(flow.source, "a", *range(1, 7))
    while flow.relay.run_once().published:
        pass
    partition = toy.SOURCE.partition_of("a")
    stream = flow.transport.stream_key(toy.SOURCE, partition)
    client: Any = flow.transport.client
    client.xdel(stream, client.xrange(stream)[1][0])

    log = flow.transport.log(toy.SOURCE)
    report = reconcile(flow.source, toy.source.outbox, log, toy.source.retention)
    flow.relay._logs.clear()
    for _ in range(3):
        flow.relay.leases.hurry()
        flow.deliver(consumer)

    assert report.missing == 1
    assert toy.effects_of(flow.target, "a") == [1, 2, 3, 4, 5, 6]
