"""Pieces: what a student is handed in the workshop, each of them one line to call.

`outbox`, `routing`, `view`, `status_of` and the events are labkit's own. The rest does one thing to
one table and no more: the wrong ways must be as easy to write as the right one.

The tables are those of `labkit.shop`, by name, in the databases of whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Engine, MetaData, Table, Text, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.errors import LabkitError
from labkit.messages import Event, Message
from labkit.outbox import Outbox, Outgoing
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import (
    FULFILLMENT,
    OUT_OF_STOCK,
    Line,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.order_book import (
    REJECTED,
    RESERVATION_PENDING,
    RESERVED,
    now_of,
    reservation_id_of,
    status_of,
)

__all__ = [
    "OUT_OF_STOCK",
    "REJECTED",
    "RESERVATION_PENDING",
    "RESERVED",
    "Line",
    "ReleaseReservationRequested",
    "ReserveStockRequested",
    "StockReservationRejected",
    "StockReserved",
    "ask_once",
    "give_back",
    "in_inventory",
    "lines_of",
    "move_order",
    "outbox",
    "reserve_line",
    "result_of",
    "routing",
    "save_order",
    "status_of",
    "stock_of",
    "view",
    "write_result",
    "write_stock",
]


class Told(Outbox):
    """An outbox that tells an examiner what it is asked to say, also when that fails."""

    listener: Callable[[Event], None] | None = None

    def add_all(self, joined: Any, events: Iterable[Outgoing]) -> list[str]:
        """Tell, and store as any outbox does."""
        outgoing = list(events)
        if self.listener is not None:
            for each in outgoing:
                self.listener(each.event)
        return super().add_all(joined, outgoing)


# One for both services: a row goes into the database of the session that it is added to, and both
# streams have as many partitions.
outbox = Told(MetaData(), FULFILLMENT)
# Untyped: a student's function is not told that an answer may be nobody's.
routing: Any = fulfillment.reservation_routing
view = fulfillment.view
# Which of our requests were made that must be made once.
asked = Table("asked_once", MetaData(), Column("message_id", Text, primary_key=True))


@dataclass(frozen=True)
class Order:
    """What a customer asked for."""

    order_id: str
    reservation_id: str
    lines: tuple[Line, ...]
    placed_at: datetime


def order_of(session: Session, order_id: str, lines: Iterable[tuple[str, int]]) -> Order:
    """Return an order that is placed now."""
    wanted = tuple(Line(sku, qty) for sku, qty in lines)
    return Order(order_id, reservation_id_of(order_id), wanted, now_of(session))


def save_order(session: Session, order: Order) -> None:
    """Write the order and its lines in your transaction; nobody is told."""
    ids = {"order_id": order.order_id, "reservation_id": order.reservation_id}
    state = {"status": RESERVATION_PENDING, "version": 1, "updated_at": order.placed_at}
    session.execute(insert(fulfillment.orders).values(ids | state))
    lines = [{"order_id": order.order_id, "sku": line.sku, "qty": line.qty} for line in order.lines]
    session.execute(insert(fulfillment.order_lines), lines)


def reserve_line(session: Session, reservation_id: str, line: Line) -> str | None:
    """Set a line aside in one statement; return why not, None for yes."""
    return inventory.reserve_line(session, reservation_id, line)


def stock_of(session: Session, sku: str) -> int:
    """Return how many pieces of an article are available, as you see it."""
    query = select(inventory.stock.c.available).where(inventory.stock.c.sku == sku)
    return int(session.execute(query).scalar_one())


def write_stock(session: Session, reservation_id: str, line: Line, left: int) -> None:
    """Write how many pieces are left, and that the line is held."""
    stock = inventory.stock
    taken = {"available": left, "held": stock.c.held + line.qty}
    session.execute(update(stock).where(stock.c.sku == line.sku).values(taken))
    row = {"reservation_id": reservation_id, "sku": line.sku, "qty": line.qty}
    session.execute(insert(inventory.reservations).values(row | {"state": inventory.HELD}))


def give_back(session: Session, line: Any) -> None:
    """Add pieces to what is available; `line` has `sku` and `qty`."""
    stock = inventory.stock
    back = {"available": stock.c.available + line.qty, "held": stock.c.held - line.qty}
    session.execute(update(stock).where(stock.c.sku == line.sku).values(back))


def result_of(event: StockReserved | StockReservationRejected) -> str:
    """Return what an answer says of its line: `RESERVED` or `REJECTED`."""
    return RESERVED if isinstance(event, StockReserved) else REJECTED


def write_result(
    session: Session, order_id: str, event: StockReserved | StockReservationRejected
) -> None:
    """Write what was answered on the order's line, and why not."""
    lines = fulfillment.order_lines
    mine = (lines.c.order_id == order_id) & (lines.c.sku == event.sku)
    said = {"result": result_of(event), "reason": getattr(event, "reason", None)}
    session.execute(update(lines).where(mine).values(said))


def move_order(session: Session, order_id: str, status: str, cause: Message[Any]) -> None:
    """Give the order a status and tell the view by `OrderStatusChanged`; the same is no change."""
    fulfillment.move_order(session, order_id, status, cause=cause)


class OrderLine(NamedTuple):
    """A line of an order, and what inventory answered: `RESERVED`, `REJECTED` or None yet."""

    sku: str
    qty: int
    result: str | None


def lines_of(session: Session, reservation_id: str) -> list[OrderLine]:
    """Return all lines of a reservation, with their results so far."""
    orders, lines = fulfillment.orders.c, fulfillment.order_lines.c
    query = (
        select(lines.sku, lines.qty, lines.result)
        .join(fulfillment.orders, orders.order_id == lines.order_id)
        .where(orders.reservation_id == reservation_id)
        .order_by(lines.sku)
    )
    return [OrderLine(*row) for row in session.execute(query)]


def ask_once(
    session: Session, event: ReleaseReservationRequested, *, message_id: str, cause: Message[Any]
) -> None:
    """Store a request in the outbox unless there was one with this id before."""
    first = insert(asked).values(message_id=message_id).on_conflict_do_nothing()
    if session.execute(first.returning(asked.c.message_id)).scalar() is not None:
        outbox.add(session, event, key=event.reservation_id, message_id=message_id, cause=cause)


_inventory: Engine | None = None


@contextmanager
def in_inventory() -> Iterator[Session]:
    """Open a transaction in inventory's own database.

    Raises:
        LabkitError: outside an examination, where it is not within reach.
    """
    if _inventory is None:
        raise LabkitError("in_inventory solo funciona mientras se comprueba tu función")
    with Session(_inventory) as session, session.begin():
        yield session


@contextmanager
def inventory_within_reach(engine: Engine) -> Iterator[None]:
    """Let `in_inventory` reach the database of an arena."""
    global _inventory  # noqa: PLW0603 - a student's function is handed session and message only
    _inventory = engine
    try:
        yield
    finally:
        _inventory = None


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Hear what the outbox is asked to say, whether or not it comes to a commit."""
    outbox.listener = listener
    try:
        yield
    finally:
        outbox.listener = None
