"""A bookshop of one's own: both services on new databases and streams, with a worker of each kind.

For notebooks, tests and whoever tries something out: nothing here is needed in production, where
workers are processes (`labkit run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.cleaner import Cleaner
from labkit.lab.servers import Stack, stack
from labkit.service import Service, Worker
from labkit.shop import fulfillment, inventory
from labkit.transports.redis_streams import RedisStreams, connect

STOCK: Mapping[str, int] = {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5}


class Bench:
    """The shop, opened anew under a name; what an earlier one with that name left is deleted.

    Args:
        name: names databases and streams; lower case.
        servers: where; `stack()` by default.
        stock: the opening stock.
        options: passed to every worker, such as `clock`.
    """

    def __init__(
        self,
        name: str,
        *,
        servers: Stack | None = None,
        stock: Mapping[str, int] = STOCK,
        **options: Any,
    ) -> None:
        self.name = name
        self.servers = servers or stack()
        self.transport = RedisStreams(connect(self.servers.redis_url), f"{name}:")
        self.delete()
        self.orders = self._engine(fulfillment.service)
        self.stock = self._engine(inventory.service)
        inventory.stock_up(self.stock, stock)
        self.workers: list[Worker] = [
            *fulfillment.service.workers("all", self.orders, self.transport, **options),
            *inventory.service.workers("all", self.stock, self.transport, **options),
        ]

    def place(self, order_id: str, *lines: tuple[str, int]) -> str:
        """Place an order in a transaction of its own; return its reservation's id."""
        with Session(self.orders) as session, session.begin():
            return fulfillment.place_order(session, order_id, lines)

    def cancel(self, order_id: str) -> bool:
        """Cancel an order in a transaction of its own; False when it was cancelled before."""
        with Session(self.orders) as session, session.begin():
            return fulfillment.cancel_order(session, order_id)

    def settle(self) -> pd.DataFrame:
        """Let all workers work in turn until none has anything to do.

        Returns:
            What each did, except the cleaners: they carry no event.
        """
        carriers = [worker for worker in self.workers if not isinstance(worker, Cleaner)]
        done: dict[str, dict[str, int]] = {repr(worker): {} for worker in carriers}
        busy = True
        while busy:
            busy = False
            for worker in self.workers:
                report = worker.run_once()
                busy = busy or bool(report)
                counts = done.get(repr(worker), {})
                for name, count in asdict(report).items():
                    counts[name] = counts.get(name, 0) + count
        return pd.DataFrame.from_dict(done, orient="index").fillna(0).astype(int)

    def table(self, engine: Engine, query: str) -> pd.DataFrame:
        """Return the rows of a query as a table to look at."""
        with engine.connect() as connection:
            return pd.read_sql(text(query), connection)

    def close(self) -> None:
        """Close all connections; the data stays until a bench of this name is opened again."""
        self.orders.dispose()
        self.stock.dispose()
        self.transport.client.close()

    def delete(self) -> None:
        """Delete databases and streams of this name."""
        for service in (fulfillment.service, inventory.service):
            self.servers.drop_database(self._database(service))
        client = self.transport.client
        for key in client.scan_iter(match=f"*{{{self.name}:*", count=1000):
            client.delete(key)

    def _database(self, service: Service) -> str:
        return f"{self.name}_{service.name}"

    def _engine(self, service: Service) -> Engine:
        engine = db.connect(self.servers.database(self._database(service)))
        service.create_tables(engine)
        return engine
