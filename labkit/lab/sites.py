"""Sites: services where they run, to look at. Nothing is created by looking.

Guarantee: a database that does not exist is not made, a missing table is named; services of one
context in one database are one site, so that nothing is seen twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psycopg
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from labkit import db
from labkit.context import Context
from labkit.errors import ConfigurationError
from labkit.lab.environment import place_of, with_password
from labkit.lab.servers import ServerError, Stack
from labkit.service import Service, Subscribed


class Site(NamedTuple):
    """A service and its database, and who works beside it there."""

    service: Service
    engine: Engine
    beside: tuple[Service, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the context."""
        return self.service.context.name

    @property
    def database(self) -> str:
        """Return the database's name."""
        return self.engine.url.database or ""

    def subscribed(self) -> list[Subscribed]:
        """Return who reads what, in all services of this site."""
        return [reader for each in (self.service, *self.beside) for reader in each.subscribed()]


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
        databases: their databases, in the same order; named as their contexts by default.

    Yields:
        A site for each context in each database, in the order of the services.

    Raises:
        ConfigurationError: when there is no such database, or a table of it is missing.
        ServerError: when the server does not answer.
    """
    names = list(databases) or [service.context.name for service in services]
    if len(names) != len(services):
        raise ConfigurationError(
            f"{len(services)} services and {len(names)} databases: name one for each, in one order"
        )
    if missing := [name for name in names if name not in existing(stack, names)]:
        raise ConfigurationError(
            f"there is no database {', '.join(missing)}: `labkit run` makes it, or name the right "
            "one with --database"
        )
    sites = [
        Site(first, engine_of(stack, name), tuple(beside))
        for name, (first, *beside) in _together(services, names)
    ]
    try:
        for site in sites:
            db.check_schema(site.engine, site.service.metadata)
        yield sites
    finally:
        for site in sites:
            site.engine.dispose()


def _together(
    services: Sequence[Service], databases: Sequence[str]
) -> Iterator[tuple[str, list[Service]]]:
    """Group the services that share their tables, each once."""
    found: dict[tuple[Context, str], list[Service]] = {}
    for service, database in zip(services, databases, strict=True):
        group = found.setdefault((service.context, database), [])
        if service not in group:
            group.append(service)
    for (_, database), group in found.items():
        yield database, group
