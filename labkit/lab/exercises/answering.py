"""05-W5: an answer finds its order, and the status follows from all answers.

Attacked by three answers in every order of arrival with one that comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.arrivals import arrivals
from labkit.lab.exercises.deliveries import Consumer, message_of
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.results import Result, listed
from labkit.lab.exercises.student import FlawError, StudentFunction
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import assemble
from labkit.shop import fulfillment
from labkit.shop.contracts import OUT_OF_STOCK, StockReservationRejected, StockReserved
from labkit.shop.order_book import status_of

_LINES = (("BOOK-DDD", 1), ("BOOK-EDA", 9), ("BOOK-HEX", 1))
_REJECTED = "BOOK-EDA"


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    with arena("exercise_05_orders", assemble({}).service, servers()) as place:
        place.empty()
        consumer = Consumer("fulfillment", fulfillment.service.inbox, function)
        return [_all_reserved(place, consumer), _every_order(place, consumer)]


def _answer(number: int, sku: str, *, no: bool = False) -> Result:
    reservation = f"RES-{number}"
    if no:
        event = StockReservationRejected(reservation_id=reservation, sku=sku, reason=OUT_OF_STOCK)
        return message_of(f"{reservation}:{sku}:rechazada", event)
    return message_of(
        f"{reservation}:{sku}:reservada",
        StockReserved(reservation_id=reservation, sku=sku, qty=1),
    )


def _write(place: Arena, number: int) -> None:
    with Session(place.watcher) as session, session.begin():
        fulfillment.write_order(session, f"ORD-{number}", _LINES)


def _status(place: Arena, number: int) -> str:
    query = "select status from orders where order_id = :id"
    return str(place.rows(query, id=f"ORD-{number}")[0].status)


def _all_reserved(place: Arena, consumer: Consumer) -> str:
    """Every line is reserved: the order is, after the last one and not before."""
    _write(place, 2)
    said: list[str] = []
    for sku, _ in _LINES:
        consumer.deliver(place.watcher, _answer(2, sku))
        said.append(_status(place, 2))
    wanted = ["PARTIALLY_RESERVED", "PARTIALLY_RESERVED", "RESERVED"]
    if said != wanted:
        raise FlawError(
            f"ORD-2 recibe tres reservas y pasa por {', '.join(said)}; se espera "
            f"{', '.join(wanted)}.",
        )
    _refuse_untold(place, 2)
    return f"ORD-2: {' → '.join(dict.fromkeys(said))}"


def _every_order(place: Arena, consumer: Consumer) -> str:
    """One of three lines is rejected; any order of arrival, and one answer comes again."""
    number = 1001
    for again in ("BOOK-DDD", _REJECTED):
        skus = [sku for sku, _ in _LINES]
        for order in arrivals(skus, again=again, times=2):
            _write(place, number)
            messages = [_answer(number, sku, no=sku == _REJECTED) for sku in order]
            _deliver_each(place, consumer, number, messages)
            number += 1
    return f"{number - 1001} órdenes de llegada, con una repetida: el estado de la regla, siempre"


def _deliver_each(
    place: Arena, consumer: Consumer, number: int, messages: Sequence[Result]
) -> None:
    known: dict[str, str] = {}
    for count, message in enumerate(messages, 1):
        consumer.deliver(place.watcher, message)
        known[message.event.sku] = "REJECTED" if message.event.sku == _REJECTED else "RESERVED"
        wanted = status_of([known.get(sku) for sku, _ in _LINES])
        if (status := _status(place, number)) != wanted:
            raise _wrong(messages[:count], status, wanted)


def _wrong(messages: Sequence[Result], status: str, wanted: str) -> FlawError:
    last = messages[-1].event.sku
    came = listed(messages)
    if wanted == "REJECTED" and last != _REJECTED:
        return FlawError(
            f"Tras el rechazo de `{_REJECTED}` llega `{last}` y el pedido pasa a {status}: un "
            "rechazo no se olvida.",
            came,
        )
    return FlawError(f"Con {came}, el pedido está en {status} y la regla dice {wanted}.")


def _refuse_untold(place: Arena, number: int) -> None:
    """Refuse a change of which the view will never hear."""
    told = place.rows(
        "select count(*) as n from outbox_messages where key = :key", key=f"RES-{number}"
    )[0].n
    version = place.rows("select version from orders where order_id = :id", id=f"ORD-{number}")[
        0
    ].version
    if told != version - 1:
        raise FlawError(
            f"ORD-{number} cambió {version - 1} veces y la vista se entera de {told}: "
            "`move_order` cambia el estado y lo cuenta."
        )
    lines = place.rows("select result from order_lines where order_id = :id", id=f"ORD-{number}")
    if any(line.result is None for line in lines):
        raise FlawError(
            f"ORD-{number} tiene su estado, y sus líneas no dicen qué se contestó: `write_result`."
        )


ANSWERING = Exercise(
    id="05-W5",
    signature="al_contestar(session, mensaje)",
    hints=(
        (
            "La respuesta nombra reserva y artículo; de qué pedido son lo sabe la ruta: "
            "`routing.answer(session, reserva, sku, result_of(evento))`."
        ),
        (
            "Lo que devuelve tiene `target` (el pedido), `new` (la primera vez) y `answers` (todas "
            "las respuestas, `None` donde falta). El estado es `status_of(….answers.values())`."
        ),
        (
            "`write_result(session, pedido, evento)` si es nueva, y `move_order(session, pedido, "
            "estado, cause=mensaje)`."
        ),
    ),
    attack=_attack,
)
