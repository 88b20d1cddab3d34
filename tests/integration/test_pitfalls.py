"""Pitfalls of outboxes that no other test is about; docs/pitfalls.md lists all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

import labkit
from labkit import db
from labkit.clock import FakeClock
from labkit.outbox import LOCK_SLOTS
from labkit.reports import RelayReport
from labkit.transports.redis_streams import MAX_ENTRY_BYTES, RedisStreams
from tests import toy
from tests.flow import Flow
from tests.publishing import STREAM, Happened, Publishing
from tests.waiting import until_it_waits


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Publishing:
    made = Publishing(engine, transport, clock)
    made.sql("create table aggregate (version int)")
    made.sql("insert into aggregate values (0)")
    return made


@pytest.fixture
def other(engine: Engine) -> Iterator[Engine]:
    """Another application server's engine."""
    made = db.connect(engine.url)
    yield made
    made.dispose()


def xid(connection: Connection) -> int:
    return int(connection.execute(text("select pg_current_xact_id()::text")).scalar_one())


def next_version(session: Session) -> int:
    bumped = text("update aggregate set version = version + 1 returning version")
    version: int = session.execute(bumped).scalar_one()
    return version


def numbers(outbox: Publishing, key: str) -> list[int]:
    """Return the payloads of a key as the stream has them."""
    entries = outbox.entries(STREAM.partition_of(key))
    return [message["event"]["payload"]["n"] for _, message in entries]


def test_a_transaction_with_an_older_id_that_commits_later_comes_later(
    outbox: Publishing, other: Engine
) -> None:
    with outbox.engine.begin() as old, other.begin() as young:
        first_xid = xid(old)
        assert first_xid < xid(young)
        outbox.outbox.add(young, Happened(n=1), key="a")
        young.commit()
        outbox.outbox.add(old, Happened(n=2), key="a")

    outbox.drain(outbox.relay())

    assert numbers(outbox, "a") == [1, 2]


def test_an_event_added_before_its_aggregate_was_locked_keeps_the_order_of_the_aggregate(
    outbox: Publishing, other: Engine
) -> None:
    with Session(outbox.engine) as slow, Session(other) as quick:
        outbox.outbox.add(slow, Happened(n=2), key="a")
        outbox.outbox.add(quick, Happened(n=1), key="a")
        assert next_version(quick) == 1
        quick.commit()
        assert next_version(slow) == 2
        slow.commit()

    outbox.drain(outbox.relay())

    assert numbers(outbox, "a") == [1, 2]


def test_equal_times_and_unsorted_ids_do_not_change_the_order_of_a_key(outbox: Publishing) -> None:
    now = FakeClock().now()
    with outbox.engine.begin() as connection:
        for n in range(1, 10):
            outbox.outbox.add(
                connection, Happened(n=n), key="a", message_id=f"{9 - n}", occurred_at=now
            )
    outbox.sql("update outbox_messages set created_at = now()")

    outbox.drain(outbox.relay(batch=2), outbox.relay(batch=2))

    assert numbers(outbox, "a") == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_of_a_hundred_rows_the_one_that_the_broker_refuses_is_the_only_one_tried_again(
    outbox: Publishing,
) -> None:
    keys = [key for key in map(str, range(2000)) if STREAM.partition_of(key) == 0][:100]
    outbox.append(*keys[:49])
    outbox.insert_row(keys[49], "x" * (MAX_ENTRY_BYTES + 1))
    outbox.append(*keys[50:])

    report = outbox.drain(outbox.relay(batch=100))

    assert report == RelayReport(published=99, batches=1, refused=1)
    assert [len(ids) for ids in outbox.published().values()] == [1] * 99


def test_keys_that_share_a_lock_wait_for_each_other_and_lose_nothing(
    outbox: Publishing, other: Engine
) -> None:
    first, second = colliding_keys()

    def append(n: int) -> None:
        with other.begin() as connection:
            outbox.outbox.add(connection, Happened(n=n), key=second)

    with ThreadPoolExecutor(1) as pool:
        with outbox.engine.begin() as connection:
            outbox.outbox.add(connection, Happened(n=1), key=first)
            follower = pool.submit(append, 2)
            until_it_waits(outbox.engine, follower)
        follower.result()
    outbox.drain(outbox.relay())

    assert outbox.published() == outbox.committed()
    assert numbers(outbox, first) == [1, 2]


def colliding_keys() -> tuple[str, str]:
    """Return two keys of one partition that are locked by the same number."""
    slots: dict[tuple[int, int], str] = {}
    for key in map(str, count()):
        place = (STREAM.partition_of(key), crc32(key.encode()) % LOCK_SLOTS)
        if place in slots:
            return slots[place], key
        slots[place] = key
    raise AssertionError


def test_restarts_leave_no_consumers_behind_in_redis(flow: Flow) -> None:
    for n in range(1, 21):
        toy.happen(flow.source, "a", n)
        consumer = flow.consumer(owner=f"life {n}")
        flow.deliver(consumer)
        consumer.leases.release()

    client: Any = flow.transport.client
    keys = [flow.transport.stream_key(toy.SOURCE, p) for p in range(toy.SOURCE.partitions)]
    known = [len(client.xinfo_consumers(key, "target")) for key in keys]
    assert max(known) == 1
    assert (flow.effects("a"), flow.pending()) == (list(range(1, 21)), 0)


def test_no_script_and_no_call_limits_a_stream_by_its_length() -> None:
    package = Path(labkit.__file__).parent
    # The breaker's stream is a record of its transitions: nobody consumes it, and it may forget.
    # And notebook 06 shows what is lost when a producer limits its stream.
    may = {"breaker/scripts.py", "scaling/backpressure.py"}
    paths = [path for path in package.rglob("*.py") if f"{path.parent.name}/{path.name}" not in may]
    code = "\n".join(path.read_text() for path in paths).replace("deque(maxlen=", "deque(")
    calls = re.findall(r"(?i)\b(xadd|xtrim)\b[^\n]*", code)

    assert calls
    assert not re.search(r"(?i)\b(?:xadd|xtrim)\b[^\n]*maxlen|\bmaxlen\s*=", code)
