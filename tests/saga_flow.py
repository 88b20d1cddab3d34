"""The toy saga on real servers: an orchestrating service, and peers that a test plays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Column, Engine, Table, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.dead_letters import Wanted
from labkit.held import Backoff
from labkit.messages import Event, Registry
from labkit.ports import Stream
from labkit.saga import (
    COMPENSATABLE,
    COMPENSATING,
    PIVOT,
    RETRIABLE,
    STUCK,
    Local,
    Saga,
    Sagas,
    State,
    Step,
)
from labkit.service import Service, Worker
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import REQUEST_ID
from tests.toy_saga import (
    EVENTS,
    PEERS,
    CannotShip,
    Declined,
    Paid,
    Release,
    Reserved,
    Toy,
    pay,
    release,
    reserve,
    ship,
    void,
)

REGISTRY = Registry(*EVENTS)
ordering = Service("ordering", REGISTRY, stream=Stream("ordering.events", partitions=2))
peers = Service("peers", REGISTRY, stream=PEERS)
firm = Table(
    "firm", ordering.metadata, Column("order", Text, primary_key=True), Column("state", Text)
)
# Orders whose local work fails.
broken: set[str] = set()
# Orders whose release cannot be written.
unmakeable: set[str] = set()


class BrokenError(Exception):
    """Local work failed."""


def make_firm(session: Session, data: Toy) -> None:
    if data.order in broken:
        raise BrokenError(data.order)
    _set(session, data, "firm")


def call_off(session: Session, data: Toy) -> None:
    _set(session, data, "called off")


def _set(session: Session, data: Toy, state: str) -> None:
    row = insert(firm).values(order=data.order, state=state)
    session.execute(row.on_conflict_do_update(index_elements=["order"], set_={"state": state}))


def make_release(data: Toy) -> Release:
    if data.order in unmakeable:
        raise BrokenError(data.order)
    return Release(order=data.order)


def definition(version: int = 1, *more: Step) -> Saga:
    return Saga(
        "toy",
        Step("stock", COMPENSATABLE, reserve(), undo=replace(release(), make=make_release)),
        Step("order", COMPENSATABLE, Local(make_firm), undo=Local(call_off)),
        Step("payment", PIVOT, pay(), undo=void()),
        Step("shipping", RETRIABLE, ship()),
        *more,
        data=Toy,
        version=version,
    )


sagas = Sagas(ordering, definition())


class Play:
    """The orchestrating service with its workers; peers answer when the test says so."""

    def __init__(
        self, engine: Engine, peers_engine: Engine, transport: RedisStreams, clock: FakeClock
    ) -> None:
        engine.update_execution_options(labkit_clock=clock)
        ordering.create_tables(engine)
        peers.create_tables(peers_engine)
        self.engine, self.peers, self.transport, self.clock = engine, peers_engine, transport, clock
        self.deadlines = sagas.deadlines(engine, transport)
        self.answers = peers.relay(peers_engine, transport)
        self.workers: list[Worker] = [
            ordering.relay(engine, transport),
            *ordering.consumers(engine, transport, clock=clock, backoff=Backoff(attempts=2)),
            self.deadlines,
        ]

    def start(self, *ids: str, lines: tuple[str, ...] = ("A",)) -> None:
        with Session(self.engine) as session, session.begin():
            sagas.start_all(session, {saga_id: Toy(saga_id, lines) for saga_id in ids})
        self.work()

    def answer(self, saga_id: str, *events: Event, to: str | None = None) -> None:
        """Let answers come through the broker; `to` is the request that they name."""
        self.say(saga_id, *events, to=to)
        self.deliver()

    def say(self, saga_id: str, *events: Event, to: str | None = None) -> None:
        """Let peers write answers that have not left yet."""
        headers = {REQUEST_ID: f"toy/{saga_id}/{to}"} if to else {}
        with Session(self.peers) as session, session.begin():
            for event in events:
                peers.outbox.add(session, event, key=saga_id, headers=headers)

    def deliver(self) -> None:
        """Let all answers arrive."""
        while self.answers.run_once():
            pass
        self.work()

    def work(self) -> None:
        """Let all workers work until nothing is to be done now."""
        while sum(bool(worker.run_once()) for worker in self.workers):
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass in one step, and workers look at the clock afterwards."""
        self.clock.advance(seconds)
        self.work()

    def stick_behind_the_pivot(self, saga_id: str = "S-1") -> None:
        """Begin a saga whose last step is refused, where nothing may be refused any more."""
        self.start(saga_id)
        for answer in (Reserved(), Paid(), CannotShip()):
            self.answer(saga_id, answer)

    def stick_while_compensating(self, saga_id: str = "S-1") -> None:
        """Begin a saga whose compensation nobody answers."""
        self.start(saga_id)
        for answer in (Reserved(), Declined()):
            self.answer(saga_id, answer)
        while self.state(saga_id).status is COMPENSATING:
            self.advance(60)

    def make_stuck(self, saga_id: str) -> None:
        """Leave a step to a person, as the rules do with a pivot that nothing voids."""
        with Session(self.engine) as session, session.begin():
            turn = sagas.turn(session)
            turn.lock([saga_id])
            state = turn.state(saga_id)
            assert state is not None
            turn._keep(state.with_(status=STUCK, due_at=None, sent=False), (), None)
            turn.finish()

    def state(self, saga_id: str) -> State:
        with Session(self.engine) as session:
            turn = sagas.turn(session)
            turn.lock([saga_id])
            found = turn.state(saga_id)
        assert found is not None
        return found

    def sent(self, saga_id: str) -> list[str]:
        """Return the types of all commands of a saga, in order."""
        table = ordering.outbox.table
        query = select(table.c.topic).where(table.c.key == saga_id).order_by(table.c.seq)
        with self.engine.connect() as connection:
            return [topic.removeprefix("toy.") for topic in connection.execute(query).scalars()]

    def firm(self) -> dict[str, str]:
        with self.engine.connect() as connection:
            rows: Any = connection.execute(select(firm)).all()
        return dict(map(tuple, rows))

    def dead_letters(self) -> list[str]:
        """Return the reasons of what is parked."""
        with self.engine.connect() as connection:
            found = ordering.dead_letters.find(connection, Wanted(consumer=ordering.name))
        return [letter.reason for letter in found]
