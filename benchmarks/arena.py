"""The arena: a database and a key prefix of one's own, the events, and who counts what was done.

Both sides of a line work on the same tables, with the same indexes, and on the same streams.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import psycopg
import redis
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text
from sqlalchemy.engine import make_url

from labkit import db
from labkit.clock import SystemClock
from labkit.held import Held
from labkit.inbox import Inbox
from labkit.lab.servers import Stack
from labkit.lease import lease_tables
from labkit.messages import Event, Registry, encode, uuid7
from labkit.outbox import Outbox
from labkit.ports import Stream
from labkit.transports.redis_streams import RedisStreams, connect

EVENT_BYTES = 500
KEYS = 200
PARTITIONS = 8
GROUP = "bench"


class Measured(Event, frozen=True):
    """An event of about `EVENT_BYTES` bytes, envelope included."""

    topic: ClassVar[str] = "bench.measured.v1"

    key: str
    n: int
    filler: str = ""


REGISTRY = Registry(Measured)


class Written(NamedTuple):
    """An event as it is stored and sent."""

    message_id: str
    key: str
    partition: int
    body: str


def measured(n: int) -> Measured:
    """Return event number `n`; its key is one of `KEYS`."""
    key = f"key-{n % KEYS}"
    bare = len(_body(Measured(key=key, n=n), uuid7()))
    return Measured(key=key, n=n, filler="x" * (EVENT_BYTES - bare))


def written(count: int, stream: Stream) -> list[Written]:
    """Return events as an outbox writes them."""
    events = []
    for n in range(count):
        event, message_id = measured(n), uuid7()
        partition = stream.partition_of(event.key)
        events.append(Written(message_id, event.key, partition, _body(event, message_id)))
    return events


def _body(event: Measured, message_id: str) -> str:
    return encode(
        event,
        message_id=message_id,
        correlation_id=event.key,
        occurred_at=SystemClock().now(),
        headers={},
    )


class Arena:
    """One database with labkit's tables and two of a business, and one key prefix.

    Args:
        database_url: SQLAlchemy URL of an empty database.
        redis_url: URL for redis-py.
        prefix: of all keys.
        partitions: of the stream.
        notify: see `labkit.outbox.Outbox`.
    """

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        prefix: str,
        *,
        partitions: int = PARTITIONS,
        notify: bool = False,
    ) -> None:
        self.address = (database_url, redis_url, prefix)
        self.stream = Stream("bench.events", partitions)
        self.metadata = MetaData()
        self.outbox = Outbox(self.metadata, self.stream, notify=notify)
        self.inbox = Inbox(self.metadata)
        self.held = Held(self.metadata)
        lease_tables(self.metadata)
        # The business of the bench: rows that are inserted, and rows that are counted up.
        self.orders = Table("orders", self.metadata, Column("n", Integer), Column("note", Text))
        self.counters = Table(
            "counters",
            self.metadata,
            Column("key", Text, primary_key=True),
            Column("n", Integer, nullable=False),
        )
        self.engine: Engine = db.connect(database_url)
        db.create_all(self.engine, self.metadata)
        self.client: redis.Redis = connect(redis_url)
        self.streams = RedisStreams(self.client, prefix)
        self.raw: psycopg.Connection[Any] = raw_connection(database_url)

    def close(self) -> None:
        """Delete the keys and close all connections."""
        self.forget_streams()
        self.disconnect()

    def disconnect(self) -> None:
        """Close all connections."""
        self.raw.close()
        self.engine.dispose()
        self.client.close()

    def keys(self) -> list[str]:
        """Return the keys of the stream's partitions."""
        return [self.streams.stream_key(self.stream, p) for p in range(self.stream.partitions)]

    def forget_streams(self) -> None:
        """Delete everything of ours in Redis."""
        found = list(self.client.scan_iter(match=f"*{self.streams.prefix}*", count=1000))
        if found:
            self.client.delete(*found)

    def begin_anew(self) -> None:
        """Empty tables and streams; every counter is there, and zero."""
        self.forget_streams()
        names = ", ".join(f'"{table.name}"' for table in self.metadata.sorted_tables)
        self.raw.execute(f"truncate {names} restart identity")
        self.raw.execute(
            "insert into counters select 'key-' || n, 0 from generate_series(0, %s) as n",
            (KEYS - 1,),
        )

    def fill_outbox(self, events: Sequence[Written]) -> None:
        """Store events as committed and unpublished."""
        copy = "copy outbox_messages (message_id, topic, key, partition, body) from stdin"
        with self.raw.cursor() as cursor, cursor.copy(copy) as rows:
            for event in events:
                rows.write_row(
                    (event.message_id, Measured.topic, event.key, event.partition, event.body)
                )
        self.raw.execute("vacuum analyze outbox_messages")

    def fill_streams(self, events: Sequence[Written]) -> None:
        """Publish events, and let the group begin before them."""
        for key in self.keys():
            self.client.xgroup_create(key, GROUP, id="0", mkstream=True)
        self.publish(events)
        self.raw.execute("vacuum analyze counters")

    def publish(self, events: Sequence[Written]) -> None:
        """Append events to their partitions."""
        keys = self.keys()
        for start in range(0, len(events), 1000):
            pipeline = self.client.pipeline(transaction=False)
            for event in events[start : start + 1000]:
                pipeline.xadd(keys[event.partition], {"body": event.body})
            pipeline.execute()

    def count(self, query: str) -> int:
        """Return the number that a query counts."""
        row = self.raw.execute(query).fetchone()
        return int(row[0] or 0) if row else 0

    def published(self) -> tuple[int, int]:
        """Return how many rows are marked as published, and how many entries there are."""
        marked = self.count("select count(published_at) from outbox_messages")
        return marked, sum(int(self.client.xlen(key)) for key in self.keys())

    def consumed(self) -> tuple[int, int, int]:
        """Return how many effects and inbox rows there are, and how much is unacknowledged."""
        client: Any = self.client
        pending = sum(client.xpending(key, GROUP)["pending"] for key in self.keys())
        effects = self.count("select sum(n) from counters")
        return effects, self.count("select count(*) from inbox_messages"), pending


def raw_connection(database_url: str) -> psycopg.Connection[Any]:
    """Open a connection without SQLAlchemy, in autocommit mode."""
    address = make_url(database_url).set(drivername="postgresql")
    return psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)


@contextmanager
def arena(servers: Stack, *, partitions: int = PARTITIONS, notify: bool = False) -> Iterator[Arena]:
    """Open an arena on these servers; nothing of it is left afterwards."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    url = servers.database(name)
    made = Arena(url, servers.redis_url, f"{name}:", partitions=partitions, notify=notify)
    try:
        yield made
    finally:
        made.close()
        servers.drop_database(name)


def expect(found: object, wanted: object, what: str) -> None:
    """Refuse to report the speed of work that was not done.

    Raises:
        RuntimeError: when something else was found.
    """
    if found != wanted:
        raise RuntimeError(f"{what}: {found}, not {wanted}: what was measured is not the work")
