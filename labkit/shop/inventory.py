"""Inventory: sets stock aside, one answer per line, and never more than there is.

Every request is answered, and a repeated one answered again from what was decided: a
reservation line by line, a release as a whole, also when there was nothing to give back.

A business "no" is an event (`StockReservationRejected`). A technical failure is not an answer:
it leaves this module as an exception, the message is tried again, and nobody is told "no"
because a database was away.

A release that overtakes its reservation leaves a tombstone (a row of qty 0 in state RELEASED),
so that the reservation, when it comes, is rejected instead of holding stock that nobody will
give back.

Guarantee: the effect of a request is one, however often it is asked for; available and held add
up to what came in.
Not guaranteed: that a reservation's number is used once; two orders under one number would share
their answers.

Pattern: Richardson, *Microservices Patterns*, ch. 4 ("Compensating transactions").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    Integer,
    Table,
    Text,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.messages import Event, Message
from labkit.service import Service
from labkit.shop.contracts import (
    FULFILLMENT,
    INVENTORY,
    OUT_OF_STOCK,
    REGISTRY,
    RESERVATION_RELEASED,
    UNKNOWN_SKU,
    Line,
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)

service = Service("inventory", REGISTRY, stream=INVENTORY)

HELD = "HELD"
REJECTED = "REJECTED"
RELEASED = "RELEASED"

stock = Table(
    "stock",
    service.metadata,
    Column("sku", Text, primary_key=True),
    Column("available", Integer, CheckConstraint("available >= 0"), nullable=False),
    Column("held", Integer, CheckConstraint("held >= 0"), nullable=False, server_default="0"),
)
reservations = Table(
    "reservation_lines",
    service.metadata,
    Column("reservation_id", Text, primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("qty", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
)


def stock_up(engine: Engine, quantities: Mapping[str, int]) -> None:
    """Set the opening stock; articles that exist keep what they have.

    Args:
        engine: inventory's database.
        quantities: article to pieces.
    """
    rows = [{"sku": sku, "available": quantity} for sku, quantity in quantities.items()]
    with engine.begin() as connection:
        connection.execute(insert(stock).on_conflict_do_nothing(), rows)


def _merged(lines: Iterable[Line]) -> list[Line]:
    """Return one line per article, sorted: every transaction locks stock in the same order."""
    quantities: dict[str, int] = {}
    for line in lines:
        quantities[line.sku] = quantities.get(line.sku, 0) + line.qty
    return [Line(sku, quantities[sku]) for sku in sorted(quantities)]


def lock_stock(
    session: Session,
    messages: Sequence[Message[ReserveStockRequested] | Message[ReleaseReservationRequested]],
) -> None:
    """Lock all stock rows of a batch in one order, so that batches wait and never deadlock."""
    articles = sorted({line.sku for message in messages for line in message.event.lines})
    rows = select(stock.c.sku).where(stock.c.sku.in_(articles)).order_by(stock.c.sku)
    session.execute(rows.with_for_update())


@service.on(ReserveStockRequested, source=FULFILLMENT, lock_first=lock_stock)
def reserve(session: Session, message: Message[ReserveStockRequested]) -> None:
    """Answer each line of a reservation."""
    reservation_id = message.event.reservation_id
    for line in _merged(message.event.lines):
        reason = reserve_line(session, reservation_id, line)
        answer: Event = (
            StockReserved(reservation_id=reservation_id, sku=line.sku, qty=line.qty)
            if reason is None
            else StockReservationRejected(
                reservation_id=reservation_id, sku=line.sku, reason=reason
            )
        )
        service.outbox.add(session, answer, key=message.key, cause=message)


def reserve_line(session: Session, reservation_id: str, line: Line) -> str | None:
    """Set a line aside, or find that it was decided before, in your transaction.

    Args:
        session: your transaction.
        reservation_id: for whom.
        line: article and quantity.

    Returns:
        Why not, such as `OUT_OF_STOCK`; None when it is held.
    """
    mine = (reservations.c.reservation_id == reservation_id) & (reservations.c.sku == line.sku)
    decided = session.execute(select(reservations.c.reason).where(mine)).one_or_none()
    if decided is not None:
        earlier: str | None = decided.reason
        return earlier
    # One statement looks and takes. Why not select first: two requests would both see the last one.
    taken = session.execute(
        update(stock)
        .where(stock.c.sku == line.sku, stock.c.available >= line.qty)
        .values(available=stock.c.available - line.qty, held=stock.c.held + line.qty)
        .returning(stock.c.sku)
    )
    reason = None if taken.scalar() else _why_not(session, line.sku)
    _write_line(session, reservation_id, line, REJECTED if reason else HELD, reason)
    return reason


def _why_not(session: Session, sku: str) -> str:
    known = session.execute(select(stock.c.sku).where(stock.c.sku == sku)).scalar()
    return OUT_OF_STOCK if known else UNKNOWN_SKU


def _write_line(
    session: Session, reservation_id: str, line: Line, state: str, reason: str | None
) -> None:
    key = {"reservation_id": reservation_id, "sku": line.sku, "qty": line.qty}
    answer = {"state": state, "reason": reason}
    session.execute(
        insert(reservations)
        .values(key | answer)
        .on_conflict_do_update(index_elements=list(reservations.primary_key), set_=answer)
    )


@service.on(ReleaseReservationRequested, source=FULFILLMENT, lock_first=lock_stock)
def release(session: Session, message: Message[ReleaseReservationRequested]) -> None:
    """Give back what a reservation holds, refuse it from now on, and say so."""
    reservation_id = message.event.reservation_id
    for line in _merged(message.event.lines):
        mine = (reservations.c.reservation_id == reservation_id) & (reservations.c.sku == line.sku)
        held = session.execute(
            select(reservations.c.qty).where(mine, reservations.c.state == HELD)
        ).scalar()
        if held is not None:
            back = {"available": stock.c.available + held, "held": stock.c.held - held}
            session.execute(update(stock).where(stock.c.sku == line.sku).values(back))
        _write_line(session, reservation_id, line, RELEASED, RESERVATION_RELEASED)
    answer = ReservationReleased(reservation_id=reservation_id, lines=message.event.lines)
    service.outbox.add(session, answer, key=message.key, cause=message)
