"""05-E1: a request for stock is answered line by line, and only inventory's "no" is a no.

Attacked by three deliveries, by two at once, by two orders at once for the last unit, by an order
of which one line is missing, and by a database that drops the connection after each step: what had
to be said then is said at the next delivery, and nothing else before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import text

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deliveries import Consumer, event_in, message_of
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.meeting import meet
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction
from labkit.lab.servers import Stack
from labkit.lab.workshop.pieces import listening
from labkit.messages import Event, Message
from labkit.shop import inventory
from labkit.shop.contracts import (
    OUT_OF_STOCK,
    Line,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)

_STOCK = {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5}
_TIMES = 3
_DROP = text("""
    select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
      and state <> 'idle' and query not like '%pg_advisory_lock%'
""")


def _request(number: int, *lines: tuple[str, int]) -> Message[ReserveStockRequested]:
    wanted = tuple(Line(*line) for line in lines)
    event = ReserveStockRequested(reservation_id=f"RES-{number}", lines=wanted)
    return message_of(f"RES-{number}:pedir", event)


_WHOLE = _request(2, ("BOOK-DDD", 1), ("BOOK-EDA", 1))
_HALF = _request(3, ("BOOK-HEX", 1), ("BOOK-EDA", 9))


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    attacks = (_half, _repeat, _at_once, _last_unit, _drop)
    with arena("exercise_05_stock", inventory.service, servers()) as place:
        return [attack(place, _consumer(function)) for attack in attacks]


def _consumer(function: StudentFunction) -> Consumer:
    return Consumer(inventory.service.name, inventory.service.inbox, function)


def _open(place: Arena, **stock: int) -> None:
    place.empty()
    inventory.stock_up(place.watcher, stock or _STOCK)


def _deliver(
    place: Arena, consumer: Consumer, message: Message[ReserveStockRequested], steps: Steps
) -> None:
    with place.engine(steps) as engine:
        consumer.deliver(engine, message)


def _answers(place: Arena) -> list[Event]:
    rows = place.rows("select key, body from outbox_messages order by seq")
    if without := [row for row in rows if not str(row.key or "").startswith("RES-")]:
        raise FlawError(
            f"Una respuesta no lleva su reserva por clave (lleva {without[0].key}): sin ella, los "
            "mensajes de una reserva pueden adelantarse unos a otros."
        )
    return [event_in(row.body) for row in rows]


def _named(events: list[Event]) -> str:
    return ", ".join(f"`{e.event_type}` de {getattr(e, 'sku', '?')}" for e in events) or "nada"


def _held(place: Arena) -> dict[str, tuple[int, int]]:
    return {row.sku: (row.available, row.held) for row in place.rows("select * from stock")}


def _repeat(place: Arena, consumer: Consumer) -> str:
    """One message comes three times."""
    _open(place)
    steps = Steps()
    for _ in range(_TIMES):
        _deliver(place, consumer, _WHOLE, steps)
    _refuse_wrong(place, _WHOLE, f"RES-2 llegó {_TIMES} veces")
    return f"RES-2 {_TIMES} veces: una reserva y una respuesta por línea"


def _expected(message: Message[ReserveStockRequested]) -> list[Event]:
    reservation = message.event.reservation_id
    return [
        StockReserved(reservation_id=reservation, sku=line.sku, qty=line.qty)
        if line.qty <= _STOCK[line.sku]
        else StockReservationRejected(reservation_id=reservation, sku=line.sku, reason=OUT_OF_STOCK)
        for line in message.event.lines
    ]


def _refuse_wrong(place: Arena, message: Message[ReserveStockRequested], told: str) -> None:
    """Refuse what is not one right answer per line, and the stock that belongs to it."""
    wanted, given = _expected(message), _answers(place)
    reservation = message.event.reservation_id
    for each in wanted:
        sku = getattr(each, "sku", "")
        mine = [event for event in given if getattr(event, "sku", None) == sku]
        if not mine:
            raise FlawError(
                f"{reservation}: falta la respuesta de `{sku}`; el pedido espera para siempre.",
                _named(given),
            )
        if len(mine) > 1:
            raise FlawError(f"{told} y `{sku}` tiene {len(mine)} respuestas.", _named(given))
        if mine[0] != each:
            raise FlawError(
                f"{reservation}: de `{sku}` se espera `{each}` y contestaste `{mine[0]}`."
            )
    if len(given) > len(wanted):
        raise FlawError(f"{told} y hay {len(given)} respuestas.", _named(given))
    _refuse_other_stock(place, wanted, told)


def _refuse_other_stock(place: Arena, wanted: list[Event], told: str) -> None:
    taken = {e.sku: e.qty for e in wanted if isinstance(e, StockReserved)}
    for sku, (available, held) in _held(place).items():
        right = (_STOCK[sku] - taken.get(sku, 0), taken.get(sku, 0))
        if (available, held) != right:
            raise FlawError(
                f"{told}: de `{sku}` quedan {available} y hay {held} retenidas; se esperan "
                f"{right[0]} y {right[1]}."
            )


def _at_once(place: Arena, consumer: Consumer) -> str:
    """One message is handed to two consumers at once; whichever fails gets it again."""
    _open(place)
    _, errors = meet(lambda steps: _deliver(place, consumer, _WHOLE, steps), place.someone_waits)
    for _ in errors:
        _deliver(place, consumer, _WHOLE, Steps())
    _refuse_wrong(place, _WHOLE, "RES-2 llegó a dos consumidores a la vez")
    return "RES-2 en dos consumidores a la vez: una reserva y una respuesta por línea"


def _last_unit(place: Arena, consumer: Consumer) -> str:
    """Two orders want the last unit at once; whichever fails comes again."""
    _open(place, **{"BOOK-EDA": 1})
    orders = [_request(number, ("BOOK-EDA", 1)) for number in (9, 10)]
    waiting = list(orders)
    taken, errors = meet(
        lambda steps: _deliver(place, consumer, waiting.pop(0), steps), place.someone_waits
    )
    for order in orders if errors else []:
        _deliver(place, consumer, order, Steps())
    given = _answers(place)
    yes = [event for event in given if isinstance(event, StockReserved)]
    shown = " → ".join(f"`{label}`" for label in taken)
    if len(yes) > 1:
        raise FlawError("Dos pedidos, una unidad, dos `StockReserved`.", shown)
    if len(yes) != 1 or len(given) != len(orders):
        raise FlawError(
            f"RES-9 y RES-10 piden a la vez la última unidad: se espera un sí y un no, y salió "
            f"{_named(given)}.",
            shown,
        )
    return "RES-9 y RES-10 a la vez por la última unidad: un sí y un no"


def _half(place: Arena, consumer: Consumer) -> str:
    """One line can be had, and the other cannot."""
    _open(place)
    _deliver(place, consumer, _HALF, Steps())
    _refuse_wrong(place, _HALF, "RES-3 llegó una vez")
    return "RES-3, media reserva: una respuesta por línea"


def _drop(place: Arena, consumer: Consumer) -> str:
    """The database drops the connection after each step, and the message comes again."""
    _open(place)
    whole = Steps()
    _deliver(place, consumer, _WHOLE, whole)
    steps = whole.taken.index("COMMIT") + 1
    for step in range(1, steps):
        _open(place)
        said: list[Event] = []
        dropping = Steps(after=partial(_drop_at, place, step))
        _refuse_a_no(place, consumer, dropping, said)
        if isinstance(_first_no(_answers(place)), StockReservationRejected):
            raise _f3(_answers(place), dropping)
        _deliver(place, consumer, _WHOLE, Steps())
        _refuse_wrong(place, _WHOLE, "Tras el corte volvió RES-2")
    return f"la base de datos corta la conexión tras cada paso ({steps - 1} veces): ningún rechazo"


def _refuse_a_no(place: Arena, consumer: Consumer, steps: Steps, said: list[Event]) -> None:
    try:
        with listening(said.append):
            _deliver(place, consumer, _WHOLE, steps)
    except RaisedError:
        pass  # as it should be: the message comes again
    except FlawError as flaw:
        raise (_f3(said, steps) if _first_no(said) else flaw) from None
    if _first_no(said):
        raise _f3(said, steps)


def _drop_at(place: Arena, step: int, number: int) -> None:
    if number == step:
        drop_connection(place)


def drop_connection(place: Arena) -> None:
    """End whoever is in a transaction on an arena's database, and wait until it is gone."""
    with place.watcher.begin() as connection:
        connection.execute(_DROP)


def _first_no(events: list[Event]) -> Event | None:
    return next((e for e in events if isinstance(e, StockReservationRejected)), None)


def _f3(said: list[Event], steps: Steps) -> FlawError:
    no = _first_no(said)
    reason = no.reason if isinstance(no, StockReservationRejected) else "que no"
    return FlawError(f"La base de datos cayó y dijiste `{reason}`: F3 sigue abierta.", steps)


RESERVING = Exercise(
    id="05-E1",
    signature="al_pedir_reserva(session, mensaje)",
    hints=(
        (
            "Una respuesta por línea: recorre `mensaje.event.lines` y, en cada una, reserva y deja "
            "la respuesta en la bandeja de salida. Los errores técnicos, déjalos salir."
        ),
        (
            "`reserve_line(session, reserva, linea)` mira y toma en una sola sentencia; devuelve "
            "`None` si está reservada y, si no, el motivo."
        ),
        (
            "`StockReserved(reservation_id=…, sku=…, qty=…)` o `StockReservationRejected("
            "reservation_id=…, sku=…, reason=motivo)`, y `outbox.add(session, respuesta, "
            "key=reserva, cause=mensaje)`."
        ),
    ),
    attack=_attack,
)
