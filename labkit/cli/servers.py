"""`labkit up | down | status | reset | doctor`: the servers under the workbook.

Guarantee: a failure that labkit understands is a few red words and an exit code, never a
traceback; a password is never printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.cli.services import AsJson, Prefix, Services
from labkit.cli.work import SHOP, load_service
from labkit.errors import LabkitError
from labkit.lab import doctor as preconditions, servers
from labkit.lab.status import ServerStatus

app = typer.Typer(no_args_is_help=True, help="The PostgreSQL and the Redis under the workbook.")

Yes = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]


@app.command()
def up() -> None:
    """Start PostgreSQL and Redis, or find the ones that run, and say where.

    Uses LABKIT_DATABASE_URL and LABKIT_REDIS_URL (environment or .env) when both are set, else
    real servers from the pip wheels, kept in LABKIT_HOME or the repository. They run until
    `labkit down`.
    """
    with _understood():
        running = servers.up()
        # Embedded ones have just answered; those that somebody named may be anywhere.
        silent = [s for s in servers.status().servers if not s.healthy]
        if silent and running.source == "environment":
            places = " and ".join(f"{each.name} at {each.place}" for each in silent)
            raise servers.ServerError(
                f"{places}: no answer. LABKIT_DATABASE_URL and LABKIT_REDIS_URL name them: start "
                "them, check address and password, or unset both for the embedded ones"
            )
        _say(running.describe())


@app.command()
def down() -> None:
    """Stop the embedded servers; data and passwords stay for the next `labkit up`."""
    with _understood():
        servers.down()
        _say("the embedded servers are stopped; their data is kept")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what runs, without starting anything. Exits with 1 unless both servers answer."""
    with _understood():
        seen = servers.status()
        if as_json:
            _print_json({**asdict(seen), "home": str(seen.home), "healthy": seen.healthy})
        else:
            _print_status(seen)
    raise typer.Exit(0 if seen.healthy else 1)


@app.command()
def reset(yes: Yes = False) -> None:
    """Delete ALL data of the embedded servers and start them empty."""
    with _understood():
        home = servers.status().home
        if not yes:
            typer.confirm(f"Delete every database and stream of {home}?", abort=True)
        _say(servers.reset().describe())


@app.command()
def doctor(
    service: Services = None,
    prefix: Prefix = "",
    as_json: AsJson = False,
) -> None:
    """Check every precondition of the promise. Exits with 1 if one of them breaks it.

    Starts the embedded servers when none are named and none run. A service is looked at when its
    database exists.
    """
    with _understood():
        sys.path.insert(0, "")
        services = [load_service(path) for path in service or SHOP]
        found = preconditions.checks(servers.stack(), services, prefix)
        if as_json:
            _print_json([asdict(check) for check in found])
        else:
            _print_checks(found)
    broken = any(not check.ok and check.level == "error" for check in found)
    raise typer.Exit(1 if broken else 0)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except LabkitError as exc:
        _complain(str(exc))
    except OSError as exc:
        # What these commands read and write by themselves is the home.
        place = exc.filename or "the home"
        _complain(
            f"{place}: {exc.strerror}: set LABKIT_HOME to a directory that you may read and write"
        )


def _complain(text: str) -> NoReturn:
    Console(stderr=True).print(f"[red]{escape(text)}[/red]", soft_wrap=True)
    raise typer.Exit(1) from None


def _say(text: str) -> None:
    Console().print(escape(text), soft_wrap=True, highlight=False)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))


def _print_status(seen: servers.StackStatus) -> None:
    table = Table(title=f"{seen.source} · {seen.home}", title_justify="left")
    for column in ("server", "state", "address", "pid", "since"):
        table.add_column(column)
    for server in seen.servers:
        table.add_row(
            server.name,
            _state(server),
            server.place or "",
            str(server.pid or ""),
            server.since or "",
        )
    Console().print(table)


def _state(server: ServerStatus) -> str:
    if server.healthy:
        return "[green]answers[/green]"
    return "[red]silent[/red]" if server.running else "[yellow]down[/yellow]"


def _print_checks(found: list[preconditions.Check]) -> None:
    table = Table(title="Preconditions of the promise", title_justify="left")
    for column in ("", "check", "seen", "remedy"):
        table.add_column(column, overflow="fold")
    for check in found:
        remedy = "" if check.ok else check.remedy
        table.add_row(_mark(check), escape(check.name), escape(check.detail), escape(remedy))
    Console().print(table)


def _mark(check: preconditions.Check) -> str:
    if check.ok:
        return "[green]ok[/green]"
    return "[red]error[/red]" if check.level == "error" else "[yellow]warning[/yellow]"
