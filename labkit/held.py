"""Held messages: retry, dead letter and redrive without losing a key's order.

The problem: skipping a message that failed lets the later ones of its key overtake it; waiting
for it stops everybody else. So the failed message moves from the stream into this table, its
key's later messages line up behind it, and all other keys flow.

A row's state says what happens next:

    retry     runs again when `due_at` has come; `attempts` counts the starts
    waiting   stands behind an earlier row of its key
    parked    a dead letter: stays, with reason and content, until somebody redrives it; `redrive`
              says so, until it is handled or parked again

Guarantee: rows of a key run in the order in which they were held. An attempt is counted before
it runs, so a handler that kills its process is parked too, after as many deaths. One id with
two contents is two rows, so that no dead letter hides another.
Not guaranteed: order under the `skip` policy, which parks a message without holding its key.

Pattern: Hohpe and Woolf, "Dead Letter Channel", "Resequencer".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from labkit import db, limits

# 2 ** 1024 is more than a float can hold.
_MOST_DOUBLINGS = 64


def held_table(metadata: MetaData, name: str = "held") -> Table:
    """Define the table on your metadata.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.

    Returns:
        The table; `key` is what waits together, and without one a row waits for nobody.
    """
    limits.table_name(name)
    table = Table(
        name,
        metadata,
        Column("position", BigInteger, Identity(always=True, cache=1), primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("stream", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("key", Text),
        Column("body", LargeBinary, nullable=False),
        Column("state", Text, nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("due_at", DateTime(timezone=True), nullable=False),
        Column("reason", Text),
        Column("redrive", Boolean, nullable=False, server_default="false"),
        Column("held_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
    )
    columns = table.c
    place = (columns.consumer, columns.stream, columns.partition)
    Index(f"{name}_order", *place, columns.key, columns.position)
    # The digest, since an id that comes back with other content must not get lost behind the first.
    content = func.sha256(columns.body)
    Index(f"{name}_once", *place, columns.message_id, content, unique=True)
    return table


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt: exponential, with full jitter.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        first_s: the longest pause after the first failure, in seconds.
        cap_s: the longest pause of all, in seconds.
        attempts: how often a message is tried before it is parked.
        rng: the random source.
    """

    first_s: float = 0.2
    cap_s: float = 30.0
    attempts: int = 5
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """Refuse pauses that are none, and to park messages that were never tried.

        Raises:
            ConfigurationError: when a number makes no sense.
        """
        limits.number("attempts", self.attempts, 1, 1_000_000)
        limits.number("first_s", self.first_s, 0.0)
        limits.number("cap_s", self.cap_s, 0.0)

    def delay_s(self, attempt: int) -> float:
        """Return the pause after attempt number `attempt` (from 1), in seconds."""
        longest_s = self.first_s * 2 ** min(attempt - 1, _MOST_DOUBLINGS)
        return self.rng.uniform(0, min(self.cap_s, longest_s))


class Place(NamedTuple):
    """Where messages come from and who handles them: one partition of a consumer's stream."""

    consumer: str
    stream: str
    partition: int


class HeldMessage(NamedTuple):
    """A row of the table."""

    position: int
    consumer: str
    stream: str
    partition: int
    message_id: str
    key: str | None
    body: bytes
    state: str
    attempts: int
    reason: str | None
    redrive: bool


class Held:
    """Keeps what could not be handled yet.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "held") -> None:
        self.table = held_table(metadata, table)
        self._columns = [self.table.c[name] for name in HeldMessage._fields]
        # A row is the first of its key when the index shows none before it.
        self._due = text(f"""
            select {", ".join(HeldMessage._fields)} from {db.quoted_in_text(self.table)} as held
            where consumer = :consumer and stream = :stream and partition = :partition
              and (state = 'parked' and redrive or state <> 'parked' and due_at <= :now)
              and not exists (
                select from {db.quoted_in_text(self.table)} as earlier
                where earlier.consumer = held.consumer and earlier.stream = held.stream
                  and earlier.partition = held.partition and earlier.key = held.key
                  and earlier.position < held.position)
            order by position limit :limit
        """)

    def add(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Hold messages, in this order; one that is held already stays where it is.

        Args:
            connection: your transaction.
            rows: consumer, stream, partition, message_id, key, body, state, attempts, due_at,
                reason.
        """
        if rows:
            connection.execute(insert(self.table).on_conflict_do_nothing(), list(rows))

    def keys(self, connection: Connection, place: Place) -> set[str | None]:
        """Return the keys that have rows, whose later messages must wait; None for rows without."""
        query = select(self.table.c.key).distinct().where(*self._at(place))
        return set(connection.execute(query).scalars())

    def due(
        self, connection: Connection, place: Place, now: datetime, limit: int
    ) -> list[HeldMessage]:
        """Return the first row of each key whose time has come or that is to be redriven.

        Args:
            connection: your transaction.
            place: where to look.
            now: the time.
            limit: how many rows, at most.
        """
        parameters = {**place._asdict(), "now": now, "limit": limit}
        return [HeldMessage(*row) for row in connection.execute(self._due, parameters)]

    def following(
        self, connection: Connection, row: HeldMessage, now: datetime
    ) -> HeldMessage | None:
        """Return the row behind one that is done, if it is due too.

        Why not ask `due` again: a long line behind one dead letter would be searched once per row.
        """
        columns = self.table.c
        is_parked = columns.state == "parked"
        is_due = or_(and_(is_parked, columns.redrive), and_(~is_parked, columns.due_at <= now))
        place = Place(row.consumer, row.stream, row.partition)
        behind = select(*self._columns, is_due).where(
            *self._at(place), columns.key == row.key, columns.position > row.position
        )
        found = connection.execute(behind.order_by(columns.position).limit(1)).first()
        return HeldMessage(*found[:-1]) if found and found[-1] else None

    def start(
        self, connection: Connection, rows: Sequence[HeldMessage], next_due: datetime
    ) -> dict[int, int]:
        """Count an attempt of each before it runs.

        Args:
            connection: a transaction that commits before the attempts.
            rows: what will be tried.
            next_due: when to try again if this process dies meanwhile.

        Returns:
            The number of each attempt by the row's position; none for rows that somebody deleted.
        """
        counted = (
            update(self.table)
            .where(self._among(rows))
            .values(attempts=self.table.c.attempts + 1, state="retry")
            .values(due_at=next_due)
            .returning(self.table.c.position, self.table.c.attempts)
        )
        return {row.position: row.attempts for row in connection.execute(counted)}

    def fail(
        self, connection: Connection, row: HeldMessage, reason: str, due: datetime | None
    ) -> None:
        """Note why an attempt failed.

        Args:
            connection: your transaction.
            row: what was tried.
            reason: why it failed.
            due: when to try again; None parks it.
        """
        parked = {"state": "parked", "redrive": False}
        state = parked if due is None else {"state": "retry", "due_at": due}
        where = self.table.c.position == row.position
        failed = update(self.table).where(where)
        # Without its key, a row holds nobody: so do those whose key may go on.
        connection.execute(failed.values(reason=reason, key=row.key, **state))

    def done(self, connection: Connection, rows: Sequence[HeldMessage]) -> None:
        """Remove rows in the transaction that handled them."""
        connection.execute(delete(self.table).where(self._among(rows)))

    def _among(self, rows: Sequence[HeldMessage]) -> ColumnElement[bool]:
        return self.table.c.position == func.any([row.position for row in rows])

    def _at(self, place: Place) -> list[Any]:
        columns = self.table.c
        return [columns[name] == value for name, value in place._asdict().items()]
