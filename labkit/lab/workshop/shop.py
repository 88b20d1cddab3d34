"""The workshop's shop: the story's, on the functions that fill the gaps.

Guarantee: databases, clock and ids are the story's of notebook 05; every order goes through the
given `colocar`, and every message through the other functions.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit.errors import ConfigurationError
from labkit.lab.entries import Entries
from labkit.lab.servers import Stack
from labkit.lab.sites import Site
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import Story
from labkit.lab.trace import Trace, trace
from labkit.lab.workshop.assembly import Functions, assemble
from labkit.lab.workshop.pieces import order_of
from labkit.shop.contracts import ReserveStockRequested

ORDERS = ("ORD-1", "ORD-2", "ORD-3", "ORD-4")


class Workshop(Story):
    """The shop of notebook 05.

    Args:
        functions: what fills the gaps, by name; what is missing does not happen.
        name: names databases and streams.
        servers: where; `stack()` by default.
        options: passed to `Bench`.
    """

    def __init__(
        self,
        functions: Functions,
        *,
        name: str | None = None,
        servers: Stack | None = None,
        **options: Any,
    ) -> None:
        self.functions = dict(functions)
        self.parts = assemble(functions)
        sides = (self.parts.service, self.parts.inventario)
        super().__init__("05", name=name, servers=servers, sides=sides, **options)

    def place(self, order_id: str, *lines: tuple[str, int]) -> str:
        """Place an order through `colocar`, with the story's lines unless you name others.

        Raises:
            ConfigurationError: when there is no such function yet.
        """
        if self.parts.place is None:
            raise ConfigurationError("nadie coloca pedidos todavía: falta el hueco 1")
        with Session(self.orders) as session, session.begin():
            order = order_of(session, order_id, lines or CAST[order_id].lines)
            self.parts.place(session, order)
        return order.reservation_id

    def play(self) -> None:
        """Let the story's four orders through."""
        with self.staying():
            for order_id in ORDERS:
                self.place(order_id)
            self.settle()

    def recorded(self) -> dict[str, int]:
        """Return how many messages of each type both outboxes hold."""
        types = "select body::json->'event'->>'type' as type from outbox_messages"
        rows = pd.concat([self.table(engine, types) for engine in (self.orders, self.stock)])
        return {str(name): int(n) for name, n in rows["type"].value_counts().sort_index().items()}

    def journey(self, reservation_id: str) -> Trace:
        """Follow the request for a reservation through both services."""
        table = self.parts.service.outbox.table
        mine = (table.c.key == reservation_id) & (table.c.topic == ReserveStockRequested.topic)
        with self.orders.connect() as connection:
            message_id = connection.execute(select(table.c.message_id).where(mine)).scalar_one()
        sites = [Site(self.parts.service, self.orders), Site(self.parts.inventario, self.stock)]
        return trace(message_id, sites, Entries(self.transport))
