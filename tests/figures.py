"""Looking at a figure's texts as a reader at the back of the room does."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SMALLEST_POINTS = 12


def texts(figure: Figure) -> list[Text]:
    """Return the texts that are drawn."""
    figure.draw_without_rendering()
    hidden = [text for axes in figure.axes for text in _undrawn(axes)]
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def _undrawn(axes: Axes) -> list[Text]:
    """Return tick labels that exist and are not drawn: beyond the limits, or of a hidden scale."""
    hidden: list[Text] = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        hidden += [
            tick.label1
            for tick in axis.get_major_ticks()
            if not axes.axison or not low <= tick.get_loc() <= high
        ]
    return hidden


def words(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in texts(figure)]


def problems(figure: Figure) -> list[str]:
    """Return what is too small, cut off or written over something else."""
    found = texts(figure)
    boxes = [(text.get_text(), _box(text)) for text in found]
    small = [
        f"{t.get_text()!r} is small" for t in found if float(t.get_fontsize()) < SMALLEST_POINTS
    ]
    page = figure.bbox
    cut = [
        f"{name!r} is cut off"
        for name, box in boxes
        if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1
    ]
    over = [
        f"{one!r} and {other!r} overlap"
        for (one, a), (other, b) in combinations(boxes, 2)
        if a.overlaps(b)
    ]
    return small + cut + over


def _box(text: Text) -> Bbox:
    # Why not the method: an annotation would count its arrow.
    return Text.get_window_extent(text)
