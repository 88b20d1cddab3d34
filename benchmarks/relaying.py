"""Line `relay`: how fast one relay drains an outbox whose rows are kept.

The ceiling claims rows in order, appends them with one script per batch, and marks them. It has
no lease, no epoch, no numbered batches: two of it would reorder, and a crash would go unnoticed.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from benchmarks.arena import Arena, arena, expect, written
from benchmarks.lines import Line, Target, line_of, seconds_of, take_turns
from benchmarks.size import Size
from labkit.lab.servers import Stack
from labkit.relay import Relay

BATCH = 1000
TARGET = Target("ratio", at_least=True, limit=0.6)
APPEND = "for i = 1, #ARGV do redis.call('xadd', KEYS[1], '*', 'body', ARGV[i]) end"
CLAIM = """
    select p, seq, body
    from generate_series(0, %s - 1) as p cross join lateral (
        select seq, body from outbox_messages
        where partition = p and published_at is null order by seq limit %s
    ) as claimed order by p, seq
"""
MARK = "update outbox_messages set published_at = clock_timestamp() where seq = any(%s)"


def measure(servers: Stack, size: Size) -> list[Line]:
    """Let both sides drain the same rows in turns."""
    with arena(servers) as place:
        events = written(size.rows, place.stream)

        def prepare() -> None:
            place.begin_anew()
            place.fill_outbox(events)

        def rate(seconds: float) -> float:
            expect(place.published(), (size.rows, size.rows), "rows marked, entries in the stream")
            return size.rows / seconds

        def labkit() -> float:
            prepare()
            return rate(drain(place))

        def by_hand() -> float:
            prepare()
            return rate(seconds_of(lambda: drain_by_hand(place)))

        ours, ceiling = take_turns("relay", size.runs, labkit, by_hand)
    return [line_of("relay", "rows/s", ours, ceiling, TARGET)]


def drain(place: Arena) -> float:
    """Publish everything with one relay; return the seconds, without taking the leases."""
    relay = Relay(place.engine, place.outbox, place.streams.publisher(place.stream), batch=BATCH)
    relay.leases.tick()

    def work() -> None:
        while relay.run_once():
            pass

    seconds = seconds_of(work)
    relay.leases.release()
    return seconds


def drain_by_hand(place: Arena) -> None:
    """Publish everything with the least that keeps rows, and their order in one process."""
    append = place.client.register_script(APPEND)
    while pass_by_hand(place, append):
        pass


def pass_by_hand(place: Arena, append: Any) -> int:
    """Publish a batch of each partition, one statement for all claims and one for all marks."""
    rows = place.raw.execute(CLAIM, (place.stream.partitions, BATCH)).fetchall()
    keys = place.keys()
    for partition, batch in groupby(rows, key=itemgetter(0)):
        append(keys=[keys[partition]], args=[body for _, _, body in batch])
    if rows:
        place.raw.execute(MARK, ([seq for _, seq, _ in rows],))
    return len(rows)
