"""A table whose cells carry a verdict: a sign and words first, a colour last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.lab.charts_style import (
    BAD,
    FAINT,
    GOOD,
    INK,
    LINE_IN,
    MARGIN_IN,
    PAPER,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    wrap,
)

_FACES = {"good": GOOD, "bad": BAD, "plain": PAPER}
_SIGNS = {"good": "✓ ", "bad": "✗ ", "plain": ""}
_NAMES_IN, _PAD_IN = 2.5, 0.16


class Cell(NamedTuple):
    """What a cell says, and whether that is what one wants."""

    text: str
    verdict: Literal["good", "bad", "plain"]


def good(text: str) -> Cell:
    """Return a cell that says: so it should be."""
    return Cell(text, "good")


def bad(text: str) -> Cell:
    """Return a cell that says: something went wrong."""
    return Cell(text, "bad")


def plain(text: str) -> Cell:
    """Return a cell without a verdict."""
    return Cell(text, "plain")


def matrix(
    data: Mapping[str, Mapping[str, Cell]], *, title: str, rows: str, columns: str
) -> Figure:
    """Draw a table of verdicts; a comma in a cell begins a new line.

    Args:
        data: row, column, cell.
        title: what the figure shows.
        rows: what the rows are.
        columns: what the columns are.

    Raises:
        ValueError: there is no row, or not every row has the same columns.
    """
    names = _columns(data)
    width = (WIDTH_IN - 2 * MARGIN_IN - _NAMES_IN) / len(names)
    head = [wrap(name, width - 2 * _PAD_IN, weight="bold") for name in names]
    heights = [
        _height([_name(row), *(_words(cell, width) for cell in cells.values())])
        for row, cells in data.items()
    ]
    body = TITLE_IN + 0.4 + _height(head)
    figure, axes = paper(WIDTH_IN, body + sum(heights) + MARGIN_IN, title)
    left = MARGIN_IN + _NAMES_IN
    axes.text(left, TITLE_IN + 0.1, f"{columns} →", size=TEXT, color=INK, va="center")
    axes.text(MARGIN_IN, body - 0.2, f"{rows} ↓", size=TEXT, color=INK, va="center")
    for n, name in enumerate(head):
        middle = (left + width * (n + 0.5), TITLE_IN + 0.4 + _height(head) / 2)
        axes.text(*middle, name, size=TEXT, weight="bold", color=INK, ha="center", va="center")
    for (name, cells), height in zip(data.items(), heights, strict=True):
        axes.text(
            MARGIN_IN, body + height / 2, _name(name), size=TEXT, weight="bold", va="center",
            color=INK,
        )  # fmt: skip
        for n, cell in enumerate(cells.values()):
            _draw_cell(axes, cell, (left + width * n, body), width, height)
        body += height
    return figure


def _columns(data: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    names = [list(cells) for cells in data.values()]
    if not names or not names[0] or any(each != names[0] for each in names):
        raise ValueError(f"una matriz tiene las mismas columnas en cada fila, y aquí son {names}")
    return names[0]


def _draw_cell(
    axes: Axes, cell: Cell, corner: tuple[float, float], width: float, height: float
) -> None:
    box = Rectangle(corner, width, height, facecolor=_FACES[cell.verdict], edgecolor=FAINT)
    axes.add_patch(box)
    middle = (corner[0] + width / 2, corner[1] + height / 2)
    weight = "bold" if cell.verdict == "bad" else "normal"
    text = _words(cell, width)
    axes.text(*middle, text, size=TEXT, color=INK, weight=weight, ha="center", va="center")


def _name(row: str) -> str:
    return wrap(row, _NAMES_IN - _PAD_IN, weight="bold")


def _words(cell: Cell, width: float) -> str:
    # Measured in bold, so that both weights fit. What a comma parts gets a line of its own.
    parts = (_SIGNS[cell.verdict] + cell.text).split(", ")
    return "\n".join(wrap(part, width - 2 * _PAD_IN, weight="bold") for part in parts)


def _height(texts: Sequence[str]) -> float:
    most = max(len(text.splitlines()) for text in texts)
    return LINE_IN * most + 2 * _PAD_IN
