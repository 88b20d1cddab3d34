"""Two relays and three consumers on one service, late commits, one of each frozen for a while."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests import toy
from tests.crash.conftest import LEASE_S, Crew, until

KEYS = [f"key-{number}" for number in range(12)]
WRITERS = 4
EVENTS_PER_WRITER = 60


@pytest.fixture
def databases(crew: Crew) -> Iterator[tuple[Engine, Engine]]:
    source, target = crew.engine("source"), crew.engine("target")
    toy.source.create_tables(source)
    toy.target.create_tables(target)
    yield source, target
    source.dispose()
    target.dispose()


def _write(engine: Engine, seed: int) -> None:
    """Commit events of random keys; some transactions stay open for a while, some roll back."""
    rng = random.Random(seed)
    for _ in range(EVENTS_PER_WRITER):
        with Session(engine) as session:
            toy.happen_next(session, rng.choice(KEYS))
            time.sleep(rng.choice([0, 0, 0.03]))  # a late commit, not a stand-in for a failure
            if rng.random() < 0.1:
                session.rollback()
            else:
                session.commit()


def test_order_per_key_and_one_effect_each_with_one_of_them_frozen(
    crew: Crew, databases: tuple[Engine, Engine]
) -> None:
    source, target = databases
    relays = [crew.start("tests.toy:source", "relay") for _ in range(2)]
    consumers = [crew.start("tests.toy:target", "consumer") for _ in range(3)]
    writers = [threading.Thread(target=_write, args=(source, seed)) for seed in range(WRITERS)]
    until(lambda: _members(source) + _members(target) == 5, "all five are at work")
    for writer in writers:
        writer.start()
    until(lambda: len(toy.effects_of(target)) > 0, "the flow is under way")
    sleepers = (relays[0], consumers[0])
    for sleeper in sleepers:
        crew.send(sleeper, signal.SIGSTOP)
    time.sleep(LEASE_S * 1.5)  # frozen beyond the lease
    for sleeper in sleepers:
        crew.send(sleeper, signal.SIGCONT)
    for writer in writers:
        writer.join()

    expected = _committed(source)
    until(lambda: len(toy.effects_of(target)) >= sum(expected.values()), "all effects are there")
    crew.end()

    found = {key: toy.effects_of(target, key) for key in expected}
    assert found == {key: list(range(1, n + 1)) for key, n in expected.items()}


def _members(engine: Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text("select count(*) from member")).scalar_one()
        return count


def _committed(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(toy.counters.select())
        return {row.key: row.n for row in rows}
