"""`labkit agenda`: the minute of the session, and the section that belongs to it."""

from __future__ import annotations

from typing import Annotated

import typer

Since = Annotated[str, typer.Option("--desde", help="When the class began.")]


def now(since: Since = "16:00") -> None:
    """Show the minute of the session and what the class should be at."""
    # Why not at the top: it needs the notebooks' dependencies, and `labkit run` does not.
    from labkit.lab import agenda  # noqa: PLC0415

    typer.echo(agenda.sentence(since))
