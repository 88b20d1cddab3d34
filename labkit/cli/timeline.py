"""A trace on the terminal: a tree of messages, each with its timeline."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from labkit.lab.trace import Moment, Trace, Traced, offset


def show(trace: Trace, console: Console) -> None:
    """Print a trace.

    Args:
        trace: what is on record.
        console: where to.
    """
    times = [m.at for node in trace.root.walk() for m in node.moments if m.at]
    first = min(times) if times else None
    if first:
        console.print(f"+0 ms is {first.isoformat(timespec='milliseconds')}", highlight=False)
    tree = Tree(_message(trace.root, first), guide_style="dim")
    _add(tree, trace.root, first)
    console.print(tree)
    console.print(
        "published: Redis' clock, in whole ms. All other times: PostgreSQL's clock.",
        style="dim",
        highlight=False,
    )
    for note in trace.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", highlight=False)


def _add(tree: Tree, node: Traced, first: datetime | None) -> None:
    for each in node.caused:
        _add(tree.add(_message(each, first)), each, first)


def _message(node: Traced, first: datetime | None) -> Group:
    title = Text(node.type or "(unknown event)", style="bold")
    if node.asked:
        title.append("  ← asked for", style="not bold green")
    facts = " · ".join(
        part
        for part in (node.message_id, node.stream, f"key {node.key}" if node.key else None)
        if part
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    for _ in range(3):
        table.add_column(overflow="fold")
    for moment in node.moments:
        table.add_row(_time(moment, first), moment.what, escape(moment.where), escape(moment.note))
    return Group(title, Text(facts, style="dim"), table)


def _time(moment: Moment, first: datetime | None) -> str:
    if moment.at and first:
        return offset(moment.at, first)
    return "time unknown" if moment.happened else "not yet"
