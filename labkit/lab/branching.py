"""Branching: how many ways a process can go from where it stands, found by running its rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd

from labkit.lab import saga_diagram
from labkit.lab.spanish import number
from labkit.lab.states import Diagram, Transition
from labkit.process_manager.rules import Process, Received
from labkit.saga import DO, Saga
from labkit.saga.state import Due, Note, Started
from labkit.shop import backorder
from labkit.shop.backorder import Backorder
from labkit.shop.contracts import OUT_OF_STOCK, Line, StockReservationRejected, StockReserved

_START = datetime(2026, 2, 17, 16, tzinfo=UTC)
_LINES = (Line("BOOK-DDD", 1), Line("BOOK-HEX", 1))
_ID = "RES-1"
_WORDS = {
    "started": "empieza",
    "sent": "envía",
    "received": "recibe",
    "timed out": "vence el plazo",
    "completed": "termina",
}


class Ways(NamedTuple):
    """How a process can go on.

    Args:
        most: the most ways on from one place.
        ends: how it can end.
    """

    most: int
    ends: tuple[str, ...]


def of_saga(saga: Saga, data: Any) -> Ways:
    """Count how many steps can be next, going forward.

    Args:
        saga: its definition.
        data: what its steps are made from.
    """
    shown = saga_diagram.diagram(saga, data)
    forth = f"/{DO}"
    on = {(a, b) for a, b, _ in shown.transitions if a.endswith(forth) and b.endswith(forth)}
    return Ways(_most(on), tuple(shown.final))


def of_backorder() -> Ways:
    """Count how many states can be next in a backorder of two lines, from what may happen to it."""
    shown = diagram_of_backorder()
    return Ways(_most({(a, b) for a, b, _ in shown.transitions}), tuple(shown.final))


def _most(edges: set[tuple[str, str]]) -> int:
    return max(sum(source == each for source, _ in edges) for each in {a for a, _ in edges})


def diagram_of_backorder() -> Diagram:
    """Return the transitions of a backorder, found by running its rules."""
    rules = backorder.manager.rules
    begun = Process(id=_ID, version=1, data=Backorder(lines=_LINES))
    waiting, seen = [rules.decide(begun, Started(), _START).process], set[str]()
    found: dict[Transition, None] = {}
    while waiting:
        process = waiting.pop(0)
        if process.result is not None or repr(process) in seen:
            continue
        seen.add(repr(process))
        for label, stimulus in _stimuli(process):
            after = rules.decide(process, stimulus, process.due_at or _START).process
            waiting.append(after)
            if after.state != process.state:
                found[Transition(process.state, after.state, label)] = None
    return Diagram(tuple(found))


def reading(shown: Diagram) -> str:
    """Read how many ways lead on from each state that has any.

    Args:
        shown: a diagram.
    """
    on = {(source, target) for source, target, _ in shown.transitions}
    counts = [
        f"desde {state} {number(sum(source == state for source, _ in on))}"
        for state in shown.states
        if state not in shown.final
    ]
    return f"Caminos: {', '.join(counts)}. Finales: {', '.join(shown.final)}."


def course(notes: Sequence[Note]) -> pd.DataFrame:
    """Return what happened to a process, a row for each line of its history.

    Args:
        notes: its history.
    """
    rows = [(_WORDS.get(each.what, each.what), each.step, each.detail) for each in notes]
    return pd.DataFrame(rows, columns=["qué", "dónde", "detalle"])


def _stimuli(process: Process[Backorder]) -> Iterator[tuple[str, Received | Due]]:
    """Return all that can happen in a state, in a word each."""
    yield "silencio", Due()
    if process.state == backorder.OFFERED:
        for said, accepts in (("acepta", True), ("no acepta", False)):
            answer = backorder.OfferAnswered(reservation_id=_ID, accepts=accepts)
            yield said, Received(answer, backorder.BACKORDERS)
        return
    source = backorder.WAREHOUSE_A if process.state == backorder.AT_A else backorder.WAREHOUSE_B
    for line in _LINES:
        yes = StockReserved(reservation_id=_ID, sku=line.sku, qty=line.qty)
        no = StockReservationRejected(reservation_id=_ID, sku=line.sku, reason=OUT_OF_STOCK)
        yield "hay", Received(yes, source)
        yield "no hay", Received(no, source)
