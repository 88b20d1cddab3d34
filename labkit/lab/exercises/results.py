"""Results: what the inventory answers for one line, and the lines that wait for it.

A line is reservation and article, both: two orders may want the same article.
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit.lab.exercises.pieces import STORY_TIME
from labkit.messages import Message
from labkit.shop.contracts import OUT_OF_STOCK, StockReservationRejected, StockReserved
from labkit.shop.order_book import REJECTED, RESERVED

Lines = dict[tuple[str, str], str | None]
Result = Message[StockReserved | StockReservationRejected]


def reserved(reservation: str, sku: str) -> Result:
    """Return the message that sets one unit aside."""
    event = StockReserved(reservation_id=reservation, sku=sku, qty=1)
    return _message(f"{reservation}:{sku}:reserved", event)


def rejected(reservation: str, sku: str, reason: str = OUT_OF_STOCK) -> Result:
    """Return the message that says no."""
    event = StockReservationRejected(reservation_id=reservation, sku=sku, reason=reason)
    return _message(f"{reservation}:{sku}:rejected", event)


def _message(message_id: str, event: StockReserved | StockReservationRejected) -> Result:
    return Message(
        message_id=message_id,
        correlation_id=event.reservation_id,
        event=event,
        occurred_at=STORY_TIME,
        key=event.reservation_id,
        headers={},
    )


def line_of(message: Result) -> tuple[str, str]:
    """Return the line that a message answers."""
    return message.event.reservation_id, message.event.sku


def outcome_of(message: Result) -> str:
    """Return the result that a message brings."""
    return RESERVED if isinstance(message.event, StockReserved) else REJECTED


def open_lines(*messages: Result) -> Lines:
    """Return the lines that these messages answer, without an answer."""
    return {line_of(message): None for message in messages}


def named(messages: Sequence[Result]) -> str:
    """Return ids, as a feedback shows them."""
    return " → ".join(f"`{message.message_id}`" for message in messages)


def listed(messages: Sequence[Result]) -> str:
    """Return articles as a Spanish text lists them, each repetition as such."""
    names = [
        f"{message.event.sku} otra vez" if message in messages[:number] else message.event.sku
        for number, message in enumerate(messages)
    ]
    return " y ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])
