"""The `labkit` command: servers, workers and the demonstration that everything holds.

Guarantee: a failure that labkit understands is one red line and exit code 1, never a traceback.
"""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from labkit import __version__, crash
from labkit.cli import (
    agenda,
    catch_up,
    classroom,
    dead_letters,
    demo,
    lab,
    outbox,
    partitions,
    saga,
    servers,
    work,
)
from labkit.errors import LabkitError

app = typer.Typer(
    name="labkit",
    help="Reliable messaging on PostgreSQL and Redis Streams, to learn from and to use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.registered_commands += servers.app.registered_commands
app.command("lab")(lab.lab)
app.command("catch-up")(catch_up.catch_up)
app.command("agenda")(agenda.now)
app.command("class")(classroom.table)
app.command("demo")(demo.demo)
app.command("run")(work.run)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(partitions.app, name="partitions")
app.add_typer(outbox.app, name="outbox")
app.add_typer(saga.app, name="saga")


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; the exit code is 1 when something went wrong."""
    try:
        crash.configure()
        app()
    except LabkitError as error:
        _complain(str(error))
    except DBAPIError as error:
        _complain(f"the database does not do it: {str(error.orig).partition(chr(10))[0]}")


def _complain(text: str) -> None:
    Console(stderr=True).print(f"[red]{escape(text)}[/red]", soft_wrap=True)
    raise SystemExit(1)
