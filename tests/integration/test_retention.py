"""The cleaner deletes what is old enough and nothing else, alone, and in nobody's way."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text

from labkit import db
from labkit.cleaner import Cleaner
from labkit.clock import FakeClock, SystemClock
from labkit.reports import CleanerReport
from labkit.retention import Retention
from labkit.transports.redis_streams import RedisStreams
from tests.integration.conftest import Shop
from tests.publishing import STREAM, Publishing
from tests.waiting import eventually

WINDOW_S = 4000.0
PATIENCE_S = 600.0
KEPT = Retention(WINDOW_S)


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Publishing:
    return Publishing(engine, transport, clock)


def cleaner(outbox: Publishing, **options: Any) -> Cleaner:
    usual: dict[str, Any] = {"name": "me", "retention": KEPT, "clock": outbox.clock}
    stream_log = outbox.transport.log(STREAM)
    engine = options.pop("engine", outbox.engine)
    return Cleaner(engine, outbox.outbox, outbox.inbox, stream_log, **usual | options)


def age(outbox: Publishing, column: str, table: str, seconds: float, where: str = "true") -> None:
    outbox.sql(
        f"update {table} set {column} = {column} - make_interval(secs => :s) where {where}",
        s=seconds,
    )


def published(outbox: Publishing, count: int) -> None:
    outbox.append(*["a"] * count)
    outbox.drain(outbox.relay(owner="relay"))


def left(outbox: Publishing, table: str = "outbox_messages") -> int:
    ((number,),) = outbox.sql(f"select count(*) from {table}")
    return int(number)


def handle(outbox: Publishing, consumer: str, *ids: str) -> None:
    with outbox.engine.begin() as connection:
        outbox.inbox.accept(connection, consumer, dict.fromkeys(ids, b"digest"))


def test_published_rows_go_when_they_are_old_enough(outbox: Publishing) -> None:
    published(outbox, 5)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1, "seq <= 3")
    age(outbox, "published_at", "outbox_messages", KEPT.published_s - 60, "seq > 3")

    assert cleaner(outbox).run_once().outbox_rows == 3
    assert outbox.sql("select seq from outbox_messages order by seq") == [(4,), (5,)]


def test_unpublished_and_refused_rows_stay_however_old(outbox: Publishing) -> None:
    outbox.append("a", "b")
    outbox.sql("update outbox_messages set refused = 'no' where key = 'b'")
    age(outbox, "created_at", "outbox_messages", 100 * WINDOW_S)

    assert cleaner(outbox).run_once() == CleanerReport()
    assert left(outbox) == 2


def test_the_inbox_forgets_after_its_window_for_every_consumer(outbox: Publishing) -> None:
    handle(outbox, "one", "old", "new")
    handle(outbox, "two", "old")
    age(outbox, "handled_at", "inbox_messages", WINDOW_S + 1, "message_id = 'old'")
    age(outbox, "handled_at", "inbox_messages", WINDOW_S - 60, "message_id = 'new'")

    assert cleaner(outbox).run_once().inbox_rows == 2
    assert outbox.sql("select message_id from inbox_messages") == [("new",)]


def test_members_that_are_long_gone_are_deleted(outbox: Publishing) -> None:
    outbox.sql("""
        insert into member values ('relay', 'x', 'gone', clock_timestamp() - interval '2 hours'),
                                  ('relay', 'x', 'late', clock_timestamp() - interval '1 minute')
    """)

    assert cleaner(outbox).run_once().members == 1
    assert ("gone",) not in outbox.sql("select owner from member")


def test_a_pass_that_finds_nothing_due_changes_nothing(outbox: Publishing) -> None:
    published(outbox, 3)
    handle(outbox, "one", "1")

    assert not cleaner(outbox).run_once()
    assert (left(outbox), left(outbox, "inbox_messages")) == (3, 1)


def test_a_large_table_is_walked_in_parts_and_round_again(
    outbox: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.cleaner._PAGES_PER_STEP", 1)
    monkeypatch.setattr("labkit.cleaner._PAGES_PER_PASS", 2)
    published(outbox, 200)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)
    worker = cleaner(outbox, pause_s=0.001)

    first = worker.run_once().outbox_rows
    rest = sum(worker.run_once().outbox_rows for _ in range(30))

    assert first < 200
    assert first + rest == 200
    published(outbox, 1)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)
    assert sum(worker.run_once().outbox_rows for _ in range(30)) == 1


def test_a_table_is_walked_in_time_however_large(
    outbox: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longer the pause against the retention, the larger the part of each pass."""
    monkeypatch.setattr("labkit.cleaner._PAGES_PER_STEP", 1)
    monkeypatch.setattr("labkit.cleaner._PAGES_PER_PASS", 1)
    published(outbox, 200)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)

    assert cleaner(outbox, pause_s=KEPT.published_s / 8).run_once().outbox_rows == 200


def test_a_row_that_somebody_works_on_is_left_for_the_next_pass(outbox: Publishing) -> None:
    published(outbox, 3)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)
    worker = cleaner(outbox)
    with outbox.engine.begin() as connection:
        connection.execute(text("select 1 from outbox_messages where seq = 2 for update"))
        assert worker.run_once().outbox_rows == 2

    assert worker.run_once().outbox_rows == 1


def test_of_two_cleaners_one_works(outbox: Publishing) -> None:
    first, second = cleaner(outbox), cleaner(outbox)
    first.run_once()
    published(outbox, 1)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)

    assert not second.run_once()
    assert first.run_once().outbox_rows == 1


def test_a_cleaner_takes_over_from_one_that_is_gone(outbox: Publishing) -> None:
    first, second = cleaner(outbox), cleaner(outbox)
    first.run_once()
    published(outbox, 1)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1)
    outbox.expire_leases()
    second.run_once()

    assert left(outbox) == 0


def test_a_frozen_cleaner_that_wakes_does_no_harm(outbox: Publishing) -> None:
    frozen, next_one = cleaner(outbox), cleaner(outbox)
    frozen.run_once()
    outbox.expire_leases()
    next_one.run_once()
    published(outbox, 2)
    age(outbox, "published_at", "outbox_messages", KEPT.published_s + 1, "seq = 1")

    assert frozen._published.step(60) == 1
    frozen.leases.hurry()
    assert not frozen.run_once()
    assert frozen.leases.owned == {}
    assert left(outbox) == 1


def test_a_running_cleaner_keeps_its_lease_between_passes(outbox: Publishing) -> None:
    """Else every node would clean in turn."""
    stop = threading.Event()
    engine = db.connect(outbox.engine.url, lease_s=2.0)
    worker = cleaner(outbox, engine=engine, clock=SystemClock(), pause_s=3600.0, lease_s=2.0)
    reports: list[CleanerReport] = []
    thread = threading.Thread(target=lambda: reports.append(worker.run(stop)))
    thread.start()
    eventually(lambda: bool(worker.leases.owned), True)
    query = "select until from lease where kind = 'cleaner'"
    first = outbox.sql(query)
    eventually(lambda: outbox.sql(query) > first, True)
    stop.set()
    thread.join(10)

    engine.dispose()
    assert reports == [CleanerReport()]
    assert outbox.sql("select owner from lease where kind = 'cleaner'") == [(None,)]


@pytest.mark.slow
def test_cleaning_while_relays_mark_meets_no_deadlock(outbox: Publishing) -> None:
    """Everything published is due at once, so cleaner and relay meet on the same pages."""
    stop = threading.Event()
    tiny = Retention(0.0004)
    worker = cleaner(outbox, retention=tiny, clock=SystemClock(), pause_s=0.001)
    reports: list[CleanerReport] = []
    thread = threading.Thread(target=lambda: reports.append(worker.run(stop)))
    thread.start()
    relays = [outbox.relay(batch=20), outbox.relay(batch=20)]
    for _ in range(30):
        outbox.append(*"abcdefgh" * 5)
        outbox.drain(*relays)
    eventually(lambda: left(outbox), 0)
    stop.set()
    thread.join(10)

    assert reports[0].outbox_rows == 1200
    assert outbox.sql(
        "select deadlocks from pg_stat_database where datname = current_database()"
    ) == [(0,)]


@pytest.mark.slow
def test_the_claim_reads_the_partial_index_among_300_000_retained_rows(
    outbox: Publishing,
) -> None:
    fill = text("""
        insert into outbox_messages
            (message_id, topic, key, partition, body, published_at, batch)
        select n::text, 't', 'k' || n % 100, n % 8, repeat('x', 100),
               case when n <= 300000 then now() end, case when n <= 300000 then n end
        from generate_series(1, 310000) as n
    """)
    patient = db.connect(outbox.engine.url, lease_s=PATIENCE_S)
    with patient.begin() as connection:
        connection.execute(fill)
        connection.execute(text("analyze outbox_messages"))
    patient.dispose()
    claim = outbox.relay()._backlog._sql.claim
    values = {"partitions": list(range(8)), "batch": 1000, "bytes": 10**7}

    plan = "\n".join(row[0] for row in outbox.sql("explain " + claim.text, **values))

    assert "outbox_messages_unpublished" in plan
    assert "Seq Scan" not in plan
    unmark = outbox.relay()._backlog._sql.unmark
    lost = {"kind": "relay", "name": STREAM.name, "partition": 3, "epoch": 1, "limit": 10}
    lost |= {"head": 299_900, "acked": 300_000, "resend_s": 1000}
    assert "outbox_messages_batch" in "\n".join(
        row[0] for row in outbox.sql("explain " + unmark.text, **lost)
    )


def test_a_shop_that_settles_runs_its_cleaners_and_keeps_everything(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))

    done = shop.settle()

    taken = shop.table(shop.orders, "select epoch from lease where kind = 'cleaner'")
    kept = shop.table(shop.orders, "select count(*) as n from outbox_messages")
    assert list(taken.epoch) == [1]
    assert kept.n[0] == 2
    assert not [name for name in done.index if "cleaner" in name]
