"""Local work of several sagas: in few calls, in each saga's own order, and all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.ports import Stream
from labkit.saga import (
    COMPENSATABLE,
    COMPLETED,
    RETRIABLE,
    RUNNING,
    BatchLocal,
    Local,
    Saga,
    Sagas,
    State,
    Status,
    Step,
)
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams
from tests import saga_flow
from tests.toy_saga import PEERS, Reserved, Toy, release, reserve

done: list[tuple[str, list[str]]] = []
refused: set[str] = set()


def together(name: str) -> BatchLocal:
    def run_all(session: Session, data: Sequence[Toy]) -> None:
        done.append((name, sorted(each.order for each in data)))
        if any(each.order in refused for each in data):
            raise saga_flow.BrokenError(name)

    return BatchLocal(run_all)


def alone(name: str) -> Local:
    return Local(lambda _, data: done.append((name, [data.order])))


def at_end(_: Session, state: State) -> None:
    done.append(("end", [state.id]))


ordering = Service("ordering", saga_flow.REGISTRY, stream=Stream("ordering.events", partitions=1))
peers = Service("peers", saga_flow.REGISTRY, stream=PEERS)
SAGAS = Sagas(
    ordering,
    Saga(
        "local",
        Step("stock", COMPENSATABLE, reserve(attempts=9), undo=release()),
        Step("create", COMPENSATABLE, together("create"), undo=together("undo")),
        Step("mark", RETRIABLE, alone("mark")),
        Step("confirm", RETRIABLE, together("confirm")),
        data=Toy,
        at_end=at_end,
    ),
)


class Asked:
    """Sagas that wait for the answer of their first step, and how to give it to some at once."""

    def __init__(self, engine: Engine, peers_engine: Engine, transport: RedisStreams) -> None:
        ordering.create_tables(engine)
        peers.create_tables(peers_engine)
        self.engine, self.peers = engine, peers_engine
        self.relay = peers.relay(peers_engine, transport)
        (self.consumer,) = ordering.consumers(engine, transport)
        with Session(engine) as session, session.begin():
            SAGAS.start_all(session, {each: Toy(each) for each in ("S-1", "S-2", "S-3")})

    def answer_all(self) -> None:
        with Session(self.peers) as session, session.begin():
            for saga_id in ("S-1", "S-2", "S-3"):
                peers.outbox.add(session, Reserved(), key=saga_id)
        self.relay.run_once()
        self.consumer.run_once()

    def statuses(self) -> list[Status]:
        with Session(self.engine) as session:
            turn = SAGAS.turn(session)
            turn.lock(["S-1", "S-2", "S-3"])
            states = [turn.state(saga_id) for saga_id in ("S-1", "S-2", "S-3")]
        return [state.status for state in states if state]


@pytest.fixture
def asked(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Asked]:
    engine.update_execution_options(labkit_clock=clock)
    peers_engine = db.connect(new_database())
    yield Asked(engine, peers_engine, transport)
    done.clear()
    refused.clear()
    peers_engine.dispose()


def test_sagas_that_are_answered_together_do_their_local_work_in_one_call(asked: Asked) -> None:
    asked.answer_all()
    assert asked.statuses() == [COMPLETED] * 3
    assert [work for work in done if work[0] in {"create", "confirm"}] == [
        ("create", ["S-1", "S-2", "S-3"]),
        ("confirm", ["S-1", "S-2", "S-3"]),
    ]


def test_each_saga_does_its_local_work_in_its_own_order_and_its_end_last(asked: Asked) -> None:
    asked.answer_all()
    for saga_id in ("S-1", "S-2", "S-3"):
        mine = [name for name, ids in done if saga_id in ids]
        assert mine == ["create", "mark", "confirm", "end"]


def test_sagas_are_written_in_the_order_in_which_they_are_locked(asked: Asked) -> None:
    """Two that begin the same ones in two orders would wait for each other for ever."""
    with Session(asked.engine) as session, session.begin():
        SAGAS.start_all(session, {each: Toy(each) for each in ("T-3", "T-1", "T-2")})

    as_written = text("select id from saga where id like 'T-%' order by ctid")
    with asked.engine.connect() as connection:
        assert connection.execute(as_written).scalars().all() == ["T-1", "T-2", "T-3"]


def test_one_whose_local_work_fails_leaves_the_others_to_be_done_one_by_one(asked: Asked) -> None:
    refused.add("S-2")
    asked.answer_all()
    assert asked.statuses() == [COMPLETED, RUNNING, COMPLETED]
    assert [ids for name, ids in done if name == "confirm"] == [["S-1"], ["S-3"]]
