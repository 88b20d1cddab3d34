"""Two small services to break: `sender` takes orders, `receiver` applies each of them once.

`sender` keeps an order beside its event, so that an audit knows what was committed even where
there is no outbox; `receiver` keeps each effect as a row, in the order of application.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Identity,
    Integer,
    Table,
    Text,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session

from labkit.messages import Event, Message, Registry
from labkit.ports import Stream
from labkit.service import Service
from labkit.testing.ledgers import Effect, Fact

ORDERS = Stream("sample.orders", 8)


class OrderPlaced(Event, frozen=True):
    """Order number `n` of a customer (the key); its handler fails in the first `fails` attempts."""

    topic: ClassVar[str] = "sample.order-placed.v1"

    order_id: str
    customer: str
    n: int
    fails: int = 0


REGISTRY = Registry(OrderPlaced)
sender = Service("sender", REGISTRY, stream=ORDERS)
receiver = Service("receiver", REGISTRY)

orders = Table(
    "orders",
    sender.metadata,
    Column("order_id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("placed_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
)
effects = Table(
    "effects",
    receiver.metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("customer", Text, nullable=False),
    Column("applied_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
)


def place(engine: Engine, order: OrderPlaced) -> None:
    """Commit an order and its event together; the order's id is the message id."""
    with engine.begin() as connection:
        insert_order(connection, order)
        sender.outbox.add(connection, order, key=order.customer, message_id=order.order_id)


def insert_order(connection: Connection, order: OrderPlaced) -> None:
    """Insert the order's own row, in your transaction."""
    row = {"order_id": order.order_id, "customer": order.customer, "n": order.n}
    connection.execute(insert(orders).values(row))


@receiver.on(OrderPlaced, source=ORDERS)
def apply(session: Session, message: Message[OrderPlaced]) -> None:
    """Write the effect, or fail as often as the event says."""
    insert_effect(session.connection(), message.event)
    if message.attempt <= message.event.fails:
        raise RuntimeError(f"attempt {message.attempt} fails, as it was asked to")


def insert_effect(connection: Connection, order: OrderPlaced) -> None:
    """Insert an effect, in your transaction."""
    row = {"order_id": order.order_id, "customer": order.customer}
    connection.execute(insert(effects).values(row))


def placed(connection: Connection) -> Iterator[Fact]:
    """Read the orders as what was committed: `n` is commit order per customer."""
    columns = (orders.c.order_id, orders.c.customer, orders.c.placed_at)
    for order_id, customer, at in connection.execute(select(*columns).order_by(orders.c.n)):
        yield Fact(order_id, customer, OrderPlaced.event_type, at)


def applied(connection: Connection) -> Iterator[Effect]:
    """Read the effects in the order of their application."""
    columns = (effects.c.order_id, effects.c.customer, effects.c.applied_at)
    query = select(*columns).order_by(effects.c.position)
    return (Effect(*row) for row in connection.execute(query))
