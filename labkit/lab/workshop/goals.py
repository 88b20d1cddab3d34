"""The three goals of the session, asked of the databases, and nothing but the databases.

Guarantee: each goal is a query whose answer would be another one if the goal were missed. The
second one sends a message again, as a relay does that died before it marked.
Not guaranteed: that other orders than those of the story would do as well; chaos is for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from sqlalchemy import Engine

from labkit.lab.experiments import send_again
from labkit.lab.observations import copies
from labkit.lab.workshop.shop import ORDERS, Workshop

EVENTS = {
    "ReserveStockRequested": "fulfillment",
    "StockReserved": "inventory",
    "StockReservationRejected": "inventory",
}
_PERSISTED = """
    select body::json->'event'->>'type' as type, count(*) as n
    from outbox_messages where published_at is not null group by 1
"""
_NOTED = "select 1 from inbox_messages where consumer = 'inventory' and message_id = '{}'"
# Who wrote a row last is the transaction that noted a message for the projection.
_SHOWN = """
    select v.order_id from order_status_view v
    where exists (select from inbox_messages i
                  where i.consumer = 'order_status_view' and i.xmin = v.xmin)
      and not exists (select from orders o where o.order_id = v.order_id and o.version = 1)
    order by 1
"""


class Checked(NamedTuple):
    """One thing that was asked of the databases."""

    meta: str
    comprobado: str
    hay: str
    cumplida: bool


def goals(shop: Workshop) -> pd.DataFrame:
    """Ask for all three; the story's orders must have gone through.

    Args:
        shop: the workshop's, with all gaps filled.
    """
    return pd.DataFrame([*_persisted(shop), *_applied_once(shop), _driven(shop)])


def hold(goals: pd.DataFrame) -> dict[str, bool]:
    """Return of each goal whether all that was asked for it holds."""
    return {str(name): bool(rows.all()) for name, rows in goals.groupby("meta")["cumplida"]}


def persisted(shop: Workshop) -> dict[str, int]:
    """Return how often each integration event stands, published, in the outbox of its owner."""
    engines = {"fulfillment": shop.orders, "inventory": shop.stock}
    found = {side: _types(shop, engine) for side, engine in engines.items()}
    return {event: found[side].get(event, 0) for event, side in EVENTS.items()}


def _types(shop: Workshop, engine: Engine) -> dict[str, int]:
    rows = shop.table(engine, _PERSISTED)
    return {str(row.type): int(row.n) for row in rows.itertuples()}


def _persisted(shop: Workshop) -> Iterator[Checked]:
    for name, count in persisted(shop).items():
        told = f"{name}, en {EVENTS[name]}"
        yield Checked("1 · eventos guardados", told, str(count), count > 0)


def _applied_once(shop: Workshop) -> Iterator[Checked]:
    """Repeat the request of RES-1, once, and look whether anything happens twice."""
    name = "2 · deduplicación"
    before = shop.table(shop.stock, "select * from stock order by sku")
    if len(copies(shop, "RES-1")) == 1:
        send_again(shop, "RES-1", qty=2)
        shop.settle()
    published = copies(shop, "RES-1")
    noted = sum(len(shop.table(shop.stock, _NOTED.format(each))) for each in {*published})
    same = shop.table(shop.stock, "select * from stock order by sku").equals(before)
    times = len(published)
    yield Checked(name, "veces que RES-1 está en el stream", str(times), times > 1)
    yield Checked(name, "veces que se atendió", str(noted), noted == 1)
    yield Checked(name, "stock, igual que antes de repetirlo", "sí" if same else "no", same)


def _driven(shop: Workshop) -> Checked:
    shown = shop.table(shop.orders, _SHOWN)["order_id"].tolist()
    told = f"{len(shown)} de {len(ORDERS)}"
    driven = shown == list(ORDERS)
    return Checked("3 · order_status_view", "filas que escribió la proyección", told, driven)
