"""An outbox with relays on real servers, and how tests look at what came out.

Run as a program it is a relay process that publishes what is there and ends:
`python -m tests.publishing DATABASE_URL REDIS_URL PREFIX BATCH`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, ClassVar

import msgspec
from sqlalchemy import Engine, MetaData, text

from labkit import db
from labkit.clock import Clock
from labkit.inbox import Inbox
from labkit.lease import lease_tables
from labkit.messages import Event
from labkit.outbox import Outbox
from labkit.ports import Stream
from labkit.readers import reader_table
from labkit.relay import Relay
from labkit.reports import RelayReport
from labkit.transports import redis_streams
from labkit.transports.redis_streams import RedisPublisher, RedisStreams

STREAM = Stream("test.events", 8)


class Happened(Event, frozen=True):
    topic: ClassVar[str] = "test.happened.v1"

    n: int


class Interrupted(RedisPublisher):
    """The real publisher, with something that happens around its next publish."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def publish(
        self, partition: int, *, epoch: int, head: int | None, batch: int, bodies: Sequence[str]
    ) -> None:
        before, self.before = self.before, None
        after, self.after = self.after, None
        if before:
            before()
        super().publish(partition, epoch=epoch, head=head, batch=batch, bodies=bodies)
        if after:
            after()


class Publishing:
    """One outbox, its stream, and relays on demand."""

    def __init__(
        self, engine: Engine, transport: RedisStreams, clock: Clock, *, notify: bool = False
    ) -> None:
        self.engine = engine
        self.transport = transport
        self.clock = clock
        self.numbers: Iterator[int] = count(1)
        metadata = MetaData()
        self.outbox = Outbox(metadata, STREAM, notify=notify)
        self.inbox = Inbox(metadata)
        lease_tables(metadata)
        reader_table(metadata)
        db.create_all(engine, metadata)

    def relay(self, **options: Any) -> Relay:
        publisher = options.pop("publisher", None) or self.transport.publisher(STREAM)
        return Relay(self.engine, self.outbox, publisher, **{"clock": self.clock} | options)

    def interrupted(self) -> Interrupted:
        return Interrupted(self.transport, STREAM)

    def append(self, *keys: str | None) -> list[str]:
        """Append one event per key in one transaction; return the message ids."""
        with self.engine.begin() as connection:
            return [
                self.outbox.add(connection, Happened(n=next(self.numbers)), key=key) for key in keys
            ]

    def insert_row(self, key: str, body: str) -> None:
        """Insert a row by hand, as the outbox would refuse it."""
        self.sql(
            "insert into outbox_messages (message_id, topic, key, partition, body) "
            "values (gen_random_uuid()::text, 'test', :key, :partition, :body)",
            key=key,
            partition=STREAM.partition_of(key),
            body=body,
        )

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    def cut_connections(self) -> None:
        """Let PostgreSQL end every connection of this test, idle or not."""
        other = db.connect(self.engine.url)
        with other.begin() as connection:
            connection.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        other.dispose()

    def expire_leases(self) -> None:
        self.sql("update lease set until = clock_timestamp() - interval '1 s'")

    def take_over(self, relay: Relay) -> RelayReport:
        """Let the current owner's leases end, and another relay work."""
        self.expire_leases()
        self.sql("delete from member")
        return self.renew(relay)

    def renew(self, relay: Relay) -> RelayReport:
        relay.leases.hurry()
        return relay.run_once()

    def drain(self, *relays: Relay) -> RelayReport:
        """Let relays work in turn until a whole round did nothing."""
        total = RelayReport()
        while (done := sum((self.renew(r) for r in relays), RelayReport())) != RelayReport():
            total += done
        return total

    def unpublished(self) -> int:
        ((number,),) = self.sql("select count(*) from outbox_messages where published_at is null")
        return int(number)

    def committed(self) -> dict[str, list[str]]:
        """Return the message ids of the outbox by key, in `seq` order."""
        found: dict[str, list[str]] = defaultdict(list)
        for key, message_id in self.sql("select key, message_id from outbox_messages order by seq"):
            found[key].append(message_id)
        return found

    def entries(self, partition: int) -> list[tuple[str, dict[str, Any]]]:
        """Return position and message of everything in a partition of the stream."""
        key = self.transport.stream_key(STREAM, partition)
        client: Any = self.transport.client
        return [
            (position.decode(), msgspec.json.decode(fields[b"body"]))
            for position, fields in client.xrange(key)
        ]

    def published(self) -> dict[str, list[str]]:
        """Return the message ids of the stream by key, repeats included."""
        found: dict[str, list[str]] = defaultdict(list)
        for partition in range(STREAM.partitions):
            for _, message in self.entries(partition):
                key = message["headers"].get("key") or message["correlationId"]
                found[key].append(message["messageId"])
        return found

    def first_published(self) -> dict[str, list[str]]:
        """Return the message ids of the stream by key, in the order of their first appearance."""
        return {key: list(dict.fromkeys(ids)) for key, ids in self.published().items()}

    def keys(self, partition: int) -> tuple[str, str]:
        stream = self.transport.stream_key(STREAM, partition)
        return stream, f"{stream}:relay"

    def lose_everything(self) -> None:
        """Do what FLUSHALL does, to the keys of this test."""
        found = list(self.transport.client.scan_iter(match=f"*{self.transport.prefix}*", count=999))
        if found:
            self.transport.client.delete(*found)

    def snapshot(self) -> dict[int, tuple[str, dict[bytes, bytes]]]:
        """Remember how far each partition is: the last position, and the fence."""
        client: Any = self.transport.client
        return {
            p: (positions[-1] if positions else "0-0", client.hgetall(self.keys(p)[1]))
            for p in range(STREAM.partitions)
            for positions in [[position for position, _ in self.entries(p)]]
        }

    def restore(self, snapshot: dict[int, tuple[str, dict[bytes, bytes]]]) -> None:
        """Take the stream back to an earlier state, as a server that lost its last seconds."""
        client: Any = self.transport.client
        for partition, (last, fence) in snapshot.items():
            stream, hash_key = self.keys(partition)
            for position, _ in client.xrange(stream, min=f"({last}"):
                client.xdel(stream, position)
            client.delete(hash_key)
            if fence:
                client.hset(hash_key, mapping=fence)

    def process(self, database: str, redis_url: str, *, faults: str, batch: int = 1) -> Any:
        """Start a relay process that crashes as told."""
        arguments = [database, redis_url, self.transport.prefix, str(batch)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.publishing", *arguments],
            env=os.environ | {"LABKIT_FAULTS": faults},
        )


def main(database: str, redis_url: str, prefix: str, batch: str) -> None:
    metadata = MetaData()
    outbox = Outbox(metadata, STREAM)
    client = redis_streams.connect(redis_url)
    relay = Relay(
        db.connect(database),
        outbox,
        RedisStreams(client, prefix).publisher(STREAM),
        batch=int(batch),
    )
    while relay.run_once() != RelayReport():
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
