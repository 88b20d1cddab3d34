"""01-E1: of the many private events of an order, one leaves, as the contract has it.

Attacked with the ten events of an order, with two reservations whose answers must find their way
back, with a field that is renamed in the domain, and with an event that the domain did not have
yesterday.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from labkit.errors import InvalidEventError
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.leaks import leak_in, payload_of, shown
from labkit.lab.exercises.pieces import STORY_TIME, Line, ReserveStockRequested
from labkit.lab.exercises.refactoring import renamed
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling
from labkit.lab.servers import Stack
from labkit.messages import Event, encode
from labkit.shop.contracts import REGISTRY
from labkit.shop.domain_events import (
    DomainEvent,
    LinePriceAdjusted,
    OrderLine,
    OrderPlaced,
    history_of,
)
from labkit.wire import decode_envelope

_NAME_WHAT_LEAVES = "nombra lo que sale, no lo que se queda"


class _Order(NamedTuple):
    """An order and the reservation that it asks for."""

    order_id: str
    reservation_id: str
    lines: tuple[tuple[str, int], ...]

    def events(self) -> tuple[DomainEvent, ...]:
        """Return its private events."""
        return history_of(self.order_id, self.lines, reservation_id=self.reservation_id)

    def placed(self) -> OrderPlaced:
        """Return the one event that concerns others."""
        return next(each for each in self.events() if isinstance(each, OrderPlaced))


@dataclass(frozen=True)
class GiftNoteWritten(DomainEvent):
    """A new event of the domain, which looks like the one that leaves."""

    reservation_id: str
    lines: tuple[OrderLine, ...]


_ORDER = _Order("ORD-2", "RES-2", (("BOOK-DDD", 1), ("BOOK-EDA", 1)))
# Its reservation does not follow from its id.
_OTHER = _Order("ORD-1001", "RES-2001", (("BOOK-HEX", 2),))


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_translate, _filter, _correlate, _rename, _add)
    return [attack(function) for attack in attacks]


def _out(function: StudentFunction, event: DomainEvent) -> object:
    before = dict(vars(event))
    with telling(function):
        answer = function(event)
    if vars(event) != before:
        raise FlawError(
            f"Cambiaste el `{type(event).__name__}` que te dieron: dentro aún lo necesitan. Lee de "
            "él lo que sale y déjalo como está."
        )
    return answer


def _translate(function: StudentFunction) -> str:
    """What leaves is what the contract has, and nothing else."""
    _sent(_out(function, _ORDER.placed()), _ORDER)
    return f"{_ORDER.order_id}: sale un `ReserveStockRequested` con sus líneas y nada privado"


def _sent(answer: object, order: _Order) -> ReserveStockRequested:
    """Return the event; refuse what the contract does not have."""
    if answer is None:
        raise FlawError(
            f"Del `OrderPlaced` de {order.order_id} no sale nada: sin petición, el inventario no "
            "se entera. ¿Falta un `return`?"
        )
    leak = leak_in(answer)
    if leak is not None:
        raise FlawError(f"Sale `{leak.field}`, que {leak.why}.", shown(answer))
    return _fit(answer, order)


def _fit(answer: object, order: _Order) -> ReserveStockRequested:
    if type(answer) is not ReserveStockRequested:
        raise FlawError(
            f"Devolviste {_kind(answer)}: el evento de integración es un objeto "
            "`ReserveStockRequested(reservation_id=…, lines=…)`.",
            shown(answer),
        )
    _refuse_unsendable(answer)
    if [(line.sku, line.qty) for line in answer.lines] != list(order.lines):
        raise FlawError(
            f"El evento de {order.order_id} no pide lo mismo que el pedido: se esperan sus "
            f"{len(order.lines)} líneas, cada una con su cantidad.",
            shown(answer),
        )
    return answer


def _kind(answer: object) -> str:
    if isinstance(answer, type):
        return f"la clase `{answer.__name__}`"
    return f"`{type(answer).__name__}`"


def _refuse_unsendable(event: ReserveStockRequested) -> None:
    """Refuse what the outbox would refuse, in words that say what to write."""
    if not isinstance(event.lines, tuple):
        raise FlawError(
            f"`lines` es `{type(event.lines).__name__}` y el contrato pide una tupla: escribe "
            "`tuple(Line(…) for linea in evento.lines)`."
        )
    other = [type(line).__name__ for line in event.lines if type(line) is not Line]
    if other:
        raise FlawError(f"En `lines` hay `{other[0]}` y el contrato pide `Line(sku, qty)`.")
    try:
        _body(event)
    except InvalidEventError as error:
        raise FlawError(f"La bandeja de salida no admite tu evento. {error}") from None


def _body(event: ReserveStockRequested) -> str:
    """Write the message as the outbox does: the reservation is key and conversation."""
    return encode(
        event,
        message_id=f"{event.reservation_id}:request",
        correlation_id=event.reservation_id,
        occurred_at=STORY_TIME,
        headers={},
    )


def _filter(function: StudentFunction) -> str:
    """Ten happened, one leaves."""
    events = _ORDER.events()
    sent = [event for event in events if _leaves(function, event, len(events))]
    other = [type(each).__name__ for each in sent if not isinstance(each, OrderPlaced)]
    if other:
        example = LinePriceAdjusted.__name__
        named = example if example in other else other[0]
        raise FlawError(
            f"`{named}` no le importa a nadie fuera: salieron {len(sent)} mensajes, se esperaba 1."
        )
    return f"{_ORDER.order_id}: pasan {len(events)} eventos dentro y sale {len(sent)}"


def _leaves(function: StudentFunction, event: DomainEvent, count: int) -> bool:
    name = type(event).__name__
    try:
        answer = _out(function, event)
    except RaisedError as raised:
        raise FlawError(
            f"`{name}` es privado, y tu función terminó con él en "
            f"`{type(raised.error).__name__}`: de los {count} eventos solo uno importa fuera; con "
            "los demás devuelve `None`.",
            raised.sentence,
        ) from None
    if answer is not None and not isinstance(answer, Event) and not payload_of(answer):
        raise FlawError(
            f"Con `{name}` devolviste `{answer!r:.40}`: si nada debe salir, devuelve `None`."
        )
    return answer is not None


def _correlate(function: StudentFunction) -> str:
    """Two reservations ask; the answer of each carries the correlation id of its request."""
    orders = (_ORDER, _OTHER)
    waiting = {order.reservation_id: order.order_id for order in orders}
    events = [_sent(_out(function, order.placed()), order) for order in orders]
    for order, event in zip(orders, events, strict=True):
        conversation = REGISTRY.message(decode_envelope(_body(event))).correlation_id
        if waiting.get(conversation) != order.order_id:
            raise FlawError(
                f"La respuesta de {order.reservation_id} no encuentra su conversación: "
                f"`correlationId` es {conversation}.",
                shown(event),
            )
    return f"{' y '.join(waiting)}: cada respuesta encuentra su conversación"


def _rename(function: StudentFunction) -> str:
    """The domain renames a private field; outside, nobody may notice."""
    before = _sent(_out(function, _ORDER.placed()), _ORDER)
    told = "Renombré `internal_margin` en el dominio (ahora es `net_margin`)"
    with renamed(OrderPlaced, "internal_margin", "net_margin"):
        try:
            after = _out(function, _ORDER.placed())
        except RaisedError as raised:
            raise FlawError(
                f"{told} y tu función terminó en `{type(raised.error).__name__}`: "
                f"{_NAME_WHAT_LEAVES}.",
                raised.sentence,
            ) from None
    if after != before:
        came = "no sale nada" if after is None else "sale otra cosa"
        what = "" if after is None else shown(after)
        raise FlawError(f"{told} y {came}: {_NAME_WHAT_LEAVES}.", what)
    return "`internal_margin` cambia de nombre dentro, y fuera nadie lo nota"


def _add(function: StudentFunction) -> str:
    """The domain has a new event, which nobody told the translator about."""
    placed = _ORDER.placed()
    new = GiftNoteWritten(placed.order_id, placed.reservation_id, placed.lines)
    told = f"El dominio estrena `{type(new).__name__}`"
    try:
        answer = _out(function, new)
    except RaisedError as raised:
        kind = type(raised.error).__name__
        raise FlawError(
            f"{told} y tu función terminó en `{kind}`: {_NAME_WHAT_LEAVES}.", raised.sentence
        ) from None
    if answer is not None:
        raise FlawError(f"{told} y ya sale un mensaje: {_NAME_WHAT_LEAVES}.", shown(answer))
    return f"{told[0].lower()}{told[1:]}, y se queda dentro"


PUBLISHING = Exercise(
    id="01-E1",
    signature="a_publico(evento)",
    hints=(
        (
            "De los diez eventos solo uno cambia algo para el inventario: `OrderPlaced`. Pregunta "
            "por él con `isinstance` y devuelve `None` con los demás, también con los que aún no "
            "existen."
        ),
        (
            "Nombra lo que sale: `reservation_id=evento.reservation_id` (no el id del pedido: el "
            "inventario contesta con el de la reserva) y, por cada línea, "
            "`Line(linea.sku, linea.qty)`, todas en una tupla."
        ),
    ),
    attack=_attack,
)
