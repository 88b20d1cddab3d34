"""Transactional outbox: the event is a row of the transaction that it tells about.

The problem: "commit, then publish" loses the event when the process dies in between, and
"publish, then commit" invents one when the commit fails. So the event is stored by the same
commit as the state, and a relay publishes the rows afterwards (`labkit.relay`).

Guarantee: committed means stored, rolled back means gone, also with savepoints. Rows with the
same key get their `seq` in commit order, because the key is locked from the INSERT until the
commit. On a Session that INSERT is the last statement before the COMMIT (`labkit.unit_of_work`).
Not guaranteed: a commit behind SQLAlchemy's back (`exec_driver_sql("COMMIT")` on a Session)
drops what was kept; events without a key have no order; on a Connection, two transactions that
`add` the same keys in opposite orders deadlock: `add_all` takes their locks in one order.

Crash windows: none of its own; the row is in the transaction.

Pattern: Richardson, *Microservices Patterns*, ch. 3 ("Transactional outbox").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from zlib import crc32

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from labkit import db, limits, unit_of_work
from labkit.clock import Clock, SystemClock
from labkit.deadline import deadline_headers
from labkit.errors import InvalidEventError
from labkit.messages import MAX_MESSAGE_BYTES, Event, Message, encode, uuid7
from labkit.ports import Stream
from labkit.tracing import trace_headers
from labkit.wire import MAX_ID_CHARS, REQUEST_ID, is_id

LOCK_SLOTS = 1024
MAX_ROW_BYTES = 1_048_576


class Outgoing(NamedTuple):
    """An event to be added; see `Outbox.add` for the words."""

    event: Event
    key: str | None
    correlation_id: str | None = None
    cause: Message[Event] | None = None
    message_id: str | None = None
    occurred_at: datetime | None = None
    headers: Mapping[str, str] | None = None


class _Row(msgspec.Struct, frozen=True):
    message_id: str
    topic: str
    key: str | None
    partition: int
    body: str


def outbox_table(metadata: MetaData, name: str = "outbox_messages") -> Table:
    """Define the table on your metadata.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.

    Returns:
        The table: `seq` is the order; `published_at` and `batch` are the relay's mark; `refused`
        is why the broker does not take the row, and its key waits; `xid` tells when it committed.
    """
    limits.table_name(name)
    limits.kind("metadata", metadata, MetaData)
    table = Table(
        name,
        metadata,
        Column("seq", BigInteger, Identity(always=True, cache=1), primary_key=True),
        Column("message_id", Text, nullable=False, unique=True),
        Column("topic", Text, nullable=False),
        Column("key", Text),
        Column("partition", Integer, nullable=False),
        Column("body", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
        Column("published_at", DateTime(timezone=True)),
        Column("batch", BigInteger),
        Column("refused", Text),
        Column("xid", BigInteger, server_default=text("pg_current_xact_id()::text::bigint")),
    )
    # Why not a cursor (seq > last): a transaction that commits late would be skipped for ever.
    unpublished = table.c.published_at.is_(None)
    Index(f"{name}_unpublished", table.c.partition, table.c.seq, postgresql_where=unpublished)
    # Finds what a broker lost within a transaction's time limit, for a tenth of a mark's time. Why
    # not BRIN: it does not know the newest blocks until a vacuum, and those are what is lost.
    marked = table.c.batch.is_not(None)
    Index(f"{name}_batch", table.c.partition, table.c.batch, postgresql_where=marked)
    Index(f"{name}_refused", table.c.key, postgresql_where=table.c.refused.is_not(None))
    return table


class Outbox:
    """Stores events in the caller's transaction.

    Args:
        metadata: where to define the table.
        stream: this context's stream; its partitions are fixed for its life.
        table: the table's name.
        notify: wake the relay with NOTIFY at commit. PostgreSQL takes one global lock for it, so
            many writers wait (`make bench BENCH=notify`); polling is the default.
        clock: for `occurredAt`, unless the engine carries one (`labkit.unit_of_work.carried`).
        new_id: makes message ids, unless the engine carries one.
        max_bytes: the largest message, in bytes; a broker need not take more than 1 MiB.

    Raises:
        ConfigurationError: when a name or a number makes no sense.
    """

    def __init__(
        self,
        metadata: MetaData,
        stream: Stream,
        *,
        table: str = "outbox_messages",
        notify: bool = False,
        clock: Clock | None = None,
        new_id: Callable[[], str] = uuid7,
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        limits.kind("stream", stream, Stream)
        limits.number("max_bytes", max_bytes, 1, MAX_ROW_BYTES)
        self.table = outbox_table(metadata, table)
        self.stream = stream
        self.notify = notify
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._max_bytes = max_bytes
        self.lock_class = crc32(self.table.fullname.encode()) - 2**31
        self._insert = _insert_sql(self)

    @property
    def channel(self) -> str:
        """Return the NOTIFY channel that wakes this outbox's relay."""
        return f"labkit_{self.table.name}"

    def add(
        self,
        joined: Session | Connection,
        event: Event,
        *,
        key: str | None,
        correlation_id: str | None = None,
        cause: Message[Event] | None = None,
        message_id: str | None = None,
        occurred_at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Store an event; it leaves if, and only if, your transaction commits.

        Args:
            joined: your Session (stored at commit) or Connection (stored at once).
            event: what happened.
            key: events with the same key keep their order; None gives order up.
            correlation_id: the conversation; the cause's, else the key, else the message id.
            cause: the message that is being handled, to carry its ids and `requestId` on.
            message_id: your own unique id, up to 255 characters; a UUIDv7 by default.
            occurred_at: when it happened, with zone; now by default.
            headers: more headers for the envelope; they come before what the cause carries on.

        Returns:
            The message id.

        Raises:
            InvalidEventError: when the event, an id or the key does not keep to the contract. An
                id of yours that was used before is found out when the row is stored, by add or
                by your COMMIT, and ends the transaction.
            ConfigurationError: when the connection autocommits or uses two-phase commit.
        """
        outgoing = Outgoing(event, key, correlation_id, cause, message_id, occurred_at, headers)
        return self.add_all(joined, [outgoing])[0]

    def add_all(self, joined: Session | Connection, events: Iterable[Outgoing]) -> list[str]:
        """Store several events, in this order, or none; it raises what `add` raises.

        On a Connection this is the way to add several keys: their locks are taken sorted, by one
        statement, so that two transactions with the same keys wait and never deadlock.

        Args:
            joined: your Session (stored at commit) or Connection (stored at once).
            events: what happened, each with the same arguments as in `add`.

        Returns:
            The message ids, in order.
        """
        new_id = unit_of_work.carried(joined, "labkit_new_id", self._new_id)
        clock = unit_of_work.carried(joined, "labkit_clock", self._clock)
        rows = [self._row(each, new_id, clock) for each in unit_of_work.caused(joined, events)]
        if isinstance(joined, Session):
            unit_of_work.keep(joined, self, rows)
        else:
            unit_of_work.refuse_other_commits(joined)
            self.store(joined, rows)
        return [row.message_id for row in rows]

    def _row(self, outgoing: Outgoing, new_id: Callable[[], str], clock: Clock) -> _Row:
        event, key, cause = outgoing.event, outgoing.key, outgoing.cause
        _check(event, key, outgoing.headers or {})
        message_id = new_id() if outgoing.message_id is None else outgoing.message_id
        inherited = cause.correlation_id if cause else key
        correlation = outgoing.correlation_id or inherited or message_id
        body = encode(
            event,
            message_id=message_id,
            correlation_id=correlation,
            occurred_at=outgoing.occurred_at or clock.now(),
            headers=_headers(key, correlation, cause) | dict(outgoing.headers or {}),
            max_bytes=self._max_bytes,
        )
        return _Row(message_id, event.topic, key, self.stream.partition_of(key or message_id), body)

    def store(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """Insert rows at once; `labkit.unit_of_work` calls it at commit."""
        if not rows:
            return
        slots = sorted({crc32(row.key.encode()) % LOCK_SLOTS for row in rows if row.key})
        # Why not arrays: psycopg writes them element by element, in Python. Why not one Core
        # insert(): compiling a row costs more, and the locks would be a round trip of their own.
        parameters = tuple(msgspec.json.encode(each).decode() for each in (slots, rows))
        try:
            xid = connection.exec_driver_sql(self._insert, parameters).scalar_one()
        except IntegrityError as error:
            raise _used_twice(error) from error
        db.remember_xid(connection, int(xid))


def _used_twice(error: IntegrityError) -> InvalidEventError:
    said = str(error.orig).partition("DETAIL:")[2].strip() or str(error.orig)
    return InvalidEventError(f"the outbox refuses a row: {said} An id is used once: roll back")


def _insert_sql(outbox: Outbox) -> str:
    channel = outbox.channel.replace("'", "''").replace("%", "%%")
    wake = f", pg_notify('{channel}', '')" if outbox.notify else ""
    # Locks in sorted order (unsorted ones deadlock) before the first `seq` is drawn: the filter is
    # evaluated before any row. 1024 slots, for a lock per key would exhaust shared memory.
    return f"""
    with locks as materialized (
        select pg_advisory_xact_lock({outbox.lock_class}, value::int)
        from json_array_elements_text(%s::json)
    ), stored as (
        insert into {db.quoted(outbox.table)} (message_id, topic, key, partition, body)
        select r.message_id, r.topic, r.key, r.partition, r.body
        from rows from (json_to_recordset(%s::json) as
             (message_id text, topic text, key text, partition int, body text))
             with ordinality as r(message_id, topic, key, partition, body, n)
        where (select count(*) from locks) >= 0
        order by r.n
    )
    select pg_current_xact_id()::text{wake}
    """


def _check(event: Event, key: str | None, headers: Mapping[str, str]) -> None:
    if not isinstance(event, Event):
        msg = f"an event is an instance of a class of yours under Event, not {event!r:.80}"
    elif not event.topic:
        msg = f"{type(event).__name__} needs a class attribute topic"
    elif key is not None and not is_id(key):
        msg = f"key must be None or 1 to {MAX_ID_CHARS} characters without NUL, not {key!r:.80}"
    elif "key" in headers:
        msg = "the header `key` is the ordering key: pass key= instead"
    else:
        return
    raise InvalidEventError(msg)


def _headers(key: str | None, correlation_id: str, cause: Message[Event] | None) -> dict[str, str]:
    headers = {"causationId": cause.message_id} if cause else {}
    headers |= trace_headers(cause) | deadline_headers()
    # So that an answer names its request without a word of who answers.
    if cause and REQUEST_ID in cause.headers:
        headers[REQUEST_ID] = cause.headers[REQUEST_ID]
    # A missing key is the correlation id, so the common case costs no bytes.
    if key is not None and key != correlation_id:
        headers["key"] = key
    return headers
