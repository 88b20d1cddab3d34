"""A process is killed between the second and the third part; there is one result all the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Engine, func, select

from labkit.clock import FakeClock
from labkit.testing import processes
from labkit.translation import DeadlineWorker
from tests import translating
from tests.crash.conftest import PATIENCE_S, Crew, until

CONSUMER = ("tests.translating:target", "consumer")


@pytest.fixture
def engines(crew: Crew) -> Iterator[tuple[Engine, Engine]]:
    """Return both databases; every warehouse was asked about `ORD-1`."""
    source, target = crew.engine("source"), crew.engine("target")
    for engine in (source, target):
        engine.update_execution_options(labkit_clock=FakeClock())
    translating.source.create_tables(source)
    translating.target.create_tables(target)
    translating.ask(target, "ORD-1")
    yield source, target
    source.dispose()
    target.dispose()


def count(engine: Engine, column: Column[str]) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count(column))).scalar_one()


def parts(target: Engine) -> int:
    return count(target, translating.aggregator.parts.c.part)


def listed(engine: Engine, column: Column[str]) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(column).order_by("seq")).scalars())


def killed_after_two_parts(crew: Crew, source: Engine, target: Engine) -> None:
    """Let a worker take in the third and the first part, and kill it."""
    crew.start("tests.translating:source", "relay")
    first = crew.start(*CONSUMER)
    translating.quote(source, "ORD-1", "C", "A")
    until(lambda: parts(target) == 2, "two parts are taken in")
    crew.send(first, signal.SIGKILL)
    until(lambda: first.exitcode is not None, "the worker is dead")


@pytest.mark.parametrize("point", ["", "consumer.before_commit", "consumer.after_commit"])
def test_a_kill_between_the_second_and_the_third_part_leaves_one_result(
    crew: Crew, engines: tuple[Engine, Engine], point: str
) -> None:
    source, target = engines
    killed_after_two_parts(crew, source, target)
    assert translating.told(target) == []

    translating.quote(source, "ORD-1", "B", "B")
    if point:
        second = crew.start(*CONSUMER, faults=f"{point}:kill:@1")
        until(lambda: second.exitcode is not None, f"{point} is reached")
        assert second.exitcode == -signal.SIGKILL
    crew.start(*CONSUMER)
    translating.quote(source, "ORD-1", "A")

    inbox = translating.target.inbox.table.c.message_id
    until(lambda: count(target, inbox) == 5, "all five quotes are handled")
    crew.end()
    (result,) = translating.told(target)
    assert '"payload":{"order":"ORD-1","complete":true,"qty":6}' in result
    assert listed(target, translating.released.c.warehouse) == ["A", "B", "C"]
    assert sorted(listed(target, translating.answered.c.line)) == ["ORD-1/1", "ORD-1/2", "ORD-1/3"]


def test_a_worker_killed_at_a_deadline_has_told_nothing_and_the_next_one_tells_it_once(
    crew: Crew, engines: tuple[Engine, Engine]
) -> None:
    source, target = engines
    killed_after_two_parts(crew, source, target)
    # The consumer ran on the machine's clock, but the group's time runs since it was asked for.
    address = crew.servers.database(crew.name_of("target"))
    victim = processes.start(translating.die_at_the_deadline, address)

    assert processes.wait(victim, PATIENCE_S) == -signal.SIGKILL
    assert translating.told(target) == []

    clock = FakeClock()
    clock.advance(translating.DEADLINE_S)
    target.update_execution_options(labkit_clock=clock)
    worker = DeadlineWorker(target, translating.aggregator.expire, translating.tell)
    assert [worker.run_once(), worker.run_once()] == [1, 0]
    (result,) = translating.told(target)
    assert '"payload":{"order":"ORD-1","complete":false,"qty":4}' in result
