"""What a chaos run ended with, for people and for scripts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import typer
from rich.console import Console


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    seed: int
    duration_s: float
    schedule: list[dict[str, Any]]
    struck: dict[str, int]
    killed_at_crash_points: int
    frozen_at_crash_points: int
    orders: int
    cancelled: int
    client_retries: int
    commits_in_doubt: int
    events: int
    published: int
    duplicates: int
    settling_s: float
    invariants: dict[str, str | None]

    @property
    def holds(self) -> bool:
        """Say whether every invariant holds."""
        return not any(self.invariants.values())


def show(result: Result, *, as_json: bool) -> None:
    """Print a result.

    Args:
        result: what a run ended with.
        as_json: for scripts.
    """
    if as_json:
        typer.echo(json.dumps(asdict(result) | {"holds": result.holds}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, counterexample in result.invariants.items():
        verdict = "[green]yes[/green]" if counterexample is None else "[red]no[/red]: "
        console.print(f"{verdict}{counterexample or ''}  {name}")
    console.print(
        f"seed {result.seed}: {result.orders} orders, {result.cancelled} cancelled, "
        f"{result.events} events published {result.published} times; "
        f"at rest {result.settling_s} s after the last strike"
    )
