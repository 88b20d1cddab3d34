"""05-W1: an order, the way back to it, its first row of the view and its request, in one go.

Attacked by a caller who rolls back, and by the death of the process after every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.deliveries import STORY_TIME, event_in
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, StudentFunction, lent_session, telling
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import assemble
from labkit.lab.workshop.pieces import Order
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.shop.order_book import RESERVATION_PENDING

_ORDER = Order("ORD-2", "RES-2", (Line("BOOK-DDD", 1), Line("BOOK-EDA", 1)), STORY_TIME)
# What must be there, and how it is called when it is not.
_PARTS = {
    "select order_id from orders": "el pedido",
    "select order_id from order_lines": "las líneas",
    "select target from reservation_routing": "la ruta",
    "select order_id from order_status_view": "la fila de la vista",
    "select key from outbox_messages": "la petición",
}


class _CallerFailedError(Exception):
    """Whoever called gives up after the call."""


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    with arena("exercise_05_orders", assemble({}).service, servers()) as place:
        survived = []
        for attack in (_commit, _roll_back, _die):
            place.empty()
            survived.append(attack(place, function))
        return survived


def _call(place: Arena, function: StudentFunction, steps: Steps, *, gives_up: bool = False) -> None:
    """Be the caller: lend a transaction, and end it."""
    with (
        place.engine(steps) as engine,
        contextlib.suppress(_CallerFailedError),
        lent_session(engine) as session,
    ):
        with telling(function):
            function(session, _ORDER)
        if gives_up:
            raise _CallerFailedError
        with telling(function):
            session.commit()


def _counts(place: Arena) -> dict[str, int]:
    return {name: len(place.rows(query)) for query, name in _PARTS.items()}


def _commit(place: Arena, function: StudentFunction) -> str:
    """The caller commits: all of it is there, once and right."""
    steps = Steps()
    _call(place, function, steps)
    counts = _counts(place)
    if not any(counts.values()):
        raise FlawError("Quien te llama confirmó, y de ORD-2 no hay nada escrito.", steps)
    _refuse_missing(counts, steps)
    _refuse_other_request(place, steps)
    _refuse_other_way(place, steps)
    return "ORD-2 confirmado: pedido, ruta, fila de la vista y petición"


def _refuse_missing(counts: dict[str, int], steps: Steps) -> None:
    why = {
        "la ruta": "la respuesta de RES-2 no encontraría su pedido (`routing.expect`)",
        "la fila de la vista": "quien acaba de comprar no vería su pedido (`view.show_first`)",
        "la petición": "el inventario no se enteraría nunca (`outbox.add`)",
    }
    for name, count in counts.items():
        if not count:
            raise FlawError(
                f"ORD-2 se confirmó sin {name}: {why.get(name, '`save_order` lo guarda')}.", steps
            )


def _refuse_other_request(place: Arena, steps: Steps) -> None:
    (row, *others) = place.rows("select key, body from outbox_messages order by seq")
    expected = ReserveStockRequested(reservation_id="RES-2", lines=_ORDER.lines)
    if others:
        raise FlawError(f"ORD-2 dejó {1 + len(others)} mensajes; se espera uno.", steps)
    if event_in(row.body) != expected:
        raise FlawError(f"La petición de RES-2 debería ser `{expected}`.", steps)
    if row.key != "RES-2":
        raise FlawError(
            f"La petición no lleva clave RES-2 (lleva {row.key}): sin ella, sus mensajes pueden "
            "adelantarse unos a otros.",
            steps,
        )


def _refuse_other_way(place: Arena, steps: Steps) -> None:
    ways = place.rows("select conversation, part, target from reservation_routing order by part")
    wanted = [("RES-2", line.sku, "ORD-2") for line in _ORDER.lines]
    if [tuple(way) for way in ways] != wanted:
        raise FlawError(
            "La ruta va de RES-2 y cada artículo a ORD-2: `routing.expect(session, reserva, "
            "{sku: pedido.order_id, …})`.",
            steps,
        )
    (shown,) = place.rows("select status, version, reservation_id from order_status_view")
    if tuple(shown) != (RESERVATION_PENDING, 1, "RES-2"):
        raise FlawError(
            f"La primera fila de la vista dice {shown.status}, versión {shown.version}: todavía no "
            f"ha contestado nadie, así que es {RESERVATION_PENDING}, versión 1.",
            steps,
        )


def _roll_back(place: Arena, function: StudentFunction) -> str:
    """The caller raises after the call: nothing may be left."""
    steps = Steps()
    _call(place, function, steps, gives_up=True)
    left = [name for name, count in _counts(place).items() if count]
    if left:
        raise FlawError(
            f"Deshice la transacción y sigue ahí {left[0]} de ORD-2: no confirmes tú ni abras otra "
            "transacción; la de quien llama es de los cuatro.",
            steps,
        )
    return "ORD-2 deshecho por quien llama: no queda nada"


def _die(place: Arena, function: StudentFunction) -> str:
    """The process dies after each of its steps, the COMMIT included."""
    whole = Steps()
    _call(place, function, whole)
    for step in range(1, whole.count + 1):
        place.empty()
        if not dies_after(step, lambda steps: _call(place, function, steps)):
            raise FlawError("Tu función no da siempre los mismos pasos con el mismo pedido.", whole)
        counts = _counts(place)
        there = [name for name, count in counts.items() if count]
        if there and len(there) < len(counts):
            gone = next(name for name, count in counts.items() if not count)
            raise FlawError(
                f"El proceso murió tras el paso {step}: de ORD-2 queda {there[0]} y falta {gone}.",
                " → ".join([*(f"`{each}`" for each in whole.taken[:step]), "✖ SIGKILL"]),
            )
    return f"{whole.count} muertes del proceso (SIGKILL), una tras cada paso: los cuatro o ninguno"


STORING = Exercise(
    id="05-W1",
    signature="colocar(session, pedido)",
    hints=(
        (
            "Son cuatro escrituras en la sesión que te prestan: pedido, ruta, fila de la vista y "
            "petición. No confirmes."
        ),
        (
            "`save_order(session, pedido)`; `routing.expect(session, reserva, {sku: "
            "pedido.order_id})` con todos los artículos; `view.show_first(session.connection(), "
            "pedido.order_id, RESERVATION_PENDING, reserva, pedido.placed_at)`."
        ),
        (
            "`outbox.add(session, ReserveStockRequested(reservation_id=reserva, lines=pedido."
            "lines), key=reserva)`."
        ),
    ),
    attack=_attack,
)
