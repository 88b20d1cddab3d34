"""05-E2: whoever hears a rejection asks, once, for the release of every line not rejected.

Attacked by the rejection in first, middle and last place among the answers, by a message that comes
twice, by two rejections, and by a release that inventory handles before the reservation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

from psycopg import errors as postgres
from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deliveries import Consumer, event_in, message_of
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import assemble
from labkit.lab.workshop.pieces import inventory_within_reach
from labkit.lab.workshop.solutions import al_contestar, al_pedir_reserva
from labkit.messages import Message
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import (
    OUT_OF_STOCK,
    Line,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)

_STOCK = {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5}
# RES-3 has a line that is rejected; of RES-30 two are.
_ORDERS = {
    3: (("BOOK-DDD", 1), ("BOOK-EDA", 9), ("BOOK-HEX", 1)),
    30: (("BOOK-DDD", 99), ("BOOK-EDA", 9), ("BOOK-HEX", 1)),
}
_PLACES = ("la primera", "en medio", "la última")


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    service = assemble({"al_contestar": al_contestar}).service
    stack = servers()
    with (
        arena("exercise_05_orders", service, stack) as orders,
        arena("exercise_05_stock", inventory.service, stack) as stock,
    ):
        case = _Case(orders, stock, function)
        return [attack(case) for attack in (_in_every_place, _twice, _two_rejections, _overtake)]


class _Case:
    """Both databases, and who answers in which."""

    def __init__(self, orders: Arena, stock: Arena, function: StudentFunction) -> None:
        self.orders, self.stock = orders, stock
        inbox = fulfillment.service.inbox
        self.fulfillment = Consumer("fulfillment", inbox, al_contestar)
        # As the workshop's assembly has it: noted first, made good then, in one transaction.
        self.rejections = Consumer("fulfillment", inbox, function, _after_noting(function))
        self.steps = Steps()

    def open(self, number: int) -> None:
        """Begin with full shelves and one order; nobody has answered."""
        self.orders.empty()
        self.stock.empty()
        inventory.stock_up(self.stock.watcher, _STOCK)
        with Session(self.orders.watcher) as session, session.begin():
            fulfillment.write_order(session, f"ORD-{number}", _ORDERS[number])

    def answer(self, message: Message[Any]) -> None:
        """Let fulfillment hear an answer, with inventory's database within reach."""
        rejects = isinstance(message.event, StockReservationRejected)
        consumer = self.rejections if rejects else self.fulfillment
        if not rejects:
            self._hold(message.event)
        self.steps = Steps()
        with (
            self.stock.engine(self.steps) as stock,
            self.orders.engine(Steps()) as engine,
            inventory_within_reach(stock),
            _naming_strange_tables(),
        ):
            consumer.deliver(engine, message)
        if any(label.startswith(("UPDATE", "INSERT", "DELETE")) for label in self.steps.taken):
            raise FlawError("fulfillment escribió en la base de datos de inventory.", self.steps)

    def _hold(self, event: StockReserved) -> None:
        """Let inventory hold what it says that it holds."""
        with Session(self.stock.watcher) as session, session.begin():
            inventory.reserve_line(session, event.reservation_id, Line(event.sku, event.qty))

    def releases(self) -> list[ReleaseReservationRequested]:
        """Return what inventory was asked to release, in order."""
        rows = self.orders.rows("select body from outbox_messages order by seq")
        events = [event_in(row.body) for row in rows]
        return [event for event in events if isinstance(event, ReleaseReservationRequested)]


def _after_noting(function: StudentFunction) -> Callable[[Session, Message[Any]], None]:
    def handle(session: Session, message: Message[Any]) -> None:
        al_contestar(session, message)
        function(session, message)

    return handle


@contextlib.contextmanager
def _naming_strange_tables() -> Any:
    try:
        yield
    except RaisedError as raised:
        cause = getattr(raised.error, "orig", None)
        if isinstance(cause, postgres.UndefinedTable):
            raise FlawError(
                "Quisiste escribir en una tabla de inventory con la sesión de fulfillment: su base "
                "de datos es otra, y se le pide por mensaje.",
                str(cause).splitlines()[0],
            ) from None
        raise


def _yes(number: int, sku: str) -> Message[Any]:
    event = StockReserved(reservation_id=f"RES-{number}", sku=sku, qty=1)
    return message_of(f"RES-{number}:{sku}:reservada", event)


def _no(number: int, sku: str) -> Message[Any]:
    event = StockReservationRejected(reservation_id=f"RES-{number}", sku=sku, reason=OUT_OF_STOCK)
    return message_of(f"RES-{number}:{sku}:rechazada", event)


def _named(messages: Sequence[Message[Any]]) -> str:
    return " → ".join(f"`{message.message_id}`" for message in messages)


def _in_every_place(case: _Case) -> str:
    """The rejection comes before, between and after the lines that are reserved."""
    answers = [_yes(3, "BOOK-DDD"), _no(3, "BOOK-EDA"), _yes(3, "BOOK-HEX")]
    for order in permutations(answers):
        case.open(3)
        for message in order:
            case.answer(message)
        _refuse_wrong(case.releases(), {"BOOK-DDD", "BOOK-HEX"}, order)
    return f"el rechazo de RES-3 {', '.join(_PLACES)}: una orden, con las dos líneas no rechazadas"


def _refuse_wrong(
    releases: list[ReleaseReservationRequested], wanted: set[str], order: Sequence[Message[Any]]
) -> None:
    reservation = order[0].event.reservation_id
    if not releases:
        raise FlawError(
            f"{reservation} está rechazado y nadie pidió liberar sus otras líneas.", _named(order)
        )
    if len(releases) > 1:
        raise FlawError(
            f"{reservation}: {len(releases)} órdenes de liberación; se espera una.", _named(order)
        )
    lines = {line.sku for line in releases[0].lines}
    if missing := sorted(wanted - lines):
        raise _missing(missing[0], order)
    if extra := sorted(lines - wanted):
        raise FlawError(
            f"Pides liberar `{extra[0]}`, que {reservation} nunca tuvo: fue la línea rechazada.",
            _named(order),
        )


def _missing(sku: str, order: Sequence[Message[Any]]) -> FlawError:
    rejected = next(n for n, each in enumerate(order) if each.message_id.endswith("rechazada"))
    later = any(each.event.sku == sku for each in order[rejected + 1 :])
    if later:
        told = f"`{sku}` se reservó después de tu compensación y nadie la liberó."
    else:
        told = f"`{sku}` estaba reservada cuando llegó el rechazo y no pediste liberarla."
    return FlawError(told, _named(order))


def _twice(case: _Case) -> str:
    """The rejection itself comes twice."""
    case.open(3)
    order = [_no(3, "BOOK-EDA"), _no(3, "BOOK-EDA"), _yes(3, "BOOK-HEX"), _yes(3, "BOOK-DDD")]
    for message in order:
        case.answer(message)
    _refuse_wrong(case.releases(), {"BOOK-DDD", "BOOK-HEX"}, order)
    return "el mismo rechazo dos veces: una orden"


def _two_rejections(case: _Case) -> str:
    """Two lines of one order are rejected."""
    for first, second in (("BOOK-DDD", "BOOK-EDA"), ("BOOK-EDA", "BOOK-DDD")):
        case.open(30)
        order = [_no(30, first), _no(30, second), _yes(30, "BOOK-HEX")]
        for message in order:
            _answer_again(case, message, order)
        releases = case.releases()
        if len(releases) > 1:
            raise FlawError(
                "Dos rechazos, dos órdenes de liberación distintas para RES-30: el id debe salir "
                "de la reserva.",
                _named(order),
            )
        # The second line was not rejected yet, so it may be among them.
        _refuse_wrong(releases, {"BOOK-HEX"} | ({second} & _lines(releases)), order)
    return "dos rechazos de RES-30: una orden"


def _lines(releases: list[ReleaseReservationRequested]) -> set[str]:
    return {line.sku for each in releases for line in each.lines}


def _answer_again(case: _Case, message: Message[Any], order: Sequence[Message[Any]]) -> None:
    try:
        case.answer(message)
    except RaisedError as raised:
        if "An id is used once" not in str(raised.error):
            raise
        raise FlawError(
            "Con el segundo rechazo guardas otra vez el mismo id, y la transacción entera falla: "
            "`ask_once` lo pide una sola vez.",
            _named(order),
        ) from None


def _overtake(case: _Case) -> str:
    """Inventory handles the release first; the reservation that comes then holds nothing."""
    case.open(3)
    case.answer(_no(3, "BOOK-EDA"))
    _refuse_wrong(case.releases(), {"BOOK-DDD", "BOOK-HEX"}, [_no(3, "BOOK-EDA")])
    release = case.releases()[0]
    stock = Consumer("inventory", inventory.service.inbox, inventory.release)
    stock.deliver(case.stock.watcher, message_of("RES-3:liberar", release))
    with case.orders.watcher.connect() as connection:
        table = fulfillment.order_lines.c
        rows = connection.execute(select(table.sku, table.qty)).all()
    _reserve_late(case, [(row.sku, row.qty) for row in rows if row.sku != "BOOK-EDA"])
    held = {row.sku: row.held for row in case.stock.rows("select sku, held from stock")}
    if kept := sorted(sku for sku, qty in held.items() if qty):
        raise FlawError(f"`{kept[0]}` se reservó después de tu compensación y nadie la liberó.")
    return "la liberación adelanta a la reserva: no queda nada retenido"


def _reserve_late(case: _Case, lines: Sequence[tuple[str, int]]) -> None:
    wanted = tuple(Line(*each) for each in lines)
    event = ReserveStockRequested(reservation_id="RES-3", lines=wanted)
    consumer = Consumer("inventory", inventory.service.inbox, al_pedir_reserva)
    consumer.deliver(case.stock.watcher, message_of("RES-3:pedir", event))


COMPENSATING = Exercise(
    id="05-E2",
    signature="al_recibir_rechazo(session, mensaje)",
    hints=(
        (
            "No cuentes con lo que ya llegó: una línea sin respuesta todavía también puede acabar "
            "reservada. Se libera toda línea que no sea la rechazada."
        ),
        (
            "`lines_of(session, reserva)` da las líneas con su `result`: `RESERVED`, `REJECTED` o "
            "`None`. Para pedir, `ReleaseReservationRequested(reservation_id=…, lines=…)`."
        ),
        (
            "Dos líneas rechazadas son dos llamadas: `ask_once(session, peticion, "
            'message_id=f"{reserva}:liberar", cause=mensaje)` guarda solo la primera.'
        ),
    ),
    attack=_attack,
)
