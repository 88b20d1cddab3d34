"""Last unit: an order is cancelled while its saga is at work, with and without the semantic lock.

One unit, two orders. The first has it and waits for its payment; its customer cancels, and the
second order comes. `without_asking` cancels as if no saga were there; `fulfillment.cancel_order`
asks for the lock that the saga holds.

Guarantee: both ways run the shop's own saga on real databases; what is left is read from the books.
Not guaranteed: what a person would do about the saga that `without_asking` leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.errors import LockedError
from labkit.lab import saga_books
from labkit.lab.bench import Bench
from labkit.lab.charts import Cell, bad, good, plain
from labkit.lab.spanish import number
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import PRICE_CENTS
from labkit.saga.state import Status
from labkit.shop import checkout, fulfillment, payments
from labkit.shop.order_book import CANCELLED, reservation_id_of
from labkit.shop.provider import CHARGED, SimulatedProvider

FIRST, SECOND = "ORD-9", "ORD-10"
ONE_LEFT = {"BOOK-EDA": 1}
DONE = "hecho"

Cancel = Callable[[Session, str], object]


def without_asking(session: Session, order_id: str) -> None:
    """Cancel an order and give its stock back.

    Wrong while a saga is at work on it: it goes on with what is no longer there.
    """
    fulfillment.move_order(session, order_id, CANCELLED)
    fulfillment.ask_for_release(session, order_id)


class Left(NamedTuple):
    """What the books say of an order in the end, and how far its saga came."""

    order_id: str
    status: str
    charged: bool
    held: int
    saga: Status


class End(NamedTuple):
    """What was said to the customer, and what is left of both orders."""

    said: str
    left: list[Left]


def meanwhile(bench: Bench, cancel: Cancel, first: str = FIRST, second: str = SECOND) -> End:
    """Let the first order be cancelled while its saga waits, and the second one come after it.

    Args:
        bench: with the checkout beside fulfillment; another one is lent from it.
        cancel: how the first is cancelled.
        first: an order of the story, of the last unit.
        second: another one.
    """
    with bench.scratch(beside=bench.beside, stock=ONE_LEFT) as shop:
        return _meanwhile(shop, cancel, first, second)


def _meanwhile(bench: Bench, cancel: Cancel, first: str, second: str) -> End:
    with bench.staying():
        _check_out(bench, first)
        bench.settle(without=payments.service)
        said = _try_to(cancel, bench, first)
        _check_out(bench, second)
        bench.settle(without=payments.service)
        bench.settle()
    return End(said, [_left(bench, order_id) for order_id in (first, second)])


def cells(ends: Mapping[str, End]) -> dict[str, dict[str, Cell]]:
    """Return what is left as cells of a matrix: paid and held go together, or something is wrong.

    Args:
        ends: way of cancelling; from `meanwhile`.
    """
    return {
        way: {"se le contesta": plain(end.said)} | {each.order_id: _cell(each) for each in end.left}
        for way, end in ends.items()
    }


def reading(ends: Mapping[str, End]) -> str:
    """Read how many were paid and how many units there are for them.

    Args:
        ends: way of cancelling; from `meanwhile`.
    """
    said = "; ".join(
        f"«{way}», cobros: {number(sum(each.charged for each in left))}, "
        f"unidades para ellos: {number(sum(each.held for each in left))}, "
        f"sagas sin acabar: {number(sum(each.saga is Status.RUNNING for each in left))}"
        for way, (_, left) in ends.items()
    )
    return f"{said}."


def is_sound(end: End) -> bool:
    """Say whether who paid has a unit, nobody else has, and both sagas ended."""
    return all(_is_sound(each) for each in end.left)


def _is_sound(left: Left) -> bool:
    return left.charged == bool(left.held) and left.saga is not Status.RUNNING


def _cell(left: Left) -> Cell:
    money = "cobrado" if left.charged else "sin cobro"
    stock = "con unidad" if left.held else "sin unidad"
    return (good if _is_sound(left) else bad)(f"{left.status}, {money}, {stock}")


def _check_out(bench: Bench, order_id: str) -> None:
    with Session(bench.orders) as session, session.begin():
        lines = CAST[order_id].lines
        checkout.check_out(session, order_id, lines, amount_cents=PRICE_CENTS)


def _try_to(cancel: Cancel, bench: Bench, order_id: str) -> str:
    try:
        with Session(bench.orders) as session, session.begin():
            cancel(session, order_id)
    except LockedError as error:
        return f"no: {error.target} está en manos de {error.holder}"
    return DONE


def _left(bench: Bench, order_id: str) -> Left:
    charges = SimulatedProvider(bench.orders).charges()
    charged = any((each.order_id, each.state) == (order_id, CHARGED) for each in charges)
    sagas, orders = checkout.sagas.store.table.c, fulfillment.orders.c
    with bench.orders.connect() as connection:
        of_saga = select(sagas.status).where(sagas.id == reservation_id_of(order_id))
        status = select(orders.status).where(orders.order_id == order_id)
        saga = Status(connection.execute(of_saga).scalar_one())
        said: str = connection.execute(status).scalar_one()
    return Left(order_id, said, charged, saga_books.held(bench, order_id), saga)
