"""Projection: a read model that follows its own context's events.

Guarantee: a row shows the newest version that was applied to it; an older event, or one that
comes again, changes nothing. So a projection may be fed twice, late, or from two sides at once.
Not guaranteed: that it is up to date. It lags behind the write model by relay and consumer, and
says by how far in its `version`.

Pattern: Young, "CQRS Documents"; Richardson, *Microservices Patterns*, ch. 7 ("CQRS views").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit import limits
from labkit.dispatch import Handler
from labkit.errors import ConfigurationError
from labkit.messages import Event, Message

EventT = TypeVar("EventT", bound=Event)
RowOf = Callable[[Message[EventT]], Mapping[str, Any]]


class Projection:
    """Turns events into rows of one table.

    Args:
        name: the consumer's name; part of the inbox's key.
        table: the read model; its primary key says which row an event is about.
        version: the column that guards against older events.

    Raises:
        ConfigurationError: when the table has no such column, or no primary key.
    """

    def __init__(self, name: str, table: Table, *, version: str = "version") -> None:
        limits.name("the projection's name", name)
        limits.kind("table", table, Table)
        if version not in table.c or not list(table.primary_key):
            raise ConfigurationError(f"{table.name} needs a primary key and a column {version!r}")
        self.name = name
        self.table = table
        self._version = version
        self.handlers: dict[type[Event], Handler] = {}

    def on(self, event: type[EventT]) -> Callable[[RowOf[EventT]], RowOf[EventT]]:
        """Register how an event becomes a row: a pure function from message to column values.

        Args:
            event: the class of the event.

        Raises:
            ConfigurationError: when the event becomes a row already.
        """

        def register(row_of: RowOf[EventT]) -> RowOf[EventT]:
            if event in self.handlers:
                raise ConfigurationError(f"{self.name} shows {event.event_type} already")

            def handle(session: Session, message: Message[EventT]) -> None:
                self.apply(session.connection(), row_of(message))

            self.handlers[event] = Handler(handle)
            return row_of

        return register

    def apply(self, connection: Connection, row: Mapping[str, Any]) -> bool:
        """Write a row unless the table holds the same version of it, or a newer one.

        Args:
            connection: your transaction.
            row: all columns, with key and version.

        Returns:
            Whether it was written.
        """
        statement = insert(self.table).values(dict(row))
        newer = self.table.c[self._version] < statement.excluded[self._version]
        guarded = statement.on_conflict_do_update(
            index_elements=list(self.table.primary_key), set_=dict(row), where=newer
        )
        # Unasked, SQLAlchemy does not count the rows of an INSERT.
        counted = guarded.execution_options(preserve_rowcount=True)
        return connection.execute(counted).rowcount == 1
