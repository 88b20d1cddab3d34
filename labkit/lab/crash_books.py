"""Crash books: what the books say of a message of a checkout, and of the checkout when it is over.

Guarantee: it only reads databases and streams.
Not guaranteed: one moment; whoever asks sees to it that nobody works meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Engine, Table, func, select
from sqlalchemy.orm import Session

from labkit.lab.bench import STOCK, Bench
from labkit.lab.working import SERVICES
from labkit.messages import Event
from labkit.saga import COMPENSATED
from labkit.saga.operations import Operations
from labkit.shop import checkout, fulfillment, inventory
from labkit.shop.contracts import (
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
    StockReserved,
)
from labkit.shop.order_book import CANCELLED, reservation_id_of
from labkit.shop.payments import AuthorizePaymentRequested, PaymentDeclined
from labkit.shop.provider import DECLINED, SimulatedProvider
from labkit.testing.ledgers import read_entries

SKU = "BOOK-DDD"
_UNDONE = ["create_order/undo", "reserve_stock/undo"]


class Hop(NamedTuple):
    """A message of the journey: who publishes it, and who handles it."""

    event: type[Event]
    sender: str
    receiver: str


_ORDERS, _STOCK, _MONEY, _SAGA = SERVICES
JOURNEY = (
    Hop(ReserveStockRequested, _ORDERS, _STOCK),
    Hop(StockReserved, _STOCK, _SAGA),
    Hop(AuthorizePaymentRequested, _ORDERS, _MONEY),
    Hop(PaymentDeclined, _ORDERS, _SAGA),
    Hop(ReleaseReservationRequested, _ORDERS, _STOCK),
    Hop(ReservationReleased, _STOCK, _SAGA),
)


class Facts(NamedTuple):
    """What the books say of a message: entries, marked rows, inbox rows, reads without an ack."""

    published: int
    marked: int
    noted: int
    unacknowledged: int


def engine_of(bench: Bench, name: str) -> Engine:
    """Return the database of a service of the checkout.

    Args:
        bench: where.
        name: of the service.
    """
    return bench.stock if name == _STOCK else bench.orders


def facts(bench: Bench, order_id: str, hop: Hop) -> Facts:
    """Return what both sides and the stream say of an order's message.

    Args:
        bench: where.
        order_id: which order.
        hop: which of its messages.
    """
    key, outbox = reservation_id_of(order_id), SERVICES[hop.sender].outbox.table
    mine = (outbox.c.key == key) & (outbox.c.topic == hop.event.topic)
    with engine_of(bench, hop.sender).connect() as connection:
        row = connection.execute(select(outbox.c.message_id, outbox.c.published_at).where(mine))
        message_id, published_at = row.one()
    inbox = SERVICES[hop.receiver].inbox.table
    noted = (inbox.c.message_id == message_id) & (inbox.c.consumer == hop.receiver)
    return Facts(
        _entries(bench, hop, key, message_id),
        int(published_at is not None),
        _count(engine_of(bench, hop.receiver), inbox, noted),
        _unacknowledged(bench, hop, key),
    )


def _entries(bench: Bench, hop: Hop, key: str, message_id: str) -> int:
    stream = SERVICES[hop.sender].stream
    entries = read_entries(bench.transport, stream, stream.partition_of(key))
    return sum(entry.message_id == message_id for entry in entries)


def _unacknowledged(bench: Bench, hop: Hop, key: str) -> int:
    """Count what the receiver read from the message's partition and did not acknowledge."""
    stream, client = SERVICES[hop.sender].stream, cast("Any", bench.transport.client)
    place = bench.transport.stream_key(stream, stream.partition_of(key))
    groups = client.xinfo_groups(place) if client.exists(place) else []
    return sum(int(g["pending"] > 0) for g in groups if g["name"] == hop.receiver.encode())


def wrong_with(bench: Bench, order_id: str) -> Iterator[str]:
    """Name what is not as it should be, once the saga of a declined order is over.

    Args:
        bench: where; no other order holds any stock.
        order_id: which order.
    """
    saga_id = reservation_id_of(order_id)
    with Session(bench.orders) as session:
        shown = Operations(checkout.sagas).one(session, saga_id)
    if shown.listed.status is not COMPENSATED:
        yield "la saga no acaba"
    undone = [line.step for line in shown.history if line.what in {"ran", "answered"}]
    if [step for step in undone if step.endswith("/undo")] != _UNDONE:
        yield "las compensaciones no son una de cada"
    if _in_stock(bench) != (STOCK[SKU], 0):
        yield "falta o sobra stock"
    if any(_written(bench, saga_id, hop) != 1 for hop in JOURNEY):
        yield "un mensaje no se escribe una vez"
    charges = [each.state for each in SimulatedProvider(bench.orders).charges()
               if each.order_id == order_id]  # fmt: skip
    if charges != [DECLINED] or _status(bench, order_id) != CANCELLED:
        yield "pedido y cobro no dicen lo mismo"


def _in_stock(bench: Bench) -> tuple[int, int]:
    columns = inventory.stock.c
    mine = select(columns.available, columns.held).where(columns.sku == SKU)
    with bench.stock.connect() as connection:
        available, held = connection.execute(mine).one()
    return available, held


def _written(bench: Bench, key: str, hop: Hop) -> int:
    outbox = SERVICES[hop.sender].outbox.table
    mine = (outbox.c.key == key) & (outbox.c.topic == hop.event.topic)
    return _count(engine_of(bench, hop.sender), outbox, mine)


def _status(bench: Bench, order_id: str) -> str:
    mine = select(fulfillment.orders.c.status).where(fulfillment.orders.c.order_id == order_id)
    with bench.orders.connect() as connection:
        return str(connection.execute(mine).scalar_one())


def _count(engine: Engine, table: Table, condition: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(condition)
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())
