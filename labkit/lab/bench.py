"""A bookshop of one's own: both services on empty databases and streams, with all workers.

For notebooks, tests and whoever tries something out: nothing here is needed in production, where
workers are processes (`labkit run`).

Guarantee: what an earlier bench of the same name left is gone when this one opens; between two
calls no partition is owned, so worker processes may take over, and a break may last.
Not guaranteed: that an earlier bench of the same name still works; its connections were ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pandas as pd
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.cleaner import Cleaner
from labkit.consumer import Consumer
from labkit.lab.servers import Stack, stack
from labkit.relay import Relay
from labkit.service import Service, Worker
from labkit.shop import fulfillment, inventory
from labkit.testing import processes
from labkit.transports.redis_streams import RedisStreams, connect

STOCK: Mapping[str, int] = {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5}
_PATIENCE_S = 60.0
_END_OTHERS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and backend_type = 'client backend' and usename = current_user
"""


class Bench:
    """The shop, opened anew under a name; what an earlier one with that name left is deleted.

    Args:
        name: names databases and streams; lower case.
        servers: where; `stack()` by default.
        stock: the opening stock.
        beside: services that work beside fulfillment, such as the checkout's.
        sides: fulfillment and inventory; the shop's own by default. Others must have their names,
            their streams and their tables, with more tables if they like.
        options: passed to every worker, such as `clock`.
    """

    def __init__(
        self,
        name: str,
        *,
        servers: Stack | None = None,
        stock: Mapping[str, int] = STOCK,
        beside: Sequence[Service] = (),
        sides: tuple[Service, Service] = (fulfillment.service, inventory.service),
        **options: Any,
    ) -> None:
        self.name = name
        self.beside = tuple(beside)
        self.servers = servers or stack()
        self.transport = RedisStreams(connect(self.servers.redis_url), f"{name}:")
        self._fulfillment, self._inventory = sides
        self.orders = self._emptied(self._fulfillment)
        self.stock = self._emptied(self._inventory)
        # Only now: emptying ended the workers that might still have published.
        self.lose_streams()
        inventory.stock_up(self.stock, stock)
        self._options = options
        self._stays = False
        self._crews: dict[str, list[Worker]] = {
            each.name: each.workers("all", engine, self.transport, **options)
            for each, engine in (*self._sides(), *((each, self.orders) for each in beside))
        }

    @property
    def workers(self) -> list[Worker]:
        """Return the workers of both services."""
        return [worker for crew in self._crews.values() for worker in crew]

    def place(self, order_id: str, *lines: tuple[str, int]) -> str:
        """Place an order in a transaction of its own; return its reservation's id."""
        with Session(self.orders) as session, session.begin():
            return fulfillment.place_order(session, order_id, lines)

    def cancel(self, order_id: str) -> bool:
        """Cancel an order in a transaction of its own; False when it was cancelled before."""
        with Session(self.orders) as session, session.begin():
            return fulfillment.cancel_order(session, order_id)

    def settle(
        self, *, without: Service | Collection[Service] = (), also: Service | None = None
    ) -> pd.DataFrame:
        """Let all workers work in turn until none has anything to do, then rest.

        Args:
            without: a service that is away, or several; their workers do nothing.
            also: a service beside fulfillment that works this time only.

        Returns:
            What each did, except the cleaners: they carry no event, and tidy up once at the end.
        """
        away = {each.name for each in ([without] if isinstance(without, Service) else without)}
        crews = {name: crew for name, crew in self._crews.items() if name not in away}
        if also is not None:
            crews[also.name] = also.workers("all", self.orders, self.transport, **self._options)
        working = [worker for crew in crews.values() for worker in crew]
        done: dict[str, dict[str, int]] = {
            repr(worker): {} for worker in working if not isinstance(worker, Cleaner)
        }
        try:
            quiet: set[Worker] = set()
            while _one_round(_in_order_of_travel(crews), quiet, done):
                pass
            for worker in working:
                if isinstance(worker, Cleaner) and not self._stays:
                    worker.run_once()
        finally:
            stayers = set(self.workers) if self._stays else set()
            _rest([worker for worker in working if worker not in stayers])
        return pd.DataFrame.from_dict(done, orient="index").fillna(0).astype(int)

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Keep the partitions from one `settle` to the next: taking them costs more than working.

        Meanwhile no process beside this one gets any.
        """
        self._stays = True
        try:
            yield
        finally:
            self._stays = False
            _rest(self.workers)

    def apart(
        self, engine: Engine, function: Callable[..., object], *arguments: Any, faults: str = ""
    ) -> int:
        """Call `function(engine, transport, *arguments)` in a process of its own, and wait.

        Args:
            engine: this bench's `orders` or `stock`; the process connects to the same database.
            function: a function of a module.
            arguments: the rest of what it takes.
            faults: as in `LABKIT_FAULTS`; the process may be killed by them.

        Returns:
            How it ended: 0, 1 after an exception, or the negative number of the signal that
            killed it.

        Raises:
            LabkitError: when it does not end.
        """
        where = processes.Where(
            engine.url.render_as_string(hide_password=False),
            self.servers.redis_url,
            self.transport.prefix,
        )
        process = processes.start(processes.call, function, where, arguments, faults=faults)
        return processes.wait(process, _PATIENCE_S)

    @contextmanager
    def scratch(
        self, *, beside: Sequence[Service] = (), stock: Mapping[str, int] = STOCK, **options: Any
    ) -> Iterator[Bench]:
        """Lend another bench, for what must not touch this one's books.

        Args:
            beside: services that work beside its fulfillment.
            stock: its opening stock.
            options: passed to every worker, such as `batch`.
        """
        name = f"{self.name}_scratch"
        made = Bench(name, servers=self.servers, stock=stock, beside=beside, **options)
        try:
            yield made
        finally:
            made.close()

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
        for service, _ in self._sides():
            self.servers.drop_database(self._database(service))
        self.lose_streams()

    def lose_streams(self) -> None:
        """Delete every key of this name in Redis, as a server does that comes back empty."""
        client = self.transport.client
        if found := list(client.scan_iter(match=f"*{{{self.name}:*", count=1000)):
            client.delete(*found)

    def _sides(self) -> list[tuple[Service, Engine]]:
        return [(self._fulfillment, self.orders), (self._inventory, self.stock)]

    def _database(self, service: Service) -> str:
        return f"{self.name}_{service.name}"

    def _emptied(self, service: Service) -> Engine:
        """Return the engine of a database with this service's tables and nothing in them.

        Why not drop the database: that waits for a checkpoint and takes three times as long. Why
        not truncate: tables of an older labkit, or a student's own, would stay.
        """
        engine = db.connect(self.servers.database(self._database(service)))
        with engine.begin() as connection:
            connection.execute(text(_END_OTHERS))
            connection.execute(text("drop schema if exists public cascade"))
            connection.execute(text("create schema public"))
        service.create_tables(engine)
        return engine


def _in_order_of_travel(crews: Mapping[str, Sequence[Worker]]) -> list[Worker]:
    """Return who carries events, so that a request and its answers arrive within two rounds."""
    carrying = {
        name: [worker for worker in crew if not isinstance(worker, Cleaner)]
        for name, crew in crews.items()
    }
    # A crew begins with its relay: who answers handles first, and publishes then.
    answers = list(reversed(carrying.pop(inventory.service.name, [])))
    rest = [worker for crew in carrying.values() for worker in crew]
    return [*rest[:1], *answers, *rest[1:]]


def _one_round(
    workers: Sequence[Worker], quiet: set[Worker], done: dict[str, dict[str, int]]
) -> bool:
    """Let each work once, and count by worker what it did; say whether anything was done.

    `quiet` are those who found nothing, and nothing was done since that could be for them:
    consumers hear from relays, and relays from everybody else.
    """
    busy = False
    for worker in [each for each in workers if each not in quiet]:
        report = worker.run_once()
        counts = done[repr(worker)]
        for name, count in asdict(report).items():
            counts[name] = counts.get(name, 0) + count
        if not report:
            quiet.add(worker)
            continue
        busy = True
        heard = Consumer if isinstance(worker, Relay) else Relay
        quiet -= {each for each in quiet if isinstance(each, heard)}
    return busy


def _rest(workers: Sequence[Worker]) -> None:
    """Give all partitions back, for whoever works next: this process may wait for a person."""
    for worker in workers:
        if isinstance(worker, Relay | Consumer | Cleaner):
            worker.leases.release()
