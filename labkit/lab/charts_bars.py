"""Bars side by side: each row is one way of doing it, each column one thing that was measured.

Every bar has its number beside it, so that a logarithmic scale misleads nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.lab.charts_style import (
    COLOURS,
    HATCHES,
    INK,
    LINE_IN,
    MARGIN_IN,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    few,
    paper,
    widest,
    width_of,
    wrap,
)
from labkit.lab.spanish import number

Rows = Mapping[str, Mapping[str, float]]
_BAR_IN, _ROW_IN, _GAP_IN, _LEAST_IN = 0.34, 0.55, 0.35, 0.05
_NAMES_IN = 2.9


def bars(data: Rows, *, title: str, log: Collection[str] = ()) -> Figure:
    """Draw a bar for each row and measure; not-a-number is written as «nunca».

    Args:
        data: row, measure (with its unit), value.
        title: what the figure shows.
        log: the measures whose bars grow with the logarithm; their names say so.

    Raises:
        ValueError: no row, no measure, more than four, or rows with other measures.
    """
    measures = _measures(data)
    names = [wrap(name, _NAMES_IN, weight="bold") for name in data]
    left = MARGIN_IN + widest(names, weight="bold") + _GAP_IN
    width = (WIDTH_IN - left - MARGIN_IN) / len(measures)
    head = [wrap(_name(each, log), width - _GAP_IN, weight="bold") for each in measures]
    heights = [max(_ROW_IN, LINE_IN * len(name.splitlines()) + 0.15) for name in names]
    top = TITLE_IN + LINE_IN * max(len(each.splitlines()) for each in head) + 0.2
    figure, axes = paper(WIDTH_IN, top + sum(heights) + MARGIN_IN, title)
    middles = [top + sum(heights[:n]) + heights[n] / 2 for n in range(len(names))]
    for name, y in zip(names, middles, strict=True):
        axes.text(MARGIN_IN, y, name, size=TEXT, weight="bold", color=INK, va="center")
    for n, measure in enumerate(measures):
        x = left + width * n
        axes.text(x, TITLE_IN, head[n], size=TEXT, weight="bold", color=COLOURS[n], va="top")
        values = [row[measure] for row in data.values()]
        _draw_column(axes, (x, width - _GAP_IN), values, middles, n, log=measure in log)
    return figure


def _measures(data: Rows) -> list[str]:
    found = [list(row) for row in data.values()]
    if not found or any(each != found[0] for each in found):
        raise ValueError(f"cada fila lleva las mismas medidas, y aquí son {found}")
    few(found[0])
    return found[0]


def _name(measure: str, log: Collection[str]) -> str:
    return f"{measure}, escala logarítmica" if measure in log else measure


def _draw_column(
    axes: Axes,
    place: tuple[float, float],
    values: Sequence[float],
    middles: Sequence[float],
    n: int,
    *,
    log: bool,
) -> None:
    x, width = place
    texts = [_text(value) for value in values]
    room = width - max(width_of(text) for text in texts) - 0.15
    lengths = _lengths(values, room, log=log)
    for text, length, y in zip(texts, lengths, middles, strict=True):
        box = Rectangle((x, y - _BAR_IN / 2), length, _BAR_IN, facecolor=COLOURS[n], linewidth=0)
        box.set(edgecolor="white", hatch=HATCHES[n])
        axes.add_patch(box)
        axes.text(x + length + 0.1, y, text, size=TEXT, color=INK, va="center")


def _text(value: float) -> str:
    return "nunca" if math.isnan(value) else number(value)


def _lengths(values: Sequence[float], room: float, *, log: bool) -> list[float]:
    real = [value for value in values if not math.isnan(value)]
    positive = [value for value in real if value > 0]
    if not positive:
        return [0.0] * len(values)
    if log:
        least, most = math.log10(min(positive)) - 0.3, math.log10(max(positive))
        shares = [(math.log10(v) - least) / (most - least) if v > 0 else 0.0 for v in values]
    else:
        shares = [value / max(positive) for value in values]
    return [0.0 if math.isnan(s) else max(_LEAST_IN * (s > 0), room * s) for s in shares]
