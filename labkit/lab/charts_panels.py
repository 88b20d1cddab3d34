"""Figures of several panels: drawing areas placed in inches, in the one style of all figures.

A panel is named above its scale and its lines are named beside them, so no legend is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from labkit.lab.charts_style import DPI, FAINT, INK, PAPER, TEXT, WIDTH_IN, entitle
from labkit.lab.spanish import number

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
