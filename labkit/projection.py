"""Projection: a read model that follows its own context's events.

Guarantee: a row shows the newest version that was applied to it; an older event, or one that
comes again, changes nothing. So a projection may be fed twice, late, or from two sides at once.
Not guaranteed: that it is up to date. It lags behind the write model by relay and consumer, and
says by how far in its `version`. New code for old events: `labkit.rebuild`.

Pattern: Young, "CQRS Documents"; Richardson, *Microservices Patterns*, ch. 7 ("CQRS views").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import ConfigurationError
from labkit.handlers import Handler
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
        ConfigurationError: when the table has no primary key or no such column: then every event
            would become a row of its own, or the oldest could win.
    """

    def __init__(self, name: str, table: Table, *, version: str = "version") -> None:
        limits.name("the projection's name", name)
        limits.kind("table", table, Table)
        if version not in table.c or not list(table.primary_key):
            raise ConfigurationError(f"{table.name} needs a primary key and a column {version!r}")
        self.name = name
        self.table = table
        self.version = version
        self._rows: dict[type[Event], RowOf[Any]] = {}
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
            self._rows[event] = row_of
            return row_of

        return register

    def onto(self, table: Table) -> Projection:
        """Return a projection that shows the same events the same way in another table."""
        other = Projection(self.name, table, version=self.version)
        for event, row_of in self._rows.items():
            other.on(event)(row_of)
        return other

    def row(self, message: Message[Event]) -> Mapping[str, Any]:
        """Return the row that shows an event."""
        return self._rows[type(message.event)](message)

    def apply(self, connection: Connection, row: Mapping[str, Any]) -> bool:
        """Write a row unless the table holds the same version of it, or a newer one.

        Args:
            connection: your transaction.
            row: all columns, with key and version.

        Returns:
            Whether it was written.
        """
        guarded = self._guarded(insert(self.table).values(dict(row)), list(row))
        # Unasked, SQLAlchemy does not count the rows of an INSERT.
        counted = guarded.execution_options(preserve_rowcount=True)
        return connection.execute(counted).rowcount == 1

    def apply_query(self, connection: Connection, rows: Select[Any]) -> None:
        """Write the rows of a query under the same guard, as one statement.

        Args:
            connection: your transaction.
            rows: a query of this database whose columns are named as the table's.
        """
        names = [column.name for column in rows.selected_columns]
        connection.execute(self._guarded(insert(self.table).from_select(names, rows), names))

    def _guarded(self, statement: Insert, names: Sequence[str]) -> Insert:
        newer = self.table.c[self.version] < statement.excluded[self.version]
        return statement.on_conflict_do_update(
            index_elements=list(self.table.primary_key),
            set_={name: statement.excluded[name] for name in names},
            where=newer,
        )
