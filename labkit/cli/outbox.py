"""`labkit outbox stats | trace`: what waits, and what became of one message.

Guarantee: nothing is created or changed by looking.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from labkit.cli import stats_table, timeline
from labkit.cli.work import SHOP, load_service
from labkit.errors import ConfigurationError
from labkit.lab.entries import Entries
from labkit.lab.servers import stack
from labkit.lab.sites import Site, opened
from labkit.lab.trace import Trace, trace as follow
from labkit.observe import measure
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams, connect

app = typer.Typer(no_args_is_help=True, help="What waits to be published, and what became of it.")

Services = Annotated[
    list[str] | None,
    typer.Option(
        "--service", metavar="MODULE:SERVICE", help="Repeatable; both services of the shop."
    ),
]
Databases = Annotated[
    list[str] | None,
    typer.Option("--database", help="Of each --service, in order; named as the service."),
]
Prefix = Annotated[str, typer.Option(help="Put before every key in Redis.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def stats(
    service: Services = None,
    database: Databases = None,
    prefix: Prefix = "",
    partitions: Annotated[bool, typer.Option("--partitions", help="Show every partition.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what waits in outbox, streams and held messages, and for how long."""
    with _sites(service, database, prefix) as (sites, streams):
        inspection = RedisInspection(streams)
        found = [measure(site.service, site.engine, inspection) for site in sites]
    if as_json:
        typer.echo(json.dumps([each._asdict() for one in found for each in one], indent=2))
        return
    console = Console()
    for site, measures in zip(sites, found, strict=True):
        console.print(stats_table.summary(site.service.name, measures))
        if partitions:
            console.print(stats_table.by_partition(measures))


@app.command()
def trace(
    message: Annotated[str, typer.Argument(help="A message id, or a beginning that is enough.")],
    service: Services = None,
    database: Databases = None,
    prefix: Prefix = "",
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a Mermaid sequence diagram.")
    ] = False,
    png: Annotated[
        Path | None, typer.Option(help="Draw a sequence diagram into this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one message's way through all services: what caused it, its times, what it caused."""
    with _sites(service, database, prefix) as (sites, streams):
        found = follow(message, sites, Entries(streams))
    if png:
        _draw(found, png)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=_as_text, indent=2))
    elif mermaid:
        typer.echo(_sequence().mermaid(found), nl=False)
    else:
        timeline.show(found, Console())


@contextlib.contextmanager
def _sites(
    services: list[str] | None, databases: list[str] | None, prefix: str
) -> Iterator[tuple[list[Site], RedisStreams]]:
    sys.path.insert(0, "")
    loaded = [load_service(path) for path in services or SHOP]
    servers = stack()
    with opened(servers, loaded, databases or ()) as sites:
        client = connect(servers.redis_url)
        try:
            yield sites, RedisStreams(client, prefix)
        finally:
            client.close()


def _sequence() -> Any:
    try:
        from labkit.lab import sequence  # noqa: PLC0415 - matplotlib comes with an extra
    except ImportError as error:
        raise ConfigurationError(
            "diagrams need matplotlib: pip install labkit-session7[lab]"
        ) from error
    return sequence


def _draw(found: Trace, file: Path) -> None:
    figure = _sequence().draw(found)
    try:
        figure.savefig(file, format="png")
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from error
    Console(stderr=True).print(f"drawn in {file}", soft_wrap=True, highlight=False)


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
