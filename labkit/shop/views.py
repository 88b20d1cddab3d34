"""Views: `order_status_view`, what a customer sees of an order, and the questions asked of it.

The first row is written with the order, so that whoever placed it finds it at once; everything
after that comes from `OrderStatusChanged`, through outbox, relay, stream and inbox. So a rebuild
needs the orders as well as the events: `labkit.shop.fulfillment.rebuild_view`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, DateTime, Integer, MetaData, Table, Text, func, select

from labkit.messages import Message
from labkit.projection import Projection
from labkit.shop.contracts import OrderStatusChanged


class OrderStatus(NamedTuple):
    """One row of the view."""

    order_id: str
    status: str
    reservation_id: str
    updated_at: datetime
    version: int


def order_status_table(metadata: MetaData) -> Table:
    """Define the view's table.

    Args:
        metadata: of the service that owns it.
    """
    return Table(
        "order_status_view",
        metadata,
        Column("order_id", Text, primary_key=True),
        Column("status", Text, nullable=False),
        Column("reservation_id", Text, nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("version", Integer, nullable=False),
    )


class OrderStatusView:
    """The read model: its projection and its queries.

    Args:
        metadata: of the service that owns it.
    """

    def __init__(self, metadata: MetaData) -> None:
        self.table = order_status_table(metadata)
        self.projection = Projection("order_status_view", self.table)
        self.projection.on(OrderStatusChanged)(row_of)

    def show_first(
        self, connection: Connection, order_id: str, status: str, reservation_id: str, now: datetime
    ) -> None:
        """Write the first row of an order, in the transaction that places it."""
        first = OrderStatus(order_id, status, reservation_id, now, version=1)
        self.projection.apply(connection, first._asdict())

    def of_order(self, connection: Connection, order_id: str) -> OrderStatus | None:
        """Return the row of one order, None when the view has not heard of it."""
        query = select(self.table).where(self.table.c.order_id == order_id)
        row = connection.execute(query).one_or_none()
        return OrderStatus(*row) if row else None

    def with_status(
        self, connection: Connection, status: str, limit: int = 100
    ) -> list[OrderStatus]:
        """Return the orders in a status, longest in it first."""
        columns = self.table.c
        query = select(self.table).where(columns.status == status)
        query = query.order_by(columns.updated_at, columns.order_id).limit(limit)
        return [OrderStatus(*row) for row in connection.execute(query)]

    def count_by_status(self, connection: Connection) -> dict[str, int]:
        """Return how many orders there are in each status."""
        columns = self.table.c
        query = select(columns.status, func.count()).group_by(columns.status)
        return {row[0]: row[1] for row in connection.execute(query)}


def row_of(message: Message[OrderStatusChanged]) -> dict[str, Any]:
    """Return the row that shows this change."""
    return {
        "order_id": message.event.order_id,
        "status": message.event.status,
        "reservation_id": message.event.reservation_id,
        "updated_at": message.occurred_at,
        "version": message.event.order_version,
    }
