"""Timeline: what happened to a message, step by step, in the places where it happened.

Drawn by order, not by the clock: the same story gives the same picture on every machine. The
order comes from the list, or from recorded times; `of` takes both from a trace.

Not guaranteed: that the distance between two steps means anything. A death leaves no record of
its own: whoever killed the process says after which step it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.lab.charts_style import (
    COLOURS,
    DASHES,
    FAINT,
    GREY,
    INK,
    LINE_IN,
    MARGIN_IN,
    MARKERS,
    PAPER,
    SMALLEST,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    few,
    paper,
    widest,
    wrap,
)
from labkit.lab.trace import Moment, Traced, What

Kind = Literal["step", "again", "death"]

DATABASE, RELAY, STREAM, CONSUMER = "base de datos", "repetidor", "stream", "consumidor"
LANES = (DATABASE, RELAY, STREAM, CONSUMER)

_STEP_IN, _LANE_IN, _LANE_NAME_IN, _SIDE_IN = 1.0, 1.15, 1.3, 0.14
_DEATH = "#B00020"
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_PLACES: Mapping[What, tuple[str, str]] = {
    "appended": (DATABASE, "escrito"),
    "committed": (DATABASE, "confirmado"),
    "published": (STREAM, "publicado"),
    "marked": (DATABASE, "marcado"),
    "refused": (RELAY, "rechazado"),
    "delivered": (CONSUMER, "entregado"),
    "received": (CONSUMER, "recibido"),
    "effect committed": (CONSUMER, "efecto confirmado"),
    "held": (CONSUMER, "apartado"),
    "dead letter": (CONSUMER, "mensaje muerto"),
}
# The same words for whoever draws the same moments in another form.
WORDS: Mapping[str, str] = {what: label for what, (_, label) in _PLACES.items()}
# No moment stands before the first of these, whatever two servers' clocks say.
_FOLLOWS: Mapping[What, What] = {
    "committed": "appended",
    "published": "committed",
    "marked": "published",
    "delivered": "published",
    "received": "published",
    "held": "published",
    "effect committed": "received",
    "dead letter": "held",
}


class Mark(NamedTuple):
    """One thing that happened.

    Args:
        lane: where.
        label: what, in words.
        kind: an ordinary step, one that happens again, or a process that died.
        at: when, in anything that can be sorted; None leaves the order to the list.
        message: of several messages, which one.
    """

    lane: str
    label: str
    kind: Kind = "step"
    at: Any = None
    message: str = ""


def died(lane: str = RELAY) -> Mark:
    """Return the mark of a process that was killed; it is drawn as ✖."""
    return Mark(lane, "proceso muerto", "death")


def of(node: Traced, deaths: Mapping[What, Mark] | None = None, message: str = "") -> list[Mark]:
    """Return what is on record about one message, in order.

    Args:
        node: the message, from `labkit.lab.trace`.
        deaths: the marks of processes that died, by what had happened just before.
        message: its name, when the figure shows several.
    """
    found: list[Mark] = []
    seen: Counter[What] = Counter()
    for moment in _in_order(node.moments):
        lane, label = _PLACES[moment.what]
        again = seen[moment.what] > 0
        seen[moment.what] += 1
        words = f"{label} otra vez" if again else label
        found.append(Mark(lane, words, "again" if again else "step", message=message))
        if not again and (death := (deaths or {}).get(moment.what)):
            found.append(death._replace(message=message))
    return found


def _in_order(moments: Sequence[Moment]) -> list[Moment]:
    """Sort by the recorded times; what has none stays behind what it follows."""
    happened = [each for each in moments if each.happened and each.what in _PLACES]
    first: dict[What, datetime] = {}
    timed: list[tuple[datetime, Moment]] = []
    for moment in happened:
        floor = first.get(_FOLLOWS.get(moment.what, moment.what))
        times = [at for at in (moment.at, floor) if at is not None]
        # Its cause is gone from the records: as late as the last that we know of.
        at = max(times) if times else max(first.values(), default=_BEFORE_ALL)
        first.setdefault(moment.what, at)
        timed.append((at, moment))
    return [moment for _, moment in sorted(timed, key=lambda each: each[0])]


def draw(marks: Sequence[Mark], *, title: str, lanes: Sequence[str] = LANES) -> Figure:
    """Draw what happened, from left to right.

    Args:
        marks: from `of`, or written down by whoever made it happen.
        title: what the figure shows.
        lanes: the places, from above to below; those where nothing happened are left out.

    Raises:
        ValueError: no mark, a lane that is not in `lanes`, only some marks with a time, or more
            than four messages.
    """
    drawn = _sorted(marks)
    if missing := {mark.lane for mark in drawn} - set(lanes):
        raise ValueError(f"sin carril: {', '.join(sorted(missing))}; hay {', '.join(lanes)}")
    used = [lane for lane in lanes if any(mark.lane == lane for mark in drawn)]
    messages = list(dict.fromkeys(mark.message for mark in drawn))
    few(messages)
    step = _step(drawn)
    left = MARGIN_IN + _LANE_NAME_IN + 0.15
    width = max(WIDTH_IN, left + step * len(drawn) + MARGIN_IN)
    step = (width - left - MARGIN_IN) / len(drawn)
    longest = max(len(wrap(_words(mark), step, weight="bold").splitlines()) for mark in drawn)
    foot = TITLE_IN + _LANE_IN * (len(used) - 0.4) + LINE_IN * longest + 0.35
    figure, axes = paper(width, foot + 0.3, title)
    heights = {lane: TITLE_IN + _LANE_IN * (n + 0.6) for n, lane in enumerate(used)}
    _draw_lanes(axes, heights, left, width - MARGIN_IN)
    for n, message in enumerate(messages):
        side = _SIDE_IN * (n - (len(messages) - 1) / 2)
        way = [
            (left + step * (x + 0.5), heights[mark.lane] + side, mark)
            for x, mark in enumerate(drawn)
            if mark.message == message
        ]
        _draw_way(axes, way, step, n)
    for n in range(len(drawn)):
        at = left + step * (n + 0.5)
        axes.text(at, foot, f"paso {n + 1}", size=SMALLEST, color=GREY, ha="center", va="center")
    return figure


def _step(drawn: Sequence[Mark]) -> float:
    """Return how wide a step must be, so that neighbours in a lane do not touch."""
    pairs = [(a, b) for a, b in pairwise(drawn) if a.lane == b.lane]
    needed = [(_width_of(a) + _width_of(b)) / 2 + 0.1 for a, b in pairs]
    return max([_STEP_IN, *needed])


def _width_of(mark: Mark) -> float:
    return widest(_words(mark).split(), weight=_weight(mark))


def _sorted(marks: Sequence[Mark]) -> list[Mark]:
    timed = [mark for mark in marks if mark.at is not None]
    if not marks or len(timed) not in {0, len(marks)}:
        raise ValueError("una línea de tiempo tiene marcas, y o todas llevan hora o ninguna")
    return sorted(marks, key=lambda mark: mark.at) if timed else list(marks)


def _draw_lanes(axes: Axes, heights: Mapping[str, float], left: float, right: float) -> None:
    for lane, y in heights.items():
        axes.plot((left, right), (y, y), color=FAINT, linewidth=1.2, linestyle=(0, (5, 4)))
        name = wrap(lane, _LANE_NAME_IN, weight="bold")
        axes.text(MARGIN_IN, y, name, size=TEXT, weight="bold", color=INK, va="center")


def _draw_way(axes: Axes, way: Sequence[tuple[float, float, Mark]], room: float, n: int) -> None:
    """Draw one message's way; a label stands where the way does not come from."""
    points = [(x, y) for x, y, _ in way]
    axes.plot(*zip(*points, strict=True), color=COLOURS[n], linestyle=DASHES[n], linewidth=2)
    for i, (x, y, mark) in enumerate(way):
        beside = [v for _, v in points[max(i - 1, 0) : i + 2]]
        below = min(beside) < y and max(beside) <= y
        _draw_mark(axes, mark, (x, y), n)
        # The text hides the lane and the ways behind it.
        axes.text(
            x, y + (0.18 if below else -0.18), wrap(_words(mark), room, weight=_weight(mark)),
            size=TEXT, weight=_weight(mark), color=_colour(mark, n), ha="center",
            va="top" if below else "bottom", linespacing=1.15, zorder=4,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


def _draw_mark(axes: Axes, mark: Mark, at: tuple[float, float], n: int) -> None:
    dead, colour = mark.kind == "death", _colour(mark, n)
    axes.plot(
        *at, marker="X" if dead else MARKERS[n], markersize=18 if dead else 13, color=colour,
        markerfacecolor=PAPER if mark.kind == "again" else colour, markeredgewidth=2.5,
        markeredgecolor=PAPER if dead else colour, zorder=3,
    )  # fmt: skip


def _words(mark: Mark) -> str:
    return f"{mark.message}: {mark.label}" if mark.message else mark.label


def _weight(mark: Mark) -> str:
    return "bold" if mark.kind == "death" else "normal"


def _colour(mark: Mark, n: int) -> str:
    return _DEATH if mark.kind == "death" else COLOURS[n]
