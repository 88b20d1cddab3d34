"""`labkit class FOLDER`: the predictions and questions that a class missed most.

Guarantee: only sums are shown; nothing leaves the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from labkit.lab.classroom import Missed
    from labkit.lab.questions import Question

Folder = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Where the students' files are.")
]
_COLUMNS = ("pregunta", "respuestas", "fallos", "%", "lo medido", "fallo más común")


def table(folder: Folder) -> None:
    """Read exported predictions and quiz answers; print the most missed first."""
    # Why not at the top: it needs the notebooks' dependencies, and `labkit run` does not.
    from labkit.lab import classroom, predictions  # noqa: PLC0415

    found = classroom.read(folder)
    asked = {each.id: each for each in predictions.questions()}
    console = Console()
    console.print(_table(found.students, classroom.most_missed(found.answers), asked))
    for path in found.refused:
        console.print(f"[yellow]no se entiende {escape(path)}: no se ha contado[/yellow]")


def _table(students: int, rows: Sequence[Missed], asked: Mapping[str, Question]) -> Table:
    shown = Table(title=f"{students} personas", title_justify="left")
    for column in _COLUMNS:
        shown.add_column(column, justify="right" if column in _COLUMNS[1:4] else "left")
    for row in rows:
        option = asked[row.question].options.get(row.wrong) if row.question in asked else None
        shown.add_row(
            row.question,
            str(row.answered),
            str(row.missed),
            f"{100 * row.missed / row.answered:.0f}",
            row.right,
            _wrong(row, option.text if option else ""),
        )
    return shown


def _wrong(row: Missed, text: str) -> str:
    return escape(f"{row.wrong} ({row.takers}) {text}".strip()) if row.wrong else "–"
