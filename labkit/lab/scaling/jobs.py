"""Jobs: the messages that are handled while workers are counted, and what a worker process does.

A job is handled in one of two ways. `WAITS`: it waits for something outside, and no processor is
busy meanwhile. `SHARES_A_ROW`: it changes a row that every other job changes too, and whoever
changes it holds its lock until the commit.

Guarantee: as everywhere in labkit, each job has its effect once per group.
Not guaranteed: order between jobs of different keys.

Crash windows: those of `labkit.consumer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from threading import Barrier
from typing import ClassVar, NamedTuple

from sqlalchemy import Column, Engine, Integer, Table, Text, func, insert, select, text, update
from sqlalchemy.orm import Session

from labkit import db
from labkit.cli.work import stop_on_signals
from labkit.consumer import Consumer
from labkit.handlers import Handler
from labkit.lab.bench import emptied
from labkit.lab.servers import Stack
from labkit.lease import owner_name
from labkit.messages import Event, Message, Registry
from labkit.outbox import Outgoing
from labkit.ports import Stream
from labkit.service import Service
from labkit.testing.processes import Where
from labkit.transports.redis_streams import RedisStreams, connect

WAITS, SHARES_A_ROW = "espera", "fila compartida"
OUTSIDE_S, LOCKED_S = 0.02, 0.005
WARM_UPS = 1
# Join, give back what exceeds one's share, take what others gave back.
SHARING_ROUNDS = 3
_SKU = "BOOK-DDD"
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
    session.execute(update(shared).where(shared.c.sku == _SKU).values(taken=shared.c.taken + 1))
    session.execute(_PAUSE, {"s": LOCKED_S})


_HANDLERS = {WAITS: Handler(wait_outside), SHARES_A_ROW: Handler(take_one)}


class Jobs:
    """Jobs on a database and a stream of their own; what an earlier one left there is deleted.

    Args:
        name: names database and keys; lower case.
        servers: where.
    """

    def __init__(self, name: str, servers: Stack) -> None:
        self.engine = emptied(servers, name, service)
        self.transport = RedisStreams(connect(servers.redis_url), f"{name}:")
        self._lose_stream()
        url = self.engine.url.render_as_string(hide_password=False)
        self.where = Where(url, servers.redis_url, self.transport.prefix)
        self._relay = service.relay(self.engine, self.transport, owner="repetidor")
        self._numbers = count(1)
        with self.engine.begin() as connection:
            connection.execute(insert(shared).values(sku=_SKU, taken=0))

    def publish(self, many: int) -> None:
        """Ask for jobs, spread evenly over the partitions, and relay what was asked for."""
        if not many:
            return
        asked = [Asked(n=next(self._numbers)) for _ in range(many)]
        with self.engine.begin() as connection:
            service.outbox.add_all(
                connection, [Outgoing(each, _KEYS[each.n % len(_KEYS)]) for each in asked]
            )
        while self._relay.run_once():
            pass

    def handled(self, group: str) -> int:
        """Return how many jobs a group has noted in its inbox, each with its effect."""
        inbox = service.inbox.table
        found = select(func.count()).select_from(inbox).where(inbox.c.consumer == group)
        with self.engine.connect() as connection:
            return int(connection.execute(found).scalar_one())

    def to_try_again(self, group: str) -> int:
        """Return how many jobs failed and wait for another attempt; the stream forgot them."""
        held = service.held.table
        due = select(func.count()).where(held.c.consumer == group, held.c.state == "retry")
        with self.engine.connect() as connection:
            return int(connection.execute(due).scalar_one())

    def taken(self) -> int:
        """Return what the shared row says."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(shared.c.taken)).scalar_one())

    def close(self) -> None:
        """Delete the stream and close all connections; the database stays."""
        self._lose_stream()
        self.engine.dispose()
        self.transport.client.close()

    def _lose_stream(self) -> None:
        client = self.transport.client
        if found := list(client.scan_iter(match=f"*{{{self.transport.prefix}*", count=1000)):
            client.delete(*found)


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


def _key_of_each(stream: Stream) -> Sequence[str]:
    """Return one key for each partition, so that none has more to do than another."""
    found: dict[int, str] = {}
    for n in count():
        found.setdefault(stream.partition_of(f"job-{n}"), f"job-{n}")
        if len(found) == stream.partitions:
            return [found[partition] for partition in sorted(found)]
    raise AssertionError("there are more keys than partitions")


_KEYS = _key_of_each(service.stream)
