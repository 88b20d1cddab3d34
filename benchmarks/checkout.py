"""The checkout that lines `saga_*` measure: reserve stock, create the order, confirm it.

Two services, each with a database, both sides of a line on the same tables and streams. One
statement reserves for both, since the lines measure sagas and not how stock is kept.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
import redis
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, Table, Text
from sqlalchemy.orm import Session

from benchmarks.arena import expect, raw_connection
from benchmarks.consuming import driver_of
from labkit import db
from labkit.lab.servers import Stack
from labkit.messages import Event, Message, Registry
from labkit.outbox import Outgoing
from labkit.saga import COMPENSATABLE, PIVOT, RETRIABLE, BatchLocal, Command, Saga, Sagas, Step
from labkit.saga.deadlines import Deadlines
from labkit.service import Service, Worker
from labkit.transports.redis_streams import RedisStreams, connect

SKUS = 20
PER_SKU = 1_000_000
SOLD_OUT = "sold-out"
REJECTED_EVERY = 10

Address = tuple[str, str, str, str]


class Order(msgspec.Struct, frozen=True):
    """What a customer wants."""

    id: str
    sku: str
    qty: int


class ReserveStock(Event, frozen=True):
    """A request."""

    topic: ClassVar[str] = "bench.reserve-stock.v1"

    sku: str
    qty: int


class ReleaseStock(Event, frozen=True):
    """What would make a reservation good; no step behind it can fail here."""

    topic: ClassVar[str] = "bench.release-stock.v1"


class StockReserved(Event, frozen=True):
    """A success."""

    topic: ClassVar[str] = "bench.stock-reserved.v1"


class StockRejected(Event, frozen=True):
    """A business no."""

    topic: ClassVar[str] = "bench.stock-rejected.v1"

    reason: str = "OUT_OF_STOCK"


REGISTRY = Registry(ReserveStock, ReleaseStock, StockReserved, StockRejected)
ordering = Service("ordering", REGISTRY, notify=True)
stock = Service("stock", REGISTRY, notify=True)
Table(
    "orders",
    ordering.metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
)
# The ceiling's sagas; those of labkit are in `saga`.
Table(
    "saga_by_hand",
    ordering.metadata,
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
)
Table(
    "stock",
    stock.metadata,
    Column("sku", Text, primary_key=True),
    Column("available", Integer, CheckConstraint("available >= 0"), nullable=False),
)
Table(
    "reservations",
    stock.metadata,
    Column("id", Text, primary_key=True),
    Column("sku", Text, nullable=False),
    Column("qty", Integer, nullable=False),
)
RESERVE = """
    with asked as (
        select a.*, sum(a.qty) over (partition by a.sku order by a.id) as so_far
        from json_to_recordset(%s::json) as a(id text, sku text, qty int)
    ), locked as (
        select sku, available from stock where sku in (select sku from asked)
        order by sku for update
    ), granted as (
        select id, sku, qty from asked join locked using (sku) where so_far <= available
    ), taken as (
        update stock set available = available - g.qty
        from (select sku, sum(qty) as qty from granted group by sku) as g where stock.sku = g.sku
    )
    insert into reservations (id, sku, qty) select id, sku, qty from granted returning id
"""
TELL = """
    create function tell_ended() returns trigger language plpgsql as
        $$ begin perform pg_notify('ended', new.id); return null; end $$;
    create trigger tell after update on saga for each row
        when (new.status in ('COMPLETED', 'COMPENSATED')) execute function tell_ended();
    create trigger tell after update on saga_by_hand for each row
        when (new.status in ('COMPLETED', 'COMPENSATED')) execute function tell_ended();
"""


def reserve(driver: Any, wanted: Sequence[tuple[str, str, int]]) -> set[str]:
    """Reserve id, SKU and quantity for each of many; return the ids for which there was enough."""
    asked = json.dumps([{"id": id_, "sku": sku, "qty": qty} for id_, sku, qty in wanted])
    return {row[0] for row in driver.execute(RESERVE, (asked,))}


@stock.on_batch(ReserveStock, source=ordering.stream)
def reserve_all(session: Session, messages: Sequence[Message[ReserveStock]]) -> None:
    """Answer many requests."""
    wanted = [(each.key, each.event.sku, each.event.qty) for each in messages]
    granted = reserve(driver_of(session), wanted)
    stock.outbox.add_all(
        session,
        [
            Outgoing(
                StockReserved() if each.key in granted else StockRejected(),
                key=each.key,
                cause=each,
            )
            for each in messages
        ],
    )


def create_orders(session: Session, data: Sequence[Order]) -> None:
    """Create orders, once each."""
    rows = "insert into orders (id, state) select unnest(%s::text[]), 'CREATED'"
    driver_of(session).execute(f"{rows} on conflict do nothing", ([each.id for each in data],))


def confirm_orders(session: Session, data: Sequence[Order]) -> None:
    """Confirm orders."""
    change = "update orders set state = 'CONFIRMED' where id = any(%s)"
    driver_of(session).execute(change, ([each.id for each in data],))


RESERVE_STOCK = Command(
    lambda order: ReserveStock(sku=order.sku, qty=order.qty),
    success=StockReserved,
    rejection=StockRejected,
    source=stock.stream,
)
SAGAS = Sagas(
    ordering,
    Saga(
        "checkout",
        Step("reserve_stock", COMPENSATABLE, RESERVE_STOCK, undo=Command(lambda _: ReleaseStock())),
        Step("create_order", PIVOT, BatchLocal(create_orders)),
        Step("confirm_order", RETRIABLE, BatchLocal(confirm_orders)),
        data=Order,
    ),
)


class Checkout:
    """Both databases with their tables, and the streams.

    Args:
        address: SQLAlchemy URLs of the orders' and the stock's database, URL of Redis, prefix.
    """

    def __init__(self, *address: str) -> None:
        orders_url, stock_url, redis_url, prefix = self.address = address
        self.engine, self.stock_engine = db.connect(orders_url), db.connect(stock_url)
        self.client: redis.Redis = connect(redis_url)
        self.streams = RedisStreams(self.client, prefix)
        self.raw, self.raw_stock = raw_connection(orders_url), raw_connection(stock_url)

    def create(self) -> None:
        """Create the tables, and what tells who has ended."""
        ordering.create_tables(self.engine)
        stock.create_tables(self.stock_engine)
        self.raw.execute(TELL)

    def workers(self, service: Service, batch: int, owner: str | None = None) -> list[Worker]:
        """Return labkit's workers of a service, with their leases; an `owner` resumes at once."""
        engine = self.engine if service is ordering else self.stock_engine
        relay = service.relay(engine, self.streams, owner=owner)
        consumers = service.consumers(engine, self.streams, batch=batch, owner=owner)
        for leases in (relay.leases, *(each.leases for each in consumers)):
            leases.tick()
        deadlines = [Deadlines(engine, SAGAS)] if service is ordering else []
        return [relay, *consumers, *deadlines]

    def begin_anew(self) -> None:
        """Empty tables and streams; fill the shelves."""
        self.forget_streams()
        _truncate(self.raw, ordering.metadata)
        _truncate(self.raw_stock, stock.metadata)
        shelves = "insert into stock select 'sku-' || n, %s from generate_series(1, %s) as n"
        self.raw_stock.execute(shelves, (PER_SKU, SKUS))
        self.raw_stock.execute("insert into stock values (%s, 0)", (SOLD_OUT,))

    def count(self, query: str) -> int:
        """Return the number that a query on the orders' database counts."""
        return _count(self.raw, query)

    def check(self, amount: int, sagas: str) -> None:
        """Refuse a result whose work was not done: all ended, one in ten rejected, stock kept.

        Args:
            amount: how many orders there were.
            sagas: the table of the side's sagas.
        """
        granted = amount - amount // REJECTED_EVERY
        ended = [
            self.count(f"select count(*) from {sagas} where status = '{status}'")
            for status in ("COMPLETED", "COMPENSATED")
        ]
        expect(ended, [granted, amount - granted], "completed, compensated")
        confirmed = self.count("select count(*) from orders where state = 'CONFIRMED'")
        expect(confirmed, granted, "confirmed orders")
        expect(_count(self.raw_stock, "select count(*) from reservations"), granted, "reservations")
        left = _count(self.raw_stock, "select sum(available) from stock")
        reserved = _count(self.raw_stock, "select sum(qty) from reservations")
        expect(left + reserved, SKUS * PER_SKU, "stock, reserved or not")

    def forget_streams(self) -> None:
        """Delete everything of ours in Redis."""
        found = list(self.client.scan_iter(match=f"*{self.streams.prefix}*", count=1000))
        if found:
            self.client.delete(*found)

    def close(self) -> None:
        """Close all connections."""
        self.raw.close()
        self.raw_stock.close()
        self.engine.dispose()
        self.stock_engine.dispose()
        self.client.close()


def orders(amount: int) -> list[Order]:
    """Return orders, every tenth of them for what is sold out."""
    return [
        Order(
            id=f"order-{uuid.uuid4()}",
            sku=SOLD_OUT if n % REJECTED_EVERY == 0 else f"sku-{n % SKUS + 1}",
            qty=n % 3 + 1,
        )
        for n in range(amount)
    ]


def _truncate(connection: Any, metadata: MetaData) -> None:
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    connection.execute(f"truncate {names} restart identity")


def _count(connection: Any, query: str) -> int:
    return int(connection.execute(query).fetchone()[0] or 0)


@contextmanager
def checkout(servers: Stack) -> Iterator[Checkout]:
    """Open a checkout on these servers; nothing of it is left afterwards."""
    prefix = f"bench_{uuid.uuid4().hex[:12]}"
    names = [f"{prefix}_{service.name}" for service in (ordering, stock)]
    made = Checkout(*map(servers.database, names), servers.redis_url, f"{prefix}:")
    try:
        made.create()
        yield made
    finally:
        made.forget_streams()
        made.close()
        for name in names:
            servers.drop_database(name)
