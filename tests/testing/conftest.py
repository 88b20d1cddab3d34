"""The sample services on databases of their own, and their books."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text

from labkit.service import Worker
from labkit.testing import sample
from labkit.testing.auditor import audit
from labkit.testing.findings import Findings
from labkit.testing.ledgers import books_of
from labkit.transports.redis_streams import RedisStreams
from tests.databases import Databases, emptied, lent_database


@dataclass
class Pair:
    """Both services; `settle` lets their workers work until nothing is left to do."""

    source: Engine
    target: Engine
    transport: RedisStreams

    def place(self, customer: str, *numbers: int) -> None:
        for n in numbers:
            order = sample.OrderPlaced(order_id=f"{customer}-{n}", customer=customer, n=n)
            sample.place(self.source, order)

    def settle(self) -> None:
        relay = sample.sender.relay(self.source, self.transport, owner="relay")
        consumers = sample.receiver.consumers(self.target, self.transport, owner="consumer")
        workers: list[Worker] = [relay, *consumers]
        while sum(bool(worker.run_once()) for worker in workers):
            pass

    def audit(self, **region: Any) -> Findings:
        sent, _ = books_of(sample.sender, self.source)
        _, received = books_of(sample.receiver, self.target, {"receiver": sample.applied})
        return audit([sent], received, self.transport, **region)

    def sql(self, engine: Engine, statement: str, **values: Any) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    def stream_of(self, customer: str) -> str:
        return self.transport.stream_key(sample.ORDERS, sample.ORDERS.partition_of(customer))


@pytest.fixture(scope="module")
def databases(databases_of_tests: Databases) -> Iterator[tuple[Engine, Engine]]:
    with (
        lent_database(databases_of_tests, sample.sender.metadata) as source,
        lent_database(databases_of_tests, sample.receiver.metadata) as target,
    ):
        yield source, target


@pytest.fixture
def pair(databases: tuple[Engine, Engine], transport: RedisStreams) -> Pair:
    source, target = databases
    emptied(source, sample.sender.metadata)
    emptied(target, sample.receiver.metadata)
    return Pair(source, target, transport)
