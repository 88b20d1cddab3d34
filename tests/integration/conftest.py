"""The shop on its two databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.messages import Event, Message
from labkit.service import Service, Worker
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import REGISTRY
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope
from tests.conftest import NewDatabase

STOCK = {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5}


@dataclass
class Shop:
    """Both services, their databases, and a worker of each kind."""

    orders: Engine
    stock: Engine
    workers: list[Worker] = field(default_factory=list)

    def place(self, order_id: str, *lines: tuple[str, int]) -> str:
        with Session(self.orders) as session, session.begin():
            return fulfillment.place_order(session, order_id, lines)

    def cancel(self, order_id: str) -> bool:
        with Session(self.orders) as session, session.begin():
            return fulfillment.cancel_order(session, order_id)

    def settle(self) -> None:
        """Let all workers work until none has anything to do."""
        busy = True
        while busy:
            reports = [worker.run_once() for worker in self.workers]
            busy = any(_did_something(report) for report in reports)

    def status(self, order_id: str) -> str:
        query = select(fulfillment.orders.c.status)
        with self.orders.connect() as connection:
            found: str = connection.execute(
                query.where(fulfillment.orders.c.order_id == order_id)
            ).scalar_one()
            return found

    def seen(self, order_id: str) -> tuple[str, int] | None:
        with self.orders.connect() as connection:
            row = fulfillment.view.of_order(connection, order_id)
            return (row.status, row.version) if row else None

    def books(self, sku: str) -> tuple[int, int]:
        """Return available and held."""
        with self.stock.connect() as connection:
            row = connection.execute(
                select(inventory.stock).where(inventory.stock.c.sku == sku)
            ).one()
            return row.available, row.held


def _did_something(report: Any) -> bool:
    return bool(report != type(report)())


@pytest.fixture
def shop(
    new_database: NewDatabase, engine: Engine, transport: RedisStreams, clock: FakeClock
) -> Iterator[Shop]:
    """Return the shop with the course's stock; run it with `shop.settle()`."""
    made = Shop(engine, db.connect(new_database()))
    fulfillment.service.create_tables(made.orders)
    inventory.service.create_tables(made.stock)
    inventory.stock_up(made.stock, STOCK)
    for service, its_engine in (
        (fulfillment.service, made.orders),
        (inventory.service, made.stock),
    ):
        made.workers += service.workers("all", its_engine, transport, clock=clock)
    yield made
    made.stock.dispose()


EventT = TypeVar("EventT", bound=Event)
Deliver = Callable[..., list[Event]]


@pytest.fixture
def deliver(shop: Shop) -> Deliver:
    """Return a function that hands an event to a handler, and gives back the answers it stored."""

    def hand_over(engine: Engine, service: Service, handle: Any, event: Event) -> list[Event]:
        table = service.outbox.table
        with Session(engine) as session, session.begin():
            before = session.execute(select(table.c.seq)).scalars().all()
            handle(session, message_of(event))
        with engine.connect() as connection:
            query = select(table.c.body).where(table.c.seq.not_in(before)).order_by(table.c.seq)
            bodies = connection.execute(query).scalars()
            return [REGISTRY.decode(decode_envelope(body)) for body in bodies]

    return hand_over


def message_of(event: EventT) -> Message[EventT]:
    reservation_id = getattr(event, "reservation_id", "RES-1")
    return Message(
        message_id=f"message about {event!r}"[:255],
        correlation_id=reservation_id,
        event=event,
        occurred_at=FakeClock().now(),
        key=reservation_id,
        headers={},
    )
