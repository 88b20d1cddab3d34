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
from typing import Literal, NamedTuple

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

_STEP_IN, _LANE_IN = 1.32, 1.15
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
        at: when; None leaves the order to the list.
        message: of several messages, which one.
    """

    lane: str
    label: str
    kind: Kind = "step"
    at: float | datetime | None = None
    message: str = ""


def died(point: str, lane: str = RELAY) -> Mark:
    """Return the mark of a process that was killed at a crash point, to stand where it died."""
    return Mark(lane, f"✖ muerto en {point.rpartition('.')[2]}", "death")


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
    left = MARGIN_IN + widest(used, weight="bold") + 0.4
    width = max(WIDTH_IN, left + _STEP_IN * len(drawn) + MARGIN_IN)
    step = (width - left - MARGIN_IN) / len(drawn)
    figure, axes = paper(width, TITLE_IN + _LANE_IN * len(used) + 0.5, title)
    heights = {lane: TITLE_IN + _LANE_IN * (n + 0.7) for n, lane in enumerate(used)}
    _draw_lanes(axes, heights, left, width - MARGIN_IN)
    places = [(left + step * (n + 0.5), heights[mark.lane]) for n, mark in enumerate(drawn)]
    for n, message in enumerate(messages):
        way = [at for at, mark in zip(places, drawn, strict=True) if mark.message == message]
        axes.plot(*zip(*way, strict=True), color=COLOURS[n], linestyle=DASHES[n], linewidth=2)
    for n, (mark, at) in enumerate(zip(drawn, places, strict=True), start=1):
        _draw_mark(axes, mark, at, step, messages.index(mark.message))
        foot = TITLE_IN + _LANE_IN * len(used) + 0.2
        axes.text(at[0], foot, f"paso {n}", size=SMALLEST, color=GREY, ha="center", va="center")
    return figure


def _sorted(marks: Sequence[Mark]) -> list[Mark]:
    timed = [mark for mark in marks if mark.at is not None]
    if not marks or len(timed) not in {0, len(marks)}:
        raise ValueError("una línea de tiempo tiene marcas, y o todas llevan hora o ninguna")
    return sorted(marks, key=lambda mark: mark.at) if timed else list(marks)


def _draw_lanes(axes: Axes, heights: Mapping[str, float], left: float, right: float) -> None:
    for lane, y in heights.items():
        axes.plot((left, right), (y, y), color=FAINT, linewidth=1.2, linestyle=(0, (5, 4)))
        axes.text(MARGIN_IN, y, lane, size=TEXT, weight="bold", color=INK, va="center")


def _draw_mark(axes: Axes, mark: Mark, at: tuple[float, float], room: float, n: int) -> None:
    dead = mark.kind == "death"
    colour = _DEATH if dead else COLOURS[n]
    axes.plot(
        *at, marker="X" if dead else MARKERS[n], markersize=18 if dead else 13, color=colour,
        markerfacecolor=PAPER if mark.kind == "again" else colour, markeredgewidth=2.5,
        markeredgecolor=PAPER if dead else colour, zorder=3,
    )  # fmt: skip
    weight = "bold" if mark.kind != "step" else "normal"
    words = f"{mark.message}: {mark.label}" if mark.message else mark.label
    # The text hides the lane and the way behind it.
    axes.text(
        at[0], at[1] - 0.18, wrap(words, room - 0.08, weight=weight), size=TEXT, weight=weight,
        color=colour, ha="center", va="bottom", linespacing=1.0, zorder=4,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip
