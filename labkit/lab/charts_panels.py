"""Figures of several panels: drawing areas placed in inches, in the one style of all figures.

A panel is named above its scale and its lines are named beside them, so no legend is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from labkit.lab.charts_style import (
    COLOURS,
    DPI,
    FAINT,
    HATCHES,
    INK,
    PAPER,
    TEXT,
    WIDTH_IN,
    entitle,
)
from labkit.lab.spanish import number

_BIN_S = 4

Box = tuple[float, float, float, float]


def panels(height: float, title: str, boxes: Sequence[Box]) -> tuple[Figure, list[Axes]]:
    """Return a figure with drawing areas that have an outline at the left and below only.

    Args:
        height: of the figure, in inches.
        title: what the figure shows.
        boxes: left, bottom, width and height of each area, in inches.
    """
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor=PAPER)
    entitle(figure, title)
    return figure, [_panel(figure, box, height) for box in boxes]


def _panel(figure: Figure, box: Box, height: float) -> Axes:
    left, bottom, wide, high = box
    axes = figure.add_axes((left / WIDTH_IN, bottom / height, wide / WIDTH_IN, high / height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT, colors=INK)
    axes.grid(color=FAINT, alpha=0.35)
    axes.set_axisbelow(True)
    return axes


def name(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Write what both scales are: x below, y above the area, where it is read first."""
    axes.set_xlabel(x, size=TEXT, color=INK)
    axes.set_title(y, size=TEXT, color=INK, loc="left", pad=10)


def ticks(
    axes: Axes, *, x: Sequence[float] | None = None, y: Sequence[float] | None = None
) -> None:
    """Write the numbers of the scales as a Spanish text does, at these places if given."""
    for axis, places in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        if places is not None:
            axis.set_ticks(list(places))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 9))))


def say(
    axes: Axes, at: tuple[float, float], text: str, *, colour: str = INK, **how: object
) -> None:
    """Write beside what is meant, at a place of the scales."""
    options: dict[str, object] = {"ha": "left", "va": "center", "weight": "bold"} | how
    axes.text(*at, text, size=TEXT, color=colour, **options)  # type: ignore[arg-type]


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a panel, from the top down."""
    axes.set_yticks(range(len(names)), names, size=TEXT, weight="bold", color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)


def bars(axes: Axes, values: Sequence[float], what: str, n: int, *, log: bool = True) -> None:
    """Draw a bar per value, row by row, with its number at its end.

    Args:
        axes: where.
        values: above zero.
        what: what they are.
        n: colour and hatch.
        log: each step of the scale multiplies by ten.
    """
    drawn = axes.barh(range(len(values)), values, 0.55, color=COLOURS[n], edgecolor=PAPER)
    for bar in drawn:
        bar.set_hatch(HATCHES[n])
    if log:
        axes.set_xscale("log")
        axes.set_xlim(10 ** floor(log10(min(values)) - 0.3), max(values) * 4)
    else:
        axes.set_xlim(0, max(values) * 1.3)
    ticks(axes)
    name(axes, x="cada paso multiplica por 10" if log else "", y=what)
    for row, value in enumerate(values):
        axes.annotate(
            number(value), (value, row), (6, 0), textcoords="offset points", size=TEXT,
            weight="bold", color=INK, va="center",
        )  # fmt: skip


def shade(axes: Axes, stretch: tuple[float, float]) -> None:
    """Shade a stretch of time behind lines, and let them be lines without marks."""
    for line in axes.get_lines():
        line.set_marker("")
    axes.axvspan(*stretch, color=FAINT, alpha=0.3, linewidth=0, zorder=0.5)


def smooth(per_second: np.ndarray) -> list[tuple[float, float]]:
    """Return means of four seconds: every second by itself would hide the line in its noise."""
    means = per_second.reshape(-1, _BIN_S).mean(axis=1)
    return [(_BIN_S * (n + 0.5), float(mean)) for n, mean in enumerate(means)]
