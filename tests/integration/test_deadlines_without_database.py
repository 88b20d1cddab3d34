"""The database is away when deadlines are due: nobody is to blame, and nobody is put aside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import CommitUnknownError
from labkit.saga.deadlines import Deadlines
from labkit.shop.backorder import manager
from labkit.translation import DeadlineWorker
from labkit.transports.redis_streams import RedisStreams
from tests import translating
from tests.backorder_flow import Floor
from tests.conftest import NewDatabase
from tests.cutting import closed_at, cut, cut_at_commits, reopen
from tests.saga_flow import Play, sagas
from tests.waiting import eventually

THREE = ("RES-1", "RES-2", "RES-3")
# Each statement that fires three deadlines at once.
NEEDED = {"sagas": 3, "processes": 4, "groups": 8}
STATEMENTS = [(worker, nth + 1) for worker, needed in NEEDED.items() for nth in range(needed)]


class Due(NamedTuple):
    """Three deadlines that are over, the worker that knows them, and which have fired."""

    engine: Engine
    worker: Deadlines | DeadlineWorker[Any]
    fired: Callable[[], list[str]]


Make = Callable[[str], Due]


@pytest.fixture
def due(
    new_database: NewDatabase, transport: RedisStreams, clock: FakeClock
) -> Iterator[Callable[[str], Due]]:
    engines: list[Engine] = []

    def groups() -> Due:
        engine = db.connect(new_database())
        engines.append(engine)
        engine.update_execution_options(labkit_clock=clock)
        translating.target.create_tables(engine)
        for order in THREE:
            translating.ask(engine, order)
        worker = DeadlineWorker(engine, translating.aggregator.expire, translating.tell)
        return Due(engine, worker, lambda: _told(engine))

    def stored(kept: Any, engine: Engine, worker: Deadlines) -> Due:
        return Due(engine, worker, lambda: _timed_out(engine, kept.store.history))

    def of_sagas() -> Due:
        engine, peers = db.connect(new_database()), db.connect(new_database())
        engines.extend([engine, peers])
        play = Play(engine, peers, transport, clock)
        play.start(*THREE)
        return stored(sagas, engine, play.deadlines)

    def processes() -> Due:
        floor = Floor(new_database, transport, clock)
        engines.extend(floor.engines.values())
        for each in THREE:
            floor.start(each)
        return stored(manager, floor.engine, floor.deadlines)

    def make(worker: str) -> Due:
        found = {"sagas": of_sagas, "processes": processes, "groups": groups}[worker]()
        clock.advance(hours=24)
        return found

    yield make
    for engine in engines:
        engine.dispose()


def _timed_out(engine: Engine, history: Any) -> list[str]:
    query = select(history.c.id).where(history.c.what == "timed out")
    with engine.connect() as connection:
        return sorted(connection.execute(query).scalars())


def _told(engine: Engine) -> list[str]:
    query = select(translating.target.outbox.table.c.key)
    with engine.connect() as connection:
        return sorted(connection.execute(query).scalars())


def fired(report: Any) -> tuple[int, int]:
    """Return how many deadlines fired, and how many failed."""
    return (report, 0) if isinstance(report, int) else (report.due, report.failed)


@pytest.mark.parametrize(("worker", "nth"), STATEMENTS)
def test_a_database_that_closes_before_any_statement_puts_no_deadline_aside(
    due: Make, worker: str, nth: int
) -> None:
    mine = due(worker)
    with closed_at(mine.engine, nth) as statements:
        for _ in range(2):
            with pytest.raises(OperationalError):
                mine.worker.run_once()
    assert len(statements) >= nth
    assert mine.fired() == []
    assert fired(mine.worker.run_once()) == (3, 0)
    assert mine.fired() == list(THREE)


@pytest.mark.parametrize("worker", NEEDED)
def test_a_lost_answer_to_commit_puts_no_deadline_aside(due: Make, worker: str) -> None:
    mine = due(worker)
    with cut_at_commits(mine.engine) as cut_off:
        for _ in range(2):
            with pytest.raises((OperationalError, CommitUnknownError)):
                mine.worker.run_once()
    assert cut_off
    assert mine.fired() == []
    assert fired(mine.worker.run_once()) == (3, 0)
    assert mine.fired() == list(THREE)


@pytest.mark.parametrize("worker", NEEDED)
def test_a_running_worker_waits_for_its_database_and_fires_each_deadline_once(
    due: Make, worker: str
) -> None:
    mine = due(worker)
    stop = threading.Event()
    cut(mine.engine, closed=True)
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(mine.worker.run, stop)
        finally:
            reopen(mine.engine)
        eventually(mine.fired, list(THREE))
        stop.set()
        assert fired(running.result()) == (3, 0)
