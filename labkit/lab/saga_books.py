"""Saga books: what sagas, orders and stock say, as small tables for the page.

Guarantee: it only reads; the same books give the same table. Times are the story's.
Not guaranteed: one moment; the two databases are read one after the other.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.lab.bench import Bench
from labkit.saga.operations import Line, Operations, Shown
from labkit.shop import checkout, fulfillment, inventory
from labkit.shop.order_book import reservation_id_of

# How the history notes what a person does, and how to say it.
VERBS = {
    "retried": "reintentar",
    "skipped": "saltar el paso",
    "told to compensate": "compensar",
    "cancelled": "cancelar",
}


def in_two_databases(bench: Bench, order_id: str) -> pd.DataFrame:
    """Show what each service's database says of an order, a row for each fact.

    Args:
        bench: where.
        order_id: which.
    """
    orders, lines = fulfillment.orders.c, inventory.reservations.c
    reservation_id = reservation_id_of(order_id)
    with bench.orders.connect() as connection:
        mine = select(orders.status).where(orders.order_id == order_id)
        status: str = connection.execute(mine).scalar_one()
    with bench.stock.connect() as connection:
        query = select(lines.sku, lines.state, lines.qty).order_by(lines.sku.desc())
        found = connection.execute(query.where(lines.reservation_id == reservation_id)).all()
    rows: list[tuple[Any, ...]] = [("fulfillment", order_id, "–", status, 0)]
    rows += [
        ("inventory", order_id, sku, state, qty if state == inventory.HELD else 0)
        for sku, state, qty in found
    ]
    return pd.DataFrame(
        rows, columns=["base de datos", "orderId", "artículo", "estado", "retenido"]
    )


def saga(bench: Bench, order_id: str) -> Shown:
    """Return all that is known of an order's saga.

    Args:
        bench: where.
        order_id: which.
    """
    with Session(bench.orders) as session:
        return Operations(checkout.sagas).one(session, reservation_id_of(order_id))


def seconds(shown: Shown, line: Line) -> float:
    """Return how long after its saga began a line was written, in seconds.

    Args:
        shown: the saga.
        line: of its history.
    """
    return (line.at - shown.listed.started_at).total_seconds()


def held(bench: Bench, order_id: str) -> int:
    """Return how many units inventory holds for an order.

    Args:
        bench: where.
        order_id: which.
    """
    return int(in_two_databases(bench, order_id)["retenido"].sum())


def stuck(shown: Shown) -> pd.DataFrame:
    """Return what somebody sees who is called to a saga: where it stands, why and since when.

    Args:
        shown: the saga.
    """
    listed = shown.listed
    row = {
        "reservationId": listed.id,
        "estado": str(listed.status),
        "paso": listed.step,
        "intentos": listed.attempt,
        "motivo": listed.reason,
        "desde": listed.updated_at,
    }
    return pd.DataFrame([row])


def decisions(shown: Shown) -> pd.DataFrame:
    """Return what people did about a saga, and how it stands now.

    Args:
        shown: the saga.
    """
    rows = [
        (shown.listed.id, line.who, VERBS[line.what], line.step, line.detail)
        for line in shown.history
        if line.who and line.what in VERBS
    ]
    columns = ["reservationId", "quién", "qué decide", "paso", "por qué"]
    return pd.DataFrame(rows, columns=columns).assign(ahora=str(shown.listed.status))
