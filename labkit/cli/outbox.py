"""`labkit outbox stats | trace | reconcile`: what waits, what became of a message, what is lost.

Guarantee: nothing is created or changed by looking; `reconcile` leaves the publishing to the relay.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from labkit import db
from labkit.cli import stats_table, timeline
from labkit.cli.services import AsJson, Prefix, Services
from labkit.cli.work import SHOP, load_service
from labkit.errors import ConfigurationError
from labkit.lab.entries import Entries
from labkit.lab.servers import stack
from labkit.lab.sites import Site, opened
from labkit.lab.trace import Trace, trace as follow
from labkit.observe import measure
from labkit.reconcile import reconcile as compare
from labkit.reports import ReconcileReport
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams, connect

app = typer.Typer(no_args_is_help=True, help="What waits to be published, and what became of it.")

_COMPARE_S = 600.0

Databases = Annotated[
    list[str] | None,
    typer.Option("--database", help="Of each --service, in order; named as its context."),
]


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
        console.print(stats_table.summary(site.name, measures))
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


@app.command()
def reconcile(
    service: Services = None,
    database: Databases = None,
    prefix: Prefix = "",
    since: Annotated[
        datetime | None,
        typer.Option(help="Publish again all of this time (UTC) and later, missing or not."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare outboxes with their streams; relays publish again what is missing, in order."""
    start = since.replace(tzinfo=UTC) if since else None
    with _sites(service, database, prefix) as (sites, streams):
        found = {site.name: _compare(site, streams, start) for site in sites}
    if as_json:
        typer.echo(json.dumps({name: asdict(report) for name, report in found.items()}))
        return
    for name, report in found.items():
        old = f", {report.too_old} of them too old to come again" if report.too_old else ""
        again = f"; its relay publishes {report.again} rows again" if report.again else ""
        typer.echo(f"{name}: {report.missing} rows are missing in the stream{old}{again}")


def _compare(site: Site, streams: RedisStreams, since: datetime | None) -> ReconcileReport:
    # Comparing what was kept takes longer than a worker's transactions may.
    engine = db.connect(site.engine.url, lease_s=_COMPARE_S, pool_size=1)
    outbox, log = site.service.outbox, streams.log(site.service.stream)
    try:
        return compare(engine, outbox, log, site.service.retention, since=since)
    finally:
        engine.dispose()


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
