"""What a message hands on to those that it causes: conversation, cause and trace.

`traceparent` is W3C Trace Context: whoever has tracing finds one journey through both services.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from labkit.lab.bench import Bench
from labkit.lab.story_cast import CAST
from labkit.service import Service
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.wire import Envelope, decode_envelope

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ORDER = "ORD-2"


def followed(bench: Bench) -> pd.DataFrame:
    """Ask for the stock of ORD-2 inside a trace, let all of it travel, and return every message.

    Args:
        bench: one that is thrown away.
    """
    sides = [(fulfillment.service, bench.orders), (inventory.service, bench.stock)]
    for service, engine in sides:
        engine.update_execution_options(labkit_new_id=_ids(service.name))
    _ask(bench)
    bench.settle()
    return pd.DataFrame([_row(each) for side in sides for each in _written(*side)])


def _ids(side: str) -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"{side}-{next(numbers)}"


def _ask(bench: Bench) -> None:
    lines = CAST[ORDER].lines
    with Session(bench.orders) as session, session.begin():
        reservation_id = fulfillment.write_order(session, ORDER, lines)
        wanted = tuple(Line(sku, qty) for sku, qty in lines)
        request = ReserveStockRequested(reservation_id=reservation_id, lines=wanted)
        headers = {"traceparent": TRACE}
        fulfillment.service.outbox.add(session, request, key=reservation_id, headers=headers)


def _written(service: Service, engine: Engine) -> list[Envelope]:
    table = service.outbox.table
    with engine.connect() as connection:
        bodies = connection.execute(select(table.c.body).order_by(table.c.seq)).scalars()
        return [decode_envelope(body) for body in bodies]


def _row(envelope: Envelope) -> dict[str, object]:
    headers = envelope.headers or {}
    return {
        "messageId": envelope.message_id,
        "correlationId": envelope.correlation_id,
        "tipo": envelope.event.type,
        "causationId": headers.get("causationId"),
        "misma traza": headers.get("traceparent") == TRACE,
    }
