"""Databases that go away at a chosen moment, and come back when told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event


def cut(engine: Engine, *, closed: bool = False) -> None:
    """End every connection of an engine's database; `closed`: it takes no new ones either."""
    plain = engine.url.set(drivername="postgresql", database="postgres")
    address = plain.render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as administrator:
        if closed:
            administrator.execute(f"alter database {engine.url.database} allow_connections false")
        administrator.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
            (engine.url.database,),
        )


def reopen(engine: Engine) -> None:
    """Let a database that was closed take connections again."""
    plain = engine.url.set(drivername="postgresql", database="postgres")
    address = plain.render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as administrator:
        administrator.execute(f"alter database {engine.url.database} allow_connections true")


@contextmanager
def closed_at(engine: Engine, nth: int) -> Iterator[list[str]]:
    """Close the database before the n-th statement from now; open it at the end.

    Yields:
        The statements so far.
    """
    seen: list[str] = []

    def count(*arguments: Any) -> None:
        seen.append(arguments[2])
        if len(seen) == nth:
            cut(engine, closed=True)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", count)
        reopen(engine)


@contextmanager
def cut_at_commits(engine: Engine) -> Iterator[list[str]]:
    """Cut every connection that is about to commit what it has written.

    Yields:
        The transactions that were cut.
    """
    seen: list[str] = []

    def strike(connection: Connection) -> None:
        written = connection.exec_driver_sql("select pg_current_xact_id_if_assigned()::text")
        if transaction := written.scalar():
            seen.append(transaction)
            cut(engine)

    event.listen(engine, "commit", strike)
    try:
        yield seen
    finally:
        event.remove(engine, "commit", strike)
