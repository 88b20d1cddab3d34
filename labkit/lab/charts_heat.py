"""A heat map of right and wrong: many cases side by side, a row for each way of doing it.

The sign says what the colour says, so that nobody needs the colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    widest,
)

_ROW_IN, _GAP_IN = 0.7, 0.15


def heat_map(
    rows: Mapping[str, Sequence[bool]],
    cases: Sequence[Sequence[str]],
    *,
    title: str,
    head: str,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw a mark for each row and case.

    Args:
        rows: way of doing it; whether it was right, by case.
        cases: what happens in each case, step by step, to be read downwards.
        title: what the figure shows.
        head: what the cases are.
        notes: a word for each mark, by row and case.

    Raises:
        ValueError: there is no case, or a row has another number of them.
    """
    if not cases or any(len(row) != len(cases) for row in rows.values()):
        raise ValueError(f"cada fila lleva un resultado por caso, y los casos son {len(cases)}")
    steps = max(map(len, cases))
    top = TITLE_IN + 0.4 + LINE_IN * steps
    left = MARGIN_IN + widest(list(rows), weight="bold") + _GAP_IN
    width = (WIDTH_IN - MARGIN_IN - left) / len(cases)
    height = top + _ROW_IN * len(rows) + MARGIN_IN
    figure, axes = paper(WIDTH_IN, height, title)
    axes.text(left, TITLE_IN + 0.1, f"{head} →", size=TEXT, color=INK, va="center")
    for n, case in enumerate(cases):
        _draw_case(axes, case, left + width * (n + 0.5), TITLE_IN + 0.4)
    for n, (name, row) in enumerate(rows.items()):
        y = top + _ROW_IN * n
        axes.text(
            MARGIN_IN, y + _ROW_IN / 2, name, size=TEXT, weight="bold", color=INK, va="center"
        )
        said = notes[name] if notes else [""] * len(row)
        for at, (right, note) in enumerate(zip(row, said, strict=True)):
            _draw_mark(axes, (left + width * at, y), width, note, right=right)
    return figure


def _draw_case(axes: Axes, steps: Sequence[str], middle: float, top: float) -> None:
    for n, step in enumerate(steps):
        y = top + LINE_IN * (n + 0.4)
        axes.text(middle, y, step, size=TEXT, color=INK, ha="center", va="center")


def _draw_mark(
    axes: Axes, corner: tuple[float, float], width: float, note: str, *, right: bool
) -> None:
    face = GOOD if right else BAD
    axes.add_patch(Rectangle(corner, width, _ROW_IN, facecolor=face, edgecolor=FAINT))
    middle = (corner[0] + width / 2, corner[1] + _ROW_IN / 2)
    sign, weight = ("✓", "normal") if right else ("✗", "bold")
    words = f"{sign} {note}".strip()
    axes.text(*middle, words, size=TEXT, color=INK, weight=weight, ha="center", va="center")
