"""Placing an order from a terminal, for the file that is handed over.

    python -m entrega.mi_checkout ORD-21 BOOK-DDD=2 BOOK-HEX=1

The order goes into the workshop's own database; who runs both services sees it travel. Its row of
the view is printed until it stands still, or for ten seconds.
"""

from __future__ import annotations

import sys
import time

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import db
from labkit.lab.servers import stack
from labkit.lab.workshop.assembly import Parts
from labkit.lab.workshop.pieces import order_of, view
from labkit.shop.order_book import REJECTED, RESERVED

DATABASE, PREFIX = "cuaderno_05", "cuaderno_05:"
_PATIENCE_S, _LOOK_S = 10.0, 0.02


def place(parts: Parts, words: list[str] | None = None) -> None:
    """Place an order and follow its row of the view.

    Args:
        parts: from the file.
        words: order, and article=quantity; those of the command line by default.
    """
    order_id, *lines = sys.argv[1:] if words is None else words
    wanted = [(sku, int(qty)) for sku, _, qty in (line.partition("=") for line in lines)]
    engine = db.connect(stack().database(f"{DATABASE}_{parts.service.name}"))
    try:
        with Session(engine) as session, session.begin():
            assert parts.place is not None  # noqa: S101 - the file fills every gap
            parts.place(session, order_of(session, order_id, wanted))
        _follow(engine, order_id)
    finally:
        engine.dispose()


def _follow(engine: Engine, order_id: str) -> None:
    shown, end_s = "", time.monotonic() + _PATIENCE_S
    while shown not in {RESERVED, REJECTED} and time.monotonic() < end_s:
        with engine.connect() as connection:
            row = view.of_order(connection, order_id)
        if row is not None and row.status != shown:
            shown = row.status
            print(f"{order_id} · {row.reservation_id} · {shown} · versión {row.version}")
        time.sleep(_LOOK_S)
