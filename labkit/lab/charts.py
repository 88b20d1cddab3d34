"""Charts: one function that shows a figure, and the forms that a notebook draws.

nbval does not compare images, so a wrong chart would pass. Here the image always travels with
its *reading*, a sentence computed from the data that are drawn: it is the image's text, which
nbval does compare, and it stands below the image for whoever cannot see it.

Guarantee: no figure is shown without a reading, or with text too small for the back of a room.
Not guaranteed: that the reading is true; compute it from the data, and assert what it claims.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from labkit.lab import page
from labkit.lab.charts_axes import Span, distribution, lines
from labkit.lab.charts_bars import bars
from labkit.lab.charts_matrix import Cell, bad, good, matrix, plain
from labkit.lab.charts_style import (
    COLOURS,
    FAINT,
    GREY,
    HATCHES,
    INK,
    LINE_IN,
    MARGIN_IN,
    PAPER,
    SMALLEST,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    few,
    paper,
    width_of,
)
from labkit.lab.spanish import counted, number

__all__ = [
    "Cell",
    "Span",
    "bad",
    "bars",
    "bundle",
    "distribution",
    "good",
    "lines",
    "matrix",
    "plain",
    "show",
    "stacked_bars",
]

_BAR_IN, _ROW_IN = 0.46, 1.42
_SWATCH_IN, _LEAST_IN = 0.2, 0.06


def show(figure: Figure, lectura: str) -> None:
    """Show a figure and, below it, what it says.

    Args:
        figure: from one of the forms, or any other.
        lectura: the reading, computed from the data that the figure draws.

    Raises:
        ValueError: the reading is empty, or a text of the figure is too small.
    """
    shown = bundle(figure, lectura)
    page.show(shown)
    page.say(f"**Lectura.** {shown['text/plain']}")


def bundle(figure: Figure, lectura: str) -> dict[str, str]:
    """Return what is published of a figure: the image, and its reading as text.

    Args:
        figure: the figure.
        lectura: the reading.

    Raises:
        ValueError: the reading is empty, or a text of the figure is too small.
    """
    reading = " ".join(lectura.split())
    if not reading:
        raise ValueError("esta gráfica no tiene lectura: di en una frase qué enseña, con sus datos")
    for text, points in _texts(figure):
        if points < SMALLEST:
            raise ValueError(
                f"«{text}» mide {number(points)} pt: al fondo de la sala no se lee nada por debajo "
                f"de {SMALLEST}"
            )
    image = io.BytesIO()
    figure.savefig(image, format="png", facecolor=PAPER, metadata={"Software": None})
    return {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": reading}


def _texts(figure: Figure) -> Iterator[tuple[str, float]]:
    # Tick labels come into being when a figure is drawn.
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), float(text.get_fontsize())


def stacked_bars(data: Mapping[str, Mapping[str, int]], *, title: str) -> Figure:
    """Draw a bar per row, divided into series; every count is written below it, zeros as well.

    Args:
        data: row, series, count; a row without series is one that is still to be measured.
        title: what the figure shows.

    Raises:
        ValueError: more than four series, none, or a negative count.
    """
    series = list(dict.fromkeys(name for row in data.values() for name in row))
    few(series)
    if any(count < 0 for row in data.values() for count in row.values()):
        raise ValueError("una barra cuenta cosas: no hay cuentas negativas")
    figure, axes = paper(WIDTH_IN, TITLE_IN + _ROW_IN * len(data), title)
    most = max(sum(row.values()) for row in data.values()) or 1
    scale = (WIDTH_IN - 2 * MARGIN_IN - _LEAST_IN * len(series)) / most
    for n, (name, row) in enumerate(data.items()):
        top = TITLE_IN + _ROW_IN * n
        axes.text(MARGIN_IN, top + 0.1, name, size=TEXT, weight="bold", color=INK, va="center")
        if row:
            counts = {each: row.get(each, 0) for each in series}
            _draw_bar(axes, counts, top + LINE_IN, scale)
            _draw_counts(axes, counts, top + LINE_IN + _BAR_IN + 0.24)
        else:
            _draw_gap(axes, top + LINE_IN)
    return figure


def _draw_bar(axes: Axes, counts: Mapping[str, int], top: float, scale: float) -> None:
    left = MARGIN_IN
    for n, count in enumerate(counts.values()):
        # One among thousands must not disappear.
        width = max(count * scale, _LEAST_IN) if count else 0.0
        _draw_box(axes, (left, top), width, _BAR_IN, n)
        text = number(count)
        if width > width_of(text, TEXT, "bold") + 0.2:
            axes.text(
                left + width / 2, top + _BAR_IN / 2, text, size=TEXT, weight="bold",
                color=PAPER, ha="center", va="center",
                bbox={"facecolor": COLOURS[n], "edgecolor": "none", "pad": 2},
            )  # fmt: skip
        left += width


def _draw_counts(axes: Axes, counts: Mapping[str, int], y: float) -> None:
    x = MARGIN_IN
    for n, (name, count) in enumerate(counts.items()):
        text = counted(count, name)
        _draw_box(axes, (x, y - _SWATCH_IN / 2), _SWATCH_IN, _SWATCH_IN, n)
        x += _SWATCH_IN + 0.1
        axes.text(x, y, text, size=TEXT, color=INK if count else GREY, va="center")
        x += width_of(text) + 0.45


def _draw_box(axes: Axes, corner: tuple[float, float], width: float, height: float, n: int) -> None:
    box = Rectangle(corner, width, height, facecolor=COLOURS[n], edgecolor=PAPER, linewidth=0)
    box.set_hatch(HATCHES[n])
    axes.add_patch(box)


def _draw_gap(axes: Axes, top: float) -> None:
    """Draw an empty bar: this way of building it comes later."""
    width = WIDTH_IN - 2 * MARGIN_IN
    box = Rectangle((MARGIN_IN, top), width, _BAR_IN, fill=False, edgecolor=FAINT, linestyle="--")
    axes.add_patch(box)
    middle = (MARGIN_IN + width / 2, top + _BAR_IN / 2)
    axes.text(*middle, "por medir", size=TEXT, color=INK, style="italic", ha="center", va="center")
