"""The one style of all figures: sizes, colours, marks and signs, and paper to draw on.

Guarantee: whoever draws with these sizes is legible from the back of a room, and no colour stands
alone: each goes with a hatch, a marker, a dash or a number.
Not guaranteed: that texts do not overlap; the tests of each form look at that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

DPI = 100
SMALLEST = 12
TEXT, TITLE = 14, 18
WIDTH_IN = 10.0
MARGIN_IN = 0.3
LINE_IN = 0.26
TITLE_IN = 0.85
MOST_SERIES = 4

# Colours that colour-blind readers tell apart (Okabe and Ito, darkened for text on white).
COLOURS = ("#0072B2", "#D55E00", "#007A5E", "#8F4E8B", "#7A5C00", "#444444")
HATCHES = ("", "//", "..", "xx")
MARKERS = ("o", "s", "^", "D")
DASHES = ("-", "--", "-.", ":")
INK, GREY, FAINT, PAPER = "#1A1A1A", "#5C5C5C", "#999999", "white"
GOOD, BAD = "#D3E8F7", "#FBDCC6"

# matplotlib does not say what these take.
_Renderer: Any = RendererAgg
_renderer = _Renderer(1, 1, DPI)


def paper(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one drawing area over all of it: one unit is one inch, y runs down.

    Args:
        width: in inches.
        height: in inches, the title's `TITLE_IN` included.
        title: what the figure shows.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    entitle(figure, title)
    return figure, axes


def entitle(figure: Figure, title: str) -> None:
    """Write the title at the top left, over the whole width."""
    width, height = figure.get_size_inches()
    lines = wrap(title, width - 2 * MARGIN_IN, TITLE, "bold")
    figure.text(
        MARGIN_IN / width, 1 - 0.2 / height, lines, size=TITLE, weight="bold", color=INK, va="top"
    )


def wrap(text: str, width: float, size: float = TEXT, weight: str = "normal") -> str:
    """Break a text into lines of at most a width; a word that is wider stays whole.

    Args:
        text: what to break.
        width: in inches.
        size: of the font, in points.
        weight: of the font.
    """
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def width_of(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """Return how wide a line of text is, in inches."""
    font = FontProperties(size=size, weight=weight)
    width: float = _renderer.get_text_width_height_descent(text, font, ismath=False)[0]
    return width / DPI


def widest(texts: Sequence[str], size: float = TEXT, weight: str = "normal") -> float:
    """Return how wide the widest of these lines is, in inches."""
    return max(width_of(line, size, weight) for text in texts for line in text.splitlines())


def few(series: Sequence[str]) -> None:
    """Refuse more series than a reader at the back can tell apart.

    Raises:
        ValueError: there are more than four, or none.
    """
    if not 1 <= len(series) <= MOST_SERIES:
        raise ValueError(
            f"una gráfica lleva de 1 a {MOST_SERIES} series, y estas son {len(series)}: "
            "quita alguna o haz dos gráficas"
        )
