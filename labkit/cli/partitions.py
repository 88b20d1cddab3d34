"""`labkit partitions list | pause | resume`: stop some of the work without stopping a process."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from labkit import partitions
from labkit.cli.services import AsJson, Database, Services, opened, plain, printable
from labkit.errors import TransientError
from labkit.lab.sites import Site
from labkit.partitions import Partition

app = typer.Typer(no_args_is_help=True, help="See who owns which partition; pause and resume.")

_POLL_S = 0.1

Kind = Annotated[str, typer.Argument(metavar="relay|consumer", help="Whose partitions.")]
Name = Annotated[str | None, typer.Option(help="As listed; all relays or consumers by default.")]
Numbers = Annotated[
    list[int] | None, typer.Option("--partition", help="Repeatable; all by default.", min=0)
]
Rows = list[tuple[Site, Partition]]


@app.command("list")
def list_(service: Services = None, database: Database = None, as_json: AsJson = False) -> None:
    """List partitions: owner, epoch, the relay's last batch, and what is paused and why."""
    with opened(service, database) as sites:
        _show([(site, row) for site in sites for row in _listed(site)], as_json=as_json)


@app.command()
def pause(
    kind: Kind,
    name: Name = None,
    partition: Numbers = None,
    why: Annotated[str, typer.Option(help="Shown to whoever wonders.")] = "",
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until the owners have come to rest.", min=0)
    ] = 0.0,
    service: Services = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Stop the work on partitions, until they are resumed; processes go on with the others.

    An owner finishes what it has in hand and comes to rest within a quarter of its lease.
    """
    kind = _checked(kind)
    with opened(service, database) as sites:
        rows: Rows = []
        for site in _having(sites, kind, name):
            with site.engine.begin() as connection:
                paused = partitions.pause(connection, kind, name, partition, why=why)
            rows += [(site, row) for row in paused]
        _show(_rested(rows, wait) if wait else rows, as_json=as_json)


@app.command()
def resume(
    kind: Kind,
    name: Name = None,
    partition: Numbers = None,
    service: Services = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Let the work on partitions go on; the next worker that has room takes them."""
    kind = _checked(kind)
    with opened(service, database) as sites:
        rows: Rows = []
        for site in _having(sites, kind, name):
            with site.engine.begin() as connection:
                resumed = partitions.resume(connection, kind, name, partition)
            rows += [(site, row) for row in resumed]
        _show(rows, as_json=as_json)


def _checked(kind: str) -> str:
    if kind not in {"relay", "consumer"}:
        raise typer.BadParameter(f"{kind!r} is neither relay nor consumer", param_hint="KIND")
    return kind


def _listed(site: Site, kind: str | None = None, name: str | None = None) -> list[Partition]:
    with site.engine.connect() as connection:
        return partitions.list_partitions(connection, kind, name)


def _having(sites: Sequence[Site], kind: str, name: str | None) -> list[Site]:
    """Return the sites with such partitions; if there are none, the first one may say so."""
    return [site for site in sites if _listed(site, kind, name)] or list(sites[:1])


def _rested(rows: Rows, wait_s: float) -> Rows:
    """Wait until no owner is active; return the rows as they are then.

    Raises:
        TransientError: when it takes too long.
    """
    wanted = {(site.database, row[:3]) for site, row in rows}
    sites = {site.database: site for site, _ in rows}.values()
    deadline_s = time.monotonic() + wait_s
    while True:
        now = [(site, row) for site in sites for row in _listed(site)]
        mine = [(site, row) for site, row in now if (site.database, row[:3]) in wanted]
        busy = [row for _, row in mine if row.is_active]
        if not busy:
            return mine
        if time.monotonic() > deadline_s:
            raise TransientError(
                f"paused, but partition {busy[0].partition} of {plain(busy[0].name)} is still "
                "in the hands of its owner: look again with labkit partitions list"
            )
        time.sleep(_POLL_S)


def _show(rows: Rows, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_facts(*row) for row in rows], indent=2))
    elif rows:
        _print_table(rows)
    else:
        Console().print("none")


def _facts(site: Site, row: Partition) -> dict[str, Any]:
    times = {"until": row.until, "paused_at": row.paused_at}
    readable = {name: time and time.isoformat() for name, time in times.items()}
    return {"database": site.database} | row._asdict() | readable


def _print_table(rows: Rows) -> None:
    table = Table(title="Partitions", title_justify="left")
    table.add_column("whose", overflow="fold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("owner", overflow="fold")
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("acked", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for _, row in rows:
        table.add_row(
            printable(f"{row.kind} {row.name}", 100),
            str(row.partition),
            printable(row.owner or "–", 100),
            str(row.epoch),
            str(row.acked or ""),
            _state(row),
        )
    Console().print(table)


def _state(row: Partition) -> str:
    if row.paused_at is None:
        return "[green]owned[/green]" if row.is_active else "free"
    state = "[yellow]pausing[/yellow]" if row.is_active else "[yellow]paused[/yellow]"
    return f"{state} {printable(row.paused_why or '', 200)}".rstrip()
