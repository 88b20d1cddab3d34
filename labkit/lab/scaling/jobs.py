"""Jobs: the messages that are handled while workers are counted, and what a worker process does.

Apart from `jobs_bench`, so that a process starts without what only its parent needs.

A job is handled in one of two ways. `WAITS`: it waits for something outside, and no processor is
busy meanwhile. `SHARES_A_ROW`: it changes a row that every other job changes too, and whoever
changes it holds its lock until the commit.

Guarantee: as everywhere in labkit, each job has its effect once per group.
Not guaranteed: order between jobs of different keys.

Crash windows: those of `labkit.consumer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier
from typing import ClassVar, NamedTuple

from sqlalchemy import Column, Engine, Integer, Table, Text, text, update
from sqlalchemy.orm import Session

from labkit import db
from labkit.cli.work import stop_on_signals
from labkit.consumer import Consumer
from labkit.handlers import Handler
from labkit.lease import owner_name
from labkit.messages import Event, Message, Registry
from labkit.service import Service
from labkit.testing.processes import Where
from labkit.transports.redis_streams import RedisStreams, connect

WAITS, SHARES_A_ROW = "espera", "fila compartida"
OUTSIDE_S, LOCKED_S = 0.04, 0.005
WARM_UPS = 1
# Join, give back what exceeds one's share, take what others gave back.
SHARING_ROUNDS = 3
SKU = "BOOK-DDD"
_PAUSE = text("select pg_sleep(:s)")


class Asked(Event, frozen=True):
    """Job `n` was asked for."""

    topic: ClassVar[str] = "jobs.asked.v1"

    n: int


service = Service("jobs", Registry(Asked))
shared = Table(
    "shared_stock",
    service.metadata,
    Column("sku", Text, primary_key=True),
    Column("taken", Integer, nullable=False),
)


def wait_outside(session: Session, _: Message[Asked]) -> None:
    """Wait as for an answer of another system: PostgreSQL waits for us, and no processor."""
    session.execute(_PAUSE, {"s": OUTSIDE_S})


def take_one(session: Session, _: Message[Asked]) -> None:
    """Take a unit of the article that everybody wants, and go on while its row is locked."""
    session.execute(update(shared).where(shared.c.sku == SKU).values(taken=shared.c.taken + 1))
    session.execute(_PAUSE, {"s": LOCKED_S})


_HANDLERS = {WAITS: Handler(wait_outside), SHARES_A_ROW: Handler(take_one)}


class Round(NamedTuple):
    """What some processes do together: which kind of jobs, and where they wait for each other."""

    kind: str
    group: str
    barrier: Barrier


def take_part(where: Where, rounds: Sequence[Round]) -> None:
    """Be one of several processes that begin together, and are done when all is handled.

    Args:
        where: database and stream.
        rounds: what to take part in, one after the other.
    """
    engine = db.connect(where.database)
    for kind, group, barrier in rounds:
        consumer = _consumer(engine, where, kind, group, db.DEFAULT_LEASE_S)
        for _ in range(SHARING_ROUNDS):
            consumer.leases.hurry()
            consumer.leases.tick()
            barrier.wait()
        for _ in range(WARM_UPS):
            consumer.run_once()
        for _ in ("ready", "go"):
            barrier.wait()
        while consumer.run_once():
            pass
        barrier.wait()
        consumer.leases.release()


def ready() -> None:
    """Be a process that ends as soon as it is there."""


def work(where: Where, kind: str, group: str, lease_s: float) -> None:
    """Be a worker until SIGTERM: the job in hand is finished, the partitions are given back.

    Args:
        where: database and stream.
        kind: `WAITS` or `SHARES_A_ROW`.
        group: whose member to be.
        lease_s: a newcomer has its share within a quarter of it, in seconds.
    """
    stop = stop_on_signals()
    engine = db.connect(where.database, lease_s=lease_s)
    _consumer(engine, where, kind, group, lease_s).run(stop)


def _consumer(engine: Engine, where: Where, kind: str, group: str, lease_s: float) -> Consumer:
    transport = RedisStreams(connect(where.redis_url), where.prefix)
    return Consumer(
        engine,
        transport.subscription(service.stream, group, "0"),
        service.stream,
        name=group,
        handlers={Asked: _HANDLERS[kind]},
        registry=service.registry,
        inbox=service.inbox,
        held=service.held,
        # So that a transaction is a job: a batch would hide what each of them costs.
        batch=1,
        owner=owner_name(),
        lease_s=lease_s,
    )
