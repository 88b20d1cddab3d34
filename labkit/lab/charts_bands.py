"""State bands: when a breaker was open, and the trials that reached the dependency in each wave."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.breaker import CLOSED, OPEN
from labkit.lab.charts_style import (
    BAD,
    COLOURS,
    FAINT,
    GOOD,
    INK,
    LINE_IN,
    MARGIN_IN,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    width_of,
)
from labkit.lab.outage import PROCESSES, Seen
from labkit.lab.spanish import counted
from labkit.lab.waves import OWN, SHARED, WAVES

_BAND_IN, _ROW_IN, _DOT_IN = 0.36, 1.75, 0.17
_WORDS = {CLOSED: "cerrado", OPEN: "abierto"}
Stretch = tuple[float, float, str]


def bands(seen: Seen, *, title: str) -> Figure:
    """Draw a band for each kind of breaker, with a dot for each trial above it.

    Args:
        seen: from `labkit.lab.outage.run`.
        title: what the figure shows.
    """
    figure, axes = paper(WIDTH_IN, TITLE_IN + 2 * _ROW_IN + 2 * LINE_IN, title)
    since = min(each.at_s for each in seen.calls) - 0.3
    until = max(each.at_s for each in seen.calls) + 0.4
    scale = (WIDTH_IN - 2 * MARGIN_IN) / (until - since)

    def place(at_s: float) -> float:
        return MARGIN_IN + (at_s - since) * scale

    for n, kind in enumerate((OWN, SHARED)):
        top = TITLE_IN + _ROW_IN * n
        axes.text(MARGIN_IN, top, kind, size=TEXT, weight="bold", color=INK, va="center")
        band = top + LINE_IN + 0.75
        for first, last, state in _stretches(seen, kind, since, until):
            _draw_stretch(axes, (place(first), place(last)), band, state)
        for wave in range(1, WAVES + 1):
            mine = [each for each in seen.calls if (each.kind, each.wave) == (kind, wave)]
            if mine:
                _draw_trials(axes, place(mine[0].at_s), band, len(mine), n)
    foot = TITLE_IN + 2 * _ROW_IN + LINE_IN * 0.6
    note = f"tiempo → · cada punto es una prueba de uno de los {PROCESSES} procesos"
    axes.text(MARGIN_IN, foot, note, size=TEXT, color=INK, va="center")
    return figure


def _stretches(seen: Seen, kind: str, since: float, until: float) -> list[Stretch]:
    moments = [(since, CLOSED), *_changes(seen, kind)]
    ends = [at for at, _ in moments[1:]] + [until]
    return [(at, end, state) for (at, state), end in zip(moments, ends, strict=True)]


def _changes(seen: Seen, kind: str) -> list[tuple[float, str]]:
    """Return when it opened and closed; half-open is a moment too short to be drawn."""
    if kind == SHARED:
        return [(e.at.timestamp(), e.after) for e in seen.transitions if e.after in _WORDS]
    # A pybreaker tells nobody: the first process's own calls show when it changed.
    mine = [each for each in seen.calls if each.kind == OWN and each.process == 0]
    opened = [each.at_s for each in mine if each.wave == 0][-1]
    closed = [each.at_s for each in mine if each.wave == WAVES + 1]
    return [(opened, OPEN), *((at, CLOSED) for at in closed[:1])]


def _draw_stretch(axes: Axes, ends: tuple[float, float], top: float, state: str) -> None:
    left, right = ends
    box = Rectangle(
        (left, top), right - left, _BAND_IN, facecolor=GOOD if state == CLOSED else BAD,
        edgecolor=FAINT, hatch="" if state == CLOSED else "/",
    )  # fmt: skip
    axes.add_patch(box)
    text = _WORDS[state]
    if right - left > width_of(text) + 0.2:
        axes.text(
            (left + right) / 2, top + _BAND_IN / 2, text, size=TEXT, color=INK, ha="center",
            va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _draw_trials(axes: Axes, x: float, band: float, count: int, n: int) -> None:
    axes.plot((x, x), (band - 0.14, band + _BAND_IN), color=INK, linewidth=1.5)
    xs = [x + (i - (count - 1) / 2) * _DOT_IN for i in range(count)]
    axes.scatter(xs, [band - 0.2] * count, s=70, color=COLOURS[n], marker="os"[n], zorder=3)
    text = counted(count, "pruebas")
    axes.text(x, band - 0.46, text, size=TEXT, weight="bold", color=COLOURS[n], ha="center",
              va="center")  # fmt: skip
