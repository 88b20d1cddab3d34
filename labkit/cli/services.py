"""Which services a command looks at, who asks, and how to show a stranger's text.

Guarantee: looking creates nothing, so a misspelt name is an error and not an empty answer.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape

from labkit.cli.work import SHOP, load_service
from labkit.lab import sites
from labkit.lab.servers import stack
from labkit.lab.sites import Site

Services = Annotated[
    list[str] | None,
    typer.Option(
        "--service", metavar="MODULE:SERVICE", help="Repeatable; both of the shop by default."
    ),
]
Database = Annotated[
    str | None, typer.Option(help="Database name; that of the service's context by default.")
]
Prefix = Annotated[str, typer.Option(help="Put before every key in Redis.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Who = Annotated[str | None, typer.Option(help="Who decides; your login by default.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


@contextmanager
def opened(paths: Sequence[str] | None, database: str | None) -> Iterator[list[Site]]:
    """Open the databases of services, those of the shop that exist by default.

    Args:
        paths: `module:attribute` of each service.
        database: the name of the database of all of them; that of each one's context by default.

    Raises:
        ConfigurationError: when there is no such service or database.
    """
    servers, services = stack(), [load_service(path) for path in paths or SHOP]
    if not (paths or database):
        present = sites.existing(servers, [service.context.name for service in services])
        services = [each for each in services if each.context.name in present] or services
    with sites.opened(servers, services, [database] * len(services) if database else ()) as found:
        yield found


def login() -> str:
    """Return who types."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


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
