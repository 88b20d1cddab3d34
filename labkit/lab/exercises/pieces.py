"""Pieces: what a student is handed in an exercise of notebook 02, each of them one line to call.

`outbox`, `inbox` and the events are labkit's own. The rest does one thing to one table, and no
more: the wrong ways must be as easy to write as the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from labkit.errors import LabkitError, PayloadMismatchError
from labkit.messages import Event, Message, encode
from labkit.shop import fulfillment, inventory, order_book
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope

__all__ = [
    "Line",
    "Order",
    "PayloadMismatchError",
    "ReserveStockRequested",
    "digest_of",
    "inbox",
    "outbox",
    "publish",
    "save_order",
    "take_stock",
]

outbox = fulfillment.service.outbox
inbox = inventory.service.inbox

STORY_TIME = datetime(2026, 2, 17, 16, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """What a customer asked for."""

    order_id: str
    reservation_id: str
    lines: tuple[Line, ...]


def save_order(session: Session, order: Order) -> None:
    """Write the order and its lines in your transaction; nobody is told."""
    ids = {"order_id": order.order_id, "reservation_id": order.reservation_id}
    state = {"status": order_book.RESERVATION_PENDING, "version": 1, "updated_at": STORY_TIME}
    session.execute(insert(fulfillment.orders).values(ids | state))
    lines = [{"order_id": order.order_id, "sku": line.sku, "qty": line.qty} for line in order.lines]
    session.execute(insert(fulfillment.order_lines), lines)


def take_stock(session: Session, message: Message[ReserveStockRequested]) -> None:
    """Set aside what the message asks for, in your transaction, as often as it is called."""
    stock = inventory.stock
    for line in message.event.lines:
        taken = {"available": stock.c.available - line.qty, "held": stock.c.held + line.qty}
        session.execute(update(stock).where(stock.c.sku == line.sku).values(taken))


def digest_of(message: Message[Event]) -> bytes:
    """Return the SHA-256 of a message's content, as labkit's own consumer notes it."""
    return decode_envelope(_body(message.event, message.message_id, message.key)).digest()


_Publish = Callable[[Event, str], None]
_publish: _Publish | None = None


def publish(event: Event, *, key: str) -> None:
    """Send an event straight to its stream, at once.

    Args:
        event: what happened.
        key: its ordering key.

    Raises:
        LabkitError: outside an examination, where there is no stream to send to.
    """
    if _publish is None:
        raise LabkitError("publish solo funciona dentro de exercises.check(…)")
    _publish(event, key)


@contextmanager
def publishing_to(transport: RedisStreams, tell: Callable[[str], None]) -> Iterator[None]:
    """Let `publish` send to the stream of an arena, and tell that it did."""
    global _publish  # noqa: PLW0603 - a student's function is handed a session and an order only

    def send(event: Event, key: str) -> None:
        stream = fulfillment.service.stream
        where = transport.stream_key(stream, stream.partition_of(key))
        transport.client.xadd(where, {"body": _body(event, f"{key}-directo", key)})
        tell(f"XADD {stream.name}")

    _publish = send
    try:
        yield
    finally:
        _publish = None


def _body(event: Event, message_id: str, key: str) -> str:
    return encode(
        event, message_id=message_id, correlation_id=key, occurred_at=STORY_TIME, headers={}
    )
