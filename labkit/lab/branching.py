"""Branching: how many ways a process can go from where it stands, found by running its rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from labkit.lab import saga_diagram
from labkit.lab.states import Diagram, Transition
from labkit.messages import Event
from labkit.process_manager.rules import Process, Received
from labkit.saga import DO, Saga
from labkit.saga.state import Due, Started
from labkit.shop import backorder
from labkit.shop.backorder import Backorder
from labkit.shop.contracts import Line, StockReservationRejected, StockReserved

_START = datetime(2026, 2, 17, 16, tzinfo=UTC)
_LINES = (Line("BOOK-DDD", 1), Line("BOOK-HEX", 1))
_ID = "RES-1"


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


def _stimuli(process: Process[Backorder]) -> Iterator[tuple[str, Received | Due]]:
    yield "vence el plazo", Due()
    warehouse = {backorder.AT_A: backorder.WAREHOUSE_A, backorder.AT_B: backorder.WAREHOUSE_B}
    events: list[Event] = []
    source = warehouse.get(process.state, backorder.BACKORDERS)
    for line in _LINES if process.state in warehouse else ():
        events += [
            StockReserved(reservation_id=_ID, sku=line.sku, qty=line.qty),
            StockReservationRejected(reservation_id=_ID, sku=line.sku, reason="OUT_OF_STOCK"),
        ]
    if process.state == backorder.OFFERED:
        events += [backorder.OfferAnswered(reservation_id=_ID, accepts=a) for a in (True, False)]
    yield from ((event.event_type, Received(event, source)) for event in events)
