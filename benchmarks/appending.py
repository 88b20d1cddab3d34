"""Lines `append` and `notify`: what an event adds to the transaction that it tells about.

`append` compares a transaction of one business row with the same one plus an event, once with
labkit and a Session, once by hand with psycopg. `notify` lets many processes commit such
transactions as fast as they can, with and without waking the relay.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.arena import Arena, Measured, arena, expect, measured, raw_connection
from benchmarks.lines import Line, Target, line_of, take_turns
from benchmarks.size import Size
from labkit.lab.servers import Stack
from labkit.messages import uuid7

TARGET = Target("value", at_least=False, limit=1.5)
ORDER = "insert into orders (n, note) values (%s, 'placed')"
APPEND = """
    with lock as materialized (select pg_advisory_xact_lock(7, hashtext(%s) %% 1024))
    insert into outbox_messages (message_id, topic, key, partition, body)
    select %s, %s, %s, %s, %s from lock
"""


def measure_append(servers: Stack, size: Size) -> list[Line]:
    """Time single transactions; return how many times longer they take with an event."""
    with arena(servers) as place, raw_connection(place.address[0]) as raw:
        raw.autocommit = False
        events = [measured(n) for n in range(size.transactions)]

        def side(transaction: Callable[[Measured], None]) -> float:
            place.begin_anew()
            took = [_seconds(transaction, event) for event in events]
            expect(place.count("select count(*) from orders"), len(events), "orders")
            return statistics.median(took)

        ours, ours_bare, hand, hand_bare = take_turns(
            "append",
            size.runs,
            lambda: side(lambda event: place_order(place, event, append=True)),
            lambda: side(lambda event: place_order(place, event, append=False)),
            lambda: side(lambda event: place_order_by_hand(place, raw, event, append=True)),
            lambda: side(lambda event: place_order_by_hand(place, raw, event, append=False)),
        )
    times = [a / b for a, b in zip(ours, ours_bare, strict=True)]
    ceiling = [a / b for a, b in zip(hand, hand_bare, strict=True)]
    return [line_of("append", "times a bare transaction", times, ceiling, TARGET)]


def _seconds(transaction: Callable[[Measured], None], event: Measured) -> float:
    started = time.perf_counter()
    transaction(event)
    return time.perf_counter() - started


def place_order(place: Arena, event: Measured, *, append: bool) -> None:
    """Commit one row with labkit, and its event if asked."""
    with Session(place.engine) as session, session.begin():
        session.execute(insert(place.orders).values(n=event.n, note="placed"))
        if append:
            place.outbox.add(session, event, key=event.key)


def place_order_by_hand(place: Arena, raw: Any, event: Measured, *, append: bool) -> None:
    """Commit one row by hand, and its event if asked, under a lock that keeps the key's order."""
    raw.execute(ORDER, (event.n,))
    if append:
        message_id = uuid7()
        envelope = {"messageId": message_id, "correlationId": event.key, "event": event}
        body = msgspec.json.encode(envelope).decode()
        partition = place.stream.partition_of(event.key)
        row = (message_id, event.topic, event.key, partition, body)
        raw.execute(APPEND, (event.key, *row))
    raw.commit()


def measure_notify(servers: Stack, size: Size) -> list[Line]:
    """Count commits per second of many processes, with a NOTIFY in each and without."""
    with (
        arena(servers) as place,
        get_context("spawn").Pool(size.writers) as pool,
    ):

        def side(*, notify: bool) -> float:
            place.begin_anew()
            tasks = [(place.address, notify, size.seconds, n) for n in range(size.writers)]
            commits = sum(pool.starmap(commit_orders, tasks, chunksize=1))
            stored = place.count("select count(*) from outbox_messages")
            expect(stored, commits, "events stored")
            return commits / size.seconds

        loud, silent = take_turns(
            "notify", size.runs, lambda: side(notify=True), lambda: side(notify=False)
        )
    return [line_of("notify", "commits/s", loud, silent)]


def commit_orders(
    address: tuple[str, str, str],
    notify: bool,  # noqa: FBT001 - the pool passes by position
    seconds: float,
    writer: int,
) -> int:
    """Commit orders with an event for some seconds; return how many."""
    place, commits = Arena(*address, notify=notify), 0
    event = measured(writer)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        place_order(place, event, append=True)
        commits += 1
    place.disconnect()
    return commits
