"""`labkit class FOLDER`: the predictions and questions that a class missed most.

Guarantee: only sums are shown; nothing leaves the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from labkit.lab.classroom import Missed

Folder = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Where the students' files are.")
]
_COLUMNS = ("pregunta", "respuestas", "fallos", "%", "lo medido", "fallo más común")


def table(folder: Folder) -> None:
    """Read exported predictions and quiz answers; print the most missed first."""
    # Why not at the top: it needs the notebooks' dependencies, and `labkit run` does not.
    from labkit.lab import classroom  # noqa: PLC0415

    found = classroom.read(folder)
    console = Console()
    most_missed = classroom.most_missed(found.answers)
    rows = [(row, classroom.text_of(row.question, row.wrong)) for row in most_missed]
    console.print(_table(found.students, rows))
    for path in found.refused:
        console.print(f"[yellow]no se entiende {escape(path)}: no se ha contado[/yellow]")


def _table(students: int, rows: Sequence[tuple[Missed, str]]) -> Table:
    shown = Table(title=f"{students} personas", title_justify="left")
    for column in _COLUMNS:
        shown.add_column(column, justify="right" if column in _COLUMNS[1:4] else "left")
    for row, wrong in rows:
        shown.add_row(
            row.question,
            str(row.answered),
            str(row.missed),
            f"{100 * row.missed / row.answered:.0f}",
            row.right,
            _wrong(row, wrong),
        )
    return shown


def _wrong(row: Missed, text: str) -> str:
    return escape(f"{row.wrong} ({row.takers}) {text}".strip()) if row.wrong else "–"
