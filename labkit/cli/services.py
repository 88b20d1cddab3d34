"""Which services a command looks at, where their databases are, and how to show a stranger's text.

Guarantee: looking creates no database, so a misspelt name is an error and not an empty answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, NamedTuple

import typer
from rich.markup import escape
from sqlalchemy import Engine, make_url, text

from labkit import db
from labkit.cli.work import load_service
from labkit.errors import ConfigurationError
from labkit.lab.servers import stack
from labkit.service import Service

SHOP = ("labkit.shop.fulfillment:service", "labkit.shop.inventory:service")

Services = Annotated[
    list[str] | None,
    typer.Option(
        "--service", metavar="MODULE:SERVICE", help="Repeatable; both of the shop by default."
    ),
]
Database = Annotated[str | None, typer.Option(help="Database name; the service's name by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Site(NamedTuple):
    """A service and the database that it works on."""

    service: Service
    database: str
    engine: Engine


@contextmanager
def opened(paths: Sequence[str] | None, database: str | None) -> Iterator[list[Site]]:
    """Open the databases of services, those of the shop that exist by default.

    Args:
        paths: `module:attribute` of each service.
        database: the name of the database of all of them; each service's own name by default.

    Raises:
        ConfigurationError: when there is no such service or database.
    """
    with ExitStack() as ending:
        url = make_url(stack().database_url)
        services = [load_service(path) for path in paths or SHOP]
        names = [database or service.name for service in services]
        existing = _existing(url.render_as_string(hide_password=False))
        missing = [name for name in names if name not in existing]
        if missing and (paths or database or len(missing) == len(names)):
            raise ConfigurationError(
                f"there is no database {plain(missing[0], 100)}: run a worker of the service first "
                "(labkit run), or name another with --database"
            )
        sites = []
        for service, name in zip(services, names, strict=True):
            if name in existing:
                engine = db.connect(url.set(database=name))
                ending.callback(engine.dispose)
                service.create_tables(engine)
                sites.append(Site(service, name, engine))
        yield sites


def _existing(url: str) -> set[str]:
    engine = db.connect(url)
    with engine.connect() as connection:
        names = set(connection.execute(text("select datname from pg_database")).scalars())
    engine.dispose()
    return names


def plain(said: str, longest: int | None = None) -> str:
    """Return a stranger's text without control characters and invisible ones.

    Args:
        said: the text.
        longest: how many characters to show, on one line; all of them, with lines, by default.
    """
    if longest is not None and len(said) > longest:
        said = said[: longest - 1] + "…"
    lines = [] if longest is not None else ["\n"]
    return "".join(c if c.isprintable() or c in lines else _named(c) for c in said)


def printable(said: str, longest: int | None = None) -> str:
    """Return what `plain` does, for rich: nothing in it is markup."""
    return escape(plain(said, longest))


def _named(character: str) -> str:
    return character.encode("unicode_escape").decode()
