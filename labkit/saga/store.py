"""Where sagas are kept: one row each, and the history of everything that happened to them.

Guarantee: whoever works on a saga holds its row's lock, so two messages of one saga, or a message
and its deadline, follow each other; a row that changed all the same is refused by its version.
Not guaranteed: that a row goes away. Nothing deletes a saga that has ended: it is the record.

Why no table of deadlines: a saga waits for one thing at a time, so its deadline is a column of its
row, written by the statement that writes the state. It cannot be forgotten or outlive its step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct
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
    select,
)

from labkit import db, limits
from labkit.errors import ConfigurationError, TransientError
from labkit.saga.definition import Saga
from labkit.saga.state import ENDED, Note, State


class Row(NamedTuple):
    """A saga as it is stored; `revision` counts its changes."""

    saga: str
    id: str
    version: int
    state: str
    revision: int


class Stored(Protocol):
    """What a row can hold: a saga's state, or a process manager's."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def due_at(self) -> datetime | None: ...  # noqa: D102


class Change(NamedTuple):
    """A new state, and the revision that it replaces."""

    state: Stored
    revision: int


class Noted(NamedTuple):
    """A line of a saga's history, and the message or the person that caused it, if one did."""

    saga_id: str
    note: Note
    message_id: str | None = None
    who: str | None = None


def saga_tables(metadata: MetaData) -> tuple[Table, Table]:
    """Define the tables `saga` and `saga_history` on your metadata, once per database.

    `state` is all that the saga remembers, as JSON; the other columns say the same to whoever
    reads the table with SQL.
    """
    if "saga" in metadata.tables:
        return metadata.tables["saga"], metadata.tables["saga_history"]
    saga = Table(
        "saga",
        metadata,
        Column("saga", Text, primary_key=True),
        Column("id", Text, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("status", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("reason", Text),
        Column("due_at", DateTime(timezone=True)),
        Column("started_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("revision", BigInteger, nullable=False),
    )
    Index("saga_due", saga.c.due_at, postgresql_where=saga.c.due_at.is_not(None))
    # What a person asks for: who is stuck, who is under way. Most rows have ended.
    under_way = saga.c.status.not_in([str(status) for status in sorted(ENDED)])
    Index("saga_under_way", saga.c.status, postgresql_where=under_way)
    history = Table(
        "saga_history",
        metadata,
        Column("seq", BigInteger, Identity(always=True), primary_key=True),
        Column("saga", Text, nullable=False),
        Column("id", Text, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("what", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("message_id", Text),
        Column("who", Text),
    )
    Index("saga_history_of", history.c.saga, history.c.id)
    return saga, history


class Store:
    """Reads and writes the rows of one saga, in the caller's transaction.

    Args:
        metadata: where to define the tables.
        saga: the name that all its versions share.
    """

    def __init__(self, metadata: MetaData, saga: str) -> None:
        self.saga = saga
        self.table, self.history = saga_tables(metadata)
        table, noted = db.quoted(self.table), _noting(db.quoted(self.history))
        # State and history are one statement: each costs a round trip while rows are locked.
        self._insert = f"""
            with new as (
                insert into {table} (saga, id, {", ".join(_CHANGED)}, started_at, revision)
                select %s, r.id, {", ".join(f"r.{name}" for name in _CHANGED)}, r.updated_at, 1
                from json_to_recordset(%s::json) as r(id text, {_TYPED})
                on conflict do nothing returning id
            ), noted as ({noted} where r.id in (select id from new) order by r.n)
            select id from new
            """
        self._update = f"""
            with changed as (
                update {table} as t set ({", ".join(_CHANGED)}, revision)
                    = ({", ".join(f"r.{name}" for name in _CHANGED)}, t.revision + 1)
                from json_to_recordset(%s::json) as r(id text, revision bigint, {_TYPED})
                where t.saga = %s and t.id = r.id and t.revision = r.revision
                returning 1
            ), noted as ({noted} order by r.n)
            select count(*) from changed
            """
        self._lock = f"""
            select {", ".join(Row._fields)} from {table} where saga = %s and id = any(%s)
            order by id for update
            """

    def locked(
        self, connection: Connection, ids: Collection[str], *, skip: bool = False
    ) -> dict[str, Row]:
        """Return sagas by id, locked in one order, so that two that need the same ones wait.

        Args:
            connection: your transaction.
            ids: which.
            skip: leave out what somebody else has locked, instead of waiting.
        """
        if not ids:
            return {}
        query = self._lock + (" skip locked" if skip else "")
        rows = connection.exec_driver_sql(query, (self.saga, list(ids)))
        return {row.id: Row(*row) for row in rows}

    def due(
        self, connection: Connection, now: datetime, versions: Collection[int], limit: int
    ) -> list[str]:
        """Return the ids of sagas of some versions whose time is over, the longest ago first."""
        table = self.table.c
        mine = (table.saga == self.saga) & table.version.in_(versions)
        is_due = mine & (table.due_at <= now)
        query = select(table.id).where(is_due).order_by(table.due_at).limit(limit)
        return list(connection.execute(query).scalars())

    def insert(
        self,
        connection: Connection,
        states: Sequence[Stored],
        now: datetime,
        notes: Sequence[Noted] = (),
    ) -> set[str]:
        """Write new sagas, with lines of their history; return the ids that did not exist."""
        # In one order, since a row waits for whoever writes the same id.
        ordered = sorted(states, key=lambda state: state.id)
        rows = _json([_columns_of(state, now) | {"id": state.id} for state in ordered])
        values = (self.saga, rows, self.saga, _lines(notes, now))
        return set(connection.exec_driver_sql(self._insert, values).scalars())

    def update(
        self,
        connection: Connection,
        changes: Sequence[Change],
        now: datetime,
        notes: Sequence[Noted] = (),
    ) -> None:
        """Write changed sagas, and lines of the history.

        Raises:
            TransientError: when one of them was changed by somebody who did not lock it.
        """
        rows = _json(
            [
                _columns_of(each.state, now) | {"id": each.state.id, "revision": each.revision}
                for each in changes
            ]
        )
        values = (rows, self.saga, self.saga, _lines(notes, now))
        written = connection.exec_driver_sql(self._update, values).scalar_one()
        if written != len(changes):
            raise TransientError(f"a {self.saga} was changed meanwhile: try again")


_CHANGED = ("version", "status", "step", "state", "reason", "due_at", "updated_at")
_TYPED = (
    "version int, status text, step text, state text, reason text, "
    "due_at timestamptz, updated_at timestamptz"
)


def _noting(history: str) -> str:
    return f"""
        insert into {history} (saga, id, at, what, step, detail, message_id, who)
        select %s, r.id, r.at, r.what, r.step, r.detail, r.message_id, r.who
        from rows from (json_to_recordset(%s::json) as (id text, at timestamptz, what text,
            step text, detail text, message_id text, who text))
            with ordinality as r(id, at, what, step, detail, message_id, who, n)
        """


def _lines(notes: Sequence[Noted], now: datetime) -> str:
    return _json(
        [
            each.note._asdict()
            | {"id": each.saga_id, "at": now, "message_id": each.message_id, "who": each.who}
            for each in notes
        ]
    )


def _columns_of(state: Stored, now: datetime) -> dict[str, Any]:
    return {
        "version": state.version,
        "status": state.status,
        "step": state.step,
        "state": _json(state),
        "reason": state.reason,
        "due_at": state.due_at,
        "updated_at": now,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def refuse_unreadable(data: Any, wanted: type[Struct]) -> None:
    """Refuse data that would be something else when it is read again.

    Raises:
        ConfigurationError: when it is of another class, or does not survive JSON.
    """
    limits.kind("data", data, wanted)
    try:
        survives = msgspec.json.decode(_json(data), type=wanted) == data
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"data does not survive JSON: {error}") from error
    if not survives:
        raise ConfigurationError(f"data does not survive JSON (NaN, a wrong type): {data!r:.200}")


def read_state(row: Row, definitions: Mapping[int, Saga]) -> State:
    """Return the state that a row holds, with its data as the definition's struct."""
    state = msgspec.json.decode(row.state, type=State)
    return state.with_(data=msgspec.convert(state.data, definitions[row.version].data))
