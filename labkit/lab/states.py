"""State diagram: drawn from a definition, so that the picture cannot say something else.

`order_status` finds its transitions by running fulfillment's own rule over all results that an
order can have; nobody wrote them down a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from labkit.lab.charts_style import (
    COLOURS,
    GOOD,
    INK,
    MARGIN_IN,
    PAPER,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    widest,
    wrap,
)
from labkit.lab.states_layout import arrange
from labkit.shop import fulfillment
from labkit.shop.contracts import StockReservationRejected, StockReserved

_LAYER_IN, _BOX_IN, _PLACE_IN = 1.85, 0.64, 2.7
_WIDEST_NAME_IN, _LABEL_IN, _BACK_IN = 1.7, 2.5, 0.7
_SHY = 1.25  # an arrow ends a little before the double edge
_EVENTS = {
    fulfillment.RESERVED: StockReserved.__name__,
    fulfillment.REJECTED: StockReservationRejected.__name__,
}
_MOST_LINES = 3
# Whether every line has its result afterwards: always, never, or it does not matter.
_WHEN = {
    frozenset({True}): " de la última línea",
    frozenset({False}): ", faltan líneas",
    frozenset({True, False}): " de cualquier línea",
}

Results = tuple[str | None, ...]


class Transition(NamedTuple):
    """From one state to another, and on what."""

    source: str
    target: str
    label: str


class Diagram(NamedTuple):
    """The transitions; the first begins at the start, and a state without an exit is final."""

    transitions: tuple[Transition, ...]

    @property
    def states(self) -> list[str]:
        """All states, the start first."""
        return list(dict.fromkeys(name for each in self.transitions for name in each[:2]))

    @property
    def final(self) -> list[str]:
        """The states that no transition leaves."""
        left = {each.source for each in self.transitions}
        return [state for state in self.states if state not in left]


def order_status() -> Diagram:
    """Return the rule for an order's status, found by running it."""
    found: dict[tuple[str, str, str], set[bool]] = {}
    for before, result, after in _arrivals():
        source, target = fulfillment.status_of(before), fulfillment.status_of(after)
        if source != target:
            ends = found.setdefault((source, target, _EVENTS[result]), set())
            ends.add(None not in after)
    return Diagram(
        tuple(
            Transition(source, target, event + _WHEN[frozenset(ends)])
            for (source, target, event), ends in found.items()
        )
    )


def _arrivals() -> Iterator[tuple[Results, str, Results]]:
    """Return every result that can reach an order, with the results before and after it."""
    for count in range(1, _MOST_LINES + 1):
        for before in product((None, *_EVENTS), repeat=count):
            for line, result in product(range(count), _EVENTS):
                if before[line] is None:
                    yield before, result, (*before[:line], result, *before[line + 1 :])


def mermaid(diagram: Diagram) -> str:
    """Return the diagram as Mermaid text, for whoever wants to edit it."""
    lines = ["stateDiagram-v2", f"    [*] --> {diagram.states[0]}"]
    lines += [f"    {each.source} --> {each.target}: {each.label}" for each in diagram.transitions]
    lines += [f"    {state} --> [*]" for state in diagram.final]
    return "\n".join(lines) + "\n"


def draw(diagram: Diagram, *, title: str) -> Figure:
    """Draw the diagram, from the start at the top; final states have a double edge.

    Args:
        diagram: what to draw.
        title: what the figure shows.
    """
    layers, ways = arrange(diagram.transitions)
    names = {state: _folded(state) for state in diagram.states}
    room = max(WIDTH_IN - 2 * MARGIN_IN, _PLACE_IN * max(len(layer) for layer in layers))
    height = TITLE_IN + _BOX_IN + _LAYER_IN * (len(layers) - 1) + MARGIN_IN
    figure, axes = paper(room + 2 * MARGIN_IN, height, title)
    places = {
        node: (
            MARGIN_IN + room * (x + 0.5) / len(layer),
            TITLE_IN + _BOX_IN / 2 + _LAYER_IN * depth,
        )
        for depth, layer in enumerate(layers)
        for x, node in enumerate(layer)
    }
    for n, way in enumerate(ways):
        _draw_arrow(axes, way.label, [places[node] for node in way.nodes], n)
    width = widest(list(names.values()), weight="bold") + 0.4
    for state, name in names.items():
        _draw_state(axes, name, places[state], width, final=state in diagram.final)
    return figure


def _folded(state: str) -> str:
    return wrap(state.replace("_", "_ "), _WIDEST_NAME_IN, weight="bold").replace("_ ", "_")


def _draw_state(
    axes: Axes, name: str, at: tuple[float, float], width: float, *, final: bool
) -> None:
    for grown in (0.07, 0.0) if final else (0.0,):
        corner = (at[0] - width / 2 - grown, at[1] - _BOX_IN / 2 - grown)
        size = (width + 2 * grown, _BOX_IN + 2 * grown)
        style = "round,pad=0,rounding_size=0.15"
        axes.add_patch(
            FancyBboxPatch(
                corner, *size, boxstyle=style, facecolor=PAPER if grown else GOOD, edgecolor=INK
            )
        )
    axes.text(*at, name, size=TEXT, weight="bold", color=INK, ha="center", va="center")


def _draw_arrow(axes: Axes, label: str, points: list[tuple[float, float]], n: int) -> None:
    down = points[0][1] < points[-1][1]
    # There and back between two states are two arrows beside each other.
    places = [(x + (0.0 if down else _BACK_IN), y) for x, y in points]
    edge = _BOX_IN / 2 if down else -_BOX_IN / 2
    (x, y), (u, v) = places[0], places[-1]
    line = [(x, y + edge), *places[1:-1], (u, v - edge * _SHY)]
    colour = COLOURS[n % len(COLOURS)]
    axes.add_patch(
        FancyArrowPatch(
            path=Path(line), arrowstyle="-|>", mutation_scale=20, color=colour, linewidth=2,
            fill=False, shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
    at = _label_place(line, 0.55 if down else 0.3)
    axes.text(
        *at, wrap(label, _LABEL_IN), size=TEXT, color=colour, ha="center" if down else "left",
        va="center", bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _label_place(line: list[tuple[float, float]], share: float) -> tuple[float, float]:
    """Return where the label goes: on a place that the arrow holds, else on the way."""
    half = len(line) // 2
    if len(line) % 2:
        return line[half]
    (x, y), (u, v) = line[half - 1], line[half]
    return x + (u - x) * share, y + (v - y) * share
