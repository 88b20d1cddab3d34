"""Rebuild: a projection made anew from retained events while the old one goes on serving.

The problem: new code shows an event otherwise, so all of its rows are wrong at once. Emptying the
view shows nothing to anybody for as long as the replay takes, and what happens meanwhile is lost.

How: a table beside the live one is filled from the service's own outbox, whose rows are the log,
in `seq` order, while the live projection goes on. Then one short transaction keeps the writers of
view and outbox out, adds what came last, and puts the new table in the place of the old one.

Guarantee: a reader sees the old view or the new one, never an empty one, never a row that
disappears or an older version of it; every event committed before the swap is in the new view.
Whatever fails, or is killed, leaves the live view as it was; the next rebuild starts over.
Not guaranteed: views, triggers and grants that hang on the old table (PostgreSQL refuses to drop
what others depend on; grants must be given again); that a rebuild and the retention of the outbox
do not compete: what was deleted before its replay is found missing, and refused.

Crash windows:
    rebuild.before_swap   all is ready and nothing committed: the live view is untouched

Pattern: Young, "CQRS Documents" (rebuilding a read model); Fowler, "BlueGreenDeployment".
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, Engine, MetaData, Select, Table, and_, exists, func, select, text
from sqlalchemy.exc import DBAPIError

from labkit import crash, db
from labkit.errors import ConfigurationError, TransientError
from labkit.messages import Registry
from labkit.outbox import Outbox
from labkit.projection import Projection
from labkit.wire import decode_envelope

SUFFIX = "__new"
_MAX_NAME_BYTES = 63
_BATCH = 1000
# Shorter than PostgreSQL's deadlock_timeout: whoever waits for us in a circle, we give way. And
# everybody who comes later queues behind our lock for so long.
_LOCK_TIMEOUT_S = 0.5
_PAUSE_S = 0.1
_LOCKED_OUT = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class RebuildReport(NamedTuple):
    """What a rebuild did: events replayed, rows in the new view, seconds of the swap's locks."""

    events: int
    rows: int
    locked_s: float


def rebuild(
    engine: Engine,
    projection: Projection,
    outbox: Outbox,
    registry: Registry,
    *,
    snapshot: Select[Any] | None = None,
    first_version: Any = 1,
    within_s: float = 60.0,
) -> RebuildReport:
    """Make a projection anew from its context's retained events, and swap it in.

    Args:
        engine: the service's database, from `labkit.db.connect`; its time limits hold for the
            snapshot and the swap.
        projection: with the new row functions and the new table definition.
        outbox: the service's own; events are read from nowhere else.
        registry: how to read them.
        snapshot: a query of the write model that gives rows of the view, for what no retained
            event tells. It is read at the start and again under the lock.
        first_version: the version of a row that nothing came before.
        within_s: how long to try to get the locks, in seconds.

    Returns:
        What was done.

    Raises:
        ConfigurationError: when the retained events are not the whole history and there is no
            snapshot, when a row of the live view follows from neither, or another rebuild runs.
        TransientError: when others kept the locks for `within_s`.
        PermanentError: when an event cannot be read; so does any error of a row function go out.
    """
    with _alone(engine, projection):
        first = first_version if snapshot is None else None
        replay = _Replay(engine, projection, outbox, registry, first)
        replay.begin()
        if snapshot is not None:
            with engine.begin() as connection:
                replay.add(connection, snapshot)
        return _insist(lambda: _catch_up_and_swap(engine, replay, snapshot), within_s)


def _catch_up_and_swap(
    engine: Engine, replay: _Replay, snapshot: Select[Any] | None
) -> RebuildReport:
    # Most of the work goes without locks; what comes meanwhile is the swap's to add.
    replay.up_to(replay.horizon())
    with engine.begin() as connection:
        _give_way(connection)
        started_s = time.monotonic()
        # In this order, because writers take them in this order too: the view, and the outbox
        # right before their COMMIT. Readers go on until the very end.
        _lock(connection, replay.live, "share row exclusive")
        _lock(connection, replay.outbox.table, "share")
        replay.rest(connection)
        if snapshot is not None:
            replay.add(connection, snapshot)
        replay.refuse_to_go_back(connection)
        rows: int = connection.execute(select(func.count()).select_from(replay.made)).scalar_one()
        _put_in_place(connection, replay)
        # Crash window: all is ready and nothing committed; the live view is untouched.
        crash.point("rebuild.before_swap")
    return RebuildReport(replay.events, rows, round(time.monotonic() - started_s, 3))


class _Replay:
    """The table beside the live one, and how far the outbox was replayed into it."""

    def __init__(
        self,
        engine: Engine,
        projection: Projection,
        outbox: Outbox,
        registry: Registry,
        first_version: Any,
    ) -> None:
        self.live = projection.table
        self.made = _beside(projection.table)
        self.outbox = outbox
        self.events = 0
        self._engine = engine
        self._registry = registry
        self._version = projection.version
        self._projection = projection.onto(self.made)
        self._types = {event.event_type for event in projection.handlers}
        self._first_version = first_version
        self._done = 0
        self._begun: set[tuple[Any, ...]] = set()

    def begin(self) -> None:
        """Make the table, instead of the one that a killed rebuild left."""
        with self._engine.begin() as connection:
            _give_way(connection)
            self.made.drop(connection, checkfirst=True)
            self.made.create(connection)

    def horizon(self) -> int:
        """Return a `seq` below which everything is committed or gone.

        Why not max(seq) alone: a transaction that commits late would be skipped for ever.
        """
        with self._engine.begin() as connection:
            _give_way(connection)
            _lock(connection, self.outbox.table, "share")
            return connection.execute(select(func.max(self.outbox.table.c.seq))).scalar() or 0

    def up_to(self, horizon: int) -> None:
        """Replay in transactions of a batch each."""
        while self._done < horizon:
            with self._engine.begin() as connection:
                reached, events = self._batch(connection, horizon)
            # Only now: a batch that was rolled back is done again.
            self._done, self.events = reached, self.events + events

    def rest(self, connection: Connection) -> None:
        """Replay what is left, in the caller's transaction; nothing is noted as done by it."""
        for body in self._bodies(connection, self._done, None):
            self._show(connection, body)

    def add(self, connection: Connection, snapshot: Select[Any]) -> None:
        """Add the rows of a query, each unless there is the same version of it or a newer one."""
        self._projection.apply_query(connection, snapshot)

    def refuse_to_go_back(self, connection: Connection) -> None:
        """Refuse a view in which a live row is missing, or older.

        Raises:
            ConfigurationError: naming the row.
        """
        live, made = self.live.alias("live"), self.made.alias("made")
        same = and_(*(live.c[c.name] == made.c[c.name] for c in self.live.primary_key))
        as_new = exists().where(same, made.c[self._version] >= live.c[self._version])
        keys = [live.c[column.name] for column in self.live.primary_key]
        behind = connection.execute(select(*keys).where(~as_new).limit(1)).first()
        if behind is not None:
            raise ConfigurationError(
                f"{self.live.name}: row {tuple(behind)} follows from no retained event: "
                "give rebuild a snapshot= of the write model"
            )

    def _batch(self, connection: Connection, horizon: int) -> tuple[int, int]:
        columns = self.outbox.table.c
        query = select(columns.seq).where(columns.seq > self._done).order_by(columns.seq)
        seqs = connection.execute(query.limit(_BATCH)).scalars().all()
        reached = min(horizon, seqs[-1] if seqs else horizon)
        bodies = self._bodies(connection, self._done, reached)
        return reached, sum(self._show(connection, body) for body in bodies)

    def _bodies(self, connection: Connection, after: int, until: int | None) -> list[str]:
        columns = self.outbox.table.c
        query = select(columns.body).where(columns.seq > after).order_by(columns.seq)
        if until is not None:
            query = query.where(columns.seq <= until)
        return list(connection.execute(query).scalars())

    def _show(self, connection: Connection, body: str) -> bool:
        envelope = decode_envelope(body.encode())
        # Why not by topic: older versions of an event travelled under another one.
        if envelope.event.type not in self._types:
            return False
        row = self._projection.row(self._registry.message(envelope))
        self._refuse_a_later_beginning(row)
        self._projection.apply(connection, row)
        return True

    def _refuse_a_later_beginning(self, row: Any) -> None:
        if self._first_version is None:
            return
        key = tuple(row[column.name] for column in self.live.primary_key)
        if key not in self._begun and row[self._version] != self._first_version:
            raise ConfigurationError(
                f"{self.live.name}: the oldest retained event of {key} is version "
                f"{row[self._version]}, not {self._first_version}: its history is gone or begins "
                "elsewhere; give rebuild a snapshot= of the write model"
            )
        self._begun.add(key)


def _beside(live: Table) -> Table:
    """Return the same table under another name, its indexes too: their names are shared."""
    made = live.to_metadata(MetaData(), name=live.name + SUFFIX)
    indexes_and_constraints: set[Any] = {*made.indexes, *made.constraints}
    for named in indexes_and_constraints:
        if named.name is not None:
            named.name = f"{named.name}{SUFFIX}"
    names = [made.name, *(str(index.name) for index in made.indexes)]
    if too_long := [name for name in names if len(name.encode()) > _MAX_NAME_BYTES]:
        raise ConfigurationError(f"{too_long[0]} is too long a name: shorten it by {len(SUFFIX)}")
    return made


def _put_in_place(connection: Connection, replay: _Replay) -> None:
    """Drop the live table and give its name, and its indexes' names, to the new one."""
    made, quote = db.quoted_in_text(replay.made), connection.dialect.identifier_preparer.quote
    indexes = "select relname from pg_index join pg_class on oid = indexrelid "
    find = text(f"{indexes} where indrelid = cast(:made as regclass)")
    names = connection.execute(find, {"made": db.quoted(replay.made)}).scalars().all()
    replay.live.drop(connection)
    connection.execute(text(f"alter table {made} rename to {quote(replay.live.name)}"))
    schema = f"{quote(replay.live.schema)}." if replay.live.schema else ""
    for name in names:
        # The last one: the live name may hold such letters too.
        rename = f"{schema}{quote(name)} rename to {quote(''.join(name.rsplit(SUFFIX, 1)))}"
        connection.execute(text(f"alter index {rename}"))


def _lock(connection: Connection, table: Table, mode: str) -> None:
    connection.execute(text(f"lock table {db.quoted_in_text(table)} in {mode} mode"))


def _give_way(connection: Connection) -> None:
    connection.execute(text(f"set local lock_timeout = {int(_LOCK_TIMEOUT_S * 1000)}"))


def _insist(attempt: Callable[[], RebuildReport], within_s: float) -> RebuildReport:
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            return attempt()
        except DBAPIError as error:
            if not isinstance(error.orig, _LOCKED_OUT):
                raise
            if time.monotonic() > deadline_s:
                raise TransientError(
                    f"no lock on view and outbox within {within_s:.0f} s: a long transaction "
                    "reads or writes them; end it and rebuild again"
                ) from error
        time.sleep(_PAUSE_S)


@contextmanager
def _alone(engine: Engine, projection: Projection) -> Iterator[None]:
    """Keep other rebuilds of this projection out; a killed one does not, its connection is gone."""
    key = {"key": zlib.crc32(f"labkit rebuild {projection.table.fullname}".encode())}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(text("select pg_try_advisory_lock(:key)"), key).scalar():
            raise ConfigurationError(f"{projection.name} is being rebuilt already: wait for it")
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:key)"), key)
