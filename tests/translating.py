"""Two services for tests: `source` quotes what warehouses have, `target` makes one answer of it.

Each quote goes through correlator, aggregator and resequencer in one handler, so that one kill
strikes all three.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Engine, Identity, Table, Text, insert, select
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.messages import Event, Message, Registry
from labkit.ports import Stream
from labkit.service import Service
from labkit.translation import Aggregate, Aggregator, Correlator, DeadlineWorker, Resequencer

SOURCE = Stream("source.events", partitions=2)
WAREHOUSES = {"A": 1, "B": 2, "C": 3}
DEADLINE_S = 3600.0


class StockQuoted(Event, frozen=True):
    topic: ClassVar[str] = "source.stock-quoted.v1"

    order: str
    warehouse: str
    number: int
    qty: int


class StockAvailable(Event, frozen=True):
    topic: ClassVar[str] = "target.stock-available.v1"

    order: str
    complete: bool
    qty: int


def in_all(parts: Mapping[str, Any]) -> int:
    return sum(parts.values())


REGISTRY = Registry(StockQuoted, StockAvailable)
source = Service("source", REGISTRY, stream=SOURCE)
target = Service("target", REGISTRY)
correlator = Correlator(target.metadata)
aggregator = Aggregator(
    target.metadata,
    complete=lambda parts: parts.keys() >= WAREHOUSES.keys(),
    combine=in_all,
    deadline_s=DEADLINE_S,
)
resequencer = Resequencer(target.metadata, gap_s=DEADLINE_S)
released = Table(
    "released",
    target.metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("warehouse", Text, nullable=False),
)
# The lines whose answer was the first, and those whose answer completed them all.
answered = Table(
    "answered",
    target.metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("line", Text, nullable=False),
)


@target.on(StockQuoted, source=SOURCE)
def collect(session: Session, message: Message[StockQuoted]) -> None:
    quote = message.event
    match = correlator.answer(session, quote.order, quote.warehouse, quote.qty)
    if match is not None and match.new:
        session.execute(insert(answered).values(line=match.target))
    added = aggregator.add(session, quote.order, quote.warehouse, quote.qty)
    if added.aggregate is not None:
        tell(session, added.aggregate)
    for warehouse in resequencer.accept(
        session, quote.order, quote.number, quote.warehouse
    ).released:
        session.execute(insert(released).values(warehouse=warehouse))


def tell(session: Session, found: Aggregate) -> None:
    event = StockAvailable(order=found.group, complete=found.complete, qty=found.result)
    target.outbox.add(session, event, key=found.group)


def ask(engine: Engine, order: str) -> None:
    """Commit that every warehouse will answer about an order."""
    with engine.begin() as connection:
        lines = {warehouse: f"{order}/{number}" for warehouse, number in WAREHOUSES.items()}
        correlator.expect(connection, order, lines)
        aggregator.begin(connection, order)


def quote(engine: Engine, order: str, *warehouses: str) -> None:
    """Commit one quote per warehouse, each in its own transaction."""
    for warehouse in warehouses:
        with Session(engine) as session, session.begin():
            number = WAREHOUSES[warehouse]
            event = StockQuoted(order=order, warehouse=warehouse, number=number, qty=number)
            source.outbox.add(session, event, key=order)


def told(engine: Engine) -> list[str]:
    """Return the results that were told, as JSON."""
    table = target.outbox.table
    query = select(table.c.body).where(table.c.topic == StockAvailable.topic)
    with engine.connect() as connection:
        return list(connection.execute(query).scalars())


def die_at_the_deadline(address: str) -> None:
    """Be a worker that is killed when it has told of a deadline and not committed yet."""
    engine = db.connect(address)
    clock = FakeClock()
    clock.advance(DEADLINE_S)
    engine.update_execution_options(labkit_clock=clock)

    def tell_and_die(session: Session, found: Aggregate) -> None:
        tell(session, found)
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    DeadlineWorker(engine, aggregator.expire, tell_and_die).run_once()
