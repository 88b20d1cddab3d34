"""Databases that tests use one after the other: emptying one takes a fifth of creating one.

What is created is also written, synced and deleted at the end: a database per test was gigabytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine, MetaData, delete, make_url

from labkit import db
from labkit.lab.servers import Stack

_END_OTHERS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and backend_type = 'client backend'
"""
# Why not truncate: tests create tables of their own, and schemas with odd names.
_FORGET = """
    do $$ declare name text; begin
      for name in select nspname from pg_namespace
                  where nspname !~ '^pg_' and nspname <> 'information_schema' loop
        execute format('drop schema %I cascade', name);
      end loop;
      create schema public;
    end $$
"""


class Databases:
    """Lends databases that are as good as new.

    Args:
        servers: where they are.
    """

    def __init__(self, servers: Stack) -> None:
        self._servers = servers
        self._made: list[str] = []
        self._idle: list[str] = []

    def lend(self) -> str:
        """Return the URL of an empty database that nobody else has."""
        if not self._idle:
            self._made.append(f"test_{uuid.uuid4().hex[:12]}")
            return self._servers.database(self._made[-1])
        url = self._idle.pop()
        forget(url)
        return url

    def take_back(self, url: str) -> None:
        """Lend it again, to somebody else; until then it can be looked at."""
        self._idle.append(url)

    def drop(self) -> None:
        """Drop all that was created."""
        for name in self._made:
            self._servers.drop_database(name)


def forget(url: str) -> None:
    """End all connections to a database, and make it empty."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(_END_OTHERS)
        connection.execute(_FORGET)


@contextmanager
def lent_database(databases: Databases, metadata: MetaData) -> Iterator[Engine]:
    """Lend a database with these tables to all tests of a module."""
    url = databases.lend()
    engine = db.connect(url)
    db.create_all(engine, metadata)
    yield engine
    engine.dispose()
    databases.take_back(url)


def emptied(engine: Engine, metadata: MetaData) -> Engine:
    """Delete all rows."""
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
    return engine
