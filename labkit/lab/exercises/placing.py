"""02-E1: an order and its event, in the caller's transaction.

Attacked by a caller who rolls back, by the death of the process after every step, and by fifty
orders of which some are given up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Engine

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.pieces import Line, Order, ReserveStockRequested, publishing_to
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, StudentFunction, lent_session, telling
from labkit.lab.servers import Stack
from labkit.messages import Event
from labkit.shop import fulfillment
from labkit.shop.contracts import REGISTRY
from labkit.wire import decode_envelope

_ORDERS = 50
_GIVEN_UP_EACH = 5


class _CallerFailedError(Exception):
    """Whoever called gives up after the call."""


class _Stored(NamedTuple):
    """An event in the outbox, with its key."""

    key: str | None
    event: Event


class _Books(NamedTuple):
    """What is in the database: ids of orders, and events."""

    orders: set[str]
    events: list[_Stored]

    def events_of(self, order: Order) -> list[_Stored]:
        """Return the events that tell about an order."""
        mine = order.reservation_id
        return [e for e in self.events if getattr(e.event, "reservation_id", None) == mine]


def _order(number: int, *lines: tuple[str, int]) -> Order:
    return Order(f"ORD-{number}", f"RES-{number}", tuple(Line(*line) for line in lines))


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    attacks = (_roll_back, _commit, _die, _place_many)
    with arena("exercise_02_e1", fulfillment.service, servers()) as place:
        survived = []
        for attack in attacks:
            place.empty()
            survived.append(attack(place, function))
        return survived


def _call(
    engine: Engine, function: StudentFunction, order: Order, *, gives_up: bool = False
) -> None:
    """Be the caller: lend a transaction, and end it."""
    with contextlib.suppress(_CallerFailedError), lent_session(engine) as session:
        with telling(function):
            function(session, order)
        if gives_up:
            raise _CallerFailedError
        with telling(function):
            session.commit()


def _place(
    place: Arena, function: StudentFunction, order: Order, steps: Steps, *, gives_up: bool = False
) -> None:
    with place.engine(steps) as engine, publishing_to(place.transport, steps.done):
        _call(engine, function, order, gives_up=gives_up)


def _books(place: Arena) -> _Books:
    orders = {row.order_id for row in place.rows("select order_id from orders")}
    rows = place.rows("select key, body from outbox_messages order by seq")
    events = [_Stored(row.key, REGISTRY.decode(decode_envelope(row.body))) for row in rows]
    return _Books(orders, events)


def _roll_back(place: Arena, function: StudentFunction) -> str:
    """The caller raises after the call: nothing may be left, nowhere."""
    order, steps = _order(5, ("BOOK-DDD", 1)), Steps()
    _place(place, function, order, steps, gives_up=True)
    books = _books(place)
    if order.order_id in books.orders:
        raise FlawError(
            f"Deshice la transacción y {order.order_id} sigue ahí: no confirmes tú, es la "
            "transacción de quien llama.",
            steps,
        )
    if place.sent():
        raise FlawError(f"{order.order_id} salió al stream y su pedido no existe.", steps)
    if books.events:
        raise FlawError(
            f"El pedido {order.order_id} se deshizo y su evento no: son dos transacciones.", steps
        )
    return (
        f"{order.order_id}: quien te llama deshace la transacción, y no queda ni pedido ni evento"
    )


def _commit(place: Arena, function: StudentFunction) -> str:
    """The caller commits: order and event are there."""
    order, steps = _order(1, ("BOOK-DDD", 2), ("BOOK-HEX", 1)), Steps()
    _place(place, function, order, steps)
    _refuse_unfit(order, _books(place), steps)
    if place.sent():
        raise FlawError(
            f"{order.order_id} salió al stream desde tu función: de enviarlo se encarga el "
            "repetidor, después de confirmar.",
            steps,
        )
    return f"{order.order_id}: confirmado con su evento"


def _refuse_unfit(order: Order, books: _Books, shown: object) -> None:
    """Refuse an order that is not there once with its one right event."""
    name = order.order_id
    if name not in books.orders:
        raise FlawError(
            f"{name} no está en la tabla `orders`, y la transacción se confirmó.", shown
        )
    events = books.events_of(order)
    if not events:
        raise FlawError(f"{name} está guardado y su evento no está en la bandeja de salida.", shown)
    if len(events) > 1:
        raise FlawError(
            f"{name} dejó {len(events)} eventos en la bandeja de salida; se espera uno.", shown
        )
    _refuse_other_event(order, events[0], shown)


def _refuse_other_event(order: Order, stored: _Stored, shown: object) -> None:
    expected = ReserveStockRequested(reservation_id=order.reservation_id, lines=order.lines)
    if stored.event != expected:
        raise FlawError(
            f"El evento de {order.order_id} no pide lo mismo que el pedido: se espera un "
            f"`ReserveStockRequested` de {order.reservation_id} con sus {len(order.lines)} líneas.",
            shown,
        )
    if stored.key != order.reservation_id:
        raise FlawError(
            f"El evento de {order.order_id} no lleva clave {order.reservation_id} "
            f"(lleva {stored.key}): sin ella, sus mensajes pueden adelantarse unos a otros.",
            shown,
        )


def _die(place: Arena, function: StudentFunction) -> str:
    """The process dies after each of its steps, the COMMIT included."""
    order, whole = _order(4, ("BOOK-HEX", 2)), Steps()
    _place(place, function, order, whole)
    for step in range(1, whole.count + 1):
        place.empty()
        if not dies_after(step, lambda steps: _place(place, function, order, steps)):
            raise FlawError("Tu función no da siempre los mismos pasos con el mismo pedido.", whole)
        shown = " → ".join([*(f"`{label}`" for label in whole.taken[:step]), "✖ SIGKILL"])
        _refuse_half(order, _books(place), shown)
    _refuse_unfit(order, _books(place), whole)
    return (
        f"{order.order_id}: {whole.count} muertes del proceso (SIGKILL), una tras cada paso, "
        "y siempre quedan los dos o ninguno"
    )


def _refuse_half(order: Order, books: _Books, shown: str) -> None:
    has_order, has_event = order.order_id in books.orders, bool(books.events)
    if has_order and not has_event:
        raise FlawError(
            f"{order.order_id} se confirmó, el proceso murió y su evento no está en la bandeja "
            "de salida.",
            shown,
        )
    if has_event and not has_order:
        raise FlawError(
            f"El evento de {order.order_id} se guardó, el proceso murió y su pedido no existe.",
            shown,
        )


def _place_many(place: Arena, function: StudentFunction) -> str:
    """Fifty orders on one engine; every fifth is given up."""
    orders = [
        _order(1001 + n, ("BOOK-DDD", 1 + n % 3), ("BOOK-EDA", 1 + n % 2)) for n in range(_ORDERS)
    ]
    steps = Steps()
    with place.engine(steps) as engine, publishing_to(place.transport, steps.done):
        for number, order in enumerate(orders):
            _call(engine, function, order, gives_up=number % _GIVEN_UP_EACH == 0)
    kept = [order for number, order in enumerate(orders) if number % _GIVEN_UP_EACH]
    books = _books(place)
    for order in kept:
        _refuse_unfit(order, books, "")
    if len(books.orders) != len(kept) or len(books.events) != len(kept):
        raise FlawError(
            f"De {_ORDERS} pedidos se confirmaron {len(kept)}; hay {len(books.orders)} pedidos y "
            f"{len(books.events)} eventos."
        )
    given_up, both = _ORDERS - len(kept), len(kept)
    return f"{_ORDERS} pedidos, {given_up} deshechos: {both} pedidos guardados y {both} eventos"


PLACING = Exercise(
    id="02-E1",
    signature="colocar_pedido(session, pedido)",
    hints=(
        (
            "Son dos escrituras y una sola transacción: la de quien te llama. No la abras, no la "
            "confirmes y no la deshagas."
        ),
        (
            "`save_order(session, pedido)` guarda el pedido. El evento es un "
            "`ReserveStockRequested` con `pedido.reservation_id` y `pedido.lines`."
        ),
        (
            "El evento no se publica: se guarda con `outbox.add(session, evento, "
            "key=pedido.reservation_id)`. Lo enviará el repetidor, después."
        ),
    ),
    attack=_attack,
)
