"""The two servers under the workbook: yours, or real ones from the pip wheels.

`stack()` resolves, in this order, and says which:

1. `environment`: `LABKIT_DATABASE_URL` and `LABKIT_REDIS_URL`, from the environment or from the
   home's `.env`;
2. `embedded`: real PostgreSQL and Valkey programs, run on 127.0.0.1 with random passwords.

Guarantee: what it returns answered a moment ago; two processes that ask at the same time get the
same servers; a killed or frozen server is replaced and its data kept. Nothing is ever faked.
Not guaranteed: health of servers that come from the environment; ask `labkit doctor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from labkit.lab import embedded
from labkit.lab.environment import DATABASE, REDIS, named_servers, place_of, with_password
from labkit.lab.home import Home, ServerError, find_home
from labkit.lab.status import Source, StackStatus, status

__all__ = [
    "ServerError",
    "Stack",
    "StackStatus",
    "down",
    "reset",
    "stack",
    "status",
    "up",
]

# PostgreSQL cuts longer names off, and two databases would become one.
_LONGEST_NAME = 63


@dataclass(frozen=True, repr=False)
class Stack:
    """A PostgreSQL and a Redis that answer.

    Args:
        database_url: SQLAlchemy URL of the maintenance database.
        redis_url: URL for redis-py.
        source: where the servers come from.
        home: directory whose `.labkit/` holds the state.
    """

    database_url: str
    redis_url: str
    source: Source
    home: Path

    def __repr__(self) -> str:
        return f"<Stack {self.describe()}>"

    def describe(self) -> str:
        """Tell in one line what runs where, without passwords."""
        return (
            f"{self.source}: PostgreSQL at {place_of(self.database_url)}, "
            f"Redis at {place_of(self.redis_url)}, home {self.home}"
        )

    def database(self, name: str) -> str:
        """Have a database, created if it is missing.

        Args:
            name: its name.

        Returns:
            Its SQLAlchemy URL.

        Raises:
            ServerError: the server does not answer or refuses.
        """
        if not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise ServerError(f"a database name has 1 to {_LONGEST_NAME} bytes, not {name!r}")
        exists = "select 1 from pg_database where datname = %s"
        # Nobody may connect to template0, so it is never "being accessed by other users".
        create = sql.SQL("create database {} template template0").format(sql.Identifier(name))
        with self._maintenance() as conn:
            if not conn.execute(exists, (name,)).fetchone():
                with contextlib.suppress(
                    psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation
                ):
                    conn.execute(create)
        return with_password(make_url(self.database_url).set(database=name))

    def drop_database(self, name: str) -> None:
        """Drop a database and end its connections; nothing happens when there is none.

        Args:
            name: its name.
        """
        drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        with self._maintenance() as conn:
            conn.execute(drop)

    def down(self, *, erase: bool = False) -> None:
        """Stop the servers if they are ours; those of the environment are left alone.

        Args:
            erase: delete their data too.
        """
        if self.source == "embedded":
            down(self.home, erase=erase)

    @contextlib.contextmanager
    def _maintenance(self) -> Iterator[psycopg.Connection]:
        plain = with_password(make_url(self.database_url).set(drivername="postgresql"))
        try:
            with psycopg.connect(plain, autocommit=True, connect_timeout=10) as conn:
                yield conn
        except psycopg.Error as exc:
            raise ServerError(f"PostgreSQL at {place_of(self.database_url)}: {exc}") from exc


def stack(home: str | Path | None = None) -> Stack:
    """Get a PostgreSQL and a Redis, whichever way this machine can.

    Args:
        home: directory for the state; default `LABKIT_HOME`, else the repository.

    Returns:
        Servers that answer.

    Raises:
        ServerError: half-set environment, unwritable home, missing wheels, or a server that does
            not start.
    """
    place = find_home(home)
    given = _from_environment(place)
    if given:
        return given
    return Stack(*embedded.ensure(place), "embedded", place.root)


def up(home: str | Path | None = None) -> Stack:
    """Start what is not running: another name for `stack`.

    Args:
        home: as in `stack`.

    Returns:
        Servers that answer.
    """
    return stack(home)


def down(home: str | Path | None = None, *, erase: bool = False) -> None:
    """Stop the embedded servers of a home; nothing happens when none runs.

    Args:
        home: as in `stack`.
        erase: delete their data and passwords too; otherwise the next `stack` finds them again.
    """
    if erase:
        embedded.erase(find_home(home))
    else:
        embedded.stop_all(find_home(home))


def reset(home: str | Path | None = None) -> Stack:
    """Delete all data of the embedded servers and start them empty.

    Args:
        home: as in `stack`.

    Returns:
        The new servers.

    Raises:
        ServerError: the servers come from the environment and are not ours to empty.
    """
    place = find_home(home)
    if _from_environment(place):
        raise ServerError(
            f"these servers come from {DATABASE} and {REDIS}: empty them with their own tools, "
            "or unset both variables to use the embedded ones"
        )
    embedded.erase(place)
    return stack(home)


def _from_environment(place: Home) -> Stack | None:
    urls = named_servers(place)
    return Stack(*urls, "environment", place.root) if urls else None
