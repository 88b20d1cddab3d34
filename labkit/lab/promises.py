"""Fallbacks, good and bad: what three shops answer while inventory is away, and what it costs.

Each shop sells one article, of which there are five, to ten customers. It asks inventory's database
through a proxy that refuses connections, and a `Policy` answers in its place. Then inventory comes
back and handles what was queued.

Guarantee: orders and their ends are read from both services' databases; what customers were told is
what the policy returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from labkit import db
from labkit.errors import TransientError
from labkit.lab.bench import Bench
from labkit.policy import Policy
from labkit.shop import fulfillment
from labkit.shop.inventory import stock
from labkit.shop.order_book import REJECTED, RESERVED
from labkit.testing.proxy import Proxy

CUSTOMERS, UNITS = 10, 5
PENDING, LATER, SOLD = "pendiente", "ahora solo se mira", "reservado"


class InventoryAwayError(TransientError):
    """Inventory does not answer."""


Instead = Callable[[Bench, str, str], str]


def queue(shop: Bench, order_id: str, sku: str) -> str:
    """Take the order, and say that nothing is decided yet."""
    shop.place(order_id, (sku, 1))
    return PENDING


def read_only(shop: Bench, order_id: str, sku: str) -> str:  # noqa: ARG001 - one shape for all
    """Let customers look, and take no orders."""
    return LATER


def lie(shop: Bench, order_id: str, sku: str) -> str:
    """Say what the customer wants to hear."""
    shop.place(order_id, (sku, 1))
    return SOLD


class Way(NamedTuple):
    """A fallback, and the article that its shop sells."""

    instead: Instead
    sku: str


WAYS = {
    "encolar": Way(queue, "BOOK-DDD"),
    "modo lectura": Way(read_only, "BOOK-HEX"),
    "mentir": Way(lie, "BOOK-EDA"),
}
STOCK = {way.sku: UNITS for way in WAYS.values()}


def sell(shop: Bench) -> pd.DataFrame:
    """Let the customers of each shop buy while inventory is away; then let it come back.

    Args:
        shop: opened with `STOCK`; one that is thrown away.

    Returns:
        A row per fallback.
    """
    url = shop.stock.url
    assert url.host is not None and url.port is not None  # noqa: S101, PT018 - a server's address
    told: dict[str, dict[str, str]] = {}
    with Proxy(url.host, url.port) as proxy:
        away = db.connect(url.set(host="127.0.0.1", port=proxy.port))
        proxy.refuse()
        for n, (name, way) in enumerate(WAYS.items(), 1):
            ids = [f"ORD-{1000 * n + customer}" for customer in range(CUSTOMERS)]
            told[name] = {each: _answer(shop, away, way, each) for each in ids}
        away.dispose()
    shop.settle()
    return pd.DataFrame([_row(shop, name, answers) for name, answers in told.items()])


def _answer(shop: Bench, inventory: Engine, way: Way, order_id: str) -> str:
    policy = Policy("inventory", fallback=lambda _: way.instead(shop, order_id, way.sku))
    return policy.call(units_left, inventory, way.sku)


def units_left(inventory: Engine, sku: str) -> str:
    """Ask inventory how many there are."""
    try:
        with inventory.connect() as connection:
            query = select(stock.c.available).where(stock.c.sku == sku)
            return str(connection.execute(query).scalar_one())
    except DBAPIError as error:
        raise InventoryAwayError from error


def _row(shop: Bench, name: str, told: dict[str, str]) -> dict[str, object]:
    columns = fulfillment.orders.c
    with shop.orders.connect() as connection:
        query = select(columns.order_id, columns.status).where(columns.order_id.in_(told))
        status = {row.order_id: row.status for row in connection.execute(query)}
    promised = [order_id for order_id, said in told.items() if said == SOLD]
    return {
        "alternativa": name,
        "se contesta": " o ".join(sorted(set(told.values()))),
        "pedidos": len(status),
        "con stock": sum(each == RESERVED for each in status.values()),
        "rechazados": sum(each == REJECTED for each in status.values()),
        "prometidos sin stock": sum(status[each] != RESERVED for each in promised),
    }
