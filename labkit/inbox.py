"""Inbox: a message's effect happens once, because its id is stored with the effect.

The problem: every transport repeats messages (a crash after the effect and before the
acknowledgement is enough). Noting the id *before* the effect, in a transaction of its own,
loses the effect when the process dies in between; noting it *after* applies it twice.

Guarantee: inbox row, effect and outgoing events are one transaction, so the effect of a message
is applied exactly once per (consumer, message id) for as long as the row is kept. An id that
comes back with other content is reported, never ignored.
Not guaranteed: anything outside the database (an e-mail, a payment) and anything after the row
was deleted by retention.

Crash windows: none of its own; a crash before the commit leaves nothing, after it a duplicate
that this table absorbs.

Pattern: Richardson, *Microservices Patterns*, ch. 3; Hohpe and Woolf, "Idempotent Receiver".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    select,
)

from labkit import db, limits
from labkit.errors import InvalidMessageError
from labkit.wire import ID_RULE, is_id


def inbox_table(metadata: MetaData, name: str = "inbox_messages") -> Table:
    """Define the table on your metadata.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.

    Returns:
        The table; the consumer's name is part of the key, or a second consumer would starve.
    """
    limits.table_name(name)
    return Table(
        name,
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Text, primary_key=True),
        Column("digest", LargeBinary, nullable=False),
        Column("handled_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
    )


class Accepted(NamedTuple):
    """What `accept` found: ids to handle now, and ids that came back with other content."""

    fresh: set[str]
    mismatched: set[str]


class Inbox:
    """Says which messages are new, in the transaction that will handle them.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "inbox_messages") -> None:
        self.table = inbox_table(metadata, table)
        quoted = db.quoted(self.table)
        # ON CONFLICT DO NOTHING waits for a concurrent transaction with the same id and becomes
        # the worker if that one rolls back. Why not a plain INSERT: a duplicate would abort the
        # transaction that everything else is in.
        self._insert = f"""
            insert into {quoted} (consumer, message_id, digest)
            select %s, r.key, decode(r.value, 'hex') from json_each_text(%s::json) as r
            on conflict do nothing
            returning message_id
            """

    def accept(
        self, connection: Connection, consumer: str, digests: Mapping[str, bytes]
    ) -> Accepted:
        """Note ids as handled; true only if your transaction commits.

        Args:
            connection: your transaction; handle the fresh messages in it too.
            consumer: who handles them.
            digests: message id to SHA-256 of its content (32 bytes).

        Returns:
            The ids that were not known, and the known ids whose content differs.

        Raises:
            InvalidMessageError: when one is no id; your transaction goes on.
        """
        for bad in [each for each in digests if not is_id(each)]:
            raise InvalidMessageError(f"a message id must be {ID_RULE}, not {bad!r:.80}")
        # Sorted: two transactions that know the same ids must not wait for each other in a circle.
        # Why not arrays: psycopg writes them element by element in Python.
        noted = msgspec.json.encode({i: digests[i].hex() for i in sorted(digests)}).decode()
        fresh = set(connection.exec_driver_sql(self._insert, (consumer, noted)).scalars())
        known = [message_id for message_id in digests if message_id not in fresh]
        stored = self.handled(connection, consumer, known)
        return Accepted(fresh, {i for i in known if stored.get(i, digests[i]) != digests[i]})

    def handled(
        self, connection: Connection, consumer: str, ids: Sequence[str]
    ) -> dict[str, bytes]:
        """Return which ids were handled, each with its digest, without noting anything."""
        if not ids:
            return {}
        columns = self.table.c
        query = select(columns.message_id, columns.digest).where(
            columns.consumer == consumer, columns.message_id == func.any(list(ids))
        )
        return {row.message_id: row.digest for row in connection.execute(query)}
