"""Audit of the shop: reads both databases and the streams, and proves that nothing went wrong.

Each invariant is a function that returns None when it holds, and otherwise the first
counter-example, as a sentence with the ids in it. The two databases are read one after the
other, never joined: run it when the flow has come to rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, func, select, text

from labkit.service import Service
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import (
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.testing import auditor
from labkit.testing.ledgers import books_of
from labkit.transports.redis_streams import RedisStreams


class Progress(NamedTuple):
    """How far a flow has come: settled orders, and work that is still somewhere."""

    settled: int
    under_way: int


def progress(fulfillment_engine: Engine, inventory_engine: Engine) -> Progress:
    """Return how many orders have all their results, and how much is under way.

    Args:
        fulfillment_engine: the orders' database.
        inventory_engine: the stock's database.
    """
    lines, orders, view = fulfillment.order_lines, fulfillment.orders, fulfillment.view.table
    with fulfillment_engine.connect() as connection:
        open_orders = _count(connection, lines.c.order_id.distinct(), lines.c.result.is_(None))
        total = _count(connection, orders.c.order_id)
        fresh = _count(
            connection, orders.c.order_id, view.c.order_id == orders.c.order_id,
            view.c.version == orders.c.version,
        )  # fmt: skip
        waiting = _unpublished(connection, fulfillment.service)
    with inventory_engine.connect() as connection:
        waiting += _unpublished(connection, inventory.service)
    return Progress(total - open_orders, open_orders + (total - fresh) + waiting)


def audit(
    fulfillment_engine: Engine,
    inventory_engine: Engine,
    transport: RedisStreams,
    opening: Mapping[str, int],
) -> dict[str, str | None]:
    """Check every invariant of the flow.

    Args:
        fulfillment_engine: the orders' database.
        inventory_engine: the stock's database.
        transport: where the streams are.
        opening: the stock before the first order, by article.

    Returns:
        Invariant to None, or to its first counter-example.
    """
    with fulfillment_engine.connect() as orders, inventory_engine.connect() as stock:
        case = _Case(orders, stock, transport, opening)
        return {name: check(case) for name, check in _INVARIANTS.items()}


@dataclass(frozen=True)
class _Case:
    orders: Connection
    stock: Connection
    transport: RedisStreams
    opening: Mapping[str, int]

    @property
    def sides(self) -> tuple[tuple[Service, Connection], ...]:
        return (fulfillment.service, self.orders), (inventory.service, self.stock)


def _stock_is_conserved(case: _Case) -> str | None:
    lines = inventory.reservations
    held = (
        select(lines.c.sku, func.sum(lines.c.qty))
        .where(lines.c.state == inventory.HELD)
        .group_by(lines.c.sku)
    )
    promised = {sku: int(quantity) for sku, quantity in case.stock.execute(held)}
    for row in case.stock.execute(select(inventory.stock)):
        if row.available + row.held != case.opening[row.sku]:
            return (
                f"{row.sku}: {case.opening[row.sku]} came in, {row.available}+{row.held} are there"
            )
        if row.held != promised.get(row.sku, 0):
            return f"{row.sku}: {row.held} held, {promised.get(row.sku, 0)} promised"
    return None


def _both_sides_agree(case: _Case) -> str | None:
    lines, orders = fulfillment.order_lines, fulfillment.orders
    query = select(orders.c.reservation_id, lines.c.sku, lines.c.result).join(
        orders, orders.c.order_id == lines.c.order_id
    )
    reservations = inventory.reservations.c
    known = {
        (row.reservation_id, row.sku): row.state
        for row in case.stock.execute(
            select(reservations.reservation_id, reservations.sku, reservations.state)
        )
    }
    # A cancelled order gives all its lines back, also those that it never got.
    expected = {
        "RESERVED": {inventory.HELD, inventory.RELEASED},
        "REJECTED": {inventory.REJECTED, inventory.RELEASED},
    }
    for row in case.orders.execute(query):
        state = known.get((row.reservation_id, row.sku))
        if state not in expected.get(row.result or "", set()):
            return f"{row.reservation_id} {row.sku}: order says {row.result}, inventory {state}"
    return None


_LINES_ASKED = text("""
    select coalesce(sum(json_array_length(body::json #> '{event,payload,lines}')), 0)
    from outbox_messages where topic = :topic
""")


def _each_request_has_one_effect(case: _Case) -> str | None:
    asked = Counter(_topics(case.orders, fulfillment.service))
    answered = Counter(_topics(case.stock, inventory.service))
    # By request, not by order: a saga asks again when no answer comes, and is answered again.
    asked_for = {"topic": ReserveStockRequested.topic}
    lines: int = case.orders.execute(_LINES_ASKED, asked_for).scalar_one()
    answers = answered[StockReserved.topic] + answered[StockReservationRejected.topic]
    if answers != lines:
        return f"{lines} lines were asked for and {answers} answers were given"
    released = answered[ReservationReleased.topic]
    if (releases := asked[ReleaseReservationRequested.topic]) != released:
        return f"{releases} releases were asked for and {released} answers were given"
    requests = asked[ReserveStockRequested.topic] + releases
    table = inventory.service.inbox.table
    handled = _count(case.stock, table.c.message_id, table.c.consumer == "inventory")
    return None if handled == requests else f"{requests} requests, {handled} in the inbox"


def _everything_is_published(case: _Case) -> str | None:
    for service, connection in case.sides:
        if waiting := _unpublished(connection, service):
            return f"{service.name}: {waiting} events wait in the outbox"
    return None


def _no_dead_letters(case: _Case) -> str | None:
    for service, connection in case.sides:
        table = service.held.table
        row = connection.execute(select(table).order_by(table.c.position).limit(1)).first()
        if row is not None:
            return f"{service.name}: {row.message_id} is {row.state}: {row.reason}"
    return None


def _nothing_lost_invented_or_reordered(case: _Case) -> str | None:
    sent = [books_of(service, connection.engine)[0] for service, connection in case.sides]
    first = auditor.audit(sent, [], case.transport).first
    return None if first is None else str(first)


def _the_view_shows_the_orders(case: _Case) -> str | None:
    view = {row.order_id: row for row in case.orders.execute(select(fulfillment.view.table))}
    for row in case.orders.execute(select(fulfillment.orders)):
        seen = view.get(row.order_id)
        if seen is None or (seen.status, seen.version) != (row.status, row.version):
            return f"{row.order_id} is {row.status} v{row.version}, the view says {seen}"
    return None


_INVARIANTS: dict[str, Callable[[_Case], str | None]] = {
    "stock is conserved": _stock_is_conserved,
    "both services agree on every line": _both_sides_agree,
    "each request has exactly one effect": _each_request_has_one_effect,
    "every committed event is published": _everything_is_published,
    "nothing lost, invented or out of order per key": _nothing_lost_invented_or_reordered,
    "the view shows the orders": _the_view_shows_the_orders,
    "no dead letters": _no_dead_letters,
}


def _topics(connection: Connection, service: Service) -> list[str]:
    return list(connection.execute(select(service.outbox.table.c.topic)).scalars())


def _unpublished(connection: Connection, service: Service) -> int:
    table = service.outbox.table
    return _count(connection, table.c.seq, table.c.published_at.is_(None))


def _count(connection: Connection, column: Any, *where: Any) -> int:
    counted: int = connection.execute(select(func.count(column)).where(*where)).scalar_one()
    return counted
