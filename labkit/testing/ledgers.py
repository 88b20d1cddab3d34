"""The books that an audit compares, and how they are read: what was sent, what was received.

A `Sent` is one service's committed events beside its stream; a `Received` is one consumer's
inbox, held messages and effects. `books_of` makes both from a `Service`; services that are built
otherwise describe themselves by queries of their own. Everything here only reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Table, select

from labkit.errors import InvalidMessageError
from labkit.ports import Stream
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import Envelope, decode_envelope

_CHUNK = 5_000


class Fact(NamedTuple):
    """A committed event; facts of one key come in commit order.

    `type` is empty when nobody is expected to handle it; `published` says that the relay marked
    it, and `set_aside` why the broker does not get it (`refused` in the outbox).
    """

    message_id: str
    key: str | None
    type: str = ""
    at: datetime | None = None
    body: str | None = None
    published: bool = False
    set_aside: str | None = None


class Entry(NamedTuple):
    """An entry of a stream; bytes that are no message have no id, and are nobody's event."""

    message_id: str | None
    key: str
    position: str
    partition: int
    body: bytes

    @property
    def at(self) -> datetime:
        """Return when the broker took it, by its own clock."""
        return datetime.fromtimestamp(int(self.position.partition("-")[0]) / 1000, UTC)


class Effect(NamedTuple):
    """An effect, by the id of its message or by a business key; effects come in their order."""

    id: str
    key: str | None = None
    at: datetime | None = None


Facts = Callable[[Connection], Iterable[Fact]]
Effects = Callable[[Connection], Iterable[Effect]]


@dataclass(frozen=True)
class Sent:
    """What one service committed.

    Args:
        engine: its database.
        stream: where its events go.
        facts: reads the committed events, those of a key in commit order.
    """

    engine: Engine
    stream: Stream
    facts: Facts


@dataclass(frozen=True)
class Received:
    """What one consumer made of one or more streams.

    Args:
        name: the consumer's name.
        engine: its database.
        handles: the event types that it handles, by stream name.
        inbox: its inbox table; None when it keeps none, and only effects can be judged.
        held: its table of held messages; None when it keeps none.
        discarded: its table of dead letters that somebody gave up; None when it keeps none.
        effects: reads the effects in the order in which they were applied; None to trust the
            inbox, whose rows are committed with them.
        effect_of: names the effect that an event must have, when effects are known by a
            business key; the message id by default.
    """

    name: str
    engine: Engine
    handles: Mapping[str, frozenset[str]]
    inbox: Table | None = None
    held: Table | None = None
    discarded: Table | None = None
    effects: Effects | None = None
    effect_of: Callable[[Envelope], str] | None = None


def books_of(
    service: Service, engine: Engine, effects: Mapping[str, Effects] | None = None
) -> tuple[Sent, list[Received]]:
    """Return the books of a service: its outbox, and one `Received` per consumer.

    Args:
        service: the declaration.
        engine: its database.
        effects: consumer or projection name to the query of its effects.
    """
    handlers: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for reader in service.subscribed():
        handlers[reader.consumer][reader.stream.name] = reader.types
    sent = Sent(engine, service.stream, outbox_facts(service.outbox.table))
    tables = (service.inbox.table, service.held.table, service.dead_letters.discarded)
    received = [
        Received(name, engine, handles, *tables, (effects or {}).get(name))
        for name, handles in handlers.items()
    ]
    return sent, received


def outbox_facts(table: Table) -> Facts:
    """Return the query of an outbox: `seq` is commit order per key.

    Args:
        table: made by `labkit.outbox.outbox_table`.
    """

    def read(connection: Connection) -> Iterator[Fact]:
        row = table.c
        columns = (row.message_id, row.key, row.created_at, row.body, row.published_at, row.refused)
        blocked: dict[str | None, str] = {}
        for id_, key, at, body, published_at, refused in connection.execute(
            select(*columns).order_by(row.seq)
        ):
            if refused is not None and key is not None:
                blocked[key] = f"behind {id_}: {refused}"
            set_aside = refused or blocked.get(key)
            yield Fact(id_, key, _type_of(body), at, body, published_at is not None, set_aside)

    return read


def _type_of(body: str) -> str:
    try:
        return decode_envelope(body).event.type
    except InvalidMessageError:
        return ""


def read_entries(transport: RedisStreams, stream: Stream, partition: int) -> Iterator[Entry]:
    """Return a partition's entries in their order, a chunk at a time."""
    name, start = transport.stream_key(stream, partition), "-"
    client: Any = transport.client
    while chunk := client.xrange(name, min=start, count=_CHUNK):
        for position, fields in chunk:
            yield _entry(position.decode(), partition, fields.get(b"body", b""))
        start = f"({chunk[-1][0].decode()}"


def _entry(position: str, partition: int, body: bytes) -> Entry:
    try:
        envelope = decode_envelope(body)
    except InvalidMessageError:
        return Entry(None, "", position, partition, body)
    return Entry(envelope.message_id, envelope.key, position, partition, body)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that sees one moment and cannot write."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect() as connection:
        yield connection.execution_options(**options)


def read_ids(connection: Connection, table: Table | None, consumer: str) -> dict[str, Any]:
    """Return the message ids that an inbox or held table has of a consumer, each with its time."""
    if table is None:
        return {}
    at = table.c.handled_at if "handled_at" in table.c else table.c.held_at
    query = select(table.c.message_id, at).where(table.c.consumer == consumer)
    return {row[0]: row[1] for row in connection.execute(query)}
