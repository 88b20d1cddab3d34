"""Two warehouses: the inventory's own code, each on a database and with a stream of its own.

Both hear every request of `labkit.shop.backorder` and heed those that name them.

Guarantee: that of `labkit.shop.inventory`, whose handlers these are.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from labkit.messages import Message
from labkit.ports import Stream
from labkit.service import Service
from labkit.shop import inventory
from labkit.shop.backorder import (
    BACKORDERS,
    REGISTRY,
    WAREHOUSE_A,
    WAREHOUSE_B,
    Warehouse,
    WarehouseReleaseRequested,
    WarehouseStockRequested,
)


def warehouse(name: Warehouse, stream: Stream) -> Service:
    """Return the service of a warehouse."""
    service = Service(f"warehouse-{name.lower()}", REGISTRY, stream=stream)
    # A handler's SQL names its tables, so the same code works wherever tables of these names are.
    # That goes for the outbox too: its rows leave on the stream of whose database they are in.
    for table in (inventory.stock, inventory.reservations):
        table.to_metadata(service.metadata)

    @service.on(WarehouseStockRequested, source=BACKORDERS, lock_first=inventory.lock_stock)
    def reserve(session: Session, message: Message[WarehouseStockRequested]) -> None:
        if message.event.warehouse == name:
            inventory.reserve(session, message)

    @service.on(WarehouseReleaseRequested, source=BACKORDERS, lock_first=inventory.lock_stock)
    def release(session: Session, message: Message[WarehouseReleaseRequested]) -> None:
        if message.event.warehouse == name:
            inventory.release(session, message)

    return service


warehouse_a = warehouse("A", WAREHOUSE_A)
warehouse_b = warehouse("B", WAREHOUSE_B)
