"""Lines `consume_*`: inbox row, one row update and acknowledgement, one by one and in batches.

The ceilings read, insert the inbox rows with ON CONFLICT, update, commit and acknowledge. They
have no lease and no epoch, hold nothing, and lose the message that fails.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, column, table, update
from sqlalchemy.orm import Session

from benchmarks.arena import (
    GROUP,
    REGISTRY,
    Arena,
    Measured,
    Written,
    arena,
    expect,
    raw_connection,
    written,
)
from benchmarks.lines import Line, Target, line_of, seconds_of, take_turns
from benchmarks.size import Size
from labkit.consumer import Consumer
from labkit.handlers import AnyHandler, BatchHandler, Handler
from labkit.lab.servers import Stack
from labkit.messages import Message

BATCH = 100
ONE = "update counters set n = n + 1 where key = %s"
_COUNTERS = table("counters", column("key"), column("n"))
ONE_IN_CORE = (
    update(_COUNTERS).where(_COUNTERS.c.key == bindparam("wanted")).values(n=_COUNTERS.c.n + 1)
)
MANY = """
    update counters set n = counters.n + new.n
    from unnest(%s::text[], %s::int[]) as new(key, n) where counters.key = new.key
"""
INBOX = """
    insert into inbox_messages (consumer, message_id, digest)
    select %s, r.message_id, r.digest from unnest(%s::text[], %s::bytea[]) as r(message_id, digest)
    on conflict do nothing returning message_id
"""
Apply = Callable[[Any, Sequence[str]], None]


class Contest(NamedTuple):
    """A line: how labkit handles, how the ceiling does, and in which batches."""

    name: str
    handler: AnyHandler
    apply: Apply
    batch: int
    target: Target | None
    at_once: bool


def driver_of(session: Session) -> Any:
    """Return psycopg's connection: both sides make the same calls, the rest is labkit's cost."""
    return session.connection().connection.driver_connection


def count_up(session: Session, message: Message[Measured]) -> None:
    """Handle one message as the ceiling does."""
    driver_of(session).execute(ONE, (message.event.key,))


def count_up_in_core(session: Session, message: Message[Measured]) -> None:
    """Handle one message as most people write it."""
    session.execute(ONE_IN_CORE, {"wanted": message.event.key})


def apply_each(driver: Any, keys: Sequence[str]) -> None:
    """Do by hand what `count_up` does."""
    for key in keys:
        driver.execute(ONE, (key,))


def count_all_up(session: Session, messages: Sequence[Message[Measured]]) -> None:
    """Handle a batch with one statement, as the ceiling does."""
    keys = [message.event.key for message in messages]
    driver_of(session).execute(MANY, counted(keys))


def apply_all(driver: Any, keys: Sequence[str]) -> None:
    """Do by hand what `count_all_up` does."""
    driver.execute(MANY, counted(keys))


CONTESTS = (
    Contest(
        "consume_one",
        Handler(count_up),
        apply_each,
        1,
        Target("ratio", at_least=True, limit=0.8),
        at_once=False,
    ),
    Contest(
        "consume_batch",
        Handler(count_up),
        apply_each,
        BATCH,
        Target("ratio", at_least=True, limit=0.8),
        at_once=True,
    ),
    Contest("consume_batch_core", Handler(count_up_in_core), apply_each, BATCH, None, at_once=True),
    Contest(
        "consume_set",
        BatchHandler(count_all_up),
        apply_all,
        BATCH,
        Target("ratio", at_least=True, limit=0.6),
        at_once=True,
    ),
)


def measure(servers: Stack, size: Size, contest: Contest) -> list[Line]:
    """Let both sides consume the same entries in turns."""
    amount = size.messages if contest.at_once else size.transactions
    with arena(servers) as place:
        events = written(amount, place.stream)

        def labkit() -> float:
            prepare(place, events)
            return _rate(place, amount, consume(place, contest.handler, contest.batch))

        def by_hand() -> float:
            prepare(place, events)
            return _rate(place, amount, consume_by_hand(place, contest.apply, contest.batch))

        ours, ceiling = take_turns(contest.name, size.runs, labkit, by_hand)
    return [line_of(contest.name, "messages/s", ours, ceiling, contest.target)]


def prepare(place: Arena, events: Sequence[Written]) -> None:
    """Publish the events and forget what was handled."""
    place.begin_anew()
    place.fill_streams(events)


def _rate(place: Arena, amount: int, seconds: float) -> float:
    expect(place.consumed(), (amount, amount, 0), "effects, inbox rows, unacknowledged")
    return amount / seconds


def consumer_of(place: Arena, handler: AnyHandler, batch: int) -> Consumer:
    """Return labkit's consumer of an arena's stream."""
    return Consumer(
        place.engine,
        place.streams.subscription(place.stream, GROUP, "0"),
        place.stream,
        name=GROUP,
        handlers={Measured: handler},
        registry=REGISTRY,
        inbox=place.inbox,
        held=place.held,
        batch=batch,
    )


def consume(place: Arena, handler: AnyHandler, batch: int) -> float:
    """Handle everything with one consumer; return the seconds, without taking the leases."""
    consumer = consumer_of(place, handler, batch)
    consumer.leases.tick()

    def work() -> None:
        while consumer.run_once():
            pass

    seconds = seconds_of(work)
    consumer.leases.release()
    return seconds


def consume_by_hand(place: Arena, apply: Apply, batch: int) -> float:
    """Handle everything with the least that applies each effect once; return the seconds."""
    with raw_connection(place.address[0]) as connection:
        connection.autocommit = False

        def work() -> None:
            keys = set(place.keys())
            while keys:
                for key in sorted(keys):
                    if not _handle_by_hand(place, connection, key, apply, batch):
                        keys.discard(key)

        return seconds_of(work)


def _handle_by_hand(place: Arena, connection: Any, key: str, apply: Apply, batch: int) -> int:
    client: Any = place.client
    reply = client.xreadgroup(GROUP, "owner", {key: ">"}, count=batch)
    entries = reply[0][1] if reply else []
    if entries:
        bodies = [fields[b"body"] for _, fields in entries]
        read = [(msgspec.json.decode(body), body) for body in bodies]
        messages = {m["messageId"]: m["correlationId"] for m, _ in read}
        digests = {m["messageId"]: hashlib.sha256(body).digest() for m, body in read}
        noted = (GROUP, list(digests), list(digests.values()))
        fresh = {row[0] for row in connection.execute(INBOX, noted)}
        apply(connection, [key for message_id, key in messages.items() if message_id in fresh])
        connection.commit()
        client.xack(key, GROUP, *(position for position, _ in entries))
    return len(entries)


def counted(keys: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return each key once, sorted, and how often it came."""
    found = Counter(keys)
    ordered = sorted(found)
    return ordered, [found[key] for key in ordered]
