"""State diagram: drawn from a definition, so that the picture cannot say something else.

`order_status` finds its transitions by running fulfillment's own rule over all results that an
order can have; nobody wrote them down a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from labkit.lab.charts_style import (
    COLOURS,
    GOOD,
    INK,
    LINE_IN,
    MARGIN_IN,
    PAPER,
    TEXT,
    TITLE_IN,
    WIDTH_IN,
    paper,
    widest,
    wrap,
)
from labkit.lab.states_layout import Node, Way, arrange
from labkit.shop import order_book
from labkit.shop.contracts import StockReservationRejected, StockReserved

_LAYER_IN, _BOX_IN, _PLACE_IN = 1.85, 0.64, 2.7
_WIDEST_NAME_IN, _LABEL_IN, _BACK_IN = 1.7, 2.5, 0.7
_SHY = 1.25  # an arrow ends a little before the double edge
_EVENTS = {
    order_book.RESERVED: StockReserved.__name__,
    order_book.REJECTED: StockReservationRejected.__name__,
}
_MOST_LINES = 3
# Whether every line has its result afterwards: always, never, or it does not matter.
_WHEN = {
    frozenset({True}): " de la última línea",
    frozenset({False}): ", pero faltan líneas",
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
        source, target = order_book.status_of(before), order_book.status_of(after)
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
    _draw_arrows(axes, ways, places)
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


def _draw_arrows(
    axes: Axes, ways: Sequence[Way], places: Mapping[Node, tuple[float, float]]
) -> None:
    taken: list[Bbox] = []
    for n, way in enumerate(ways):
        line = _line([places[node] for node in way.nodes])
        colour = COLOURS[n % len(COLOURS)]
        axes.add_patch(
            FancyArrowPatch(
                path=Path(line), arrowstyle="-|>", mutation_scale=20, color=colour, linewidth=2,
                fill=False, shrinkA=0, shrinkB=0,
            )
        )  # fmt: skip
        label = wrap(way.label, _LABEL_IN)
        box = _free_place(line, label, taken)
        taken.append(box)
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        axes.text(
            *middle, label, size=TEXT, color=colour, ha="center", va="center", zorder=3,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def _line(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of an arrow, from edge to edge of its two states."""
    down = points[0][1] < points[-1][1]
    # There and back between two states are two arrows beside each other.
    places = [(x + (0.0 if down else _BACK_IN), y) for x, y in points]
    edge = _BOX_IN / 2 if down else -_BOX_IN / 2
    (x, y), (u, v) = places[0], places[-1]
    return [(x, y + edge), *places[1:-1], (u, v - edge * _SHY)]


def _free_place(line: Sequence[tuple[float, float]], label: str, taken: Sequence[Bbox]) -> Bbox:
    """Return where on its arrow a label meets no other; the last resort if it meets one anyway."""
    width, height = widest([label]) / 2, LINE_IN * (label.count("\n") + 1) / 2
    half = len(line) // 2
    # An arrow over several layers has a place of its own in them, free of states.
    held = len(line) % 2
    (x, y), (u, v) = line[half - 1 + held], line[half + held]
    # On a way back the label stands beside the arrow: the way there is on its other side.
    aside = width + 0.1 if line[0][1] > line[-1][1] else 0.0
    box = Bbox.null()
    for share in (0.0, 0.3, 0.6) if held else (0.55, 0.35, 0.75, 0.2):
        middle_x, middle_y = x + aside + (u - x) * share, y + (v - y) * share
        corner = (middle_x - width, middle_y - height)
        box = Bbox.from_bounds(*corner, 2 * width, 2 * height)
        if not any(box.overlaps(other) for other in taken):
            break
    return box
