"""The aggregator: one result for each group, whatever comes, in whatever order, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, MetaData, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError
from labkit.lab.servers import Stack
from labkit.translation import Added, Aggregate, Aggregator, DeadlineWorker, Outcome
from tests.databases import emptied, lent_database
from tests.waiting import eventually, until_it_waits

WAREHOUSES = ("A", "B", "C")
WAITING, DUPLICATE, LATE = Outcome.WAITING, Outcome.DUPLICATE, Outcome.LATE


def all_three(parts: Mapping[str, Any]) -> bool:
    return parts.keys() >= set(WAREHOUSES)


def in_all(parts: Mapping[str, Any]) -> int:
    return sum(parts.values())


METADATA = MetaData()
METADATA_OF_LISTS = MetaData()
AGGREGATOR = Aggregator(METADATA, "quotes", complete=all_three, combine=in_all, deadline_s=60.0)


@pytest.fixture(scope="module")
def shared(servers: Stack) -> Iterator[Engine]:
    with lent_database(servers, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine, clock: FakeClock) -> Engine:
    shared.update_execution_options(labkit_clock=clock)
    return emptied(shared, METADATA)


def add(engine: Engine, part: str, quantity: int = 1, group: str = "ORD-1") -> Added:
    with engine.begin() as connection:
        return AGGREGATOR.add(connection, group, part, quantity)


def expire(engine: Engine, clock: FakeClock) -> list[Aggregate]:
    with engine.begin() as connection:
        return AGGREGATOR.expire(connection, clock.now())


def begin(engine: Engine, group: str) -> None:
    with engine.begin() as connection:
        AGGREGATOR.begin(connection, group)


def outcomes(engine: Engine, parts: str) -> list[Outcome]:
    return [add(engine, part).outcome for part in parts]


def test_the_part_that_completes_a_group_brings_its_result(engine: Engine) -> None:
    add(engine, "C", 4)
    add(engine, "A", 2)

    added = add(engine, "B", 1)

    result = Aggregate("ORD-1", complete=True, parts={"A": 2, "B": 1, "C": 4}, result=7)
    assert added == Added(Outcome.COMPLETED, result)
    assert list(result.parts) == ["A", "B", "C"]


def test_a_duplicate_of_a_part_counts_once_and_completes_nothing(engine: Engine) -> None:
    assert outcomes(engine, "AABB") == [WAITING, DUPLICATE, WAITING, DUPLICATE]


def test_the_first_content_of_a_part_stays(engine: Engine, clock: FakeClock) -> None:
    add(engine, "A", 1)
    add(engine, "A", 5)
    clock.advance(60)

    assert [each.parts for each in expire(engine, clock)] == [{"A": 1}]


def test_a_result_does_not_tell_which_part_came_last(engine: Engine) -> None:
    aggregator = Aggregator(METADATA_OF_LISTS, complete=all_three, combine=list, deadline_s=1.0)
    db.create_all(engine, METADATA_OF_LISTS)

    with engine.begin() as connection:
        added = [aggregator.add(connection, "ORD-1", part, (1, 2)) for part in WAREHOUSES]

    result = added[-1].aggregate
    assert result is not None
    assert list(result.parts.values()) == [[1, 2]] * 3


def test_groups_know_nothing_of_each_other(engine: Engine) -> None:
    outcomes(engine, "AB")

    assert add(engine, "C", group="ORD-2").outcome is WAITING


def test_a_group_whose_deadline_has_come_is_closed_incomplete_and_once(
    engine: Engine, clock: FakeClock
) -> None:
    outcomes(engine, "AB")
    clock.advance(59.9)
    assert expire(engine, clock) == []
    clock.advance(0.1)

    found = expire(engine, clock)

    assert found == [Aggregate("ORD-1", complete=False, parts={"A": 1, "B": 1}, result=2)]
    assert expire(engine, clock) == []


def test_the_time_of_a_group_runs_from_its_first_part(engine: Engine, clock: FakeClock) -> None:
    add(engine, "A")
    clock.advance(59)
    add(engine, "B")
    clock.advance(1)

    assert len(expire(engine, clock)) == 1


def test_a_group_that_was_begun_has_a_result_without_any_part(
    engine: Engine, clock: FakeClock
) -> None:
    begin(engine, "ORD-1")
    clock.advance(30)
    begin(engine, "ORD-1")
    clock.advance(30)

    assert expire(engine, clock) == [Aggregate("ORD-1", complete=False, parts={}, result=0)]


@pytest.mark.parametrize("complete", [True, False])
def test_what_comes_after_the_result_is_late_and_brings_no_second_one(
    engine: Engine, clock: FakeClock, complete: bool
) -> None:
    outcomes(engine, "ABC" if complete else "AB")
    clock.advance(60)
    expire(engine, clock)

    assert outcomes(engine, "DAD") == [LATE, DUPLICATE, LATE]
    assert expire(engine, clock) == []


def test_a_part_after_the_deadline_counts_as_long_as_the_group_is_open(
    engine: Engine, clock: FakeClock
) -> None:
    outcomes(engine, "AB")
    clock.advance(hours=1)

    assert add(engine, "C").outcome is Outcome.COMPLETED
    assert expire(engine, clock) == []


@pytest.mark.parametrize(("first_commits", "second"), [(True, "completed"), (False, "waiting")])
def test_two_last_parts_at_once_have_one_result(
    engine: Engine, first_commits: bool, second: str
) -> None:
    add(engine, "A")
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        assert AGGREGATOR.add(first, "ORD-1", "B", 1).outcome is WAITING
        other = pool.submit(add, engine, "C")
        until_it_waits(engine, other)

        (first.commit if first_commits else first.rollback)()

        assert other.result().outcome == second


def test_two_first_parts_at_once_make_one_group(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        AGGREGATOR.add(first, "ORD-1", "A", 1)
        other = pool.submit(add, engine, "B")
        until_it_waits(engine, other)
        first.commit()

        assert other.result().outcome is WAITING
    assert add(engine, "C").outcome is Outcome.COMPLETED


def test_a_deadline_leaves_alone_the_group_that_a_part_is_completing(
    engine: Engine, clock: FakeClock
) -> None:
    outcomes(engine, "AB")
    clock.advance(60)
    with engine.begin() as busy:
        assert AGGREGATOR.add(busy, "ORD-1", "C", 1).outcome is Outcome.COMPLETED

        assert expire(engine, clock) == []

    assert expire(engine, clock) == []


def test_a_part_waits_for_the_deadline_that_is_firing_and_is_late(
    engine: Engine, clock: FakeClock
) -> None:
    outcomes(engine, "AB")
    clock.advance(60)
    with ThreadPoolExecutor(1) as pool, engine.connect() as firing:
        assert len(AGGREGATOR.expire(firing, clock.now())) == 1
        last = pool.submit(add, engine, "C")
        until_it_waits(engine, last)
        firing.commit()

        assert last.result() == Added(LATE)


def test_a_result_that_was_rolled_back_comes_again(engine: Engine, clock: FakeClock) -> None:
    outcomes(engine, "AB")
    with engine.connect() as connection:
        assert AGGREGATOR.add(connection, "ORD-1", "C", 1).aggregate is not None
        connection.rollback()

    assert add(engine, "C").aggregate is not None


def test_many_deadlines_are_taken_in_portions_the_oldest_first(
    engine: Engine, clock: FakeClock
) -> None:
    for n in range(5):
        add(engine, "A", group=f"ORD-{n}")
        clock.advance(1)
    clock.advance(hours=1)

    with engine.begin() as connection:
        groups = [
            [each.group for each in AGGREGATOR.expire(connection, clock.now(), limit)]
            for limit in (2, 2, 2)
        ]

    assert groups == [["ORD-0", "ORD-1"], ["ORD-2", "ORD-3"], ["ORD-4"]]


def test_only_what_has_its_result_is_forgotten(engine: Engine, clock: FakeClock) -> None:
    outcomes(engine, "ABC")
    add(engine, "A", group="ORD-2")
    after = clock.now() + timedelta(hours=1)

    with engine.begin() as connection:
        forgotten = [AGGREGATOR.forget(connection, when) for when in (clock.now(), after, after)]
        parts = connection.execute(text("select group_id from quotes_parts")).scalars().all()

    assert forgotten == [0, 1, 0]
    assert parts == ["ORD-2"]


def test_a_worker_lets_deadlines_fire_by_itself(engine: Engine, clock: FakeClock) -> None:
    told: list[Aggregate] = []
    worker = DeadlineWorker(engine, AGGREGATOR.expire, lambda _session, each: told.append(each))
    stop = threading.Event()
    for n in range(3):
        add(engine, "A", group=f"ORD-{n}")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run, stop)
        clock.advance(60)
        eventually(lambda: len(told), 3)
        stop.set()

        assert running.result() == 3


def test_a_deadline_whose_handling_fails_stays_due(engine: Engine, clock: FakeClock) -> None:
    def fail(_session: Session, _each: Aggregate) -> None:
        raise RuntimeError("not now")

    add(engine, "A")
    clock.advance(60)

    with pytest.raises(RuntimeError, match="not now"):
        DeadlineWorker(engine, AGGREGATOR.expire, fail).run_once()

    assert len(expire(engine, clock)) == 1


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), "60"])
def test_a_deadline_that_makes_no_sense_is_refused(deadline_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="deadline_s"):
        Aggregator(MetaData(), complete=all_three, combine=in_all, deadline_s=deadline_s)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.sampled_from(WAREHOUSES), max_size=5)
    .map(lambda extra: [*WAREHOUSES, *extra])
    .flatmap(st.permutations),
    fires_before=st.integers(0, 9),
)
def test_any_order_duplicates_and_deadline_give_exactly_one_result(
    shared: Engine, arrivals: list[str], fires_before: int
) -> None:
    clock = FakeClock()
    shared.update_execution_options(labkit_clock=clock)
    engine = emptied(shared, METADATA)
    results: list[Aggregate] = []

    for n, part in enumerate(arrivals):
        if n == fires_before:
            clock.advance(60)
            results += expire(engine, clock)
        if (aggregate := add(engine, part).aggregate) is not None:
            results.append(aggregate)
    clock.advance(60)
    results += expire(engine, clock)

    before = set(arrivals[:fires_before])
    fired_first = 0 < len(before) < len(WAREHOUSES)
    wanted = before if fired_first else set(WAREHOUSES)
    assert [(each.complete, set(each.parts)) for each in results] == [(not fired_first, wanted)]
