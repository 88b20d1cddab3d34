"""Sagas as tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.cli.services import printable
from labkit.cli.spans import age
from labkit.saga.operations import Line, Listed, Shown
from labkit.saga.state import COMPENSATED, COMPENSATING, COMPLETED, RUNNING, STUCK, Status

_COLOURS = {
    RUNNING: "cyan",
    COMPENSATING: "yellow",
    STUCK: "red",
    COMPLETED: "green",
    COMPENSATED: "dim",
}


def print_list(sagas: Sequence[Listed], *, more: bool) -> None:
    """Print sagas, one row each."""
    if not sagas:
        say("no sagas")
        return
    table = Table(title="Sagas", title_justify="left")
    table.add_column("saga", overflow="fold", ratio=4)
    table.add_column("status", no_wrap=True)
    table.add_column("step", overflow="fold", ratio=3)
    table.add_column("try", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("still", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold", ratio=4)
    for each in sagas:
        table.add_row(
            f"{printable(each.id, 80)}\n[dim]{each.saga} v{each.version}[/dim]",
            _coloured(each.status),
            printable(each.step, 80),
            str(each.attempt or ""),
            age(each.age_s),
            age(each.waiting_s),
            printable(each.reason or "", 160),
        )
    Console().print(table)
    say("labkit saga show SAGA_ID" + (" · there are more: --limit" if more else ""))


def print_one(shown: Shown, database: str) -> None:
    """Print all that is known of a saga."""
    listed, state = shown.listed, shown.state
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    due = listed.due_at.isoformat(" ", "seconds") if listed.due_at else "nothing: it does not wait"
    for name, value in {
        "saga": f"{listed.id} ({listed.saga} v{listed.version}) in {database}",
        "status": str(listed.status),
        "step": f"{listed.step}, attempt {listed.attempt}" if listed.step else "at its end",
        "waits until": due,
        "reason": listed.reason or "none",
        "begun": f"{listed.started_at.isoformat(' ', 'seconds')}, {age(listed.age_s)} ago",
        "touched": f"{listed.updated_at.isoformat(' ', 'seconds')}, {age(listed.waiting_s)} ago",
        "has effect": ", ".join(state.done) or "nothing",
        "made good": ", ".join(state.undone) or "nothing",
        "answers": ", ".join(f"{part or 'whole'}: {said}" for part, said in state.answers.items())
        or "none to this step",
    }.items():
        facts.add_row(name, printable(value))
    console = Console()
    console.print(facts)
    data = msgspec.json.format(msgspec.json.encode(state.data), indent=2).decode()
    console.print(printable(data), highlight=False, soft_wrap=True)
    console.print(_history(shown.history))


def _history(lines: Sequence[Line]) -> Table:
    table = Table(title="History", title_justify="left")
    table.add_column("at", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=2)
    table.add_column("step", overflow="fold", ratio=3)
    table.add_column("detail", overflow="fold", ratio=4)
    table.add_column("by", overflow="fold", ratio=3)
    for line in lines:
        by = f"[bold]{printable(line.who, 100)}[/bold]" if line.who else ""
        table.add_row(
            line.at.strftime("%m-%d %H:%M:%S"),
            line.what,
            printable(line.step),
            printable(line.detail),
            by or f"[dim]{printable(line.message_id or '', 100)}[/dim]",
        )
    return table


def say(said: str) -> None:
    """Print a line of plain text."""
    Console().print(escape(said), soft_wrap=True, highlight=False)


def _coloured(status: Status) -> str:
    return f"[{_COLOURS[status]}]{status}[/{_COLOURS[status]}]"
