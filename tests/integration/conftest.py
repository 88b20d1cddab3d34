"""The shop on its two databases, and the toy services on theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.lab.bench import Bench
from labkit.lab.servers import Stack
from labkit.messages import Event, Message
from labkit.service import Service
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import REGISTRY
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope
from tests import toy
from tests.conftest import NewDatabase
from tests.flow import Flow

# A bench empties what the one before it left, which takes less than creating another.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")


class Shop(Bench):
    """The bench, with the questions that tests ask."""

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


@pytest.fixture
def shop(servers: Stack, clock: FakeClock) -> Iterator[Shop]:
    """Return the shop with the course's stock; run it with `shop.settle()`."""
    made = Shop(f"test_{WORKER}", servers=servers, clock=clock)
    yield made
    if servers.source == "environment":
        made.delete()
    made.lose_streams()
    made.close()


@pytest.fixture
def flow(
    new_database: NewDatabase, engine: Engine, transport: RedisStreams, clock: FakeClock
) -> Iterator[Flow]:
    """Return the toy services on their databases, with nothing ordered yet."""
    target = db.connect(new_database())
    toy.source.create_tables(engine)
    toy.target.create_tables(target)
    toy.seen.clear()
    toy.repaired.clear()
    toy.hooks.clear()
    yield Flow(engine, target, transport, clock)
    target.dispose()


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
