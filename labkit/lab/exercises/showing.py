"""05-W5-vista: a row of the view follows from one event, and from nothing else.

Attacked by the changes of four orders in any order, each twice, and by a rebuild from the outbox:
what was projected step by step and what is projected anew must be the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.student import FlawError, StudentFunction, telling
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import assemble, projection_of
from labkit.messages import Message
from labkit.projection import Projection
from labkit.rebuild import rebuild
from labkit.service import Service
from labkit.shop import fulfillment
from labkit.shop.contracts import REGISTRY, OrderStatusChanged
from labkit.wire import decode_envelope

_STORIES = {
    1: ("RESERVED",),
    2: ("PARTIALLY_RESERVED", "RESERVED"),
    3: ("PARTIALLY_RESERVED", "REJECTED"),
    4: ("PARTIALLY_RESERVED",),
}
_SEED = 7


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    service = assemble({}).service
    with arena("exercise_05_orders", service, servers()) as place:
        place.empty()
        messages = _changes(place)
        _refuse_unfit(function, messages[0], service)
        projection = projection_of(service, function)
        return [
            _in_any_order(place, function, projection, messages),
            _anew(place, function, projection, service),
        ]


def _changes(place: Arena) -> list[Message[Any]]:
    """Place four orders, change them, and return what the outbox says of it."""
    with Session(place.watcher) as session, session.begin():
        for number, story in _STORIES.items():
            fulfillment.write_order(session, f"ORD-{number}", [("BOOK-DDD", 1)])
            for status in story:
                fulfillment.move_order(session, f"ORD-{number}", status)
    rows = place.rows("select body from outbox_messages order by seq")
    return [REGISTRY.message(decode_envelope(row.body)) for row in rows]


def _refuse_unfit(
    function: StudentFunction, message: Message[OrderStatusChanged], service: Service
) -> None:
    with telling(function):
        row = function(message)
    wanted = [column.name for column in service.metadata.tables["order_status_view"].columns]
    if not isinstance(row, Mapping) or sorted(row) != sorted(wanted):
        names = sorted(row) if isinstance(row, Mapping) else type(row).__name__
        raise FlawError(
            f"La fila es un `dict` con {', '.join(f'`{name}`' for name in wanted)}; devolviste "
            f"{names}."
        )


def _rows(place: Arena) -> list[Any]:
    query = select(fulfillment.view.table).order_by(fulfillment.view.table.c.order_id)
    with place.watcher.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def _in_any_order(
    place: Arena,
    function: StudentFunction,
    projection: Projection,
    messages: list[Message[OrderStatusChanged]],
) -> str:
    """Each change comes twice, in an order that has nothing to do with theirs."""
    twice = messages * 2
    random.Random(_SEED).shuffle(twice)
    handler = projection.handlers[OrderStatusChanged]
    for message in twice:
        with telling(function), Session(place.watcher) as session, session.begin():
            handler.handle(session, message)
    shown = {row[0]: row[1] for row in _rows(place)}
    for number, story in _STORIES.items():
        if (said := shown.get(f"ORD-{number}")) != story[-1]:
            raise FlawError(
                f"ORD-{number} está en {story[-1]} y la vista dice {said or 'nada'}: la fila lleva "
                "la versión del cambio, y con ella gana el más nuevo.",
                ", ".join(f"{m.event.order_id} → {m.event.status}" for m in twice),
            )
    return f"{len(messages)} cambios, cada uno dos veces y en cualquier orden: gana el más nuevo"


def _anew(place: Arena, function: StudentFunction, projection: Projection, service: Service) -> str:
    """The view is made anew from the outbox: the same rows."""
    before = _rows(place)
    orders = fulfillment.orders.c
    first = select(*(orders[column.name] for column in projection.table.columns))
    with telling(function):
        rebuild(place.watcher, projection, service.outbox, REGISTRY, snapshot=first)
    for old, new in zip(before, _rows(place), strict=True):
        if old != new:
            raise FlawError(
                f"Reconstruida, la fila de {old[0]} es otra: usa solo lo que dice el mensaje "
                "(`mensaje.occurred_at` para la hora).",
                f"{old} ≠ {new}",
            )
    return "reconstruida desde la bandeja de salida: las mismas filas"


SHOWING = Exercise(
    id="05-W5-vista",
    signature="fila(mensaje)",
    hints=(
        (
            "Es una función pura: de `mensaje.event` salen `order_id`, `reservation_id`, `status` "
            "y la versión; de `mensaje.occurred_at`, la hora."
        ),
        (
            'Las claves son las columnas: `"order_id"`, `"status"`, `"reservation_id"`, '
            '`"updated_at"` y `"version"` (que es `order_version`).'
        ),
    ),
    attack=_attack,
)
