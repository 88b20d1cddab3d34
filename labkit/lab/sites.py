"""Sites: services where they run, to look at. Nothing is created by looking.

Guarantee: a database that does not exist is not made, a missing table is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psycopg
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from labkit import db
from labkit.errors import ConfigurationError
from labkit.lab.environment import place_of, with_password
from labkit.lab.servers import ServerError, Stack
from labkit.service import Service


class Site(NamedTuple):
    """A service and its database."""

    service: Service
    engine: Engine

    @property
    def database(self) -> str:
        """Return the database's name."""
        return self.engine.url.database or ""


def existing(stack: Stack, names: Sequence[str]) -> set[str]:
    """Return which of these databases exist.

    Raises:
        ServerError: the server does not answer.
    """
    plain = with_password(make_url(stack.database_url).set(drivername="postgresql"))
    query = "select datname from pg_database where datname = any(%s)"
    try:
        with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
            return {str(row[0]) for row in connection.execute(query, (list(names),))}
    except psycopg.Error as error:
        raise ServerError(f"PostgreSQL at {place_of(stack.database_url)}: {error}") from None


def engine_of(stack: Stack, database: str) -> Engine:
    """Return an engine on a database that exists."""
    return db.connect(make_url(stack.database_url).set(database=database), pool_size=1)


@contextlib.contextmanager
def opened(
    stack: Stack, services: Sequence[Service], databases: Sequence[str] = ()
) -> Iterator[list[Site]]:
    """Open services for a look.

    Args:
        stack: where they run.
        services: which.
        databases: their databases, in the same order; named as the services by default.

    Raises:
        ConfigurationError: when there is no such database, or a table of it is missing.
        ServerError: when the server does not answer.
    """
    names = list(databases) or [service.name for service in services]
    if len(names) != len(services):
        raise ConfigurationError(
            f"{len(services)} services and {len(names)} databases: name one for each, in one order"
        )
    if missing := [name for name in names if name not in existing(stack, names)]:
        raise ConfigurationError(
            f"there is no database {', '.join(missing)}: `labkit run` makes it, or name the right "
            "one with --database"
        )
    sites = [Site(s, engine_of(stack, name)) for s, name in zip(services, names, strict=True)]
    try:
        for site in sites:
            db.check_schema(site.engine, site.service.metadata)
        yield sites
    finally:
        for site in sites:
            site.engine.dispose()
