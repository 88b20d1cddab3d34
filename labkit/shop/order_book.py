"""The order book of fulfillment: its tables, the statuses, and how an order is found and timed.

What happens to an order, and who is told, is `labkit.shop.fulfillment`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, Integer, MetaData, Table, Text, select
from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.clock import SystemClock

RESERVATION_PENDING = "RESERVATION_PENDING"
PARTIALLY_RESERVED = "PARTIALLY_RESERVED"
RESERVED = "RESERVED"
REJECTED = "REJECTED"
CANCELLED = "CANCELLED"
CONFIRMED = "CONFIRMED"


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


def reservation_id_of(order_id: str) -> str:
    """Return the reservation that an order has unless it names another.

    >>> reservation_id_of("ORD-7")
    'RES-7'
    """
    return f"RES-{order_id.removeprefix('ORD-')}"


def orders_table(metadata: MetaData) -> Table:
    """Define the orders, each with its status and the number of changes it has seen."""
    return Table(
        "orders",
        metadata,
        Column("order_id", Text, primary_key=True),
        Column("reservation_id", Text, nullable=False, unique=True),
        Column("status", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
    )


def order_lines_table(metadata: MetaData) -> Table:
    """Define the lines, each with the first result that came for it."""
    return Table(
        "order_lines",
        metadata,
        Column("order_id", Text, ForeignKey("orders.order_id"), primary_key=True),
        Column("sku", Text, primary_key=True),
        Column("qty", Integer, nullable=False),
        Column("result", Text),
        Column("reason", Text),
    )


class OrderError(ValueError):
    """The order cannot be placed, cancelled or confirmed as asked."""


def locked_order(session: Session, orders: Table, order_id: str) -> Any:
    """Return an order, locked: what happens to it happens one after the other.

    Raises:
        OrderError: when there is no such order.
    """
    query = select(orders).where(orders.c.order_id == order_id).with_for_update()
    order = session.execute(query).one_or_none()
    if order is None:
        raise OrderError(f"there is no order {order_id}")
    return order


def lines_of(session: Session, order_lines: Table, order_id: str) -> list[tuple[str, int]]:
    """Return article and quantity of each line of an order."""
    columns = order_lines.c
    mine = columns.order_id == order_id
    rows = session.execute(select(columns.sku, columns.qty).where(mine).order_by(columns.sku))
    return [(row.sku, row.qty) for row in rows]


def now_of(session: Session) -> datetime:
    """Return the time as precisely as an event carries it: in milliseconds."""
    now = unit_of_work.carried(session, "labkit_clock", SystemClock()).now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
