"""Published language between fulfillment and inventory: the only code that both import.

| event | from → to | answers |
|---|---|---|
| ReserveStockRequested | fulfillment → inventory | one result per line |
| ReleaseReservationRequested | fulfillment → inventory | one `ReservationReleased` |
| StockReserved | inventory → fulfillment | |
| StockReservationRejected | inventory → fulfillment | |
| ReservationReleased | inventory → fulfillment | |

In this flow the correlation id is the reservation id, and so is the ordering key.
`OrderStatusChanged` is private to fulfillment: its own read model follows it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from labkit.messages import Event, Registry
from labkit.ports import Stream

FULFILLMENT = Stream("fulfillment.events")
INVENTORY = Stream("inventory.events")

OUT_OF_STOCK = "OUT_OF_STOCK"
UNKNOWN_SKU = "UNKNOWN_SKU"
RESERVATION_RELEASED = "RESERVATION_RELEASED"

Id = Annotated[str, Meta(min_length=1, max_length=255)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]


class Line(Struct, frozen=True):
    """So many of one article."""

    sku: Id
    qty: Quantity


class ReserveStockRequested(Event, frozen=True):
    """Fulfillment asks for stock; inventory answers once per line."""

    topic: ClassVar[str] = "fulfillment.reserve-stock-requested.v1"

    reservation_id: Id
    lines: Annotated[tuple[Line, ...], Meta(min_length=1)]


class ReleaseReservationRequested(Event, frozen=True):
    """Fulfillment gives stock back, whether or not the reservation got through."""

    topic: ClassVar[str] = "fulfillment.release-reservation-requested.v1"

    reservation_id: Id
    lines: tuple[Line, ...]


class StockReserved(Event, frozen=True):
    """One line of a reservation is set aside."""

    topic: ClassVar[str] = "inventory.stock-reserved.v1"

    reservation_id: Id
    sku: Id
    qty: Quantity


class StockReservationRejected(Event, frozen=True):
    """One line of a reservation cannot be had; `reason` may be free text from other services."""

    topic: ClassVar[str] = "inventory.stock-rejected.v1"

    reservation_id: Id
    sku: Id
    reason: str


class ReservationReleased(Event, frozen=True):
    """Inventory holds nothing for these lines of the request; whether it ever did is its matter."""

    topic: ClassVar[str] = "inventory.reservation-released.v1"

    reservation_id: Id
    lines: tuple[Line, ...]


class OrderStatusChanged(Event, frozen=True):
    """An order moved on; `version` counts its changes from 1."""

    topic: ClassVar[str] = "fulfillment.order-status-changed.v1"

    order_id: Id
    reservation_id: Id
    status: str
    order_version: int


REGISTRY = Registry(
    ReserveStockRequested,
    ReleaseReservationRequested,
    StockReserved,
    StockReservationRejected,
    ReservationReleased,
    OrderStatusChanged,
)
