"""Transactional outbox: the event is a row of the transaction that it tells about.

The problem: "commit, then publish" loses the event when the process dies in between, and
"publish, then commit" invents one when the commit fails. So the event is stored by the same
commit as the state, and a relay publishes the rows afterwards (`labkit.relay`).

Guarantee: committed means stored, rolled back means gone, also with savepoints. Rows with the
same key get their `seq` in commit order, because the key is locked from the INSERT until the
commit. On a Session that INSERT is the last statement before the COMMIT (`labkit.unit_of_work`).
Not guaranteed: a commit behind SQLAlchemy's back (`exec_driver_sql("COMMIT")` on a Session)
drops what was kept; events without a key have no order; on a Connection, two transactions that
add the same keys in opposite orders deadlock, as with any other rows.

Crash windows: none of its own; the row is in the transaction.

Pattern: Richardson, *Microservices Patterns*, ch. 3 ("Transactional outbox").
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, cast
from zlib import crc32

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
from sqlalchemy.orm import Session

from labkit import db, unit_of_work
from labkit.clock import Clock, SystemClock
from labkit.errors import ConfigurationError, InvalidEventError
from labkit.messages import MAX_MESSAGE_BYTES, Event, Message, encode, uuid7
from labkit.ports import Stream
from labkit.wire import MAX_ID_CHARS, is_id

LOCK_SLOTS = 1024
MAX_CHANNEL_BYTES = 63


class _Row(NamedTuple):
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
        The table: `seq` is the order; `published_at` and `batch` are the relay's mark, `refused`
        is why the broker does not take the row, and then its key waits; `xid` is the transaction
        that stored it, which tells when it committed.
    """
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
    Index(f"{name}_refused", table.c.key, postgresql_where=table.c.refused.is_not(None))
    return table


class Outbox:
    """Stores events in the caller's transaction.

    Args:
        metadata: where to define the table.
        stream: this context's stream; its partitions are fixed for its life.
        table: the table's name.
        notify: wake the relay with NOTIFY at commit. It halves the commits per second under
            load, since PostgreSQL takes one global lock for it; polling is the default.
        clock: for `occurredAt`.
        new_id: makes message ids.
        max_bytes: the largest message, in bytes.
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
        self.table = outbox_table(metadata, table)
        self.stream = stream
        self.notify = notify
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._max_bytes = max_bytes
        self.lock_class = crc32(self.table.fullname.encode()) - 2**31
        self._insert = _insert_sql(self)
        # Longer ones would abort the caller's transaction.
        if notify and len(self.channel.encode()) > MAX_CHANNEL_BYTES:
            raise ConfigurationError(
                f"{self.channel} is too long for a NOTIFY channel: give the table a shorter name"
            )

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
            cause: the message that is being handled, to carry its ids on.
            message_id: your own unique id, up to 255 characters; a UUIDv7 by default.
            occurred_at: when it happened, with zone; now by default.
            headers: more headers for the envelope.

        Returns:
            The message id.

        Raises:
            InvalidEventError: when the event, an id or the key does not keep to the contract.
            ConfigurationError: when the connection autocommits or uses two-phase commit.
        """
        _check(event, key, headers or {})
        message_id = self._new_id() if message_id is None else message_id
        correlation = correlation_id or (cause.correlation_id if cause else None) or key
        correlation = correlation or message_id
        body = encode(
            event,
            message_id=message_id,
            correlation_id=correlation,
            occurred_at=occurred_at or self._clock.now(),
            headers=_headers(key, correlation, cause) | dict(headers or {}),
            max_bytes=self._max_bytes,
        )
        partition = self.stream.partition_of(key or message_id)
        row = _Row(message_id, event.topic, key, partition, body)
        if isinstance(joined, Session):
            unit_of_work.keep(joined, self, row)
        else:
            unit_of_work.refuse_other_commits(joined)
            self.store(joined, [row])
        return message_id

    def store(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """Insert rows at once; `labkit.unit_of_work` calls it at commit."""
        slots = sorted(
            {crc32(row.key.encode()) % LOCK_SLOTS for row in rows if row.key is not None}
        )
        ids, topics, keys, partitions, bodies = (list(column) for column in zip(*rows, strict=True))
        parameters = (slots, ids, topics, keys, partitions, bodies)
        # Why not one Core insert(): compiling and expanding a row each costs a third more, and
        # the locks would be a round trip of their own.
        xid = connection.exec_driver_sql(self._insert, parameters).scalar_one()
        db.remember_xid(connection, int(xid))


def _insert_sql(outbox: Outbox) -> str:
    quoted = db.quoted(outbox.table)
    channel = outbox.channel.replace("'", "''").replace("%", "%%")
    wake = f", pg_notify('{channel}', '')" if outbox.notify else ""
    # The locks are taken in sorted order (unsorted ones deadlock) and before the first `seq` is
    # drawn, since the filter is evaluated before any row. Two ints with 1024 slots, because a
    # lock per key would exhaust shared memory.
    return f"""
    with locks as materialized (
        select pg_advisory_xact_lock({outbox.lock_class}, slot) from unnest(%s::int[]) as slot
    ), stored as (
        insert into {quoted} (message_id, topic, key, partition, body)
        select r.message_id, r.topic, r.key, r.partition, r.body
        from unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::text[]) with ordinality
             as r(message_id, topic, key, partition, body, n)
        where (select count(*) from locks) >= 0
        order by r.n
    )
    select pg_current_xact_id()::text{wake}
    """


def _check(event: Event, key: str | None, headers: Mapping[str, str]) -> None:
    if not event.topic:
        msg = f"{type(event).__name__} needs a class attribute topic"
    elif key is not None and not is_id(key):
        msg = f"key must be None or 1 to {MAX_ID_CHARS} characters without NUL, not {key!r}"
    elif "key" in headers:
        msg = "the header `key` is the ordering key: pass key= instead"
    else:
        return
    raise InvalidEventError(msg)


def _headers(key: str | None, correlation_id: str, cause: Message[Event] | None) -> dict[str, str]:
    headers = {"causationId": cause.message_id} if cause else {}
    headers |= _trace_headers(cause)
    # A missing key is the correlation id, so the common case costs no bytes.
    if key is not None and key != correlation_id:
        headers["key"] = key
    return headers


def _find_tracer() -> Callable[[dict[str, str]], None] | None:
    try:
        return cast(
            "Callable[[dict[str, str]], None]",
            importlib.import_module("opentelemetry.propagate").inject,
        )
    except ImportError:
        return None


_inject_trace = _find_tracer()


def _trace_headers(cause: Message[Event] | None) -> dict[str, str]:
    """Return the `traceparent` to send on: the current span's, else the cause's, else none."""
    headers: dict[str, str] = {}
    if _inject_trace is not None:
        _inject_trace(headers)
    inherited = cause.headers.get("traceparent") if cause else None
    found = headers.get("traceparent") or inherited
    return {"traceparent": found} if found else {}
