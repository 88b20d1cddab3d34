"""Attempts: the timeline of one step of a saga on the story's clock, from its history.

Below the saga's status over time stand three lanes: when it asked, when its patience ended, when it
was answered. Every mark is a line of the history.

Not guaranteed: that what is drawn at one time happened at one instant; while the story's workers
work its clock stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.lab import saga_books
from labkit.lab.charts_style import (
    BAD,
    COLOURS,
    FAINT,
    GOOD,
    INK,
    LINE_IN,
    MARGIN_IN,
    MARKERS,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    wrap,
)
from labkit.lab.spanish import number
from labkit.saga import COMPENSATED, COMPENSATING, STUCK, Request
from labkit.saga.operations import Shown

LANES = {"asked": "se pide", "timed out": "vence el tiempo límite", "answered": "contesta"}
_STATUSES = {str(each).lower(): str(each) for each in (COMPENSATING, COMPENSATED, STUCK)}
_LANE_IN, _NAME_IN, _BAND_IN, _TAIL_IN = 0.85, 1.5, 0.5, 1.75


class Mark(NamedTuple):
    """Something in the history of a step: when, in seconds since the saga began, and what."""

    at_s: float
    what: str


def marks(shown: Shown, request: Request) -> list[Mark]:
    """Return what the history says of a request, until the saga has ended.

    Args:
        shown: the saga, from `labkit.lab.saga_books.saga`.
        request: which.
    """
    return [
        Mark(saga_books.seconds(shown, line), line.what)
        for line in shown.history
        if line.step == str(request) and line.what in LANES
    ]


def statuses(shown: Shown) -> list[Mark]:
    """Return how the saga's status changed, from the first compensation on.

    Args:
        shown: the saga.
    """
    found = [(saga_books.seconds(shown, line), line.what) for line in shown.history]
    return [Mark(at, _STATUSES[what]) for at, what in found if what in _STATUSES]


def draw(shown: Shown, request: Request, *, title: str) -> Figure:
    """Draw the attempts of a request below the saga's status.

    Args:
        shown: the saga.
        request: whose attempts.
        title: what the figure shows.
    """
    found, bands = marks(shown, request), statuses(shown)
    band = TITLE_IN + 0.1
    foot = band + _BAND_IN + _LANE_IN * (len(LANES) + 0.4)
    figure, axes = paper(WIDTH_IN, foot + 0.9, title)
    left, right = MARGIN_IN + _NAME_IN + 0.3, WIDTH_IN - MARGIN_IN - _TAIL_IN
    longest = max(each.at_s for each in (*found, *bands)) or 1.0
    scale = (right - left) / longest
    _draw_bands(axes, bands, band, left, scale)
    for n, (what, name) in enumerate(LANES.items()):
        y = band + _BAND_IN + _LANE_IN * (n + 0.8)
        axes.plot((left, WIDTH_IN - MARGIN_IN), (y, y), color=FAINT, linestyle=(0, (5, 4)))
        axes.text(MARGIN_IN, y, wrap(name, _NAME_IN, weight="bold"), size=TEXT, weight="bold",
                  color=INK, va="center")  # fmt: skip
        at = [left + each.at_s * scale for each in found if each.what == what]
        _draw_marks(axes, at, y, n)
    _draw_seconds(axes, found, foot, left, scale)
    return figure


def _draw_bands(axes: Axes, bands: Sequence[Mark], top: float, left: float, scale: float) -> None:
    ends = [left + each.at_s * scale for each in bands] + [WIDTH_IN - MARGIN_IN]
    for band, (start, end) in zip(bands, pairwise(ends), strict=True):
        face = GOOD if band.what == COMPENSATED else BAD
        hatch = "" if band.what == COMPENSATED else "//"
        axes.add_patch(
            Rectangle((start, top), end - start, _BAND_IN, facecolor=face, edgecolor="white",
                      hatch=hatch, linewidth=0)
        )  # fmt: skip
        axes.text(
            (start + end) / 2, top + _BAND_IN / 2, band.what, size=TEXT, weight="bold", color=INK,
            ha="center", va="center", bbox={"facecolor": face, "edgecolor": "none", "pad": 2},
        )  # fmt: skip


def _draw_marks(axes: Axes, at: Sequence[float], y: float, n: int) -> None:
    for attempt, x in enumerate(at, start=1):
        axes.plot(x, y, marker=MARKERS[n], markersize=13, color=COLOURS[n], linestyle="none")
        axes.text(x, y - 0.2, f"{attempt}.º", size=TEXT, color=COLOURS[n], ha="center",
                  va="bottom")  # fmt: skip


def _draw_seconds(axes: Axes, found: Sequence[Mark], y: float, left: float, scale: float) -> None:
    for at in sorted({each.at_s for each in found if each.what == "asked"}):
        axes.text(left + at * scale, y, f"{number(round(at, 1))} s", size=TEXT, color=INK,
                  ha="center")  # fmt: skip
    words = "segundos desde que empieza la saga, en el reloj de la historia"
    axes.text(left, y + LINE_IN + 0.1, words, size=TEXT, color=INK, va="center")


def reading(shown: Shown, request: Request) -> str:
    """Read the attempts, the status at the end, and both movements of the step.

    Args:
        shown: the saga.
        request: whose attempts.
    """
    found = marks(shown, request)
    times = {what: sum(each.what == what for each in found) for what in LANES}
    way = " → ".join(each.what for each in statuses(shown))
    answers = [
        line.detail.split()[0].rstrip(":") for line in shown.history if line.what == "answered"
    ]
    return (
        f"«{request}» se pide {number(times['asked'])} veces; {number(times['timed out'])} veces "
        f"vence el tiempo límite sin respuesta. {way} a los {number(round(found[-1].at_s, 1))} s. "
        f"En la historia quedan todas las respuestas: {', '.join(answers)}."
    )
