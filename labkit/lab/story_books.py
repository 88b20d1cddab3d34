"""Both services' books, read and compared: orders, stock, who holds it, and what still waits.

Guarantee: it only reads. A message counts as unhandled when its sender has marked it published
and its reader has neither an inbox row for it nor holds it.
Not guaranteed: one moment; the two databases are read one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from labkit.lab.bench import Bench
from labkit.lab.story_cast import OPENING, Books
from labkit.ports import Stream
from labkit.service import Service, Subscribed
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import PUBLISHED

_TYPE = "body::json->'event'->>'type'"


class _Side(NamedTuple):
    service: Service
    connection: Connection


def read(bench: Bench) -> Books:
    """Read the books of a bench."""
    with bench.orders.connect() as orders, bench.stock.connect() as stock:
        sides = [_Side(fulfillment.service, orders), _Side(inventory.service, stock)]
        sent = Counter[str]()
        for side in sides:
            sent.update(_types(side))
        return Books(
            orders=_orders(orders),
            stock=_stock(stock),
            holders=_holders(stock),
            unpublished=_all(_unpublished(side) for side in sides),
            unhandled=_all(_unhandled(side, sides) for side in sides),
            held=_all(_held(side, "<> 'parked'") for side in sides),
            dead=_all(_held(side, "= 'parked'") for side in sides),
            sent=dict(sent),
        )


def lines_of(bench: Bench) -> dict[str, list[tuple[str, int]]]:
    """Return every order's lines."""
    columns = fulfillment.order_lines.c
    found: dict[str, list[tuple[str, int]]] = {}
    with bench.orders.connect() as connection:
        rows = connection.execute(select(columns.order_id, columns.sku, columns.qty)).all()
    for order_id, sku, qty in sorted(rows, key=lambda row: _on_the_shelf(row.sku)):
        found.setdefault(order_id, []).append((sku, qty))
    return found


def differences(told: Books, found: Books) -> list[str]:
    """Return, in sentences for the student, where the books differ from what the story tells."""
    said = [
        *_differing("el pedido", told.orders, found.orders),
        *_differing("las existencias (disponible, retenido) de", told.stock, found.stock),
        *_differing("lo que retiene", told.holders, found.holders),
        *_differing("el número de mensajes", told.sent, found.sent),
    ]
    for name, label in WAITING.items():
        expected, actual = getattr(told, name), getattr(found, name)
        if expected != actual:
            said.append(f"{label}: debería decir {_listed(expected)} y dice {_listed(actual)}")
    return said


WAITING: Mapping[str, str] = {
    "unpublished": "sin publicar",
    "unhandled": "publicados, sin atender",
    "held": "a la espera de otro intento",
    "dead": "mensajes muertos",
}


def _differing(what: str, told: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(told.keys() | found.keys(), key=by_number):
        expected, actual = told.get(name), found.get(name)
        if expected != actual:
            should, does = (
                "nada" if value is None else _plain(value) for value in (expected, actual)
            )
            yield f"{what} {name}: debería ser {should} y es {does}"


def by_number(name: str) -> tuple[int, str]:
    """Sort `ORD-2` before `ORD-10`."""
    return len(name), name


def _on_the_shelf(sku: str) -> tuple[int, str]:
    """Sort articles as the story names them, and strangers behind them."""
    known = list(OPENING)
    return (known.index(sku) if sku in known else len(known), sku)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{qty} × {sku}" for sku, qty in value.items())
    return str(value)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nada"


def _orders(connection: Connection) -> dict[str, str]:
    columns = fulfillment.orders.c
    rows = connection.execute(select(columns.order_id, columns.status)).all()
    return {row.order_id: row.status for row in sorted(rows, key=lambda row: by_number(row[0]))}


def _stock(connection: Connection) -> dict[str, tuple[int, int]]:
    columns = inventory.stock.c
    rows = connection.execute(select(columns.sku, columns.available, columns.held)).all()
    in_order = sorted(rows, key=lambda row: _on_the_shelf(row.sku))
    return {row.sku: (row.available, row.held) for row in in_order}


def _holders(connection: Connection) -> dict[str, dict[str, int]]:
    columns = inventory.reservations.c
    query = select(columns.reservation_id, columns.sku, columns.qty)
    held = query.where(columns.state == inventory.HELD).order_by(columns.sku)
    found: dict[str, dict[str, int]] = {}
    for reservation_id, sku, qty in connection.execute(held):
        found.setdefault(reservation_id, {})[sku] = qty
    return {name: found[name] for name in sorted(found, key=by_number)}


def _types(side: _Side) -> list[str]:
    query = text(f"select {_TYPE} as type from outbox_messages where {_TYPE} = any(:published)")
    published = [event.event_type for event in PUBLISHED]
    return list(side.connection.execute(query, {"published": published}).scalars())


def _unpublished(side: _Side) -> list[str]:
    query = text("select key from outbox_messages where published_at is null order by seq")
    return list(side.connection.execute(query).scalars())


def _unhandled(side: _Side, sides: list[_Side]) -> list[str]:
    found: list[str] = []
    for reader in side.service.subscribed():
        known = _known(side.connection, reader.consumer)
        sent = _published(_owner(reader.stream, sides), reader)
        found += [key for message_id, key in sent if message_id not in known]
    return found


def _owner(stream: Stream, sides: list[_Side]) -> _Side:
    return next(side for side in sides if side.service.stream == stream)


def _published(side: _Side, reader: Subscribed) -> list[tuple[str, str]]:
    query = text(
        f"select message_id, key from outbox_messages where published_at is not null "
        f"and {_TYPE} = any(:types) order by seq"
    )
    rows = side.connection.execute(query, {"types": sorted(reader.types)})
    return [(row.message_id, row.key) for row in rows]


def _known(connection: Connection, consumer: str) -> set[str]:
    query = text(
        "select message_id from inbox_messages where consumer = :consumer "
        "union select message_id from held where consumer = :consumer"
    )
    return set(connection.execute(query, {"consumer": consumer}).scalars())


def _held(side: _Side, state: str) -> list[str]:
    query = text(f"select key from held where state {state} order by position")
    return [key or "sin clave" for key in side.connection.execute(query).scalars()]


def _all(lists: Iterator[list[str]]) -> tuple[str, ...]:
    """Return every name once, in order."""
    return tuple(dict.fromkeys(name for names in lists for name in names))
