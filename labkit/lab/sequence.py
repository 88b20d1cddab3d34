"""Sequence: a trace as a sequence diagram, in Mermaid or as a figure.

Only what has a time on record is drawn, in causal order (Redis notes whole milliseconds, so times
alone would put some answers before their questions); the times shown are the recorded ones. What
happened without a time is listed below the diagram.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.lab.charts_style import COLOURS, FAINT
from labkit.lab.trace import Moment, Trace, Traced, offset

_LANE_IN, _ROW_IN, _MARGIN_IN, _SIDE_IN = 2.75, 0.46, 1.5, 1.5
_TITLE_IN = 0.5
_SIZE = 15


class Step(NamedTuple):
    """One line of the diagram; source and target are the same for what happens in one place."""

    at: datetime
    source: str
    target: str
    number: int
    label: str


def steps(
    trace: Trace, labels: Mapping[str, str] | None = None, leaving_out: Collection[str] = ()
) -> list[Step]:
    """Return what is drawn, in order.

    Args:
        trace: from `labkit.lab.trace`.
        labels: other words for `committed`, `marked` and so on.
        leaving_out: what is not drawn, such as `marked`.
    """
    found: list[tuple[datetime, Step]] = []
    words = labels or {}
    numbers = {id(node): n for n, node in enumerate(trace.root.walk(), start=1)}

    def add(node: Traced, not_before: datetime | None) -> None:
        ready = not_before
        for moment in node.moments:
            if moment.at is None or moment.what in leaving_out:
                continue
            not_before = max(moment.at, not_before or moment.at)
            ready = not_before if moment.what == "received" else ready
            found.append((not_before, _step(node, moment, moment.at, numbers[id(node)], words)))
        for each in node.caused:
            add(each, ready)

    add(trace.root, None)
    return [step for _, step in sorted(found, key=lambda each: each[0])]


def _step(
    node: Traced, moment: Moment, at: datetime, number: int, words: Mapping[str, str]
) -> Step:
    stream = (node.stream or "").rpartition(":")[0] or "?"
    said = words.get(moment.what, moment.what)
    if moment.what == "published":
        return Step(at, node.service or "?", stream, number, node.type)
    if moment.what == "received":
        return Step(at, stream, moment.where, number, node.type)
    return Step(at, moment.where, moment.where, number, said)


def untimed(trace: Trace, labels: Mapping[str, str] | None = None) -> str:
    """Return in one line what happened and when nobody wrote down."""
    words = labels or {}
    counts = Counter(
        words.get(moment.what, moment.what)
        for node in trace.root.walk()
        for moment in node.moments
        if moment.at is None and moment.happened
    )
    return ", ".join(f"{what} ×{count}" for what, count in counts.items())


def mermaid(trace: Trace, labels: Mapping[str, str] | None = None) -> str:
    """Return the diagram as Mermaid text.

    Args:
        trace: from `labkit.lab.trace`.
        labels: other words for what happened.
    """
    drawn = steps(trace, labels)
    lanes = {name: f"p{n}" for n, name in enumerate(_lanes(drawn))}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {key} as {_escaped(name)}" for name, key in lanes.items()]
    for step in drawn:
        text = f"{_escaped(_label(step))} {_offset(step, drawn)}"
        source, target = lanes[step.source], lanes[step.target]
        if source == target:
            lines.append(f"    Note over {source}: {text}")
        else:
            lines.append(f"    {source}->>{target}: {text}")
    if lanes and (missing := untimed(trace, labels)):
        lines.append(f"    Note over p0,p{len(lanes) - 1}: ? {_escaped(missing)}")
    return "\n".join(lines) + "\n"


def draw(
    trace: Trace,
    labels: Mapping[str, str] | None = None,
    *,
    leaving_out: Collection[str] = (),
    times: bool = True,
    title: str = "",
) -> Figure:
    """Draw the diagram, legible from the back of a room.

    Args:
        trace: from `labkit.lab.trace`.
        labels: other words for what happened.
        leaving_out: what is not drawn, such as `marked`.
        times: write the recorded times on the left, and below what has none.
        title: stands above.

    Returns:
        The figure; `savefig` writes it.
    """
    drawn = steps(trace, labels, leaving_out)
    lanes = _lanes(drawn)
    below = untimed(trace, labels) if times else ""
    rows, margin = len(drawn) + 1 + bool(below), _MARGIN_IN if times else 0.1
    width, height = margin + _LANE_IN * (len(lanes) - 0.2) + _SIDE_IN, _ROW_IN * rows + 0.9
    figure = Figure(figsize=(width, height + (_TITLE_IN if title else 0)), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    # One unit is one inch, and time runs downwards.
    axes.set(xlim=(0, width), ylim=(height, -_TITLE_IN if title else 0))
    axes.axis("off")
    axes.text(0.2, -0.25, title, size=_SIZE + 3, weight="bold", va="center")
    places = {name: margin + _LANE_IN * (n + 0.4) for n, name in enumerate(lanes)}
    _draw_lanes(axes, places, height - 0.3 - _ROW_IN * bool(below))
    for row, step in enumerate(drawn):
        y = 1.15 + _ROW_IN * row
        if times:
            axes.text(0.2, y, _offset(step, drawn), size=_SIZE, va="center", family="monospace")
        _draw_step(axes, step, places, y)
    if below:
        axes.text(0.2, height - 0.3, f"? {below}", size=_SIZE, va="center", style="italic")
    return figure


def _draw_lanes(axes: Axes, places: Mapping[str, float], end: float) -> None:
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}
    for name, x in places.items():
        axes.plot((x, x), (0.6, end), color=FAINT, linewidth=1.2, linestyle=(0, (5, 4)))
        axes.text(x, 0.4, name, size=_SIZE, weight="bold", ha="center", va="center", bbox=box)


def _draw_step(axes: Axes, step: Step, places: Mapping[str, float], y: float) -> None:
    # The number before each label says the same as its colour.
    colour = COLOURS[(step.number - 1) % len(COLOURS)]
    start, end = places[step.source], places[step.target]
    # The text hides the lane behind it.
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    if start == end:
        axes.plot(start, y, marker="o", markersize=9, color=colour)
        axes.text(start + 0.15, y, _label(step), size=_SIZE, va="center", color=colour, bbox=paper)
        return
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.0, "mutation_scale": 18}
    axes.annotate("", (end, y + 0.1), (start, y + 0.1), arrowprops=arrow)
    middle = (start + end) / 2
    axes.text(
        middle, y - 0.09, _label(step), size=_SIZE, ha="center", va="center", color=colour,
        weight="bold", bbox=paper,
    )  # fmt: skip


def _lanes(drawn: Sequence[Step]) -> list[str]:
    return list(dict.fromkeys(name for step in drawn for name in (step.source, step.target)))


def _label(step: Step) -> str:
    return f"{step.number} {step.label}"


def _offset(step: Step, drawn: Sequence[Step]) -> str:
    return offset(step.at, min(each.at for each in drawn))


def _escaped(text: str) -> str:
    return " ".join(
        text.replace("#", "#35;").replace(";", "#59;").replace("#35#59;", "#35;").split()
    )
