"""PostgreSQL as labkit wants it: an engine with time limits, and a schema that many may create.

Guarantee: eight processes that call `create_all` at once create the tables once; a database
with an older or newer labkit schema is refused with the remedy; a transaction of a frozen
process ends before its lease does, so it cannot block the next owner.
Not guaranteed: migrations of your own tables; `migration_sql` prints ours for your tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from labkit import limits
from labkit.errors import CommitUnknownError, ConfigurationError

_preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
SCHEMA_VERSION = 1
DEFAULT_LEASE_S = 10.0
_FIRST_WITH_TRANSACTION_TIMEOUT = 17
_REFUSAL = re.compile("authentication failed|does not exist|no password supplied|no pg_hba.conf")
_CREATE_LOCK = (0x6C61626B, 1)  # "labk"; advisory locks are numbers


def connect(url: str | URL, *, lease_s: float = DEFAULT_LEASE_S, pool_size: int = 10) -> Engine:
    """Make an engine whose transactions end before a lease of `lease_s` does.

    Args:
        url: `postgresql+psycopg://user:password@host:port/database`.
        lease_s: the lease of the workers that share this database, in seconds.
        pool_size: connections kept open, from 1.

    Returns:
        The engine; it connects at the first use.

    Raises:
        ConfigurationError: when the address is not one of PostgreSQL with psycopg 3, or a number
            makes no sense.
    """
    limits.lease(lease_s)
    limits.number("pool_size", pool_size, 1, 1000)
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # Why not "from error": its text may hold a piece of the password.
        raise ConfigurationError(
            "the database address cannot be read: write postgresql+psycopg://user@host/name"
        ) from None
    if "@" in (address.host or ""):
        # Taken for the host, the rest of the password would be shown by every error.
        raise ConfigurationError("write the @ in the password of the database address as %40")
    if address.get_backend_name() != "postgresql" or address.get_driver_name() != "psycopg":
        raise ConfigurationError(f"labkit needs postgresql+psycopg://, not {address.drivername}://")
    engine = create_engine(
        address,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=False,
        connect_args={"application_name": "labkit", "connect_timeout": 5},
    )
    event.listen(engine, "connect", _time_limits(lease_s))
    event.listen(engine, "begin", _forget_commit)
    event.listen(engine, "rollback", _forget_commit)
    event.listen(engine, "commit", _remember_commit)
    event.listen(engine, "handle_error", _name_lost_commits)
    return engine


def transaction_limit_s(lease_s: float) -> float:
    """Return how long a transaction may take, in seconds, beside a lease of `lease_s`."""
    return lease_s / 2


def _time_limits(lease_s: float) -> Any:
    limit_ms = int(transaction_limit_s(lease_s) * 1000)

    def set_limits(connection: psycopg.Connection[Any], _record: object) -> None:
        names = ["idle_in_transaction_session_timeout", "statement_timeout"]
        if connection.info.server_version // 10_000 >= _FIRST_WITH_TRANSACTION_TIMEOUT:
            names.append("transaction_timeout")
        before, connection.autocommit = connection.autocommit, True
        for name in names:
            connection.execute("select set_config(%s, %s, false)", (name, str(limit_ms)))
        connection.autocommit = before

    return set_limits


def _forget_commit(connection: Connection) -> None:
    if connection.invalidated:
        return  # and its info with it
    connection.info.pop("labkit.xid", None)
    connection.info.pop("labkit.committing", None)


def _remember_commit(connection: Connection) -> None:
    connection.info["labkit.committing"] = True


def remember_xid(connection: Connection, xid: int) -> None:
    """Keep the transaction id, so that a COMMIT without an answer can be looked up later."""
    connection.info["labkit.xid"] = xid


def _name_lost_commits(context: ExceptionContext) -> None:
    error = context.original_exception
    # An answer with an SQLSTATE is an answer; only a server that is going away says no more by it.
    lost = isinstance(error, psycopg.OperationalError) and (error.sqlstate or "57P")[:3] == "57P"
    if context.connection is None or not lost or context.statement is not None:
        return
    info = context.connection.info
    if "labkit.committing" in info and "labkit.xid" in info:
        raise CommitUnknownError(info["labkit.xid"]) from error


def roll_back(connection: Connection) -> None:
    """Roll back below SQLAlchemy, after its commit was stopped before COMMIT was sent.

    SQLAlchemy takes a stopped commit for an ended transaction: closed only, the open one would
    go back to the pool, and the next user would commit it.
    """
    if not connection.closed and not connection.invalidated:
        connection.connection.rollback()


_schema_metadata = MetaData()
_schema_table = Table(
    "labkit_schema",
    _schema_metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)


def create_all(engine: Engine, *metadata: MetaData) -> None:
    """Create the tables that are missing; safe to call from many processes at once.

    Args:
        engine: the database.
        metadata: what to create.

    Raises:
        ConfigurationError: when the database holds another version of labkit's schema.
    """
    with engine.begin() as connection:
        lock = text("select pg_advisory_xact_lock(:a, :b)")
        connection.execute(lock, {"a": _CREATE_LOCK[0], "b": _CREATE_LOCK[1]})
        for each in (_schema_metadata, *metadata):
            each.create_all(connection)
        if _stored_version(connection) is None:
            connection.execute(insert(_schema_table), {"name": "labkit", "version": SCHEMA_VERSION})
        _refuse_other_version(_stored_version(connection))


def check_schema(engine: Engine, *metadata: MetaData) -> None:
    """Refuse to work on a database without our tables or with another version of them.

    Args:
        engine: the database.
        metadata: the tables that must be there.

    Raises:
        ConfigurationError: naming what is missing and how to create it.
    """
    check_tables(engine, [table for each in metadata for table in each.sorted_tables])


def check_tables(engine: Engine, tables: Iterable[Table]) -> None:
    """Refuse to work without these tables, or with another version of them: two short queries.

    Args:
        engine: the database.
        tables: the tables that must be there.

    Raises:
        ConfigurationError: naming what is missing and how to create it.
    """
    names = {_quoted_once(table): table.fullname for table in (_schema_table, *tables)}
    look = text("select n from unnest(cast(:names as text[])) as n where to_regclass(n) is null")
    with _naming_refusals(), engine.connect() as connection:
        absent = set(connection.execute(look, {"names": list(names)}).scalars())
        if missing := [full for quoted, full in names.items() if quoted in absent]:
            raise ConfigurationError(
                f"tables missing: {', '.join(missing)}; call db.create_all or run db.migration_sql"
            )
        _refuse_other_version(_stored_version(connection))


@contextmanager
def _naming_refusals() -> Iterator[None]:
    """Turn what no waiting helps against into a `ConfigurationError`; a server may still start."""
    try:
        yield
    except OperationalError as error:
        # A connection that was refused carries no SQLSTATE, only the server's words.
        said = str(error.orig)
        if error.statement is None and _REFUSAL.search(said):
            raise ConfigurationError(
                f"PostgreSQL refuses us; check the database address: {said.splitlines()[0]}"
            ) from error
        raise


def _stored_version(connection: Connection) -> int | None:
    query = select(_schema_table.c.version).where(_schema_table.c.name == "labkit")
    return connection.execute(query).scalar()


def _refuse_other_version(stored: int | None) -> None:
    if stored != SCHEMA_VERSION:
        age = "newer" if (stored or 0) > SCHEMA_VERSION else "older"
        remedy = "upgrade labkit" if age == "newer" else "run db.migration_sql"
        raise ConfigurationError(
            f"the database has labkit schema {stored}, {age} than {SCHEMA_VERSION}: {remedy}"
        )


def migration_sql(engine: Engine, *metadata: MetaData) -> str:
    """Return the DDL of the tables, for the migration tool of your choice.

    Args:
        engine: for its dialect; it is not connected to.
        metadata: what to create.
    """
    # Why not the engine's own: it writes % as %%, for a driver that no tool puts in between.
    dialect = create_engine(engine.url, paramstyle="named").dialect
    statements: list[str] = []
    for table in [t for each in (_schema_metadata, *metadata) for t in each.sorted_tables]:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        ddl: list[ExecutableDDLElement] = [CreateTable(table, if_not_exists=True)]
        ddl += [CreateIndex(index, if_not_exists=True) for index in indexes]
        statements += [str(each.compile(dialect=dialect)).strip() for each in ddl]
    version = (
        f"insert into labkit_schema values ('labkit', {SCHEMA_VERSION}) on conflict do nothing"
    )
    return ";\n\n".join([*statements, version]) + ";\n"


def quoted(table: Table) -> str:
    """Return the table's name as driver SQL wants it: quoted, each `%` doubled."""
    return str(_preparer.format_table(table))


def quoted_in_text(table: Table) -> str:
    """Return the table's name as `sqlalchemy.text` wants it: no `:` in it starts a parameter."""
    return _quoted_once(table).replace(":", r"\:")


def _quoted_once(table: Table) -> str:
    return quoted(table).replace("%%", "%")


def check_worker(engine: Engine, lease_s: float, *tables: Table) -> None:
    """Refuse a worker whose tables are missing, or whose frozen transaction outlives its lease.

    Args:
        engine: the worker's engine.
        lease_s: its lease, in seconds.
        tables: what it works on.

    Raises:
        ConfigurationError: naming what is missing, or when the engine was not made by `connect`
            with this lease or less.
    """
    with _naming_refusals(), engine.connect() as connection:
        query = text("select setting::int from pg_settings where name = :name")
        found = connection.execute(query, {"name": "idle_in_transaction_session_timeout"}).scalar()
    if not found or found > lease_s * 1000:
        raise ConfigurationError(
            f"transactions may stay open for {found or 'ever'} ms, longer than the lease of "
            f"{lease_s} s: make the engine with labkit.db.connect(url, lease_s={lease_s})"
        )
    if tables:
        check_tables(engine, tables)
