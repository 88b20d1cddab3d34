"""The relay: everything that was committed, in the order of its key, whoever publishes it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from labkit import db
from labkit.backlog import CLAIM_BYTES
from labkit.clock import FakeClock, SystemClock
from labkit.errors import BrokerUnavailableError, ConfigurationError, LeaseLostError
from labkit.relay import Relay
from labkit.reports import RelayReport
from labkit.transports import redis_streams
from labkit.transports.redis_streams import MAX_ENTRY_BYTES, RedisPublisher, RedisStreams
from labkit.wakeup import WakeUp
from tests.publishing import STREAM, Happened, Publishing


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Publishing:
    return Publishing(engine, transport, clock)


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> float:
    """Poll until something holds; return how long it took."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < within_s
        time.sleep(0.005)
    return time.monotonic() - started_s


class Running:
    """A relay in a thread of its own."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.stop = threading.Event()
        self.report = RelayReport()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.report = self.relay.run(self.stop)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_rows_of_a_key_are_published_in_seq_order(outbox: Publishing) -> None:
    for _ in range(5):
        outbox.append("a", "b", "a")

    report = outbox.drain(outbox.relay())

    assert report.published == 15
    assert outbox.published() == outbox.committed()


def test_a_batch_holds_no_more_rows_than_asked(outbox: Publishing) -> None:
    outbox.append(*["a"] * 5)

    report = outbox.relay(batch=2).run_once()

    assert report == RelayReport(published=2, batches=1)
    assert outbox.published()["a"] == outbox.committed()["a"][:2]


def test_a_batch_of_large_messages_is_cut_by_its_bytes(outbox: Publishing) -> None:
    size = MAX_ENTRY_BYTES - 10
    for _ in range(CLAIM_BYTES // size + 2):
        outbox.insert_row("a", f'"{"x" * size}"')

    relay = outbox.relay()

    assert [relay.run_once().published for _ in range(2)] == [CLAIM_BYTES // size + 1, 1]


def test_a_published_row_is_not_published_again(outbox: Publishing) -> None:
    outbox.append("a", "b")
    relay = outbox.relay()

    assert [outbox.drain(relay).published, outbox.drain(relay).published] == [2, 0]


def test_rows_without_a_key_are_published(outbox: Publishing) -> None:
    ids = outbox.append(None, None, None)

    outbox.drain(outbox.relay())

    assert sorted(i for found in outbox.published().values() for i in found) == sorted(ids)


def test_a_mark_names_time_and_batch_and_raises_acked(outbox: Publishing) -> None:
    outbox.append("a")
    outbox.append("a")

    outbox.drain(outbox.relay(batch=1))

    batches = outbox.sql("select batch, published_at is not null from outbox_messages order by seq")
    ((acked,),) = outbox.sql("select max(acked) from lease")
    assert [batches[0][0] + 1, batches[1][0]] == [batches[1][0], acked]
    assert all(stamped for _, stamped in batches)


def test_a_late_mark_does_not_take_a_newer_one_back(outbox: Publishing) -> None:
    outbox.append("a")
    relay = outbox.relay()
    relay.run_once()
    ((acked, partition),) = outbox.sql("select acked, partition from lease where acked > 0")

    with pytest.raises(LeaseLostError):
        relay._backlog.mark(relay.leases.owned[partition], acked - 1, [1])

    assert outbox.sql("select max(acked) from lease") == [(acked,)]


def test_a_transaction_that_commits_late_is_published(outbox: Publishing) -> None:
    relay = outbox.relay()
    with outbox.engine.begin() as late:
        first = outbox.outbox.add(late, Happened(n=1), key="a")
        (second,) = outbox.append("b")
        outbox.drain(relay)
        assert outbox.published() == {"b": [second]}

    outbox.drain(relay)

    assert outbox.published() == {"a": [first], "b": [second]}


def test_a_late_commit_keeps_the_order_of_its_key(outbox: Publishing) -> None:
    relay = outbox.relay()
    with outbox.engine.begin() as late:
        first = outbox.outbox.add(late, Happened(n=1), key="a")
        follower = threading.Thread(target=outbox.append, args=("a",))
        follower.start()
        waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        eventually(lambda: bool(outbox.sql(waiting)))
        outbox.drain(relay)
        assert outbox.published() == {}
    follower.join()

    outbox.drain(relay)

    assert outbox.published() == outbox.committed()
    assert outbox.published()["a"][0] == first


def test_an_open_transaction_elsewhere_stops_nothing(outbox: Publishing) -> None:
    outbox.sql("create table elsewhere (n int)")
    with outbox.engine.begin() as writing:
        writing.execute(text("insert into elsewhere values (1)"))
        outbox.append("a")

        assert outbox.drain(outbox.relay()).published == 1


def test_two_relays_publish_each_row_once_and_in_order(outbox: Publishing) -> None:
    relays = [outbox.relay(batch=2), outbox.relay(batch=2)]
    for _ in range(4):
        outbox.append(*"abcdefabcdef")
        for relay in relays:
            outbox.renew(relay)

    outbox.drain(*relays)

    assert outbox.published() == outbox.committed()
    assert all(relay.leases.owned for relay in relays)


def test_a_long_backlog_does_not_starve_other_partitions(outbox: Publishing) -> None:
    outbox.append(*["a"] * 50)
    outbox.append("b")

    outbox.relay(batch=10).run_once()

    assert {key: len(ids) for key, ids in outbox.published().items()} == {"a": 10, "b": 1}


def test_a_refused_row_holds_its_key_and_no_other(outbox: Publishing) -> None:
    (before,) = outbox.append("a")
    outbox.insert_row("a", "x" * (MAX_ENTRY_BYTES + 1))
    outbox.append("a")
    (other,) = outbox.append("b")

    report = outbox.drain(outbox.relay())

    assert report == RelayReport(published=2, batches=2, refused=1)
    assert outbox.published() == {"a": [before], "b": [other]}


def test_a_refused_row_says_why(outbox: Publishing) -> None:
    outbox.insert_row("a", "é" * (MAX_ENTRY_BYTES // 2 + 1))

    outbox.drain(outbox.relay())

    ((reason,),) = outbox.sql("select refused from outbox_messages")
    assert reason == f"larger than {MAX_ENTRY_BYTES} bytes"


def test_a_repaired_row_goes_out_before_its_followers(outbox: Publishing) -> None:
    outbox.insert_row("a", "x" * (MAX_ENTRY_BYTES + 1))
    outbox.append("a", "a")
    relay = outbox.relay()
    outbox.drain(relay)

    body = '{"messageId": "repaired", "correlationId": "a", "headers": {}}'
    outbox.sql("update outbox_messages set refused = null, body = :body where seq = 1", body=body)
    outbox.drain(relay)

    assert outbox.published()["a"] == ["repaired", *outbox.committed()["a"][1:]]


def test_a_broker_that_is_away_loses_and_skips_nothing(
    outbox: Publishing, clock: FakeClock
) -> None:
    relay = outbox.relay()
    relay.run_once()
    outbox.append("a", "a")
    real, relay._publisher = relay._publisher, unreachable()
    assert relay.run_once() == RelayReport()

    relay._publisher = real
    outbox.append("a")
    clock.advance(1)
    outbox.drain(relay)

    assert outbox.published() == outbox.committed()


def unreachable() -> RedisPublisher:
    return RedisStreams(redis_streams.connect("redis://127.0.0.1:1/0")).publisher(STREAM)


def test_a_partition_whose_broker_is_away_rests(outbox: Publishing, clock: FakeClock) -> None:
    publisher = outbox.interrupted()
    relay = outbox.relay(publisher=publisher, poll_s=(0.01, 5.0))
    outbox.append("a")
    publisher.before = _away

    published = [outbox.renew(relay).published for _ in range(3)]
    clock.advance(5)

    assert [*published, outbox.renew(relay).published] == [0, 0, 0, 1]


def _away() -> None:
    raise BrokerUnavailableError


def test_a_broker_that_is_away_delays_taking_partitions(outbox: Publishing) -> None:
    outbox.append("a")
    relay = outbox.relay(publisher=unreachable())

    with pytest.raises(BrokerUnavailableError):
        relay.run_once()

    assert outbox.drain(outbox.relay()).published == 1


def test_the_claim_reads_the_partial_index(outbox: Publishing) -> None:
    outbox.sql("""
        insert into outbox_messages (message_id, topic, key, partition, body, published_at)
        select n::text, 't', 'k' || n % 100, n % 8, repeat('x', 100),
               case when n <= 50000 then now() end
        from generate_series(1, 70000) as n
    """)
    outbox.sql("analyze outbox_messages")
    claim = outbox.relay()._backlog._sql.claim
    with outbox.engine.begin() as connection:
        values = {"partitions": list(range(8)), "batch": 1000, "bytes": CLAIM_BYTES}
        explain = text("explain (analyze) " + claim.text)
        plan = "\n".join(row[0] for row in connection.execute(explain, values))

    assert "outbox_messages_unpublished" in plan
    assert "outbox_messages_pkey" not in plan
    assert "Seq Scan" not in plan


def test_a_relay_without_its_tables_ends(engine: Engine, outbox: Publishing) -> None:
    outbox.sql("drop table outbox_messages")

    with pytest.raises(ConfigurationError, match="tables missing: outbox_messages"):
        outbox.relay().run(threading.Event())


def test_a_running_relay_ends_promptly_and_gives_its_partitions_back(outbox: Publishing) -> None:
    outbox.append("a", "b")
    with Running(outbox.relay(clock=SystemClock(), poll_s=(5, 5))) as running:
        eventually(lambda: outbox.unpublished() == 0)
        started_s = time.monotonic()

    assert time.monotonic() - started_s < 1
    assert running.report.published == 2
    assert outbox.sql("select 1 from lease where owner is not null") == []
    assert outbox.sql("select 1 from member") == []


def test_a_notification_wakes_an_idle_relay(
    engine: Engine, transport: RedisStreams, clock: FakeClock
) -> None:
    outbox = Publishing(engine, transport, clock, notify=True)
    with Running(outbox.relay(clock=SystemClock(), poll_s=(5, 5))):
        eventually(lambda: listeners(outbox) != [])
        outbox.append("a")
        took_s = eventually(lambda: outbox.unpublished() == 0)
        stopped_s = time.monotonic()

    assert took_s < 1
    assert time.monotonic() - stopped_s < 1


def listeners(outbox: Publishing) -> list[int]:
    found = outbox.sql("""
        select pid from pg_stat_activity
        where datname = current_database() and query like 'listen%' and state = 'idle'
    """)
    return [pid for (pid,) in found]


def test_the_first_wait_ends_at_once_since_nobody_listened_before(outbox: Publishing) -> None:
    wake = WakeUp(outbox.engine, outbox.outbox.channel, threading.Event())
    started_s = time.monotonic()

    wake.wait(5)
    wake.close()

    assert time.monotonic() - started_s < 1


def test_a_listener_that_cannot_listen_waits_for_the_next_poll() -> None:
    engine = db.connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    started_s = time.monotonic()

    WakeUp(engine, "labkit_outbox_messages", threading.Event()).wait(0.05)

    assert time.monotonic() - started_s > 0.04


def test_a_relay_whose_listener_was_cut_goes_on(
    engine: Engine, transport: RedisStreams, clock: FakeClock
) -> None:
    outbox = Publishing(engine, transport, clock, notify=True)
    with Running(outbox.relay(clock=SystemClock(), poll_s=(0.3, 0.3))):
        eventually(lambda: listeners(outbox) != [])
        (cut,) = listeners(outbox)
        outbox.sql("select pg_terminate_backend(:pid)", pid=cut)
        outbox.append("a")
        eventually(lambda: outbox.unpublished() == 0)
        eventually(lambda: listeners(outbox) not in ([], [cut]))


def test_a_running_relay_survives_the_loss_of_its_connections(outbox: Publishing) -> None:
    def published() -> bool:
        with contextlib.suppress(OperationalError):
            return outbox.unpublished() == 0
        return False

    with Running(outbox.relay(clock=SystemClock())):
        for _ in range(5):
            outbox.append(*"abcdef")
            outbox.cut_connections()
            eventually(published)

    assert outbox.first_published() == outbox.committed()
