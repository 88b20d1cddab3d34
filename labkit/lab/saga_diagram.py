"""State diagram of a saga: found by running its rules, so that it cannot say something else.

Forward on the left, back on the right and upwards, a person at the far right. Behind the steps
stand the zones: what can still be made good, the point of no return, and what only goes forward.

Guarantee: every transition was taken by `labkit.saga.decide` from this definition; the figure and
the Mermaid text are drawn from the same list.
Not guaranteed: answers that come late, and cancellations: they are shown elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from statistics import mean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from labkit.lab.charts_style import (
    BAD,
    COLOURS,
    GOOD,
    INK,
    MARGIN_IN,
    PAPER,
    TEXT,
    TITLE_IN,
    paper,
    widest,
    wrap,
)
from labkit.lab.spanish import number
from labkit.lab.states import Diagram, Transition
from labkit.saga import (
    COMPENSATABLE,
    COMPENSATED,
    COMPLETED,
    DO,
    PIVOT,
    RETRIABLE,
    STUCK,
    UNDO,
    Command,
    Kind,
    Outcome,
    Request,
    Saga,
    State,
)
from labkit.saga.decide import decide
from labkit.saga.state import Decision, Due, Reply, Retry, Started, Stimulus

ZONES: Mapping[Kind, str] = {
    COMPENSATABLE: "compensable: aún se puede compensar",
    PIVOT: "punto de no retorno",
    RETRIABLE: "reintentable: solo hacia delante",
}
DONE, BY_A_PERSON = "hecho", "una persona"
_START = datetime(2026, 2, 17, 16, tzinfo=UTC)
_ROW_IN, _BOX_IN, _LABEL_IN = 1.35, 0.62, 2.3
_ZONE_IN, _FORTH_IN, _BACK_IN, _STUCK_IN, _WIDTH_IN = 1.7, 3.1, 7.7, 11.9, 12.8
_FACES = {COMPENSATABLE: GOOD, PIVOT: BAD, RETRIABLE: PAPER}
_HATCHES = {COMPENSATABLE: "", PIVOT: "//", RETRIABLE: ""}


def diagram(saga: Saga, data: Any) -> Diagram:
    """Return the transitions of a saga, found by running its rules over all that can happen.

    Args:
        saga: its definition.
        data: what its steps are made from.
    """
    begun = decide(saga, State(id="saga", version=saga.version, data=data), Started(), _START)
    found: dict[tuple[str, str], dict[str, None]] = {}
    waiting, seen = [begun], {""}
    _note(found, _way(begun), DONE)
    while waiting:
        state = waiting.pop(0).state
        # How it got there, and when, changes nothing of what may follow.
        known = repr(state.with_(due_at=None, reason=None, asked=()))
        if known not in seen:
            seen.add(known)
            for label, decision in _what_can_happen(saga, state):
                waiting.append(decision)
                _note(found, [_place(state), *_way(decision)], label)
    return Diagram(tuple(Transition(*edge, " / ".join(words)) for edge, words in found.items()))


def _note(found: dict[tuple[str, str], dict[str, None]], way: list[str], label: str) -> None:
    """Note a way; what follows its first leg within one transaction is work that was done."""
    legs = [(source, target) for source, target in pairwise(way) if source != target]
    for n, leg in enumerate(legs):
        found.setdefault(leg, {})[DONE if n else label] = None


def _way(decision: Decision) -> list[str]:
    return [*(str(each.request) for each in decision.actions), _place(decision.state)]


def _place(state: State) -> str:
    stands = state.in_hand if state.status not in {STUCK, COMPLETED, COMPENSATED} else None
    return str(stands or state.status)


def _what_can_happen(saga: Saga, state: State) -> Iterator[tuple[str, Decision]]:
    for label, stimulus in _stimuli(saga, state):
        yield label, decide(saga, state, stimulus, state.due_at or _START)


def _stimuli(saga: Saga, state: State) -> Iterator[tuple[str, Stimulus]]:
    request = state.in_hand
    if state.status is STUCK:
        yield BY_A_PERSON, Retry("")
    elif request is not None:
        command = saga.action(request)
        assert isinstance(command, Command)  # noqa: S101 - only commands wait
        times = f" ×{number(state.attempt)}"
        yield f"sin respuesta{times}", Due()
        for event, outcome in command.outcomes.items() if state.sent else ():
            name = event.event_type
            label = name + times if outcome is Outcome.FAILURE else name
            for part in command.expected(state.data):
                yield label, Reply(request, outcome, part, name)


def draw(saga: Saga, data: Any, *, title: str) -> Figure:
    """Draw the diagram over its zones.

    Args:
        saga: its definition.
        data: what its steps are made from.
        title: what the figure shows.
    """
    shown = diagram(saga, data)
    rows = len(saga.steps) + 2
    figure, axes = paper(_WIDTH_IN, TITLE_IN + _ROW_IN * rows - 0.3, title)
    places = _places(saga, shown)
    _draw_zones(axes, saga)
    for arrow in _arrows(shown):
        _draw_arrow(axes, arrow, places)
    for name, at in places.items():
        _draw_state(axes, name, at, final=name in {COMPLETED, COMPENSATED})
    return figure


def reading(saga: Saga, shown: Diagram) -> str:
    """Read the steps by zone, the ends, and what leads to a person.

    Args:
        saga: the definition.
        shown: from `diagram`.
    """
    zones = [
        f"{name.partition(':')[0]}: {', '.join(_of_kind(saga, kind))}"
        for kind, name in ZONES.items()
        if _of_kind(saga, kind)
    ]
    stuck = [each.source for each in shown.transitions if each.target == STUCK]
    waits = f" A una persona ({STUCK}) llevan {', '.join(stuck)}." if stuck else ""
    counts = f"{number(len(shown.states))} estados y {number(len(shown.transitions))} transiciones"
    return f"{counts}; {'; '.join(zones)}. Acaba en {' o '.join(shown.final)}.{waits}"


def _of_kind(saga: Saga, kind: Kind) -> list[str]:
    return [step.name for step in saga.steps.values() if step.kind is kind]


def _row(n: float) -> float:
    return TITLE_IN + _ROW_IN * (n + 0.4)


def _places(saga: Saga, shown: Diagram) -> dict[str, tuple[float, float]]:
    places = {
        str(Request(step, direction)): (x, _row(n))
        for n, step in enumerate(saga.steps, start=1)
        for direction, x in ((DO, _FORTH_IN), (UNDO, _BACK_IN))
    }
    last = len(saga.steps) + 1
    places |= {
        str(COMPENSATED): (_BACK_IN, _row(0)),
        str(COMPLETED): (_FORTH_IN, _row(last)),
        str(STUCK): (_STUCK_IN, _row(_middle(saga, shown))),
    }
    return {name: at for name, at in places.items() if name in shown.states}


def _middle(saga: Saga, shown: Diagram) -> float:
    """Return the row in the middle of the steps that can get stuck."""
    stuck = {each.source for each in shown.transitions if each.target == STUCK}
    names = [{str(Request(step, way)) for way in (DO, UNDO)} for step in saga.steps]
    return mean([n for n, both in enumerate(names, start=1) if both & stuck] or [0])


def _draw_zones(axes: Axes, saga: Saga) -> None:
    kinds = [step.kind for step in saga.steps.values()]
    for kind in dict.fromkeys(kinds):
        top = _row(kinds.index(kind) + 0.5)
        height = _ROW_IN * kinds.count(kind)
        axes.add_patch(
            Rectangle(
                (MARGIN_IN, top), _WIDTH_IN - 2 * MARGIN_IN, height, facecolor=_FACES[kind],
                edgecolor=PAPER, hatch=_HATCHES[kind], linewidth=0, zorder=0,
            )
        )  # fmt: skip
        axes.plot((MARGIN_IN, _WIDTH_IN - MARGIN_IN), (top, top), color=INK, linewidth=1.5)
        axes.text(
            MARGIN_IN + 0.1, top + height / 2, wrap(ZONES[kind], _ZONE_IN, weight="bold"),
            size=TEXT, weight="bold", color=INK, va="center", zorder=4,
            bbox={"facecolor": _FACES[kind], "edgecolor": "none", "pad": 2},
        )  # fmt: skip


def _draw_state(axes: Axes, name: str, at: tuple[float, float], *, final: bool) -> None:
    for grown in (0.07, 0.0) if final else (0.0,):
        half = _half(name) + grown
        corner = (at[0] - half, at[1] - _BOX_IN / 2 - grown)
        size = (2 * half, _BOX_IN + 2 * grown)
        axes.add_patch(
            FancyBboxPatch(
                corner, *size, boxstyle="round,pad=0,rounding_size=0.12", facecolor=PAPER,
                edgecolor=INK, linewidth=1.5, zorder=3,
            )
        )  # fmt: skip
    axes.text(
        *at, _folded(name), size=TEXT, weight="bold", color=INK, ha="center", va="center",
        zorder=4,
    )  # fmt: skip


def _folded(name: str) -> str:
    return name.replace("/", "\n/")


def _half(name: str) -> float:
    """Return half the width of a state's box, in inches."""
    return widest([_folded(name)], weight="bold") / 2 + 0.12


class _Arrow(NamedTuple):
    """One arrow; it has two heads when one can also go back."""

    source: str
    target: str
    label: str
    both_ways: bool


def _arrows(shown: Diagram) -> list[_Arrow]:
    """Return the arrows; there and back between two states is one of them."""
    labels = {(source, target): label for source, target, label in shown.transitions}
    arrows = []
    for (source, target), label in labels.items():
        back = labels.get((target, source))
        if back is None:
            arrows.append(_Arrow(source, target, label, both_ways=False))
        elif target == STUCK:
            text = f"→ {label} / ← {back}"
            arrows.append(_Arrow(source, target, text, both_ways=True))
    return arrows


def _draw_arrow(axes: Axes, arrow: _Arrow, places: Mapping[str, tuple[float, float]]) -> None:
    start, end = places[arrow.source], places[arrow.target]
    tail = _edge(arrow.source, start, end)
    head = _edge(arrow.target, end, start)
    colour = COLOURS[0] if end[0] == _FORTH_IN else COLOURS[1]
    axes.add_patch(
        FancyArrowPatch(
            tail, head, arrowstyle="<|-|>" if arrow.both_ways else "-|>", mutation_scale=20,
            color=colour, linewidth=2, shrinkA=0, shrinkB=0, zorder=2,
        )
    )  # fmt: skip
    lines = "\n".join(wrap(part, _LABEL_IN) for part in arrow.label.split(" / "))
    # Below a level arrow, on an upright one, and on a slope a little before its middle: so that
    # labels side by side do not meet.
    level, upright = tail[1] == head[1], tail[0] == head[0]
    share = 0.5 if level or upright else 0.42
    axes.text(
        tail[0] + (head[0] - tail[0]) * share,
        tail[1] + (head[1] - tail[1]) * share + (0.12 if level else 0.0),
        lines, size=TEXT, color=colour, ha="center", va="top" if level else "center", zorder=5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _edge(name: str, at: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Return where an arrow meets a state's box, on the side that it comes from."""
    if at[0] == towards[0]:
        gap = _BOX_IN / 2 + 0.1
        return at[0], at[1] + (gap if towards[1] > at[1] else -gap)
    gap = _half(name) + 0.1
    return at[0] + (gap if towards[0] > at[0] else -gap), at[1]
