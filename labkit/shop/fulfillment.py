"""Fulfillment: orders, and what became of their reservations.

Placing an order writes order, lines, view row, what will be answered (a `Correlator` brings each
answer back to its order) and `ReserveStockRequested` in one transaction. Results may come in any
order and more than once; each line keeps its first, and the status follows from all lines:

    no result yet → RESERVATION_PENDING      any line rejected → REJECTED
    all reserved  → RESERVED                 some reserved, none rejected → PARTIALLY_RESERVED

Rejection does not release what other lines hold: "rejection → ask for the release" is a policy
of its own, which the checkout registers. Only `cancel_order` asks for the release here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.errors import PermanentError
from labkit.messages import Event, Message
from labkit.rebuild import RebuildReport, rebuild
from labkit.saga.locks import SemanticLocks
from labkit.service import Service
from labkit.shop.contracts import (
    FULFILLMENT,
    INVENTORY,
    REGISTRY,
    Line,
    OrderStatusChanged,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.order_book import (
    CANCELLED,
    CONFIRMED,
    REJECTED,
    RESERVATION_PENDING,
    RESERVED,
    OrderError,
    lines_of,
    locked_order,
    now_of,
    order_lines_table,
    orders_table,
    reservation_id_of,
    status_of,
)
from labkit.shop.views import OrderStatusView
from labkit.translation import Correlator

service = Service("fulfillment", REGISTRY, stream=FULFILLMENT)
view = OrderStatusView(service.metadata)
service.add_projection(view.projection)

orders = orders_table(service.metadata)
order_lines = order_lines_table(service.metadata)
# An answer names reservation and article; we look up the order.
reservation_routing = Correlator(service.metadata, "reservation_routing")
# Who works on an order in several transactions, such as a checkout's saga, holds it meanwhile.
order_locks = SemanticLocks(service.metadata, "order_locks")


def place_order(
    session: Session,
    order_id: str,
    lines: Sequence[tuple[str, int]],
    *,
    reservation_id: str | None = None,
) -> str:
    """Place an order and ask inventory for its stock, in your transaction.

    Args:
        session: your transaction; nothing is sent unless it commits.
        order_id: the order's id.
        lines: article and quantity; each article once.
        reservation_id: the reservation's id; `RES-` and the order's number by default.

    Returns:
        The reservation's id.

    Raises:
        OrderError: when there are no lines, an article comes twice, or the order exists.
    """
    reservation_id = write_order(session, order_id, lines, reservation_id=reservation_id)
    _ask_for_stock(session, reservation_id, lines)
    return reservation_id


def write_order(
    session: Session,
    order_id: str,
    lines: Sequence[tuple[str, int]],
    *,
    reservation_id: str | None = None,
) -> str:
    """Write an order, the way back to it and its first row of the view; nobody is told.

    Arguments, result and errors are those of `place_order`.
    """
    if not lines or len({sku for sku, _ in lines}) < len(lines):
        raise OrderError(f"{order_id}: an order has one or more lines, each with another article")
    reservation_id = reservation_id or reservation_id_of(order_id)
    now = now_of(session)
    _insert_order(session, order_id, reservation_id, lines, now)
    view.show_first(session.connection(), order_id, RESERVATION_PENDING, reservation_id, now)
    return reservation_id


def ask_for_stock(session: Session, order_id: str) -> None:
    """Ask inventory for the stock of an order that is written, in your transaction.

    Args:
        session: your transaction.
        order_id: which order, such as one whose request was never sent.

    Raises:
        OrderError: when there is no such order.
    """
    order = locked_order(session, orders, order_id)
    _ask_for_stock(session, order.reservation_id, lines_of(session, order_lines, order_id))


def _ask_for_stock(session: Session, reservation_id: str, lines: Sequence[tuple[str, int]]) -> None:
    request = ReserveStockRequested(reservation_id=reservation_id, lines=_wire(lines))
    service.outbox.add(session, request, key=reservation_id, occurred_at=now_of(session))


def _insert_order(
    session: Session,
    order_id: str,
    reservation_id: str,
    lines: Sequence[tuple[str, int]],
    now: datetime,
) -> None:
    order = {"order_id": order_id, "reservation_id": reservation_id}
    state = {"status": RESERVATION_PENDING, "version": 1, "updated_at": now}
    new = insert(orders).values(order | state).on_conflict_do_nothing()
    if session.execute(new.returning(orders.c.order_id)).scalar() is None:
        raise OrderError(f"{order_id} or {reservation_id} exists already")
    rows = [{"order_id": order_id, "sku": sku, "qty": qty} for sku, qty in lines]
    session.execute(insert(order_lines), rows)
    parts = {sku: order_id for sku, _ in lines}
    reservation_routing.expect(session, reservation_id, parts)


@service.on(StockReserved, source=INVENTORY)
def stock_reserved(session: Session, message: Message[StockReserved]) -> None:
    """Note that a line is set aside."""
    _apply_result(session, message, RESERVED, None)


@service.on(StockReservationRejected, source=INVENTORY)
def stock_rejected(session: Session, message: Message[StockReservationRejected]) -> None:
    """Note that a line cannot be had."""
    _apply_result(session, message, REJECTED, message.event.reason)


def _apply_result(
    session: Session,
    message: Message[StockReserved] | Message[StockReservationRejected],
    result: str,
    reason: str | None,
) -> None:
    event = message.event
    match = reservation_routing.answer(session, event.reservation_id, event.sku, result)
    if match is None:
        raise PermanentError(f"no order has reservation {event.reservation_id} of {event.sku}")
    order = locked_order(session, orders, match.target)
    if match.new:
        mine = (order_lines.c.order_id == order.order_id) & (order_lines.c.sku == event.sku)
        session.execute(update(order_lines).where(mine).values(result=result, reason=reason))
    # All of its results are known to an order that is RESERVED.
    if order.status not in {RESERVED, CANCELLED, CONFIRMED}:
        _move(session, order, status_of(match.answers.values()), message)


def cancel_order(session: Session, order_id: str) -> bool:
    """Cancel an order and ask inventory to give its stock back, in your transaction.

    Args:
        session: your transaction.
        order_id: which order.

    Returns:
        False when it was cancelled before.

    Raises:
        OrderError: when there is no such order, or it is confirmed.
        LockedError: while a saga is at work on it: have that cancelled instead.
    """
    order = locked_order(session, orders, order_id)
    order_locks.refuse_if_held(session, order_id)
    if order.status == CONFIRMED:
        raise OrderError(f"{order_id} is confirmed")
    if order.status == CANCELLED:
        return False
    _move(session, order, CANCELLED, None)
    ask_for_release(session, order_id)
    return True


def confirm_order(session: Session, order_id: str) -> bool:
    """Confirm an order whose stock is set aside, in your transaction; then it stays.

    Args:
        session: your transaction.
        order_id: which order.

    Returns:
        False when it was confirmed before.

    Raises:
        OrderError: when there is no such order, or it is not reserved.
    """
    order = locked_order(session, orders, order_id)
    if order.status == CONFIRMED:
        return False
    if order.status != RESERVED:
        raise OrderError(f"{order_id} is {order.status}: only what is reserved can be confirmed")
    _move(session, order, CONFIRMED, None)
    return True


def move_order(
    session: Session, order_id: str, status: str, *, cause: Message[Any] | None = None
) -> None:
    """Give an order a status, unless it has come to an end, in your transaction.

    Args:
        session: your transaction.
        order_id: which order.
        status: its new one.
        cause: the message that is being handled, if any.

    Raises:
        OrderError: when there is no such order.
    """
    order = locked_order(session, orders, order_id)
    if order.status not in {REJECTED, CANCELLED, CONFIRMED}:
        _move(session, order, status, cause)


def ask_for_release(
    session: Session, order_id: str, *, cause: Message[Event] | None = None
) -> None:
    """Ask inventory to give back what an order holds, in your transaction.

    Args:
        session: your transaction.
        order_id: which order; its status stays.
        cause: the message that is being handled, if any.

    Raises:
        OrderError: when there is no such order, or it still counts on its stock.
    """
    order = locked_order(session, orders, order_id)
    if order.status not in {REJECTED, CANCELLED}:
        raise OrderError(f"{order_id} is {order.status}: its stock is not given back")
    lines, key = _wire(lines_of(session, order_lines, order_id)), order.reservation_id
    request = ReleaseReservationRequested(reservation_id=key, lines=lines)
    service.outbox.add(session, request, key=key, cause=cause, occurred_at=now_of(session))


def _wire(lines: Sequence[tuple[str, int]]) -> tuple[Line, ...]:
    return tuple(Line(sku, qty) for sku, qty in lines)


def _move(session: Session, order: Any, status: str, cause: Message[Any] | None) -> None:
    """Write a new status and tell the read model; the same status is no change."""
    if status == order.status:
        return
    version, now = order.version + 1, now_of(session)
    moved = {"status": status, "version": version, "updated_at": now}
    session.execute(update(orders).where(orders.c.order_id == order.order_id).values(moved))
    change = OrderStatusChanged(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        status=status,
        order_version=version,
    )
    service.outbox.add(session, change, key=order.reservation_id, cause=cause, occurred_at=now)


def rebuild_view(engine: Engine) -> RebuildReport:
    """Make the view anew from its events, beside the live one; see `labkit.rebuild`.

    The first row of an order was never an event, so the orders themselves are the start.

    Args:
        engine: fulfillment's database.
    """
    shown = select(*(orders.c[column.name] for column in view.table.columns))
    return rebuild(engine, view.projection, service.outbox, REGISTRY, snapshot=shown)
