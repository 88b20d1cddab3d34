"""`make chaos`: a chaos run (`labkit.testing.chaos`) on the command line.

Not a subcommand of `labkit`: it is for whoever works on labkit, not for who uses it.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from labkit import crash
from labkit.cli.work import as_ctrl_c
from labkit.errors import LabkitError
from labkit.testing.chaos import LEASE_S, Chaos
from labkit.testing.chaos_result import show
from labkit.testing.strikes import plan


def main(
    seed: Annotated[int, typer.Option(help="Decides the strikes; a random one by default.")] = 0,
    duration: Annotated[
        float, typer.Option(help="Seconds over which the strikes come.", min=1)
    ] = 60.0,
    show_plan: Annotated[
        bool, typer.Option("--plan", help="Print the strikes of the seed and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Kill and freeze servers and workers at random under load; exit with 1 if anything breaks."""
    crash.configure({})  # the faults are for the workers, not for who checks them
    seed = seed or time.time_ns() % 1_000_000
    if show_plan:
        typer.echo(json.dumps([asdict(strike) for strike in plan(seed, duration, LEASE_S)]))
        return
    signal.signal(signal.SIGTERM, as_ctrl_c)
    console = Console(stderr=True, quiet=as_json)
    console.print(f"seed {seed}: {duration:.0f} s of chaos", highlight=False)
    try:
        result = Chaos(seed, duration, console).run()
    except (LabkitError, DBAPIError, TimeoutError) as error:
        Console(stderr=True).print(f"[red]seed {seed}: {escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error
    show(result, as_json=as_json)
    raise typer.Exit(0 if result.holds else 1)


if __name__ == "__main__":
    typer.run(main)
