"""Figures with a scale: lines that are named where they end, and times as the dots they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from labkit.lab.charts_style import (
    COLOURS,
    DASHES,
    DPI,
    FAINT,
    INK,
    LINE_IN,
    MARGIN_IN,
    MARKERS,
    PAPER,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    entitle,
    few,
    widest,
    wrap,
)
from labkit.lab.spanish import number

Points = Sequence[tuple[float, float]]


class Span(NamedTuple):
    """A stretch of x, and what it is."""

    since: float
    until: float
    name: str


_HEIGHT_IN, _BELOW_IN, _LABEL_IN = 5.2, 0.85, 2.3
_STRIP_IN = 1.25
_MOST_TICKS = 8
_GOLDEN = 0.618034


def lines(
    data: Mapping[str, Points],
    *,
    title: str,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    dots: bool = True,
    shaded: Span | None = None,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Draw a line per series, named at its end.

    Args:
        data: series and its points, in order of x.
        title: what the figure shows.
        x: what x is, with its unit.
        y: what y is, with its unit.
        log_x: each step of x multiplies.
        log_y: each step of y multiplies.
        dots: whether each point has a mark of its own; without, where there are many.
        shaded: a stretch of x, with its name.
        marks: places of x that have a name.

    Raises:
        ValueError: more than four series, none, or one without points.
    """
    few(list(data))
    if not all(data.values()):
        raise ValueError("hay una serie sin puntos: no se puede dibujar")
    names = [wrap(name, _LABEL_IN, weight="bold") for name in data]
    right = widest(names, weight="bold") + 0.5
    axes = _scaled(_HEIGHT_IN, 0.95, right, title, above=LINE_IN)
    for n, points in enumerate(data.values()):
        axes.plot(
            *zip(*points, strict=True), color=COLOURS[n], linestyle=DASHES[n],
            marker=MARKERS[n] if dots else "", linewidth=2.5, markersize=9,
        )  # fmt: skip
    _scale(axes.xaxis, "x", [at for points in data.values() for at, _ in points], log=log_x)
    _scale(axes.yaxis, "y", [], log=log_y)
    if not log_y:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _draw_places(axes, shaded, marks or {})
    axes.set_xlabel(x, size=TEXT, color=INK)
    axes.text(0, 1.03, y, size=TEXT, color=INK, transform=axes.transAxes)
    _name_ends(axes, names, [points[-1] for points in data.values()])
    return _figure(axes)


def _draw_places(axes: Axes, shaded: Span | None, marks: Mapping[str, float]) -> None:
    """Shade a stretch and draw lines down from the top, with their names inside."""
    if (shaded or marks) and axes.get_yscale() == "linear":
        axes.set_ylim(top=axes.get_ylim()[1] * 1.15)
    if shaded:
        axes.axvspan(shaded.since, shaded.until, color=FAINT, alpha=0.3, hatch="/", linewidth=0)
    names = {name: (at, "center") for name, at in marks.items()}
    if shaded:
        names[shaded.name] = (shaded.until, "left")
    for n, (name, (at, side)) in enumerate(names.items()):
        if name in marks:
            axes.axvline(at, color=INK, linewidth=1.5, linestyle=":")
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
        axes.text(
            at, 0.97 - 0.07 * n, name, transform=axes.get_xaxis_transform(), size=TEXT, color=INK,
            ha=side, va="top", bbox=box,
        )  # fmt: skip


def distribution(
    data: Mapping[str, Sequence[float]], *, title: str, x: str, unit: str, log: bool = False
) -> Figure:
    """Draw every measured value as a dot, a strip per series, with p50 and p99 marked.

    Args:
        data: series and its values.
        title: what the figure shows.
        x: what the values are.
        unit: their unit.
        log: each step of the scale multiplies.

    Raises:
        ValueError: more than four series, none, or one without values.
    """
    few(list(data))
    if not all(data.values()):
        raise ValueError("hay una serie sin valores: no se puede dibujar")
    names = [wrap(name, _LABEL_IN, weight="bold") for name in data]
    height = TITLE_IN + _BELOW_IN + _STRIP_IN * len(data)
    axes = _scaled(height, widest(names, weight="bold") + 0.5, 0.6, title)
    for n, values in enumerate(data.values()):
        _draw_strip(axes, values, n, unit)
    _scale(axes.xaxis, "x", [], log=log)
    if not log:
        axes.set_xlim(left=0)
    axes.set_ylim(len(data) - 0.5, -0.5)
    axes.set_yticks(range(len(data)), names, size=TEXT, weight="bold", color=INK)
    axes.set_xlabel(f"{x} ({unit})", size=TEXT, color=INK)
    return _figure(axes)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed.

    >>> percentile([4, 1, 3, 2], 0.5)
    2
    """
    return sorted(values)[ceil(share * len(values)) - 1]


def _draw_strip(axes: Axes, values: Sequence[float], n: int, unit: str) -> None:
    # Spread evenly and always in the same way: chance would make another picture each time.
    heights = [n + (i * _GOLDEN % 1 - 0.5) * 0.3 for i in range(len(values))]
    axes.scatter(values, heights, s=22, color=COLOURS[n], marker=MARKERS[n], alpha=0.35)
    for share, above in ((0.5, True), (0.99, False)):
        at = percentile(values, share)
        axes.plot((at, at), (n - 0.24, n + 0.24), color=INK, linewidth=2.5)
        place, side = (n - 0.26, "bottom") if above else (n + 0.26, "top")
        text = f"p{share * 100:.0f}: {number(at)} {unit}"
        axes.text(at, place, text, size=TEXT, color=INK, ha="center", va=side)


def _scaled(height: float, left: float, right: float, title: str, above: float = 0.0) -> Axes:
    """Return axes between margins in inches, with an outline at the left and below only."""
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor=PAPER)
    entitle(figure, title)
    room = (WIDTH_IN - left - right) / WIDTH_IN, (height - _BELOW_IN - TITLE_IN - above) / height
    axes = figure.add_axes((left / WIDTH_IN, _BELOW_IN / height, *room))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT, colors=INK)
    axes.grid(color=FAINT, alpha=0.35)
    return axes


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)  # noqa: S101 - it was made here
    return figure


def _scale(axis: Axis, name: str, at: Sequence[float], *, log: bool) -> None:
    axes = axis.axes
    if log and name == "x":
        axes.set_xscale("log")
    elif log:
        axes.set_yscale("log")
    if log and 0 < len(set(at)) <= _MOST_TICKS:
        axis.set_ticks(sorted(set(at)))
    if log:
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 9))))


def _name_ends(axes: Axes, names: Sequence[str], ends: Points) -> None:
    """Write each name beside the end of its line; names that would touch move apart."""
    height = axes.get_window_extent().height / DPI
    measured = axes.transAxes.inverted().transform(axes.transData.transform(ends))
    wanted = {n: float(at[1]) * height for n, at in enumerate(measured)}
    heights = [len(name.splitlines()) * LINE_IN for name in names]
    for n, y in _apart(wanted, heights, height).items():
        axes.annotate(
            names[n], (float(measured[n][0]), float(measured[n][1])), (1.03, y / height),
            xycoords="axes fraction", textcoords="axes fraction", size=TEXT, weight="bold",
            color=COLOURS[n], va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS[n], "relpos": (0, 0.5)},
        )  # fmt: skip


def _apart(wanted: Mapping[int, float], heights: Sequence[float], room: float) -> dict[int, float]:
    """Return the places, moved so that no two touch: up, and down together at the very top."""
    places: dict[int, float] = {}
    free = -MARGIN_IN
    for n, y in sorted(wanted.items(), key=lambda each: each[1]):
        places[n] = max(y, free + heights[n] / 2)
        free = places[n] + heights[n] / 2
    too_high = max(0.0, free - room - LINE_IN)
    return {n: place - too_high for n, place in places.items()}
