"""Held messages: retry, dead letter and redrive without losing a key's order.

The problem: skipping a message that failed lets the later ones of its key overtake it; waiting
for it stops everybody else. So the failed message moves from the stream into this table, its
key's later messages line up behind it, and all other keys flow.

A row's state says what happens next:

    retry     runs again when `due_at` has come; `attempts` counts the starts
    waiting   stands behind an earlier row of its key
    parked    a dead letter: stays, with reason and content, until somebody redrives it

Guarantee: rows of a key run in the order in which they were held. An attempt is counted before
it runs, so a handler that kills its process is parked too, after as many deaths.
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
    Connection,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from labkit import db

MAX_REASON_CHARS = 2000


def held_table(metadata: MetaData, name: str = "held") -> Table:
    """Define the table on your metadata.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.

    Returns:
        The table; `key` is what waits together.
    """
    table = Table(
        name,
        metadata,
        Column("position", BigInteger, Identity(always=True, cache=1), primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("key", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("state", Text, nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("due_at", DateTime(timezone=True), nullable=False),
        Column("reason", Text),
        Column("redrive", Boolean, nullable=False, server_default="false"),
        Column("held_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
        UniqueConstraint("consumer", "message_id"),
    )
    Index(f"{name}_order", table.c.consumer, table.c.partition, table.c.key, table.c.position)
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

    def delay_s(self, attempt: int) -> float:
        """Return the pause after attempt number `attempt` (from 1), in seconds."""
        return self.rng.uniform(0, min(self.cap_s, self.first_s * 2 ** (attempt - 1)))


class HeldMessage(NamedTuple):
    """A row of the table."""

    position: int
    consumer: str
    message_id: str
    partition: int
    key: str
    body: bytes
    state: str
    attempts: int
    reason: str | None


class Held:
    """Keeps what could not be handled yet.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "held") -> None:
        self.table = held_table(metadata, table)
        self._columns = [self.table.c[name] for name in HeldMessage._fields]
        self._due = text(f"""
            select {", ".join(HeldMessage._fields)} from (
                select distinct on (key) * from {db.quoted_in_text(self.table)}
                where consumer = :consumer and partition = :partition
                order by key, position
            ) as head
            where redrive or (state <> 'parked' and due_at <= :now)
            order by position
        """)

    def add(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Hold messages, in this order; one that is held already stays where it is.

        Args:
            connection: your transaction.
            rows: consumer, message_id, partition, key, body, state, attempts, due_at, reason.
        """
        if rows:
            connection.execute(insert(self.table).on_conflict_do_nothing(), list(rows))

    def keys(self, connection: Connection, consumer: str, partition: int) -> set[str]:
        """Return the keys that have rows, whose later messages must wait."""
        where = self._of(consumer, partition)
        return set(connection.execute(select(self.table.c.key).distinct().where(*where)).scalars())

    def due(
        self, connection: Connection, consumer: str, partition: int, now: datetime
    ) -> list[HeldMessage]:
        """Return the first row of each key whose time has come or that is to be redriven."""
        parameters = {"consumer": consumer, "partition": partition, "now": now}
        return [HeldMessage(*row) for row in connection.execute(self._due, parameters)]

    def start(self, connection: Connection, row: HeldMessage, next_due: datetime) -> int:
        """Count an attempt before it runs; return its number.

        Args:
            connection: a transaction that commits before the attempt.
            row: what will be tried.
            next_due: when to try again if this process dies meanwhile.
        """
        counted = (
            update(self.table)
            .where(self.table.c.position == row.position)
            .values(attempts=self.table.c.attempts + 1, state="retry", redrive=False)
            .values(due_at=next_due)
            .returning(self.table.c.attempts)
        )
        attempts: int = connection.execute(counted).scalar_one()
        return attempts

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
        values: dict[str, Any] = {"reason": reason[:MAX_REASON_CHARS]}
        values |= {"state": "parked"} if due is None else {"state": "retry", "due_at": due}
        where = self.table.c.position == row.position
        connection.execute(update(self.table).where(where).values(values))

    def done(self, connection: Connection, row: HeldMessage) -> None:
        """Remove a row in the transaction that handled it."""
        connection.execute(delete(self.table).where(self.table.c.position == row.position))

    def dead_letters(
        self, connection: Connection, consumer: str | None = None
    ) -> list[HeldMessage]:
        """Return the parked rows, oldest first, of one consumer or of all."""
        where = [self.table.c.state == "parked"]
        where += [self.table.c.consumer == consumer] if consumer else []
        query = select(*self._columns).where(*where).order_by(self.table.c.position)
        return [HeldMessage(*row) for row in connection.execute(query)]

    def redrive(self, connection: Connection, consumer: str, message_id: str) -> bool:
        """Ask for a parked message to be tried again, in its place.

        It only sets a flag: the partition's owner runs it before anything later of its key.

        Args:
            connection: your transaction.
            consumer: whose dead letter it is.
            message_id: which one.

        Returns:
            False when there is no such dead letter.
        """
        columns = self.table.c
        flagged = (
            update(self.table)
            .where(columns.consumer == consumer, columns.message_id == message_id)
            .where(columns.state == "parked")
            .values(redrive=True, attempts=0)
        )
        return connection.execute(flagged).rowcount > 0

    def _of(self, consumer: str, partition: int) -> list[Any]:
        return [self.table.c.consumer == consumer, self.table.c.partition == partition]
