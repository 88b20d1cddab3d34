"""Lines `growth_*`: how the costs grow with the backlog, with partitions and with consumers.

Nothing is compared with a ceiling here, only a line with its neighbours: a relay that walks
through what is published, or a claim that sorts what is not, shows as a number that falls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.arena import KEYS, PARTITIONS, Arena, Measured, arena, expect, written
from benchmarks.consuming import BATCH, consumer_of, count_up
from benchmarks.latency import MS, PATIENCE_S, Address, running, thread_event
from benchmarks.lines import Line, lone_line, say, seconds_of
from benchmarks.relaying import BATCH as RELAY_BATCH, drain
from benchmarks.size import Size
from labkit.backlog import Backlog
from labkit.handlers import Handler
from labkit.lab.servers import Stack
from labkit.relay import Relay

CLAIMS = 9
FILL = """
    insert into outbox_messages (message_id, topic, key, partition, body, published_at, batch)
    select gen_random_uuid()::text, %(topic)s, 'key-' || n %% %(keys)s,
           (n %% %(keys)s) %% %(partitions)s, %(body)s,
           case when %(published)s then now() end, case when %(published)s then 1 end
    from generate_series(1, %(rows)s) as n
"""


def measure(servers: Stack, size: Size) -> list[Line]:
    """Measure all growth lines."""
    return [
        *backlog_lines(servers, size),
        *retained_lines(servers, size),
        *partition_lines(servers, size),
        *consumer_lines(servers, size),
    ]


def backlog_lines(servers: Stack, size: Size) -> Iterator[Line]:
    """Claim and drain with ever more unpublished rows waiting behind."""
    for rows in sorted({size.backlog // 100, size.backlog // 10, size.backlog}):
        say(f"growth: {rows} unpublished rows")
        with arena(servers) as place:
            fill(place, rows, published=False)
            yield lone_line(f"growth_claim_{rows}_unpublished", "ms", claim_ms(place))
            rate = drain_some(place, size.rows)
            yield lone_line(f"growth_drain_{rows}_unpublished", "rows/s", [rate])


def retained_lines(servers: Stack, size: Size) -> Iterator[Line]:
    """Claim and drain the same rows with ever more published ones kept."""
    for rows in (0, size.backlog * 3 // 10, size.backlog):
        say(f"growth: {rows} retained rows")
        with arena(servers) as place:
            if rows:
                fill(place, rows, published=True)
            fill(place, size.rows, published=False)
            yield lone_line(f"growth_claim_{rows}_retained", "ms", claim_ms(place))
            rate = drain_some(place, size.rows)
            yield lone_line(f"growth_drain_{rows}_retained", "rows/s", [rate])


def partition_lines(servers: Stack, size: Size) -> Iterator[Line]:
    """Drain the same rows in ever more partitions."""
    for partitions in (1, 2, 4, 8, 16, 32):
        say(f"growth: {partitions} partitions")
        with arena(servers, partitions=partitions) as place:
            events, rates = written(size.rows, place.stream), []
            for _ in range(size.runs):
                place.begin_anew()
                place.fill_outbox(events)
                rates.append(size.rows / drain(place))
                expect(place.published(), (size.rows, size.rows), "rows marked, entries")
            yield lone_line(f"growth_drain_{partitions}_partitions", "rows/s", rates)


def consumer_lines(servers: Stack, size: Size) -> Iterator[Line]:
    """Let ever more processes share the partitions of one stream."""
    processes = 1
    while processes <= size.processes:
        say(f"growth: {processes} consumers")
        with arena(servers) as place:
            place.begin_anew()
            rate = share(place, processes, size.messages)
            yield lone_line(f"growth_consume_{processes}_processes", "messages/s", [rate])
        processes *= 2


def fill(place: Arena, rows: int, *, published: bool) -> None:
    """Store rows without encoding each of them."""
    values = {"topic": Measured.topic, "keys": KEYS, "partitions": place.stream.partitions}
    body = written(1, place.stream)[0].body
    place.raw.execute(FILL, values | {"body": body, "published": published, "rows": rows})
    place.raw.execute("vacuum analyze outbox_messages")


def claim_ms(place: Arena) -> list[float]:
    """Time the relay's claim of a batch of each partition."""
    backlog = Backlog(place.engine, place.outbox, {"kind": "relay", "name": place.stream.name})
    partitions = range(place.stream.partitions)
    claim = partial(backlog.claim, partitions, RELAY_BATCH)
    return [seconds_of(claim) * MS for _ in range(CLAIMS)]


def drain_some(place: Arena, rows: int) -> float:
    """Publish at least so many rows; return rows per second."""
    relay = Relay(
        place.engine, place.outbox, place.streams.publisher(place.stream), batch=RELAY_BATCH
    )
    relay.leases.tick()
    published, (marked, _) = 0, place.published()

    def work() -> None:
        nonlocal published
        while published < rows and (found := relay.run_once().published):
            published += found

    seconds = seconds_of(work)
    expect(place.published(), (marked + published, published), "rows marked, entries in the stream")
    return published / seconds


def share(place: Arena, processes: int, messages: int) -> float:
    """Publish events to consumers that have shared the partitions; return messages per second."""
    events = written(messages, place.stream)
    place.fill_streams([])
    with ExitStack() as workers:
        for _ in range(processes):
            workers.enter_context(running([run_consumer], place.address))
        shares = "select count(distinct owner) from lease where kind = 'consumer'"
        _wait(place, shares, processes)
        seconds = seconds_of(lambda: _publish_and_wait(place, events, messages))
    expect(place.consumed(), (messages, messages, 0), "effects, inbox rows, unacknowledged")
    return messages / seconds


def _publish_and_wait(place: Arena, events: Any, messages: int) -> None:
    place.publish(events)
    _wait(place, "select sum(n) from counters", messages)


def _wait(place: Arena, query: str, wanted: int) -> None:
    end = time.perf_counter() + PATIENCE_S
    while place.count(query) < wanted:
        if time.perf_counter() > end:
            raise RuntimeError(f"{query} stays at {place.count(query)}, not {wanted}")
        threading.Event().wait(0.01)


def run_consumer(address: Address, ready: Any, stop: Any) -> None:
    """Run labkit's consumer until told to stop."""
    place = Arena(*address, partitions=PARTITIONS)
    consumer = consumer_of(place, Handler(count_up), BATCH)
    consumer.leases.tick()
    ready.set()
    consumer.run(thread_event(stop))
    place.disconnect()
