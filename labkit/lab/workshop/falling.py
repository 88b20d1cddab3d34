"""Falling: the database drops the connection in the second line of a reservation.

Yesterday's pull request answers "no" then (its fault F3); the function of the fourth gap says
nothing, and answers when the message comes again. Both run for real, on an exercise's database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from labkit.lab import pr_de_ayer
from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deliveries import Consumer, event_in, message_of
from labkit.lab.exercises.reserving import drop_connection
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import RaisedError
from labkit.lab.servers import Stack
from labkit.shop import inventory
from labkit.shop.contracts import Line, ReserveStockRequested

_STOCK = {"BOOK-DDD": 25, "BOOK-EDA": 5}
_LINES = (Line("BOOK-DDD", 1), Line("BOOK-EDA", 1))
_NOTHING = "nada"


def answers(function: Callable[..., Any], name: str, servers: Stack) -> pd.DataFrame:
    """Drop the connection in line 2 of RES-2 for both; return what each answered, and when.

    Args:
        function: what fills the fourth gap.
        name: how it is called in the table.
        servers: where.
    """
    with arena("exercise_05_stock", inventory.service, servers) as place:
        rows = [_row("PR de ayer", "cae en la línea 2", _of_the_request(place))]
        fallen, returned = _of(place, function)
    rows += [_row(name, "cae en la línea 2", fallen), _row(name, "el mensaje vuelve", returned)]
    return pd.DataFrame(rows)


def _row(who: str, moment: str, said: Mapping[str, str]) -> dict[str, str]:
    cells = {f"{sku}, hay {held}": said.get(sku, _NOTHING) for sku, held in _STOCK.items()}
    return {"código": who, "momento": moment} | cells


def _open(place: Arena) -> None:
    place.empty()
    inventory.stock_up(place.watcher, _STOCK)


def _falling(place: Arena) -> Steps:
    """Return steps that drop the connection when the second line's stock has been taken."""

    def after(_number: int) -> None:
        if [label for label in steps.taken if "UPDATE stock" in label][1:] and not dropped:
            dropped.append(True)
            drop_connection(place)

    dropped: list[bool] = []
    steps = Steps(after=after)
    return steps


def _of_the_request(place: Arena) -> dict[str, str]:
    _open(place)
    with place.engine(_falling(place)) as engine:
        given = [pr_de_ayer.answer_to(engine, "RES-2", line) for line in _LINES]
    return _words(given)


def _of(place: Arena, function: Callable[..., Any]) -> tuple[dict[str, str], dict[str, str]]:
    _open(place)
    event = ReserveStockRequested(reservation_id="RES-2", lines=_LINES)
    request = message_of("RES-2:pedir", event)
    consumer = Consumer("inventory", inventory.service.inbox, function)
    with place.engine(_falling(place)) as engine:
        # The connection is cut: the message comes again.
        with contextlib.suppress(RaisedError):
            consumer.deliver(engine, request)
        fallen = _stored(place)
        consumer.deliver(engine, request)
    return fallen, _stored(place)


def _stored(place: Arena) -> dict[str, str]:
    rows = place.rows("select body from outbox_messages order by seq")
    return _words([event_in(row.body) for row in rows])


def _words(events: Sequence[Any]) -> dict[str, str]:
    return {
        each.sku: f"{each.event_type} ({each.reason})"
        if hasattr(each, "reason")
        else each.event_type
        for each in events
    }
