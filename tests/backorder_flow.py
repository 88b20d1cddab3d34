"""The backorder on real servers: the process manager and its two warehouses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.dead_letters import Wanted
from labkit.held import Backoff
from labkit.messages import Event
from labkit.process_manager import Process
from labkit.saga.deadlines import Deadlines
from labkit.service import Service, Worker
from labkit.shop import inventory
from labkit.shop.backorder import Backorder, OfferAnswered, manager, service
from labkit.shop.contracts import Line
from labkit.shop.warehouses import warehouse_a, warehouse_b
from labkit.transports.redis_streams import RedisStreams

LINES = (Line("BOOK", 1), Line("PEN", 2))
SERVICES: dict[str, Service] = {"backorders": service, "A": warehouse_a, "B": warehouse_b}


class Floor:
    """Three services on three databases, whose workers work when told to."""

    def __init__(
        self, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
    ) -> None:
        self.transport, self.clock = transport, clock
        self.engines = {name: db.connect(new_database()) for name in SERVICES}
        for name, engine in self.engines.items():
            engine.update_execution_options(labkit_clock=clock)
            SERVICES[name].create_tables(engine)
        self.engine = self.engines["backorders"]
        self.restart()

    def restart(self) -> None:
        """Make all workers anew, as new processes would."""
        self.workers: dict[str, list[Worker]] = {
            name: [
                each.relay(self.engines[name], self.transport),
                *each.consumers(
                    self.engines[name],
                    self.transport,
                    clock=self.clock,
                    backoff=Backoff(attempts=2),
                ),
            ]
            for name, each in SERVICES.items()
        }
        self.deadlines = Deadlines(self.engine, manager)
        self.workers["backorders"].append(self.deadlines)

    def close(self) -> None:
        for engine in self.engines.values():
            engine.dispose()

    def stock_up(self, **quantities: dict[str, int]) -> None:
        """Fill warehouses: `A={"BOOK": 1}`."""
        for warehouse, wanted in quantities.items():
            inventory.stock_up(self.engines[warehouse], wanted)

    def start(self, process_id: str = "RES-1", lines: tuple[Line, ...] = LINES) -> bool:
        with Session(self.engine) as session, session.begin():
            return manager.start(session, process_id, Backorder(lines))

    def say(self, who: str, event: Event, process_id: str = "RES-1", **headers: str) -> None:
        """Let a service publish an event about a process."""
        with Session(self.engines[who]) as session, session.begin():
            SERVICES[who].outbox.add(session, event, key=process_id, headers=headers)

    def answer(self, *, accepts: bool, process_id: str = "RES-1") -> None:
        self.say(
            "backorders", OfferAnswered(reservation_id=process_id, accepts=accepts), process_id
        )

    def work(self, *, without: str = "") -> None:
        """Let workers work until nothing is to be done now; one service may be away."""
        workers = [each for name, all_ in self.workers.items() if name != without for each in all_]
        while sum(bool(worker.run_once()) for worker in workers):
            pass

    def advance(self, *, hours: float, without: str = "") -> None:
        self.clock.advance(hours=hours)
        self.work(without=without)

    def process(self, process_id: str = "RES-1") -> Process[Backorder]:
        with Session(self.engine) as session:
            found = manager.find(session, process_id)
        assert found is not None
        return found

    def held(self, process_id: str = "RES-1") -> dict[str, dict[str, int]]:
        """Return what the warehouses hold for a process: warehouse to article to pieces."""
        table = inventory.reservations.c
        mine = (table.reservation_id == process_id) & (table.state == inventory.HELD)
        return {
            name: {
                row.sku: row.qty
                for row in self._rows(name, select(table.sku, table.qty).where(mine))
            }
            for name in ("A", "B")
        }

    def stock(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return available and held: warehouse to article."""
        return {
            name: {
                row.sku: (row.available, row.held)
                for row in self._rows(name, select(inventory.stock))
            }
            for name in ("A", "B")
        }

    def history(self, process_id: str = "RES-1") -> list[Any]:
        table = manager.store.history
        query = select(table).where(table.c.id == process_id).order_by(table.c.seq)
        return self._rows("backorders", query)

    def sent(self, process_id: str = "RES-1") -> list[tuple[str, str]]:
        """Return all events of a process, with the requests that they name."""
        table = service.outbox.table
        query = select(table.c.body).where(table.c.key == process_id).order_by(table.c.seq)
        found = [msgspec.json.decode(row.body) for row in self._rows("backorders", query)]
        return [(each["event"]["type"], each["headers"].get("requestId", "")) for each in found]

    def dead_letters(self) -> list[str]:
        with self.engine.connect() as connection:
            found = service.dead_letters.find(connection, Wanted(consumer=service.name))
        return [letter.reason for letter in found]

    def _rows(self, name: str, query: Any) -> list[Any]:
        with self.engines[name].connect() as connection:
            return list(connection.execute(query))
