"""Fulfillment: orders, and what became of their reservations.

Placing an order writes order, lines (which also route answers back to it), view row and
`ReserveStockRequested` in one transaction. Results may come in any order and more than once;
each line keeps its first, and the status follows from all lines:

    no result yet → RESERVATION_PENDING      any line rejected → REJECTED
    all reserved  → RESERVED                 some reserved, none rejected → PARTIALLY_RESERVED

Rejection does not release what other lines hold: "rejection → ask for the release" is a policy
of its own, which the checkout registers. Only `cancel_order` asks for the release here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    ForeignKey,
    Integer,
    Table,
    Text,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.clock import Clock, SystemClock
from labkit.errors import PermanentError
from labkit.messages import Message
from labkit.rebuild import RebuildReport, rebuild
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
from labkit.shop.views import OrderStatusView

RESERVATION_PENDING = "RESERVATION_PENDING"
PARTIALLY_RESERVED = "PARTIALLY_RESERVED"
RESERVED = "RESERVED"
REJECTED = "REJECTED"
CANCELLED = "CANCELLED"
CONFIRMED = "CONFIRMED"

service = Service("fulfillment", REGISTRY, stream=FULFILLMENT)
view = OrderStatusView(service.metadata)
service.add_projection(view.projection)

orders = Table(
    "orders",
    service.metadata,
    Column("order_id", Text, primary_key=True),
    Column("reservation_id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
order_lines = Table(
    "order_lines",
    service.metadata,
    Column("order_id", Text, ForeignKey("orders.order_id"), primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("qty", Integer, nullable=False),
    Column("result", Text),
    Column("reason", Text),
)
# Stateful routing: an answer names the reservation, we look up the order.
reservation_routing = Table(
    "reservation_routing",
    service.metadata,
    Column("reservation_id", Text, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.order_id"), nullable=False),
)


class OrderError(ValueError):
    """The order cannot be placed or cancelled as asked."""


def status_of(results: Collection[str | None]) -> str:
    """Return the status that follows from the results of all lines.

    >>> status_of(["RESERVED", None])
    'PARTIALLY_RESERVED'
    """
    if REJECTED in results:
        return REJECTED
    if all(result == RESERVED for result in results):
        return RESERVED
    return PARTIALLY_RESERVED if RESERVED in results else RESERVATION_PENDING


def place_order(
    session: Session,
    order_id: str,
    lines: Sequence[tuple[str, int]],
    *,
    reservation_id: str | None = None,
    clock: Clock | None = None,
) -> str:
    """Place an order and ask inventory for its stock, in your transaction.

    Args:
        session: your transaction; nothing is sent unless it commits.
        order_id: the order's id.
        lines: article and quantity; each article once.
        reservation_id: the reservation's id; `RES-` and the order's number by default.
        clock: the time of the order.

    Returns:
        The reservation's id.

    Raises:
        OrderError: when there are no lines, an article comes twice, or the order exists.
    """
    if not lines or len({sku for sku, _ in lines}) < len(lines):
        msg = f"{order_id}: an order has one or more lines, each with another article"
        raise OrderError(msg)
    reservation_id = reservation_id or f"RES-{order_id.removeprefix('ORD-')}"
    now = _now(clock)
    _insert_order(session, order_id, reservation_id, lines, now)
    first_row = {
        "order_id": order_id,
        "status": RESERVATION_PENDING,
        "reservation_id": reservation_id,
        "updated_at": now,
        "version": 1,
    }
    view.projection.apply(session.connection(), first_row)
    request = ReserveStockRequested(
        reservation_id=reservation_id, lines=tuple(Line(sku, qty) for sku, qty in lines)
    )
    service.outbox.add(session, request, key=reservation_id, occurred_at=now)
    return reservation_id


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
        msg = f"{order_id} or {reservation_id} exists already"
        raise OrderError(msg)
    rows = [{"order_id": order_id, "sku": sku, "qty": qty} for sku, qty in lines]
    session.execute(insert(order_lines), rows)
    session.execute(insert(reservation_routing), order)


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
    order = _locked_order(session, message.event.reservation_id)
    if order is None:
        msg = f"no order has reservation {message.event.reservation_id}"
        raise PermanentError(msg)
    mine = (order_lines.c.order_id == order.order_id) & (order_lines.c.sku == message.event.sku)
    first = update(order_lines).where(mine, order_lines.c.result.is_(None))
    session.execute(first.values(result=result, reason=reason))
    if order.status in {CANCELLED, CONFIRMED}:
        return
    query = select(order_lines.c.result).where(order_lines.c.order_id == order.order_id)
    _move(session, order, status_of(session.execute(query).scalars().all()), message)


def cancel_order(session: Session, order_id: str) -> bool:
    """Cancel an order and ask inventory to give its stock back, in your transaction.

    Args:
        session: your transaction.
        order_id: which order.

    Returns:
        False when it was cancelled before.

    Raises:
        OrderError: when there is no such order, or it is confirmed.
    """
    query = select(orders.c.reservation_id).where(orders.c.order_id == order_id)
    reservation_id = session.execute(query).scalar()
    order = _locked_order(session, reservation_id) if reservation_id else None
    if order is None or order.status == CONFIRMED:
        msg = f"{order_id} is confirmed" if order else f"there is no order {order_id}"
        raise OrderError(msg)
    if order.status == CANCELLED:
        return False
    _move(session, order, CANCELLED, None)
    columns = order_lines.c
    lines = session.execute(
        select(columns.sku, columns.qty).where(columns.order_id == order_id).order_by(columns.sku)
    )
    request = ReleaseReservationRequested(
        reservation_id=order.reservation_id, lines=tuple(Line(sku, qty) for sku, qty in lines)
    )
    service.outbox.add(session, request, key=order.reservation_id)
    return True


def _locked_order(session: Session, reservation_id: str) -> Any:
    """Return the order of a reservation, locked: its results are applied one after the other."""
    query = (
        select(orders)
        .join(reservation_routing, reservation_routing.c.order_id == orders.c.order_id)
        .where(reservation_routing.c.reservation_id == reservation_id)
        .with_for_update(of=orders)
    )
    return session.execute(query).one_or_none()


def _move(session: Session, order: Any, status: str, cause: Message[Any] | None) -> None:
    """Write a new status and tell the read model; the same status is no change."""
    if status == order.status:
        return
    version, now = order.version + 1, _now()
    mine = orders.c.order_id == order.order_id
    moved = {"status": status, "version": version, "updated_at": now}
    session.execute(update(orders).where(mine).values(moved))
    change = OrderStatusChanged(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        status=status,
        order_version=version,
    )
    service.outbox.add(session, change, key=order.reservation_id, cause=cause, occurred_at=now)


def _now(clock: Clock | None = None) -> datetime:
    """Return the time as precisely as an event carries it: in milliseconds."""
    now = (clock or SystemClock()).now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def rebuild_view(engine: Engine) -> RebuildReport:
    """Make the view anew from its events, beside the live one; see `labkit.rebuild`.

    The first row of an order was never an event, so the orders themselves are the start.

    Args:
        engine: fulfillment's database.
    """
    shown = select(*(orders.c[column.name] for column in view.table.columns))
    return rebuild(engine, view.projection, service.outbox, REGISTRY, snapshot=shown)
