"""Enricher: adds what a message lacks, from a copy of ours that events keep.

The problem: a message names an article, and we need its title. Asking the catalogue in the
middle of a handler makes its outage ours, and holds a transaction open while we wait.

Guarantee: enriching is one query in your own database. The copy shows the newest version that
was learned of each key; an older event, or one that comes again, changes nothing, also after the
key was removed. What the copy does not know is told by key, never guessed and never fetched.
Not guaranteed: that the copy is up to date; it lags behind its source by a relay and a consumer.

Crash windows: none of its own; all happens in your transaction.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Content Enricher"; Fowler, "Event
Collaboration" (a copy of other services' data).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from labkit import limits


def copy_table(metadata: MetaData, name: str) -> Table:
    """Define the table on your metadata; without content, a key was removed at its source.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.
    """
    limits.table_name(name)
    return Table(
        name,
        metadata,
        Column("key", Text, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("content", JSONB(none_as_null=True)),
    )


class Enriched(NamedTuple):
    """The records with what the copy knows, and the keys that it does not know, in order."""

    records: list[dict[str, Any]]
    missing: list[str]


class Enricher:
    """Keeps a copy of somebody else's data, and adds it to ours.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "local_copy") -> None:
        self.table = copy_table(metadata, table)

    def learn(
        self,
        session: Session | Connection,
        key: str,
        version: int,
        content: Mapping[str, Any] | None,
    ) -> bool:
        """Note what an event tells about a key, unless the copy knows this version or a newer one.

        Args:
            session: your transaction; joins it, never commits.
            key: what the event is about.
            version: how often its source has changed it; rises with each event.
            content: fields as JSON, or None when it was removed at its source.

        Returns:
            Whether it was news.
        """
        row = {"version": version, "content": None if content is None else dict(content)}
        new = insert(self.table).values(key=key, **row)
        newer = new.on_conflict_do_update(
            index_elements=["key"], set_=row, where=self.table.c.version < version
        )
        return session.execute(newer.returning(self.table.c.key)).scalar() is not None

    def enrich(
        self, session: Session | Connection, records: Iterable[Mapping[str, Any]], *, by: str
    ) -> Enriched:
        """Add to each record what the copy knows about its key.

        Args:
            session: your transaction; joins it, never commits.
            records: fields by name; a field that a record has stays as it is.
            by: the field that holds the key, such as `sku`.

        Returns:
            All records, enriched or not, and the keys that are missing: wait, go on without, or
            let it be a dead letter.
        """
        given = [dict(record) for record in records]
        keys = list(dict.fromkeys(record[by] for record in given))
        known = self._known(session, keys)
        return Enriched(
            [known.get(record[by], {}) | record for record in given],
            [key for key in keys if key not in known],
        )

    def _known(self, session: Session | Connection, keys: list[str]) -> dict[str, Any]:
        columns = self.table.c
        asked = columns.key == func.any(keys)
        found = select(columns.key, columns.content).where(asked, columns.content.is_not(None))
        return {row.key: row.content for row in session.execute(found)} if keys else {}
