"""Orders reach inventory, and inventory answers: one message per request, one answer per line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.crash import point as may_die_here
from labkit.messages import encode
from labkit.ports import Stream
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import (
    FULFILLMENT,
    INVENTORY,
    OUT_OF_STOCK,
    REGISTRY,
    Line,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.order_book import reservation_id_of
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope

Lines = Sequence[tuple[str, int]]
Answer = StockReserved | StockReservationRejected


def place_order(engine: Engine, transport: RedisStreams, order_id: str, lines: Lines) -> None:
    """Save the order and tell inventory about it."""
    save(engine, order_id, lines)
    may_die_here("pr.between_save_and_publish")
    publish(transport, FULFILLMENT, request_of(order_id, lines))


def announce_then_place(
    engine: Engine, transport: RedisStreams, order_id: str, lines: Lines
) -> None:
    """Tell inventory first, so that no order is ever saved without its message."""
    publish(transport, FULFILLMENT, request_of(order_id, lines))
    may_die_here("pr.between_save_and_publish")
    save(engine, order_id, lines)


def attend(engine: Engine, transport: RedisStreams) -> None:
    """Handle every request that waits, and acknowledge it once it is done."""
    requests = transport.subscription(FULFILLMENT, inventory.service.name, "0")
    for partition in range(FULFILLMENT.partitions):
        epoch = requests.epoch(partition) + 1
        requests.raise_epoch(partition, epoch)
        waiting = requests.read_pending(partition, epoch=epoch, after="0", count=100)
        for entry in waiting + requests.read_new(partition, epoch=epoch, count=100):
            handle_reservation(engine, transport, entry.body or b"")
            requests.ack(partition, [entry.position])


def handle_reservation(engine: Engine, transport: RedisStreams, body: bytes) -> None:
    """Set the stock aside and answer each line; a message that comes again is ignored."""
    envelope = decode_envelope(body)
    request = REGISTRY.decode(envelope)
    if not isinstance(request, ReserveStockRequested):
        return
    with engine.begin() as connection:
        seen = {envelope.message_id: envelope.digest()}
        if not inventory.service.inbox.accept(connection, inventory.service.name, seen).fresh:
            return
    may_die_here("pr.before_reserving")
    for line in request.lines:
        publish(transport, INVENTORY, answer_to(engine, request.reservation_id, line))


def answer_to(engine: Engine, reservation_id: str, line: Line) -> Answer:
    """Reserve one line; if that is not possible, inventory says no."""
    try:
        reserve(engine, reservation_id, line)
    except Exception:
        return StockReservationRejected(
            reservation_id=reservation_id, sku=line.sku, reason=OUT_OF_STOCK
        )
    return StockReserved(reservation_id=reservation_id, sku=line.sku, qty=line.qty)


def reserve(engine: Engine, reservation_id: str, line: Line) -> None:
    """Move pieces from available to held; the table refuses to go below zero."""
    stock = inventory.stock.c
    taken = {"available": stock.available - line.qty, "held": stock.held + line.qty}
    row = {"reservation_id": reservation_id, "sku": line.sku, "qty": line.qty, "state": "HELD"}
    with engine.begin() as connection:
        take = update(inventory.stock).where(stock.sku == line.sku).values(taken)
        connection.execute(take.returning(stock.sku)).one()
        connection.execute(insert(inventory.reservations).values(row))


def save(engine: Engine, order_id: str, lines: Lines) -> None:
    """Write the order in one transaction: all of it or nothing."""
    with Session(engine) as session, session.begin():
        fulfillment.write_order(session, order_id, lines)


def request_of(order_id: str, lines: Lines) -> ReserveStockRequested:
    """Return what inventory is asked for."""
    reservation_id = reservation_id_of(order_id)
    wanted = tuple(Line(sku, qty) for sku, qty in lines)
    return ReserveStockRequested(reservation_id=reservation_id, lines=wanted)


def publish(transport: RedisStreams, stream: Stream, event: ReserveStockRequested | Answer) -> None:
    """Append an event to the stream, under an id that says what it is about."""
    reservation_id = event.reservation_id
    about = [reservation_id, getattr(event, "sku", ""), event.event_type, f"v{event.version}"]
    body = encode(
        event,
        message_id=":".join(filter(None, about)),
        correlation_id=reservation_id,
        occurred_at=datetime.now(UTC),
        headers={},
    )
    key = transport.stream_key(stream, stream.partition_of(reservation_id))
    transport.client.xadd(key, {"body": body})
