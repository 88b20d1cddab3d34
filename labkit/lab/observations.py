"""Observations: what databases and streams of a bench say, as small tables for the page.

Guarantee: it only reads; the same books give the same table.
Not guaranteed: one moment; databases and streams are read one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import ColumnElement, Engine, Table, func, select

from labkit.dead_letters import Wanted
from labkit.lab.bench import Bench
from labkit.lab.entries import Entries
from labkit.lab.sites import Site
from labkit.lab.timeline import Mark, died, of
from labkit.lab.trace import Trace, trace
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT, ReserveStockRequested, StockReserved
from labkit.testing.ledgers import Entry, read_entries
from labkit.wire import decode_envelope

_OUTBOX = fulfillment.service.outbox.table
_VIEW = fulfillment.view.table


def orders_and_messages(bench: Bench, order_ids: Sequence[str]) -> pd.DataFrame:
    """Say of each order whether it is in its table, and whether its request is in the stream.

    Args:
        bench: where.
        order_ids: which.
    """
    sent = {entry.key for entry in _requests(bench)}
    rows = [
        (order_id, _orders(bench, order_id) == 1, _reservation(order_id) in sent)
        for order_id in order_ids
    ]
    return pd.DataFrame(rows, columns=["pedido", "está guardado", "su mensaje salió"])


def seen_from_outside(bench: Bench, order_id: str) -> dict[str, int]:
    """Count an order's rows as another connection sees them now: the order, and its event.

    Args:
        bench: where.
        order_id: which.
    """
    event = _count(bench.orders, _OUTBOX, _OUTBOX.c.key == _reservation(order_id))
    return {"filas del pedido": _orders(bench, order_id), "filas de su evento": event}


def moments(seen: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Return what was seen at several moments, a row each.

    Args:
        seen: moment to counts.
    """
    return pd.DataFrame([{"momento": moment, **counts} for moment, counts in seen.items()])


def copies(bench: Bench, reservation_id: str) -> list[str]:
    """Return the message ids under which a reservation was asked for, one per entry in the stream.

    Args:
        bench: where.
        reservation_id: which.
    """
    return [str(entry.message_id) for entry in _requests(bench) if entry.key == reservation_id]


def repeated(bench: Bench) -> list[str]:
    """Return the reservations that were asked for more than once in the stream.

    Args:
        bench: where.
    """
    counts = Counter(entry.key for entry in _requests(bench))
    return sorted(key for key, times in counts.items() if times > 1)


def life_of(bench: Bench, reservation_id: str) -> list[Mark]:
    """Return what happened to a request whose relay died after it had been published.

    Args:
        bench: where.
        reservation_id: which.
    """
    return of(traced(bench, reservation_id).root, deaths={"published": died()})


def noted_and_held(bench: Bench, reservation_id: str) -> pd.DataFrame:
    """Say whether inventory noted a reservation's request, and how many units it set aside.

    Args:
        bench: where.
        reservation_id: which.
    """
    noted = inventory.service.inbox.table
    lines = inventory.reservations
    ids = copies(bench, reservation_id)
    row = {
        "reserva": reservation_id,
        "anotada": _count(bench.stock, noted, noted.c.message_id.in_(ids)) == 1,
        "unidades retenidas": _count(bench.stock, lines, lines.c.reservation_id == reservation_id),
    }
    return pd.DataFrame([row])


def in_both_services(bench: Bench, order_id: str) -> pd.DataFrame:
    """Show what inventory holds for an order beside what the view says of it.

    Args:
        bench: where.
        order_id: which.
    """
    held = select(func.coalesce(func.sum(inventory.reservations.c.qty), 0)).where(
        inventory.reservations.c.reservation_id == _reservation(order_id),
        inventory.reservations.c.state == inventory.HELD,
    )
    with bench.stock.connect() as stock, bench.orders.connect() as orders:
        status = fulfillment.view.of_order(orders, order_id)
        row = {
            "pedido": order_id,
            "retenido en inventario": int(stock.execute(held).scalar_one()),
            "estado en la vista": status.status if status else None,
        }
    return pd.DataFrame([row])


def view(bench: Bench) -> pd.DataFrame:
    """Return `order_status_view`, without its times.

    Args:
        bench: where.
    """
    columns = (_VIEW.c.order_id, _VIEW.c.status, _VIEW.c.reservation_id, _VIEW.c.version)
    with bench.orders.connect() as connection:
        rows = connection.execute(select(*columns).order_by(_VIEW.c.order_id)).all()
    return pd.DataFrame(rows, columns=[column.name for column in columns])


def dead_letters(bench: Bench) -> pd.DataFrame:
    """Return inventory's dead letters: which reservation each is about, and its kind of error.

    Args:
        bench: where.
    """
    with bench.stock.connect() as connection:
        found = inventory.service.dead_letters.find(connection, Wanted())
    rows = [
        (letter.envelope.correlation_id if letter.envelope else None, letter.reason.split(":")[0])
        for letter in found
    ]
    return pd.DataFrame(rows, columns=["reserva", "motivo"])


def reserved_and_answered(bench: Bench, reservation_id: str) -> dict[str, int]:
    """Count the lines that inventory holds for a reservation, and its answers that say so.

    Args:
        bench: where.
        reservation_id: which.
    """
    lines, answers = inventory.reservations, inventory.service.outbox.table
    held = (lines.c.reservation_id == reservation_id) & (lines.c.state == inventory.HELD)
    said = (answers.c.key == reservation_id) & (answers.c.topic == StockReserved.topic)
    return {
        "líneas reservadas": _count(bench.stock, lines, held),
        "StockReserved escritos": _count(bench.stock, answers, said),
    }


def in_stream_and_held(bench: Bench, order_id: str) -> dict[str, int]:
    """Count an order's requests in the stream, and the units that inventory holds for it.

    Args:
        bench: where.
        order_id: which.
    """
    held = in_both_services(bench, order_id)["retenido en inventario"].tolist()[0]
    return {"en el stream": len(copies(bench, _reservation(order_id))), "unidades retenidas": held}


def traced(bench: Bench, reservation_id: str) -> Trace:
    """Follow the request for a reservation through both services.

    Args:
        bench: where.
        reservation_id: which.
    """
    sites = [Site(fulfillment.service, bench.orders), Site(inventory.service, bench.stock)]
    asked = select(func.min(_OUTBOX.c.message_id)).where(_OUTBOX.c.key == reservation_id)
    with bench.orders.connect() as connection:
        message_id: str = connection.execute(asked).scalar_one()
    return trace(message_id, sites, Entries(bench.transport))


def _requests(bench: Bench) -> list[Entry]:
    """Return the requests for stock in the stream; a key carries other messages too."""
    partitions = range(FULFILLMENT.partitions)
    found = [read_entries(bench.transport, FULFILLMENT, each) for each in partitions]
    wanted = ReserveStockRequested.event_type
    return [
        entry
        for entries in found
        for entry in entries
        if decode_envelope(entry.body).event.type == wanted
    ]


def _orders(bench: Bench, order_id: str) -> int:
    table = fulfillment.orders
    return _count(bench.orders, table, table.c.order_id == order_id)


def _count(engine: Engine, table: Table, condition: ColumnElement[bool]) -> int:
    with engine.connect() as connection:
        query: Any = select(func.count()).select_from(table).where(condition)
        return int(connection.execute(query).scalar_one())


def _reservation(order_id: str) -> str:
    return f"RES-{order_id.removeprefix('ORD-')}"
