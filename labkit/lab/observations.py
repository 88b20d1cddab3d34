"""Observations: what databases and streams of a bench say, as small tables for the page.

Guarantee: it only reads; the same books give the same table.
Not guaranteed: one moment; databases and streams are read one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from sqlalchemy import ColumnElement, Connection, Table, func, select

from labkit.dead_letters import Wanted
from labkit.lab.bench import Bench
from labkit.lab.entries import Entries
from labkit.lab.sites import Site
from labkit.lab.timeline import Mark, died, of
from labkit.lab.trace import Trace, trace
from labkit.service import Service
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT, ReserveStockRequested, StockReserved
from labkit.shop.order_book import reservation_id_of
from labkit.testing.ledgers import Entry, read_entries
from labkit.wire import decode_envelope

_OUTBOX = fulfillment.service.outbox.table
_VIEW = fulfillment.view.table
_REQUEST = ReserveStockRequested


def orders_and_messages(bench: Bench, order_ids: Sequence[str]) -> pd.DataFrame:
    """Say of each order whether it is in its table, and whether its request is in the stream.

    Args:
        bench: where.
        order_ids: which.
    """
    sent = {entry.key for entry in requests(bench)}
    rows = [
        (order_id, bool(_is_saved(bench, order_id)), reservation_id_of(order_id) in sent)
        for order_id in order_ids
    ]
    return pd.DataFrame(rows, columns=["pedido", "está guardado", "su mensaje salió"])


def seen_from_outside(bench: Bench, order_id: str) -> dict[str, int]:
    """Count an order's rows as another connection sees them now: the order, and its event.

    Args:
        bench: where.
        order_id: which.
    """
    with bench.orders.connect() as connection:
        return seen_by(connection, order_id)


def seen_by(connection: Connection, order_id: str) -> dict[str, int]:
    """Count an order's rows as this connection sees them: the order, and its event.

    Args:
        connection: to the orders' database, perhaps with an open transaction.
        order_id: which.
    """
    table = fulfillment.orders
    asked = (_OUTBOX.c.key == reservation_id_of(order_id)) & (_OUTBOX.c.topic == _REQUEST.topic)
    return {
        "filas del pedido": _count(connection, table, table.c.order_id == order_id),
        "filas de su evento": _count(connection, _OUTBOX, asked),
    }


def moments(seen: Mapping[str, Mapping[str, int]], *, named: str = "momento") -> pd.DataFrame:
    """Return what was seen in several cases, a row each.

    Args:
        seen: case to counts.
        named: what a case is.
    """
    return pd.DataFrame([{named: case, **counts} for case, counts in seen.items()])


def requests(bench: Bench, reservation_id: str | None = None) -> list[Entry]:
    """Return the requests for stock in the stream, each as often as it was published.

    Args:
        bench: where.
        reservation_id: which; all by default.
    """
    partitions = range(FULFILLMENT.partitions)
    found = [read_entries(bench.transport, FULFILLMENT, each) for each in partitions]
    # A key carries other messages too.
    return [
        entry
        for entries in found
        for entry in entries
        if reservation_id in {None, entry.key}
        and decode_envelope(entry.body).event.type == _REQUEST.event_type
    ]


def copies(bench: Bench, reservation_id: str) -> list[str]:
    """Return the message ids under which a reservation was asked for, one per entry in the stream.

    Args:
        bench: where.
        reservation_id: which.
    """
    return [str(entry.message_id) for entry in requests(bench, reservation_id)]


def repeated(bench: Bench) -> list[str]:
    """Return the reservations that were asked for more than once in the stream.

    Args:
        bench: where.
    """
    counts = Counter(entry.key for entry in requests(bench))
    return sorted(key for key, times in counts.items() if times > 1)


def life_of(bench: Bench, reservation_id: str) -> list[Mark]:
    """Return what happened to a request whose relay died after it had been published.

    Args:
        bench: where.
        reservation_id: which.
    """
    return of(traced(bench, reservation_id).root, deaths={"published": died()})


def noted_and_held(bench: Bench, reservation_id: str) -> pd.DataFrame:
    """Say whether inventory noted a reservation's request, and how many units it holds for it.

    Args:
        bench: where.
        reservation_id: which.
    """
    noted = inventory.service.inbox.table
    ids = copies(bench, reservation_id)
    with bench.stock.connect() as connection:
        row = {
            "reserva": reservation_id,
            "anotada": _count(connection, noted, noted.c.message_id.in_(ids)) == 1,
            "unidades retenidas": _units_held(connection, reservation_id),
        }
    return pd.DataFrame([row])


def in_both_services(bench: Bench, order_id: str) -> pd.DataFrame:
    """Show what inventory holds for an order beside what the view says of it.

    Args:
        bench: where.
        order_id: which.
    """
    with bench.stock.connect() as stock, bench.orders.connect() as orders:
        status = fulfillment.view.of_order(orders, order_id)
        row = {
            "pedido": order_id,
            "retenido en inventario": _units_held(stock, reservation_id_of(order_id)),
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
    with bench.stock.connect() as connection:
        return {
            "líneas reservadas": _count(connection, lines, held),
            "StockReserved escritos": _count(connection, answers, said),
        }


def in_stream_and_held(bench: Bench, order_id: str) -> dict[str, int]:
    """Count an order's requests in the stream, and the units that inventory holds for it.

    Args:
        bench: where.
        order_id: which.
    """
    held = in_both_services(bench, order_id)["retenido en inventario"].tolist()[0]
    return {
        "en el stream": len(copies(bench, reservation_id_of(order_id))),
        "unidades retenidas": held,
    }


def traced(bench: Bench, reservation_id: str, *, beside: Sequence[Service] = ()) -> Trace:
    """Follow the request for a reservation through both services.

    Args:
        bench: where.
        reservation_id: which.
        beside: who works beside fulfillment, such as the checkout.
    """
    sites = [
        Site(fulfillment.service, bench.orders, tuple(beside)),
        Site(inventory.service, bench.stock),
    ]
    mine = (_OUTBOX.c.key == reservation_id) & (_OUTBOX.c.topic == _REQUEST.topic)
    asked = select(_OUTBOX.c.message_id).where(mine).order_by(_OUTBOX.c.seq).limit(1)
    with bench.orders.connect() as connection:
        message_id: str = connection.execute(asked).scalar_one()
    return trace(message_id, sites, Entries(bench.transport))


def _is_saved(bench: Bench, order_id: str) -> int:
    return seen_from_outside(bench, order_id)["filas del pedido"]


def _units_held(connection: Connection, reservation_id: str) -> int:
    lines = inventory.reservations
    mine = (lines.c.reservation_id == reservation_id) & (lines.c.state == inventory.HELD)
    query = select(func.coalesce(func.sum(lines.c.qty), 0)).where(mine)
    return int(connection.execute(query).scalar_one())


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(condition)
    return int(connection.execute(query).scalar_one())
