"""By which id a consumer recognises a repetition: by the message's own, or the conversation's.

The consumer of this module is labkit's in all but one thing: the id that it notes in the inbox.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NamedTuple, cast

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.lab.bench import Bench
from labkit.lab.relaying import relay_all
from labkit.lab.story_cast import CAST
from labkit.messages import Message
from labkit.shop import fulfillment
from labkit.shop.contracts import INVENTORY, REGISTRY, StockReserved
from labkit.testing.ledgers import read_entries
from labkit.wire import Envelope, decode_envelope

Identity = Callable[[Envelope], str]
_DELIVERIES = 3


class Found(NamedTuple):
    """What one consumer did: which answers it applied at first sight, and the order at the end."""

    answers: list[Envelope]
    applied: list[bool]
    status: str


def by_message(envelope: Envelope) -> str:
    """Return what names this message and no other."""
    return envelope.message_id


def by_conversation(envelope: Envelope) -> str:
    """Return what names everything that is said about a reservation."""
    return envelope.correlation_id or envelope.message_id


def take(session: Session, envelope: Envelope, identity: Identity) -> bool:
    """Note the answer and apply it, in one transaction; say whether it was new."""
    noted = {identity(envelope): envelope.digest()}
    inbox = fulfillment.service.inbox
    if not inbox.accept(session.connection(), "fulfillment", noted).fresh:
        return False
    fulfillment.stock_reserved(session, message_of(envelope))
    return True


def consume(bench: Bench, order_id: str, identity: Identity) -> Found:
    """Place an order of the story, let inventory answer, and apply the answers, three times over.

    Args:
        bench: where; one that is thrown away.
        order_id: which order.
        identity: what the consumer notes.
    """
    answers = answered(bench, order_id)
    taken = [[_taken(bench, each, identity) for each in answers] for _ in range(_DELIVERIES)]
    return Found(answers, taken[0], status(bench, order_id))


def message_of(envelope: Envelope) -> Message[StockReserved]:
    """Return what the handler gets."""
    return cast("Message[StockReserved]", REGISTRY.message(envelope))


def answered(bench: Bench, order_id: str) -> list[Envelope]:
    """Place an order and return inventory's answers, which wait in the stream.

    Args:
        bench: where.
        order_id: which order of the story.
    """
    numbers = count(1)
    bench.stock.update_execution_options(labkit_new_id=lambda: f"inventory-{next(numbers)}")
    bench.place(order_id, *CAST[order_id].lines)
    relay_all(bench.orders, bench.transport)
    bench.settle(without=fulfillment.service)
    partitions = range(INVENTORY.partitions)
    entries = [read_entries(bench.transport, INVENTORY, each) for each in partitions]
    return [decode_envelope(entry.body) for found in entries for entry in found]


def status(bench: Bench, order_id: str) -> str:
    """Return an order's status.

    Args:
        bench: where.
        order_id: which order.
    """
    columns = fulfillment.orders.c
    with bench.orders.connect() as connection:
        query = select(columns.status).where(columns.order_id == order_id)
        found: str = connection.execute(query).scalar_one()
    return found


def table(by_correlation: Found, by_id: Found) -> pd.DataFrame:
    """Return a row for each answer, and whether each consumer applied it.

    Args:
        by_correlation: what the consumer did that notes the correlation id.
        by_id: what the other one did, with the same answers.
    """
    rows = [
        {
            "messageId": answer.message_id,
            "correlationId": answer.correlation_id,
            "artículo": message_of(answer).event.sku,
            "anotando correlationId": "se aplica" if one else "se descarta",
            "anotando messageId": "se aplica" if other else "se descarta",
        }
        for answer, one, other in zip(
            by_id.answers, by_correlation.applied, by_id.applied, strict=True
        )
    ]
    return pd.DataFrame(rows)


def _taken(bench: Bench, envelope: Envelope, identity: Identity) -> bool:
    with Session(bench.orders) as session, session.begin():
        return take(session, envelope, identity)


def ends(by_correlation: Found, by_id: Found) -> pd.DataFrame:
    """Return the status with which each consumer left the order.

    Args:
        by_correlation: what the consumer did that notes the correlation id.
        by_id: what the other one did.
    """
    rows = [("correlationId", by_correlation.status), ("messageId", by_id.status)]
    return pd.DataFrame(rows, columns=["se anota", "estado del pedido"])
