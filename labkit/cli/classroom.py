"""`labkit class FOLDER`: the predictions and questions that a class missed most.

Guarantee: only sums are shown; nothing leaves the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.lab import classroom, predictions

Folder = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Where the students' files are.")
]
_COLUMNS = ("pregunta", "respuestas", "fallos", "%", "lo medido", "fallo más común")


def table(folder: Folder) -> None:
    """Read exported predictions and quiz answers; print the most missed first."""
    found = classroom.read(folder)
    console = Console()
    console.print(_table(found))
    for path in found.refused:
        console.print(f"[yellow]no se entiende {escape(path)}: no se ha contado[/yellow]")


def _table(found: classroom.Found) -> Table:
    shown = Table(title=f"{found.students} personas", title_justify="left")
    for column in _COLUMNS:
        shown.add_column(column, justify="right" if column in _COLUMNS[1:4] else "left")
    texts = {each.id: each for each in predictions.questions()}
    for row in classroom.most_missed(found.answers):
        asked = texts.get(row.question)
        shown.add_row(
            row.question,
            str(row.answered),
            str(row.missed),
            f"{100 * row.missed / row.answered:.0f}",
            row.right,
            _chosen(row, asked.options[row.wrong].text if asked and row.wrong else ""),
        )
    return shown


def _chosen(row: classroom.Missed, text: str) -> str:
    return escape(f"{row.wrong} ({row.takers}) {text}".strip()) if row.wrong else "–"
