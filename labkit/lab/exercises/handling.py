"""02-E2: a message is handled once, however often it comes.

Attacked by three deliveries in every order, by the death of the process after every step followed
by another delivery, by two deliveries at once, and by the same id with another quantity.
"""

from __future__ import annotations

from collections.abc import Callable

from labkit.errors import PermanentError
from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.arrivals import arrivals
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.meeting import meet
from labkit.lab.exercises.pieces import STORY_TIME, Line, ReserveStockRequested
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import (
    FlawError,
    RaisedError,
    StudentFunction,
    lent_session,
    telling,
)
from labkit.lab.servers import Stack
from labkit.messages import Message
from labkit.shop import inventory

_TIMES = 3
_STOCK = {"BOOK-DDD": 25, "BOOK-EDA": 5}


def _message(message_id: str, sku: str, qty: int) -> Message[ReserveStockRequested]:
    """Return a message of RES-1: they all share one correlation id."""
    return Message(
        message_id=message_id,
        correlation_id="RES-1",
        event=ReserveStockRequested(reservation_id="RES-1", lines=(Line(sku, qty),)),
        occurred_at=STORY_TIME,
        key="RES-1",
        headers={},
    )


_FIRST = _message("RES-1-a", "BOOK-DDD", 2)
_OTHER = _message("RES-1-b", "BOOK-EDA", 1)
_CHANGED = _message("RES-1-a", "BOOK-DDD", 5)
_QTY = 2


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    attacks = (_repeat, _die, _meet, _change)
    with arena("exercise_02_e2", inventory.service, servers()) as place:
        return [attack(place, function) for attack in attacks]


def _open(place: Arena) -> None:
    """Begin with full shelves and no message."""
    place.empty()
    inventory.stock_up(place.watcher, _STOCK)


def _deliver(
    place: Arena, function: StudentFunction, message: Message[ReserveStockRequested], steps: Steps
) -> None:
    """Be the consumer: lend a transaction, and commit it."""
    with place.engine(steps) as engine, lent_session(engine) as session, telling(function):
        function(session, message)
        session.commit()


def _held(place: Arena, sku: str = "BOOK-DDD") -> int:
    return int(place.rows("select held from stock where sku = :sku", sku=sku)[0].held)


def _is_noted(place: Arena) -> bool:
    query = "select 1 from inbox_messages where message_id = :id"
    return bool(place.rows(query, id=_FIRST.message_id))


def _repeat(place: Arena, function: StudentFunction) -> str:
    """One message comes three times, among another one of the same conversation."""
    orders = list(arrivals([_FIRST, _OTHER], again=_FIRST, times=_TIMES))
    for order in orders:
        _open(place)
        seen: set[str] = set()
        for message in order:
            _deliver_again(place, function, message, again=message.message_id in seen)
            seen.add(message.message_id)
        shown = " → ".join(f"`{message.message_id}`" for message in order)
        _refuse_miscounted(_held(place), _held(place, "BOOK-EDA"), shown)
    return (
        f"{_FIRST.message_id} {_TIMES} veces, con {_OTHER.message_id} en cualquier lugar "
        f"({len(orders)} órdenes): un efecto cada uno"
    )


def _deliver_again(
    place: Arena, function: StudentFunction, message: Message[ReserveStockRequested], *, again: bool
) -> None:
    try:
        _deliver(place, function, message, Steps())
    except RaisedError as raised:
        if not again:
            raise
        raise FlawError(
            f"Una repetición no es un error: {message.message_id} llegó otra vez y tu función "
            f"terminó en `{type(raised.error).__name__}`. Descártala sin más."
        ) from None


def _refuse_miscounted(first: int, other: int, shown: str) -> None:
    wanted, companion = _FIRST.message_id, _OTHER.message_id
    if first > _QTY:
        raise FlawError(
            f"{wanted} llegó {_TIMES} veces y reservaste {first} unidades en lugar de {_QTY}.",
            shown,
        )
    if bool(first) != bool(other):
        lost, applied = (companion, wanted) if first else (wanted, companion)
        raise FlawError(
            f"Descartaste {lost}: con {applied} comparte correlación, no identidad.", shown
        )
    if (first, other) != (_QTY, 1):
        raise FlawError(
            f"{wanted} pide {_QTY} unidades y {companion} pide 1; hay {first} y {other}.",
            shown,
        )


def _die(place: Arena, function: StudentFunction) -> str:
    """The process dies after each step, and the message comes again."""
    _open(place)
    whole = Steps()
    _deliver(place, function, _FIRST, whole)
    for step in range(1, whole.count + 1):
        _open(place)
        if not dies_after(step, lambda steps: _deliver(place, function, _FIRST, steps)):
            raise FlawError(
                "Tu función no da siempre los mismos pasos con el mismo mensaje.", whole
            )
        before, noted = _held(place), _is_noted(place)
        _deliver(place, function, _FIRST, Steps())
        shown = " → ".join(
            [*(f"`{each}`" for each in whole.taken[:step]), "✖ SIGKILL", "repetición"]
        )
        _refuse_wrong_effect(before, _held(place), shown, noted=noted)
    return (
        f"{whole.count} muertes del proceso (SIGKILL), una tras cada paso, y otra entrega: "
        f"{_QTY} unidades reservadas"
    )


def _refuse_wrong_effect(before: int, after: int, shown: str, *, noted: bool) -> None:
    if after == _QTY:
        return
    if noted and not before and not after:
        raise FlawError(
            "Caída tras anotarlo: la repetición se descartó y la reserva no existe.", shown
        )
    if not noted and before == _QTY and after == 2 * _QTY:
        raise FlawError("Caída antes de anotarlo: la reserva se hizo dos veces.", shown)
    raise FlawError(
        f"Tras la caída había {before} unidades reservadas y tras la repetición hay {after}; "
        f"se esperan {_QTY}.",
        shown,
    )


def _meet(place: Arena, function: StudentFunction) -> str:
    """Two deliveries at once; whichever fails comes again."""
    _open(place)
    taken, errors = meet(
        lambda steps: _deliver(place, function, _FIRST, steps), place.someone_waits
    )
    for _ in errors:
        _deliver(place, function, _FIRST, Steps())
    held, shown = _held(place), " → ".join(f"`{label}`" for label in taken)
    if held == 2 * _QTY:
        raise FlawError(
            f"Dos entregas a la vez pasaron la pregunta y reservaron {held} en lugar de {_QTY}.",
            shown,
        )
    if held != _QTY:
        raise FlawError(f"Dos entregas a la vez dejaron {held} unidades; se esperan {_QTY}.", shown)
    return f"dos entregas a la vez: {held} unidades reservadas"


def _change(place: Arena, function: StudentFunction) -> str:
    """The same id comes with another quantity: neither an effect nor silence."""
    _open(place)
    _deliver(place, function, _FIRST, Steps())
    error: Exception | None = None
    try:
        _deliver(place, function, _CHANGED, Steps())
    except RaisedError as raised:
        error = raised.error
    _refuse_accepted(error, _held(place) - _QTY)
    return f"{_FIRST.message_id} con otra cantidad: apartado, sin efecto"


def _refuse_accepted(error: Exception | None, more: int) -> None:
    came = f"{_CHANGED.message_id} volvió con {_CHANGED.event.lines[0].qty} unidades"
    if more:
        raise FlawError(f"{came} y reservaste {more} más: el id ya estaba atendido.")
    if error is None:
        raise FlawError(
            f"{came} en lugar de {_QTY} y nadie se enteró: mismo id y otro contenido no es una "
            "repetición. Lanza `PayloadMismatchError`."
        )
    if not isinstance(error, PermanentError):
        raise FlawError(
            f"{came} y tu función terminó en `{type(error).__name__}`, que se reintenta; "
            "`PayloadMismatchError` lo aparta."
        )


HANDLING = Exercise(
    id="02-E2",
    signature="atender(session, mensaje)",
    hints=(
        (
            "El id anotado y la reserva son una sola transacción: la que te prestan. Si muere el "
            "proceso, se deshacen las dos."
        ),
        (
            'No preguntes primero: `inbox.accept(session.connection(), "inventory", '
            "{mensaje.message_id: digest_of(mensaje)})` anota y contesta en la misma sentencia."
        ),
        (
            "Lo que devuelve tiene `fresh` (ids nuevos: reserva con "
            "`take_stock(session, mensaje)`) y `mismatched` (ids conocidos con otro "
            "contenido: lanza `PayloadMismatchError(mensaje.message_id)`)."
        ),
    ),
    attack=_attack,
)
